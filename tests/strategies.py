"""Inputs: hypothesis strategies for valid configs with glyphs that fit, and tables as text.

Combinations that the config or the generator refuses are never drawn, so that nothing is filtered.
"""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from mmgen.config import GeneratorConfig
from mmgen.fields import FloatRange, IntRange
from mmgen.glyphs import GlyphSet

GLYPH_SHAPES = ((5, 7), (1, 1), (7, 32), (3, 33))  # the vector painter takes up to 32 wide
SPLITS = {"train": (0, 6), "val": (6, 8), "test": (8, 12)}


@dataclass(frozen=True)
class Case:
    """A sequence: number `index` of the split that `config`, `glyphs` and `seed` make."""

    config: GeneratorConfig
    glyphs: GlyphSet
    seed: int
    split: str
    index: int


def random_glyphs(shape):
    """Return twelve bitmaps of which half is ink, the same in every run."""
    rng = np.random.default_rng(shape)
    ink = rng.integers(1, 256, (12, *shape), dtype=np.uint8)
    images = ink * rng.integers(0, 2, ink.shape, dtype=np.uint8)
    return GlyphSet("random", images, rng.integers(0, 10, 12, dtype=np.uint8), SPLITS)


GLYPHS = {shape: random_glyphs(shape) for shape in GLYPH_SHAPES}


def oracle_fields(config):
    """Return the fields of a config as the oracle takes them: ranges as tuples, classes as ints."""
    fields = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        fields[name] = (value.low, value.high) if hasattr(value, "low") else value
    if config.classes != "all":
        fields["classes"] = tuple(int(label) for label in config.classes.split(","))
    return fields


def pairs(values):
    return st.tuples(values, values).map(sorted)


def integers(low, high):
    return pairs(st.integers(low, high)).map(lambda pair: IntRange(low=pair[0], high=pair[1]))


def reals(low, high):
    """Return ranges, of which every other one is a fixed number, which draws nothing."""
    fixed = st.floats(low, high).map(lambda value: (value, value))
    both = fixed | pairs(st.floats(low, high))
    return both.map(lambda pair: FloatRange(low=pair[0], high=pair[1]))


speeds = st.just(3.6) | reals(0, 40)
travels = st.just(0) | st.integers(1, 30)  # 0: the canvas is as large as the glyph
TAKE_ACCELERATION = ("bounce", "reflect", "stochastic", "wrap", "leave", "turn")
MOTIONS = (*TAKE_ACCELERATION, "circle", "gravity")
MAX_GROWTH = 3  # the config allows more; the oracle is slow where pictures are large


def case_of(draw, config, glyphs, split):
    seed, index = draw(st.integers(0, 2**63 - 1)), draw(st.integers(0, 99) | st.integers(0, 2**62))
    return Case(config, glyphs, seed, split, index)


@st.composite
def bounce_cases(draw, shapes=GLYPH_SHAPES, max_frames=6, max_digits=4):
    """Draw cases that leave all but canvas, frames, digits and speed as `srivastava` has them."""
    glyphs = GLYPHS[draw(st.sampled_from(shapes))]
    height, width = glyphs.images.shape[1:]
    config = GeneratorConfig(
        canvas=(height + draw(travels), width + draw(travels)),
        frames=draw(integers(1, max_frames)),
        digits=draw(integers(1, max_digits)),
        speed=draw(speeds),
    )
    return case_of(draw, config, glyphs, draw(st.sampled_from(list(SPLITS))))


@st.composite
def cases(draw, shapes=GLYPH_SHAPES, max_frames=6, max_digits=3, motions=MOTIONS):
    """Draw cases over all fields."""
    glyphs = GLYPHS[draw(st.sampled_from(shapes))]
    split = draw(st.sampled_from(list(SPLITS)))
    size = draw(st.none() | st.tuples(st.integers(1, 9), st.integers(1, 12)))
    height, width = size or glyphs.images.shape[1:]
    fields = {
        "canvas": (height + draw(travels), width + draw(travels)),
        "frames": draw(integers(1, max_frames)),
        "digits": draw(integers(1, max_digits)),
        "glyph_size": size,
        "classes": draw(classes(glyphs.labels[slice(*SPLITS[split])])),
        "crop": draw(st.sampled_from(["patch", "tight"])),
        "first_frame": draw(st.sampled_from(["step", "start"])),
        "rounding": draw(st.sampled_from(["truncate", "round", "subpixel"])),
    }
    fields |= draw(motion_fields(motions, fields["canvas"], (height, width)))
    fields |= draw(presence_fields(fields["frames"].high))
    fields |= draw(look_fields(fields["frames"].high))
    fields |= draw(scene_fields(min(fields["canvas"])))
    return case_of(draw, GeneratorConfig(**fields), glyphs, split)


def classes(labels):
    """Return choices of labels that are there."""
    return st.just("all") | st.lists(st.sampled_from(sorted(set(labels.tolist()))), min_size=1)


@st.composite
def motion_fields(draw, motions, canvas, size):
    motion = draw(st.sampled_from(motions))
    fields, can_accelerate = {"motion": motion}, motion in TAKE_ACCELERATION
    whole = [] if motion in ("circle", "gravity", "turn") else ["whole-components"]
    fields["velocity"] = draw(st.sampled_from(["uniform", "whole-speed", *whole]))
    if fields["velocity"] == "uniform":
        fields["speed"] = draw(speeds)
    elif fields["velocity"] == "whole-speed":
        fields["speed"] = FloatRange(**draw(integers(0, 9)).model_dump())
    else:
        fields["speed"] = draw(st.integers(1, 9))  # at 0 there is no speed away from a wall
        can_accelerate = False
    if can_accelerate and draw(st.booleans()):
        fields["acceleration"] = draw(reals(-4, 4))
    if motion == "bounce":
        fields["bounce"] = draw(st.sampled_from(["clamp", "ahead"]))
    if motion == "gravity":
        fields["gravity"] = draw(reals(0, 9))
    if motion == "circle":
        fields["radius"] = draw(reals(0, 1))
    if motion == "turn":
        fields["turn_chance"] = draw(st.floats(0, 1))
        fields["turn_angle"] = draw(reals(-180, 180))
    if motion not in ("wrap", "leave"):
        is_whole = fields["velocity"] == "whole-components"
        fields["walls"] = draw(st.sampled_from(["edge"] if is_whole else ["edge", "centre"]))
        travel = min(canvas[0] - size[0], canvas[1] - size[1])
        room = travel if fields["walls"] == "edge" else min(canvas)
        margins = st.just(0) | st.integers(-5, room // 2)
        if not is_whole:
            margins |= st.floats(-5, room / 2)
        fields["margin"] = draw(margins)
    return fields


@st.composite
def presence_fields(draw, num_frames):
    if draw(st.booleans()):
        return {}
    first = draw(st.integers(0, num_frames - 1))
    last = first + draw(st.integers(0, 3))
    fields = {"appear": IntRange(low=first, high=last)}
    if draw(st.booleans()):
        fields["vanish"] = draw(integers(last + 1, last + 4))
    return fields


@st.composite
def look_fields(draw, num_frames):
    period = draw(st.integers(1, 7))
    fields = {"period": period, "color": draw(st.sampled_from(["grey", "random"]))}
    fields["overlap"] = draw(st.sampled_from(["max", "add", "over"]))
    if draw(st.booleans()):
        fields["rotation"] = draw(reals(-180, 180))
    if draw(st.booleans()):
        largest = MAX_GROWTH ** (1 / min(period, num_frames))
        fields["scale"] = draw(reals(1 / largest, largest))
    if draw(st.booleans()):
        most = min(10, 16 ** (1 / min(period, num_frames)) * (1 - 1e-9))
        fields["illumination"] = draw(reals(1, most) | reals(1 / most, 1))
    return fields


@st.composite
def scene_fields(draw, shortest_side):
    sizes = st.integers(1, shortest_side)
    fields = {"background": draw(st.sampled_from(["black", "constant", "noise", "distractors"]))}
    if fields["background"] in ("constant", "noise"):
        fields["background_level"] = draw(integers(0, 255))
    if fields["background"] == "distractors":
        fields |= {"distractors": draw(st.integers(1, 3)), "distractor_size": draw(sizes)}
    fields["occluder"] = draw(st.sampled_from(["none", "static", "moving"]))
    if fields["occluder"] != "none":
        fields["occluder_size"] = draw(sizes)
    fields["noise"] = draw(st.just(0) | reals(0, 255))
    fields["missing"] = draw(st.just(0) | st.floats(0, 1))
    return fields


def table(text):
    """Read rows of cells, `a => b`, one a line."""
    return [[cell.strip() for cell in line.split(" => ")] for line in text.strip().splitlines()]
