"""Config + glyphs -> blocks of sequences in memory; opens no output file, knows no process.

Letters: N sequences, T frames (the longest of the config), K digits, H x W canvas.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmgen import kernels
from mmgen.config import GeneratorConfig, find_preset
from mmgen.draws import Draws, draw
from mmgen.errors import InputError
from mmgen.glyphs import GlyphSet, load_glyphs

_BLOCK_BYTES = 4 << 20


@dataclass(frozen=True)
class Block:
    """N rendered sequences with their ground truth; the arrays of `mmgen/shard/FORMAT.md`.

    frames  uint8 (N, T, H, W), ink 0..255, zero past num_frames      num_frames  int32 (N,)
    label   int16 (N, K)    glyph_index  int32 (N, K)    -1 where a sequence has fewer digits
    position, velocity  float32 (N, T, K, 2): top-left (y, x) in px; px per frame with which the
                        digit leaves the frame; NaN without digit or frame
    angle, scale  float32 (N, T, K): degrees; 1 = unscaled; NaN without digit or frame
    box      int16 (N, T, K, 4): y0, x0, y1, x1 of the digit's own ink, half open; -1 if none
    visible  float32 (N, T, K): share of its ink that no other digit hides; 0 if none
    bounced  bool (N, T, K): touched a wall in the step into the frame
    index   int64 (N,), place of each sequence in its split
    """

    frames: NDArray[np.uint8]
    num_frames: NDArray[np.int32]
    label: NDArray[np.int16]
    glyph_index: NDArray[np.int32]
    position: NDArray[np.float32]
    velocity: NDArray[np.float32]
    angle: NDArray[np.float32]
    scale: NDArray[np.float32]
    box: NDArray[np.int16]
    visible: NDArray[np.float32]
    bounced: NDArray[np.bool_]
    index: NDArray[np.int64]


def render(
    config: GeneratorConfig | str = "srivastava",
    indices: Iterable[int] | int = 8,
    *,
    split: str = "test",
    seed: int = 0,
    glyphs: GlyphSet | None = None,
    out: NDArray[np.uint8] | None = None,
) -> Block:
    """Render sequences of a split: sequence i is the same whatever else is asked for.

    config   a preset's name or a GeneratorConfig
    indices  which sequences of the split, or how many from the first one on
    out      uint8 (N, T, H, W), C order: where the frames go; allocated if not given
    raises   InputError for an unknown preset or split, an index or seed out of range, or a canvas
             smaller than the glyphs
    """
    config = find_preset(config) if isinstance(config, str) else config
    glyphs = glyphs or load_glyphs(config.glyphs)
    wanted = range(indices) if isinstance(indices, int) else indices
    try:
        index = np.fromiter(wanted, np.int64)
    except OverflowError as error:
        raise InputError(f"an index is out of range, allowed are 0..{2**63 - 1}") from error
    travel = travel_px(config, glyphs)
    drawn = draw(config, glyphs, seed, split, index)
    shape = (len(index), config.frames.high, *config.canvas)
    frames = np.empty(shape, np.uint8) if out is None else _checked(out, shape)
    position = np.empty((*shape[:2], config.digits.high, 2), np.float32)
    velocity = np.empty_like(position)
    bounced = np.empty(position.shape[:3], np.bool_)
    kernels.move_bounce(
        drawn.num_frames,
        drawn.glyph_index,
        drawn.start,
        drawn.direction,
        drawn.speed_px,
        travel,
        position,
        velocity,
        bounced,
    )
    _paint(glyphs, drawn, position, frames)
    label = glyphs.labels[drawn.glyph_index].astype(np.int16)
    label[drawn.glyph_index < 0] = -1
    box, visible = _measure(glyphs, drawn, position)
    is_absent = np.isnan(position[..., 0])
    return Block(
        frames,
        drawn.num_frames,
        label,
        drawn.glyph_index,
        position,
        velocity,
        np.where(is_absent, np.float32(np.nan), np.float32(0)),
        np.where(is_absent, np.float32(np.nan), np.float32(1)),
        box,
        visible,
        bounced,
        index,
    )


def _paint(
    glyphs: GlyphSet, drawn: Draws, position: NDArray[np.float32], frames: NDArray[np.uint8]
) -> None:
    vector = kernels.VECTOR_PX
    fits = glyphs.images.shape[2] <= vector <= frames.shape[3]
    placed = drawn.glyph_index, drawn.num_frames, position, frames
    if fits and kernels.IS_JITTED:
        kernels.paint_max_vector(glyphs.padded(vector), *placed)
    else:
        kernels.paint_max(glyphs.images, *placed)


def _measure(
    glyphs: GlyphSet, drawn: Draws, position: NDArray[np.float32]
) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    box = np.empty((*position.shape[:3], 4), np.int16)
    visible = np.empty(position.shape[:3], np.float32)
    measured = (
        glyphs.images,
        glyphs.ink_box,
        glyphs.num_ink,
        drawn.glyph_index,
        drawn.num_frames,
        position,
        box,
        visible,
    )
    height, width = glyphs.images.shape[1:]
    if width <= kernels.VECTOR_PX and kernels.IS_JITTED:
        room = (position.shape[2], height, width + 2 * kernels.VECTOR_PX)
        kernels.measure_max_vector(*measured, np.zeros(room, np.uint8))
    else:
        kernels.measure_max(*measured)
    return box, visible


def block_length(config: GeneratorConfig) -> int:
    """Return how many sequences to render at a time: 4 MiB of frames stay in the cache."""
    return max(1, _BLOCK_BYTES // (config.frames.high * config.canvas[0] * config.canvas[1]))


def travel_px(config: GeneratorConfig, glyphs: GlyphSet) -> NDArray[np.int64]:
    """Return how far a glyph's corner may go, canvas minus glyph, (y, x) in px, int64 (2,)."""
    travel = np.array(config.canvas, np.int64) - glyphs.images.shape[1:]
    if travel.min() < 0:
        height, width = glyphs.images.shape[1:]
        raise InputError(
            f"canvas: {config.canvas[0]}x{config.canvas[1]} is smaller than a glyph of "
            f"{height}x{width}; enlarge canvas"
        )
    return travel


def _checked(out: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    # A kernel would write past the end in silence, and compile again for another layout.
    if out.shape != shape or out.dtype != np.uint8 or not out.flags.carray:
        raise ValueError(
            f"out must be writeable C-contiguous uint8 {shape}, is {out.dtype} {out.shape}"
        )
    return out
