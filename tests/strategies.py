"""Inputs: hypothesis strategies for valid configs with glyphs that fit, and tables as text."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from mmgen.config import GeneratorConfig, IntRange
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


def pairs(values):
    return st.tuples(values, values).map(sorted)


def counts(high):
    return pairs(st.integers(1, high)).map(lambda pair: IntRange(low=pair[0], high=pair[1]))


speeds = st.just(3.6) | pairs(st.floats(0, 40)).map(lambda pair: f"{pair[0]!r}..{pair[1]!r}")
travels = st.just(0) | st.integers(1, 30)  # 0: the canvas is as large as the glyph


@st.composite
def cases(draw, shapes=GLYPH_SHAPES, max_frames=6, max_digits=4):
    glyphs = GLYPHS[draw(st.sampled_from(shapes))]
    height, width = glyphs.images.shape[1:]
    config = GeneratorConfig(
        canvas=(height + draw(travels), width + draw(travels)),
        frames=draw(counts(max_frames)),
        digits=draw(counts(max_digits)),
        speed=draw(speeds),
    )
    seed, index = draw(st.integers(0, 2**63 - 1)), draw(st.integers(0, 99) | st.integers(0, 2**62))
    return Case(config, glyphs, seed, draw(st.sampled_from(list(SPLITS))), index)


def table(text):
    """Read rows of cells, `a => b`, one a line."""
    return [[cell.strip() for cell in line.split(" => ")] for line in text.strip().splitlines()]
