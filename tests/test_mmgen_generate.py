"""Sequences in memory: functions of (config, seed, split, index), whose ground truth is true."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle_picture import cut_to_ink, picture, resize
from strategies import GLYPHS, SPLITS, TAKE_ACCELERATION, bounce_cases, cases

import mmgen
from mmgen.config import GeneratorConfig
from mmgen.draws import draw
from mmgen.fields import FloatRange, IntRange
from mmgen.generate import TRUTH, render
from mmgen.glyphs import load_glyphs
from mmgen.kernels.exact import IS_JITTED
from mmgen.presets import PRESETS

MEASURED = ("angle", "scale", "box", "visible", "bounced")
IN_EVERY_FRAME = ("frames", "position", "velocity", "mask", *MEASURED)
GOLDEN = Path(__file__).parent / "golden"
NONE, UNCHANGED = FloatRange(low=0, high=0), FloatRange(low=1, high=1)
UNTURNED = {"rotation": NONE, "scale": UNCHANGED, "illumination": UNCHANGED}
BARE = {
    **{"color": "grey", "background": "black", "noise": NONE},
    **{"occluder": "none", "missing": 0.0},
}


def draw_again(case, indices, random_until=None, **fields):
    """Render with all truth; what changes is not checked, so that fields need not agree."""
    for name in fields.keys() & {"frames", "digits"}:
        fields[name] = IntRange(low=fields[name], high=fields[name])
    return render(
        case.config.model_copy(update=fields),
        indices,
        **{"split": case.split, "seed": case.seed, "glyphs": case.glyphs},
        **{"truth": TRUTH, "random_until": random_until},
    )


@given(cases())
def test_a_sequence_does_not_depend_on_its_neighbours(case):
    indices = [case.index + 3, case.index, case.index + 1]
    together = draw_again(case, indices)
    for place, index in enumerate(indices):
        for name, values in vars(draw_again(case, [index])).items():
            assert values[0].tobytes() == getattr(together, name)[place].tobytes(), name


@given(cases(max_frames=9), st.integers(0, 99))
def test_a_longer_sequence_begins_with_the_shorter_one(case, number):
    most = case.config.frames.high
    count = 1 + number % most
    short, long = (draw_again(case, [case.index], frames=n) for n in (count, most))
    for name in IN_EVERY_FRAME:
        assert getattr(long, name)[:, :count].tobytes() == getattr(short, name).tobytes(), name
    for name in ("glyph_index", "label", "index"):
        assert np.array_equal(getattr(long, name), getattr(short, name))


@given(cases(), st.integers(1, 3))
def test_one_more_digit_keeps_the_others(case, count):
    few, many = (draw_again(case, [case.index], digits=n) for n in (count, count + 1))
    for name in ("glyph_index", "label"):
        assert np.array_equal(getattr(many, name)[:, :count], getattr(few, name))
    for name in ("position", "velocity", "angle", "scale", "box", "bounced"):
        kept = getattr(many, name)[:, :, :count]
        assert np.array_equal(kept, getattr(few, name), equal_nan=name != "box"), name
    assert (many.visible[:, :, :count] <= few.visible).all()
    assert (many.mask[few.mask > 0] > 0).all()
    if case.config.overlap != "over":
        assert (many.frames >= few.frames).all()


@given(cases())
def test_digits_are_there_from_appear_to_vanish_and_absence_is_marked(case):
    block, config = draw_again(case, range(case.index, case.index + 4)), case.config
    has_digit = block.glyph_index >= 0
    assert np.isin(has_digit.sum(1), range(config.digits.low, config.digits.high + 1)).all()
    used = block.glyph_index[has_digit]
    assert np.isin(used, range(*case.glyphs.splits[case.split])).all()
    assert np.array_equal(block.label[has_digit], case.glyphs.labels[used])
    assert config.classes == "all" or set(map(str, block.label[has_digit])) <= set(
        config.classes.split(",")
    )
    is_there = ~np.isnan(block.position[..., 0])
    for n, k in np.ndindex(has_digit.shape):
        end, when = block.num_frames[n], np.flatnonzero(is_there[n, :, k])
        assert when.size or not has_digit[n, k] or config.appear.high >= end
        if when.size:
            assert has_digit[n, k]
            assert config.appear.low <= when[0] <= config.appear.high
            assert np.array_equal(when, range(when[0], when[-1] + 1))
            low, high = (min(end, vanish) for vanish in (config.vanish.low, config.vanish.high))
            assert low <= when[-1] + 1 <= high
        assert not (block.mask[n, ~is_there[n, :, k]] == k + 1).any()
    for name in ("position", "velocity", "angle", "scale"):
        values = getattr(block, name)
        assert np.array_equal(~np.isnan(values), np.broadcast_to(is_there.T, values.T.shape).T)
    assert (block.box[~is_there] == -1).all()
    assert not block.visible[~is_there].any()
    assert not block.bounced[~is_there].any()
    is_past = np.arange(config.frames.high) >= block.num_frames[:, None]
    assert not block.frames[is_past].any()


def patch_of(case, glyph):
    """Return the bitmap that the config makes of a glyph, by the oracle's resizing and cutting."""
    bitmap, size = case.glyphs.images[glyph].tolist(), case.config.glyph_size
    bitmap = bitmap if size is None else resize(bitmap, size)
    return cut_to_ink(bitmap) if case.config.crop == "tight" else bitmap


HOLD_EDGES = ("bounce", "reflect", "stochastic", "gravity", "turn", "circle")


@given(cases(motions=HOLD_EDGES))
def test_walls_keep_all_ink_on_the_canvas(case):
    margin = max(0, case.config.margin) if case.config.walls == "edge" else 0
    walls = {"walls": "edge", "bounce": "clamp", "margin": margin}
    block = draw_again(case, range(case.index, case.index + 4), **UNTURNED, **walls)
    for n, k in np.argwhere(block.glyph_index >= 0):
        bitmap = patch_of(case, block.glyph_index[n, k])
        travel = np.subtract(case.config.canvas, (len(bitmap), len(bitmap[0])))
        at = block.position[n, :, k]
        assert (np.isnan(at) | ((at >= 0) & (at <= travel))).all()
    alone = draw_again(case, [case.index], **UNTURNED, **walls, **BARE, digits=1)
    has_ink = alone.mask.any((2, 3))
    assert np.array_equal(alone.visible[..., 0], has_ink.astype(np.float32))


@given(cases(motions=("wrap",)))
def test_a_torus_has_no_outside(case):
    shares = draw_again(case, [case.index], **UNTURNED, **BARE, digits=1).visible
    assert np.isin(shares, [0, 1]).all()


@given(cases(motions=("wrap", *HOLD_EDGES)))
def test_a_single_digit_keeps_its_brightness(case):
    walls = {"walls": "edge", "bounce": "clamp", "margin": 0.0}
    plain = {"overlap": "add", "digits": 1}  # on a small torus a digit overlaps itself
    block = draw_again(case, [case.index], **UNTURNED, **walls, **BARE, **plain)
    patch = patch_of(case, block.glyph_index[0, 0])
    is_there = ~np.isnan(block.position[0, :, 0, 0])
    found, ink = block.frames[0].sum((1, 2), dtype=int), sum(map(sum, patch))
    num_pixels = (len(patch) + 1) * (len(patch[0]) + 1)
    is_whole = (block.position[0, :, 0] % 1 == 0).all(-1)
    # Each pixel is cut to 1/256 grey level, then rounded to a whole one.
    slack = np.where(is_whole, 0, num_pixels * (1 / 2 + 1 / 256))
    assert (abs(found - is_there * ink) <= slack).all()


def test_seed_and_split_change_every_sequence():
    origins = ((0, "test"), (1, "test"), (0, "train"), (0, "val"))
    tracks = [render(indices=6, seed=seed, split=split).position for seed, split in origins]
    assert len({track.tobytes() for block in tracks for track in block}) == 24


def test_no_glyph_crosses_a_split():
    pools = [set(range(*pool)) for pool in load_glyphs().splits.values()]
    assert len(set.union(*pools)) == sum(map(len, pools)) == 70_000


def layers(case, block, t):
    """Return each digit alone in frame t by the oracle's pictures.

    returns  brightness and number of pixels, int (K, H, W), and all ink off the canvas too, int (K)
    """
    shape = (block.label.shape[1], *case.config.canvas)
    alone, count, total = np.zeros(shape, int), np.zeros(shape, int), np.zeros(shape[0], int)
    for k in np.flatnonzero(~np.isnan(block.angle[0, t])):
        patch = patch_of(case, block.glyph_index[0, k])
        form = block.angle[0, t, k].item(), block.scale[0, t, k].item()
        for pixel, value in picture(patch, block.position[0, t, k].tolist(), *form, 1.0).items():
            y, x = np.mod(pixel, shape[1:]) if case.config.motion == "wrap" else pixel
            total[k] += 1
            if 0 <= y < shape[1] and 0 <= x < shape[2]:
                alone[k, y, x] = max(alone[k, y, x], value)
                count[k, y, x] += 1
    return alone, count, total


@given(cases())
def test_boxes_masks_and_visible_shares_are_those_of_the_pixels(case):
    lit, overlap = {"illumination": UNCHANGED}, case.config.overlap
    block = draw_again(case, [case.index], **lit)
    bare = draw_again(case, [case.index], **lit, **BARE | {"overlap": "max"}).frames
    # In front of white only an occluder, or that there is no frame, is black.
    white = {"background": "constant", "background_level": IntRange(low=255, high=255)}
    white |= {"color": "grey", "noise": NONE, "overlap": "max"}
    is_hidden = draw_again(case, [case.index], **lit, **white).frames == 0
    for t in range(block.frames.shape[1]):
        alone, count, total = layers(case, block, t)
        assert np.array_equal(alone.max(0), bare[0, t])
        owner = alone.argmax(0)
        if overlap == "over":
            owner = len(alone) - 1 - (alone[::-1] > 0).argmax(0)
        is_seen = (alone.max(0) > 0) & ~is_hidden[0, t]
        assert np.array_equal(block.mask[0, t], np.where(is_seen, owner + 1, 0))
        for k, ink in enumerate(alone):
            rows, columns = np.nonzero(ink)
            box = [-1] * 4
            if rows.size:
                box = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
            seen = count[k][is_seen & ((owner == k) | (overlap == "add"))].sum()
            assert block.box[0, t, k].tolist() == box
            assert block.visible[0, t, k] == np.float32(seen / total[k] if total[k] else 0)


@given(bounce_cases())
def test_bounces_are_where_a_velocity_turns_round(case):
    block = draw_again(case, range(case.index, case.index + 4))
    turned = (block.velocity[:, 1:] * block.velocity[:, :-1] < 0).any(-1)
    assert np.array_equal(turned, block.bounced[:, 1:])


@given(cases(motions=("bounce", "reflect", "stochastic", "wrap", "leave")))
def test_without_a_bounce_no_velocity_changes(case):
    block = draw_again(case, range(case.index, case.index + 4), acceleration=NONE)
    before, after = block.velocity[:, :-1], block.velocity[:, 1:]
    is_kept = (before == after).all(-1) | np.isnan(before + after).any(-1)
    assert (is_kept | block.bounced[:, 1:]).all()


@given(cases())
def test_positions_follow_from_velocities_where_no_wall_is_met(case):
    """Each place lies between the bounds that its rounding leaves, and so must the next one."""
    config = case.config
    block = draw_again(case, range(case.index, case.index + 4))
    low = high = block.position.astype(float)
    if config.rounding == "truncate":
        low, high = low - (low <= 0), high + (high >= 0)
    elif config.rounding == "round":
        low, high = low - 0.5, high + 0.5
    excess_low = low[:, 1:] - (high[:, :-1] + block.velocity[:, :-1])
    excess_high = high[:, 1:] - (low[:, :-1] + block.velocity[:, :-1])
    if config.motion == "wrap":  # once or more often round the torus
        rounds = np.array(config.canvas) * np.ceil((excess_low - 1e-3) / config.canvas)
        excess_low, excess_high = excess_low - rounds, excess_high - rounds
    follows = (excess_low <= 1e-3) & (excess_high >= -1e-3)
    does_not_count = np.isnan(excess_low).any(-1)
    if not (config.motion == "bounce" and config.bounce == "ahead"):  # which turns in good time
        does_not_count |= block.bounced[:, 1:]
    assert (follows.all(-1) | does_not_count).all()


def moving(**fields):
    """Render 20 sequences of three small digits each in a room where all of them move."""
    plain = {"canvas": (40, 50), "frames": 12, "digits": 3, "rounding": "subpixel"}
    config = GeneratorConfig(**plain | fields)
    return render(config, 20, glyphs=GLYPHS[5, 7]), config


@pytest.mark.parametrize("acceleration", [0.5, -0.75])
@pytest.mark.parametrize("motion", TAKE_ACCELERATION)
def test_speed_changes_by_the_acceleration_until_a_digit_rests(motion, acceleration):
    block, _ = moving(motion=motion, acceleration=acceleration, speed="1..4")
    speed = np.hypot(*np.moveaxis(block.velocity, -1, 0))
    expected = np.maximum(0, speed[:, :-1] + acceleration)
    is_drawn = block.bounced[:, 1:] if motion == "stochastic" else np.zeros_like(expected, bool)
    assert (np.isclose(speed[:, 1:], expected, atol=1e-5) | is_drawn).all()
    assert (speed == 0).any() == (acceleration < 0)


@pytest.mark.parametrize("rounding", ["truncate", "round", "subpixel"])
def test_positions_on_a_torus_stay_below_its_sides(rounding):
    block, config = moving(motion="wrap", rounding=rounding)
    assert ((block.position >= 0) & (block.position < config.canvas)).all()


def test_gravity_pulls_all_digits_of_a_sequence_alike():
    block, config = moving(motion="gravity", gravity="0.1..2")
    change = np.diff(block.velocity, axis=1)
    for n in range(20):
        falling = change[n][~block.bounced[n, 1:]]
        assert np.ptp(falling[:, 0]) < 1e-5
        assert config.gravity.low <= falling[0, 0] <= config.gravity.high
        assert not falling[:, 1].any()


def test_steering_keeps_the_speed():
    block, _ = moving(motion="turn", turn_chance=0.5, speed="1..4")
    speed = np.hypot(*np.moveaxis(block.velocity, -1, 0))
    assert np.allclose(speed, speed[:, :1], atol=1e-5)
    is_free = ~block.bounced[:, 1:]
    turned = (abs(np.diff(block.velocity, axis=1)) > 1e-6).any(-1)
    assert turned[is_free].mean() == pytest.approx(0.5, abs=0.06), "4 standard errors"


@pytest.mark.parametrize(("rounding", "slack"), [("truncate", 1), ("round", 0.5), ("subpixel", 0)])
def test_a_circle_keeps_its_distance_from_its_centre(rounding, slack):
    block, config = moving(motion="circle", radius=0.6, margin=3, speed="2..5", rounding=rounding)
    drawn = draw(config, GLYPHS[5, 7], 0, "test", np.arange(20))
    room = np.subtract(config.canvas, (5, 7)) - 2 * 3
    radius = 0.6 * room.min() / 2
    centre = 3 + radius + drawn.start * (room - 2 * radius)
    distance = np.hypot(*np.moveaxis(block.position - centre[:, None], -1, 0))
    assert (abs(distance - radius) <= slack * np.sqrt(2) + 1e-4).all()
    speed = np.hypot(*np.moveaxis(block.velocity, -1, 0))
    assert np.allclose(speed, drawn.speed_px[:, None], atol=1e-5)
    assert not block.bounced.any()


@given(cases(), st.integers(0, 6))
def test_until_randomness_ends_all_is_as_ever_and_then_nothing_is_random(case, random_until):
    indices = range(case.index, case.index + 2)
    ever, ended = (draw_again(case, indices, until) for until in (None, random_until))
    quiet = draw_again(case, indices, noise=NONE, missing=0.0)
    after = random_until + 1
    for name in IN_EVERY_FRAME:
        found, as_ever = getattr(ended, name), getattr(ever, name)
        assert found[:, :after].tobytes() == as_ever[:, :after].tobytes(), name
        if case.config.motion not in ("stochastic", "turn"):
            assert found[:, after:].tobytes() == getattr(quiet, name)[:, after:].tobytes(), name


def test_after_randomness_walls_only_turn_digits_round_and_nobody_steers():
    sizes = {"frames": 30, "speed": "2..6"}
    for motion in ("stochastic", "turn"):
        _, config = moving(motion=motion, **sizes)
        block = render(config, 20, glyphs=GLYPHS[5, 7], random_until=9)
        speed = abs(block.velocity[:, 9:])
        assert np.array_equal(speed, np.broadcast_to(speed[:, :1], speed.shape))
        assert block.bounced[:, 10:].any()


@given(bounce_cases())
def test_what_does_not_turn_or_grow_says_so(case):
    block = draw_again(case, [case.index])
    is_there = ~np.isnan(block.position[..., 0])
    assert (block.angle[is_there] == 0).all()
    assert (block.scale[is_there] == 1).all()


def fingerprint(preset):
    """Hash what a preset makes of the first sequences of each split.

    A new preset's golden file is this, as `json.dumps(..., indent=1)` and a newline; the failing
    test prints it. No golden file ever changes: a pixel that does needs a new rendering version.
    """
    frames, annotations, truth, mask = (hashlib.sha256() for _ in range(4))
    for split in SPLITS:
        block = render(preset, 4, split=split, seed=0)
        frames.update(block.frames)
        for name in sorted(vars(block).keys() - {"frames", "mask", *MEASURED}):
            annotations.update(getattr(block, name))
        for name in MEASURED:
            truth.update(getattr(block, name))
        mask.update(render(preset, 4, split=split, seed=0, truth=["mask"]).mask)
    return {
        "rendering": mmgen.PRESETS[preset][0].rendering,
        "frames": frames.hexdigest(),
        "annotations": annotations.hexdigest(),
        "truth": truth.hexdigest(),
        "mask": mask.hexdigest(),
    }


@pytest.mark.parametrize("preset", PRESETS)
def test_golden_bytes(preset):
    found = fingerprint(preset)
    if preset == "srivastava":
        del found["mask"]  # the file is older than masks; openstl, which is equal, has one
    path = GOLDEN / f"{preset}.json"
    golden = path.read_text() if path.exists() else "nothing"
    text = json.dumps(found, indent=1) + "\n"
    assert text == golden, f"{path} holds {golden}, but {preset} makes {text}"


@pytest.mark.skipif(not IS_JITTED, reason="NUMBA_DISABLE_JIT is set")
@pytest.mark.slow
def test_the_golden_ones_again_on_the_plainest_cpu(start_python, tmp_path):
    tests = (
        "-Werror",
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-q",
        __file__,
        "-k",
        "golden_bytes",
    )
    plain = {"NUMBA_CPU_NAME": "generic", "NUMBA_CACHE_DIR": str(tmp_path)}
    process = start_python(*tests, **plain)
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, out + err
    assert f"{len(PRESETS)} passed" in out
    assert any(tmp_path.rglob("*.nbc")), "compiled anew"


def test_frames_go_into_the_callers_array():
    out = np.full((2, 20, 64, 64), 9, np.uint8)
    assert render(indices=2, out=out).frames is out
    assert np.array_equal(out, render(indices=2).frames)


READ_ONLY = np.zeros((2, 20, 64, 64), np.uint8)
READ_ONLY.flags.writeable = False
BAD_OUTS = {
    "narrow": np.zeros((2, 20, 64, 63), np.uint8),
    "long": np.zeros((3, 20, 64, 64), np.uint8),
    "signed": np.zeros((2, 20, 64, 64), np.int8),
    "strided": np.zeros((2, 20, 64, 128), np.uint8)[..., ::2],
    "transposed": np.zeros((64, 64, 20, 2), np.uint8).T,
    "read-only": READ_ONLY,
}


@pytest.mark.parametrize("kind", BAD_OUTS)
def test_a_kernel_never_sees_a_bad_out(kind):
    with pytest.raises(ValueError, match="out must be"):
        render(indices=2, out=BAD_OUTS[kind])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, f"seed: -1 is out of range, allowed are 0..{2**63 - 1}"),
        ({"seed": 2**63}, f"seed: {2**63} is out of range, allowed are 0..{2**63 - 1}"),
        ({"indices": [3, -2]}, "index -2 is out of range, sequences count from 0"),
        ({"indices": -3}, "indices: -3 sequences cannot be rendered; ask for 0 or more"),
        ({"indices": [2**63]}, f"an index is out of range, allowed are 0..{2**63 - 1}"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(mmgen.InputError) as caught:
        render(**({"indices": 1} | arguments))
    assert str(caught.value) == message


# Published: the released generator on MNIST test digits, 10 000 sequences, frames 11-20, target/255
# (metrics.md 1.6, dynamics.md 2.1). Tolerance: 4 standard errors of the mean of 2 000 independent
# sequences, widened by the published numbers' own, sqrt(1 + 2 000 / 10 000); it must not be loose.
# Seen with 10 000 sequences: 86.12, 153.35, 174.43, copy-last 286.3; coordinates 4.83 and 3.08 %.
NUM_SEQUENCES = 2_000
COPY_LAST = (202, 251, 272, 293, 300, 307, 307, 311, 310, 312)


def is_as_published(values, published):
    error = values.std() / np.sqrt(len(values)) * np.sqrt(1 + NUM_SEQUENCES / 10_000)
    return abs(values.mean() - published) < 4 * error < 0.06 * published


def test_statistics_of_the_published_generator():
    shade = np.arange(1, 255) / 255
    entropy_of = np.zeros(256)
    entropy_of[1:255] = -shade * np.log(shade) - (1 - shade) * np.log(1 - shade)
    rows, total = [], np.zeros((64, 64))
    for first in range(0, NUM_SEQUENCES, 100):
        block = render("srivastava", range(first, first + 100), split="test")
        z = (block.frames / 255).astype(np.float32)
        future, last = z[:, 10:], z[:, 9:10]
        total += future.sum((0, 1))
        of_each_sequence = (
            entropy_of[block.frames[:, 10:]].sum((2, 3)).mean(1),
            (future**2).sum((2, 3)).mean(1),
            (block.position == 0).mean((1, 2, 3)),
            (block.position == 36).mean((1, 2, 3)),
            ((future - last) ** 2).sum((2, 3)),
        )
        rows.append(np.column_stack(of_each_sequence))
    entropy, black, at_low, at_high, *copy_last = np.concatenate(rows).T
    mean_frame = total / (10 * NUM_SEQUENCES)
    assert is_as_published(entropy, 86.42)
    assert is_as_published(black, 174.5)
    assert is_as_published(black - (mean_frame**2).sum(), 153.4)
    assert is_as_published(at_low, 0.049)
    assert is_as_published(at_high, 0.031)
    assert [is_as_published(*both) for both in zip(copy_last, COPY_LAST, strict=True)] == [
        True
    ] * 10
