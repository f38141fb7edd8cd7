"""The published presets make what the publications define: their pictures and their statistics."""

from functools import cache
from types import SimpleNamespace

import numpy as np
import published
import pytest

from mmgen.config import GeneratorConfig
from mmgen.draws import SPLIT_CODES, draw
from mmgen.generate import render
from mmgen.glyphs import GlyphSet, load_glyphs
from mmgen.presets import find_preset

# Split, seed and sequences; among them are digits that meet two walls in one frame.
CASES = (
    ("train", 0, range(16)),
    ("val", 2**63 - 1, range(1_000, 1_016)),
    ("test", 7, range(10**12, 10**12 + 16)),
)
EXACT = {
    "srivastava": published.srivastava,
    "openstl": published.openstl,
    "tfds": published.tfds,
    "svg-deterministic": published.svg_deterministic,
    "svg-stochastic": published.svg_stochastic,
    "tencia": published.tencia,
}
INTERPOLATED = {
    "subpixel": (GeneratorConfig(rounding="subpixel"), published.srivastava_subpixel),
    "mnist++": (find_preset("mnist++"), published.mnist_plus_plus),
}
NUM_SEQUENCES = 2_000


def sequences(config, split, seed, indices):
    """Yield what is random about each sequence, for a published generator."""
    glyphs = load_glyphs()
    draws = draw(config, glyphs, seed, split, np.array(indices, np.int64))
    for i, index in enumerate(indices):
        yield published.Sequence(
            key=(seed, SPLIT_CODES[split], index),
            digits=[glyphs.images[glyph] for glyph in draws.glyph_index[i]],
            start=draws.start[i],
            direction=draws.direction[i],
            speed_px=draws.speed_px[i],
            rotation=draws.rotation[i],
            scale=draws.scale[i],
            illumination=draws.illumination[i],
        )


@pytest.mark.parametrize(("split", "seed", "indices"), CASES)
@pytest.mark.parametrize("preset", EXACT)
def test_frames_equal_the_published_generator(preset, split, seed, indices):
    block = render(preset, indices, split=split, seed=seed)
    fed = sequences(find_preset(preset), split, seed, indices)
    for index, frames, sequence in zip(indices, block.frames, fed, strict=True):
        assert np.array_equal(frames, EXACT[preset](sequence)), index


@pytest.mark.parametrize(("split", "seed", "indices"), CASES)
@pytest.mark.parametrize("name", INTERPOLATED)
def test_frames_equal_opencv_within_a_grey_level(name, split, seed, indices):
    config, generator = INTERPOLATED[name]
    block = render(config, indices, split=split, seed=seed)
    fed = sequences(config, split, seed, indices)
    for index, frames, sequence in zip(indices, block.frames, fed, strict=True):
        expected = np.minimum(generator(sequence), 255)
        assert np.abs(frames - expected).max() <= 1, index


# What follows from the definitions, whatever the arithmetic.


@cache
def tracks(preset):
    """Render NUM_SEQUENCES of val, which has the fewest glyphs to resize; keep the tracks."""
    names = ("glyph_index", "position", "velocity", "angle", "scale")
    blocks = (
        render(preset, range(first, first + 250), split="val", seed=1)
        for first in range(0, NUM_SEQUENCES, 250)
    )
    kept = [[getattr(block, name) for name in names] for block in blocks]
    joined = (np.concatenate(values) for values in zip(*kept, strict=True))
    return SimpleNamespace(**dict(zip(names, joined, strict=True)))


@cache
def drawn(preset):
    """Draw what `tracks` renders."""
    return draw(find_preset(preset), load_glyphs(), 1, "val", np.arange(NUM_SEQUENCES))


def assert_share(is_so, expected, within, num_published=np.inf):
    """Compare how often bool (N, ...) is true with what is expected, or was measured that often.

    Each of the N is independent. Allowed are 4 standard errors, which must be less than `within`
    of the expected share: it must not be loose.
    """
    of_each = is_so.reshape(len(is_so), -1).mean(1)
    error = of_each.std() / np.sqrt(len(of_each)) * np.sqrt(1 + len(of_each) / num_published)
    assert abs(of_each.mean() - expected) < 4 * error < within * expected


def assert_uniform(values, low, high):
    """Compare a distribution with the uniform one: Kolmogorov-Smirnov, 0.1 % significance."""
    assert values.min() >= low
    assert values.max() <= high
    share = (np.sort(values, axis=None) - low) / (high - low)
    rank = np.arange(share.size) / share.size
    distance = max((share - rank).max(), (rank + 1 / share.size - share).max())
    assert distance < 1.95 / np.sqrt(share.size)


@pytest.mark.parametrize("preset", ["srivastava", "openstl"])
def test_digits_stay_at_walls_as_often_as_published(preset):
    position = tracks(preset).position
    assert_share(position == 0, 0.049, within=0.06, num_published=10_000)
    assert_share(position == 36, 0.031, within=0.06, num_published=10_000)
    assert ((position == 0) | (position == 36)).any((1, 3)).all(), "each track touches a wall"
    assert np.abs(np.diff(position, axis=1)).max() == 4


def test_exact_reflection_favours_no_place():
    position = tracks("tfds").position
    assert np.array_equal(position[:, 0], np.rint(36 * drawn("tfds").start))
    for place in range(37):
        share = 1 / 72 if place in (0, 36) else 1 / 36
        assert_share(position == place, share, within=0.12)


@pytest.mark.parametrize("preset", ["svg-deterministic", "svg-stochastic"])
def test_whole_components_are_equally_often(preset):
    position, velocity = tracks(preset).position, tracks(preset).velocity
    for component in range(-4, 5):
        assert_share(velocity[:, 0] == component, 1 / 9, within=0.15)
    for place in range(32):
        assert_share(position[:, 0] == place, 1 / 32, within=0.3)
    is_still = (position == position[:, :1]).all((1, 3))
    assert_share(is_still, 1 / 81, within=0.65)
    assert np.array_equal(is_still, (velocity[:, 0] == 0).all(-1))
    assert set(np.unique(position)) == set(range(32))
    assert set(np.unique(velocity)) == set(range(-4, 5))


def test_deterministic_walls_keep_the_components():
    velocity = tracks("svg-deterministic").velocity
    assert (np.abs(velocity) == np.abs(velocity[:, :1])).all()


def test_stochastic_walls_draw_both_components():
    block = tracks("svg-stochastic")
    position, velocity = block.position, block.velocity
    ahead = position[:, :-1] + velocity[:, :-1]
    is_low, is_high = ahead < 0, ahead > 31
    is_met = is_low | is_high
    assert np.array_equal(position[:, 1:], ahead.clip(0, 31))
    for axis in (0, 1):
        other = 1 - axis
        leaving = velocity[:, 1:][is_met[..., axis] & ~is_met[..., other]]
        low, high = (
            velocity[:, 1:, :, axis][is_past[..., axis] & ~is_met[..., other]]
            for is_past in (is_low, is_high)
        )
        for component in range(1, 5):
            assert_share(low == component, 1 / 4, within=0.15)
            assert_share(high == -component, 1 / 4, within=0.15)
        for component in range(-4, 5):
            assert_share(leaving[:, other] == component, 1 / 9, within=0.2)
    kept = ~is_met.any(-1)
    assert np.array_equal(velocity[:, 1:][kept], velocity[:, :-1][kept])


def test_looking_ahead_keeps_digits_less_than_2_px_outside():
    block = tracks("tencia")
    position, velocity = block.position, block.velocity
    # A step of 6 px or less that would leave [-2, 38] turns round and ends inside, so the walls
    # are never passed; truncated, that is -1 to 37.
    assert (position.min(), position.max()) == (-1, 37)
    assert np.array_equal(position[:, 0], np.trunc(36 * drawn("tencia").start))
    speed = np.hypot(velocity[..., 0], velocity[..., 1])
    assert np.allclose(speed, speed[:, :1].round(), atol=1e-5)
    for whole in range(2, 7):
        assert_share(speed[:, 0].round() == whole, 1 / 5, within=0.15)


def test_centres_stay_10_px_inside():
    glyphs, block = load_glyphs(), tracks("mnist++")
    shapes = [published.cropped(glyphs.images[glyph]).shape for glyph in block.glyph_index.flat]
    size = np.reshape(shapes, (NUM_SEQUENCES, 1, 3, 2))
    centre = block.position + size / 2
    start = drawn("mnist++").start * (64 - size[:, 0])
    assert np.allclose(block.position[:, 0], start, atol=1e-5)
    assert centre[:, 0].min() < 10 < 54 < centre[:, 0].max(), "frame 0 has no walls"
    assert centre[:, 1:].min() == pytest.approx(10, abs=1e-5)
    assert centre[:, 1:].max() == pytest.approx(54, abs=1e-5)


# Powers of the drawn factor in frames 0 to 19: first four frames down, then five up and five down.
POWER = np.array([0, -1, -2, -3, -4, -3, -2, -1, 0, 1, 0, -1, -2, -3, -4, -3, -2, -1, 0, 1])


def test_scale_and_angle_go_as_published():
    block, draws = tracks("mnist++"), drawn("mnist++")
    scale = draws.scale[:, None] ** POWER[:, None]
    assert np.allclose(block.scale, scale, rtol=1e-6)
    degrees = draws.rotation[:, None] * np.arange(20)[:, None]
    off = (block.angle - degrees + 180) % 360 - 180
    assert np.abs(off).max() < 1e-4
    assert np.abs(block.angle).max() <= 180


def test_light_goes_as_published():
    config = find_preset("mnist++")
    unlit = config.model_copy(update={"illumination": GeneratorConfig().illumination})
    bright = render(unlit, 100).frames.astype(float)
    factor = draw(config, load_glyphs(), 0, "test", np.arange(100)).illumination
    expected = bright * (factor[:, None] ** -POWER)[..., None, None]
    found = render(config, 100).frames
    # Both are rounded, and the light enlarges what was rounded before it.
    assert np.abs(found - np.minimum(expected, 255)).max() < 1.5


PUBLISHED_RANGES = [
    ("srivastava", "start", 0, 1),
    ("tfds", "start", 0, 1),
    ("tencia", "start", 0, 1),
    ("mnist++", "start", 0, 1),
    ("mnist++", "speed_px", 0, 3.6),
    ("mnist++", "rotation", -30, 30),
    ("mnist++", "scale", 1 / 1.1, 1.1),
    ("mnist++", "illumination", 0.6, 1),
]


@pytest.mark.parametrize(("preset", "name", "low", "high"), PUBLISHED_RANGES)
def test_draws_are_uniform_over_the_published_range(preset, name, low, high):
    assert_uniform(getattr(drawn(preset), name), low, high)


@pytest.mark.parametrize("preset", ["srivastava", "tfds", "tencia", "mnist++"])
def test_directions_are_uniform_over_the_circle(preset):
    angle = np.arctan2(*np.moveaxis(drawn(preset).direction, -1, 0))
    for turn in (2 * np.pi, np.pi / 2):  # a quarter turn: no diagonal is favoured
        assert_uniform(angle % turn, 0, turn)


FULL = GlyphSet(
    "full",
    np.full((3, 28, 28), 255, np.uint8),
    np.zeros(3, np.uint8),
    {"train": (0, 1), "val": (1, 2), "test": (2, 3)},
)


@pytest.mark.parametrize("preset", [*EXACT, "mnist++"])
def test_svg_alone_leaves_the_last_row_and_column_dark(preset):
    block = render(preset, 300, glyphs=FULL)
    lit = block.frames.any((0, 1))
    num_lit = 63 if preset.startswith("svg") else 64
    assert lit.any(1).tolist() == lit.any(0).tolist() == [i < num_lit for i in range(64)]
