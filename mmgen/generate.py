"""Config + glyphs -> blocks of sequences in memory; opens no output file, knows no process.

Letters: N sequences, T frames (the longest of the config), K digits, H x W canvas.
"""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from mmgen.config import GeneratorConfig
from mmgen.draws import Drawer, Draws, as_index, hash_may_wrap, make_rules
from mmgen.errors import InputError
from mmgen.fields import FloatRange
from mmgen.glyphs import GlyphSet, load_glyphs
from mmgen.kernels import effects, paint, picture, tracks
from mmgen.kernels.exact import IS_JITTED
from mmgen.kernels.lanes import LANES
from mmgen.motions import MOTIONS, is_torus
from mmgen.patches import check_room
from mmgen.presets import find_preset
from mmgen.steps import follow

TRUTH = ("box", "visible", "mask")
_BLOCK_BYTES = 8 << 20
_MAX_PICTURE_BYTES = 1 << 28
_OVERLAPS = {"max": paint.MAX, "add": paint.ADD, "over": paint.OVER}


@dataclass(eq=False)  # not frozen: that takes 2 us more to make, as long as half a sequence
class Block:
    """N rendered sequences with their ground truth; the arrays of `mmgen/shard/FORMAT.md`.

    frames  uint8 (N, T, H, W) or (N, T, H, W, 3), 0..255, zero past num_frames
    num_frames  int32 (N,)    index  int64 (N,), place of each sequence in its split
    label   int16 (N, K)      glyph_index  int32 (N, K)    -1 where a sequence has fewer digits
    position, velocity  float32 (N, T, K, 2): top-left (y, x) in px; px per frame with which the
                        digit leaves the frame
    angle, scale  float32 (N, T, K): degrees; 1 = unscaled
    bounced  bool (N, T, K): met a wall in the step into the frame
    box      int16 (N, T, K, 4): y0, x0, y1, x1 of the digit's own ink, half open; -1 if none
    visible  float32 (N, T, K): share of its ink that nothing hides; 0 if none
    mask     uint8 (N, T, H, W): whose pixel it is, digit number + 1, or 0

    Where a digit is not there floats are NaN. What was not asked for is None.
    """

    frames: NDArray[np.uint8]
    num_frames: NDArray[np.int32]
    label: NDArray[np.int16]
    glyph_index: NDArray[np.int32]
    position: NDArray[np.float32]
    velocity: NDArray[np.float32]
    angle: NDArray[np.float32]
    scale: NDArray[np.float32]
    box: NDArray[np.int16] | None
    visible: NDArray[np.float32] | None
    bounced: NDArray[np.bool_]
    mask: NDArray[np.uint8] | None
    index: NDArray[np.int64]


@hash_may_wrap
def render(
    config: GeneratorConfig | str = "srivastava",
    indices: Iterable[int] | int = 8,
    *,
    split: str = "test",
    seed: int = 0,
    glyphs: GlyphSet | str | None = None,
    out: NDArray[np.uint8] | None = None,
    truth: Collection[str] = ("box", "visible"),
    random_until: int | None = None,
    straight_from: int | None = None,
) -> Block:
    """Render sequences of a split: sequence i is the same whatever else is asked for.

    config   a preset's name or a GeneratorConfig
    indices  which sequences of the split, or how many from the first one on
    glyphs   a set, its name or its path, instead of the one that the config names
    out      uint8 (N, T, H, W) or (N, T, H, W, 3), C order: where the frames go; allocated if not
             given
    truth    what to measure besides the tracks, of "box", "visible", "mask"
    random_until  the last frame for which anything is drawn: after it walls only turn digits round,
             nobody steers, there is no noise and no frame is missing. None: all frames
    straight_from  the frame from which digits move on in a straight line, with the velocity with
             which they leave it: no walls, forces or turns (a torus stays one). None: never
    raises   InputError for an unknown preset or split, an index or seed out of range, or a canvas
             that leaves the glyphs no room
    """
    config = find_preset(config) if isinstance(config, str) else config
    if not isinstance(glyphs, GlyphSet):
        glyphs = load_glyphs(glyphs or config.glyphs)
    if isinstance(indices, (int, np.integer)):
        if indices < 0:
            raise InputError(f"indices: {indices} sequences cannot be rendered; ask for 0 or more")
        index = np.arange(indices)
    else:
        index = as_index(indices)
    truth = (truth,) if isinstance(truth, str) else truth
    if unknown := set(truth).difference(TRUTH):
        raise ValueError(f"truth: {sorted(unknown)} cannot be measured; choose from {TRUTH}")
    renderer = _renderer(config, glyphs, seed, split, random_until, straight_from)
    return renderer.render(index, out, truth)


class _Renderer:
    """What all blocks of one (config, glyph set, seed, split) share."""

    def __init__(
        self,
        config: GeneratorConfig,
        glyphs: GlyphSet,
        seed: int,
        split: str,
        random_until: int | None = None,
        straight_from: int | None = None,
    ) -> None:
        self.config = config
        self.drawer = Drawer(config, glyphs, seed, split)
        self.patches = self.drawer.patches
        self.rules = make_rules(config, random_until, straight_from)
        self._keeps_its_rule = straight_from is None
        self._rules_row = np.array([self.rules], tracks.RULES)
        self._sequence_shape = config.frames.high, *config.frame_shape
        self._overlap = _OVERLAPS[config.overlap]
        self._is_black = config.background == "black"
        check_room(config, self.patches)
        num_bytes = config.digits.high * self._picture_px**2
        if num_bytes > _MAX_PICTURE_BYTES:
            raise InputError(
                f"digits x glyph_size x scale take {num_bytes} bytes to draw a frame, allowed are "
                f"{_MAX_PICTURE_BYTES}; lower one of them"
            )
        # What moves and is no digit does so by the classic rule.
        self._plain_rules = make_rules(
            GeneratorConfig(
                canvas=config.canvas, speed=config.speed, first_frame=config.first_frame
            )
        )

    def render(
        self, index: NDArray[np.int64], out: NDArray[np.uint8] | None, truth: Collection[str]
    ) -> Block:
        """Render the sequences `index`; parameters as of the function `render`."""
        if self._is_plain and "mask" not in truth:
            return self._render_plain(index, out, truth)
        drawn = self.drawer.draw(index, self.rules)
        block = self._allocate(index, out, truth, drawn.num_frames, drawn.label, drawn.glyph_index)
        light = np.empty(block.bounced.shape[:2], np.int64)
        self._follow(block, drawn, light)
        self._paint(block, drawn, light)
        return block

    def _render_plain(
        self, index: NDArray[np.int64], out: NDArray[np.uint8] | None, truth: Collection[str]
    ) -> Block:
        """Render by calling two kernels: a call of one takes half as long as a sequence."""
        shape = len(index), self.config.digits.high
        block = self._allocate(
            index,
            out,
            truth,
            np.empty(len(index), np.int32),
            np.empty(shape, np.int16),
            np.empty(shape, np.int32),
        )
        drawer, patches = self.drawer, self.patches
        tracks.follow_classic(
            drawer.key,
            index,
            drawer.counts,
            patches.pool,
            drawer.labels,
            patches.first,
            patches.size,
            drawer.bounds,
            drawer.shared_bounds,
            self._rules_row,
            block.num_frames,
            block.glyph_index,
            block.label,
            block.position,
            block.velocity,
            block.bounced,
            block.angle,
            block.scale,
        )
        self._paint_simple(block)
        return block

    def _allocate(
        self,
        index: NDArray[np.int64],
        out: NDArray[np.uint8] | None,
        truth: Collection[str],
        num_frames: NDArray[np.int32],
        label: NDArray[np.int16],
        glyph_index: NDArray[np.int32],
    ) -> Block:
        """Return a block with room for all but what is drawn."""
        shape = (len(index), *self._sequence_shape)
        num_tracks = (*shape[:2], glyph_index.shape[1])
        vectors = (*num_tracks, 2)
        return Block(
            frames=np.empty(shape, np.uint8) if out is None else _checked(out, shape),
            num_frames=num_frames,
            label=label,
            glyph_index=glyph_index,
            position=np.empty(vectors, np.float32),
            velocity=np.empty(vectors, np.float32),
            angle=np.empty(num_tracks, np.float32),
            scale=np.empty(num_tracks, np.float32),
            box=np.empty((*num_tracks, 4), np.int16) if "box" in truth else None,
            visible=np.empty(num_tracks, np.float32) if "visible" in truth else None,
            bounced=np.empty(num_tracks, np.bool_),
            mask=np.empty(shape[:4], np.uint8) if "mask" in truth else None,
            index=index,
        )

    @cached_property
    def _is_classic(self) -> bool:
        """Whether digits move by the classic rule, for which there is a faster kernel."""
        return (
            self._keeps_its_rule
            and self.config.motion == "bounce"
            and self.rules.in_shares
            and _is_always(self.config.acceleration, 0)
        )

    def _follow(self, block: Block, drawn: Draws, light: NDArray[np.int64]) -> None:
        """Move and deform what is drawn."""
        patches, rules = self.patches, self.rules
        digits = drawn.num_frames, drawn.glyph_index, patches.first, patches.size
        begins = drawn.start, drawn.direction, drawn.quantity
        moved = block.position, block.velocity, block.bounced
        if step := MOTIONS[self.config.motion].step:
            follow(step, self.drawer, self.config, rules, block.index, drawn, moved)
        elif self._is_classic:
            tracks.move_classic(*digits, *begins, rules, *moved)
        else:
            sequences = self.drawer.key, block.index
            tracks.move(*sequences, *digits, *begins, drawn.shared, rules, *moved)
        tracks.deform(
            drawn.glyph_index,
            block.position,
            drawn.quantity,
            drawn.shared,
            self.rules,
            block.angle,
            block.scale,
            light,
        )

    @cached_property
    def _is_simple(self) -> bool:
        """Whether the fast painter serves: whole px, nothing turned, all ink on the canvas."""
        config = self.config
        widest = int((self.patches.ink_box[:, 3] - self.patches.ink_box[:, 1]).max())
        return (
            IS_JITTED
            and self._keeps_its_rule
            and config.color == "grey"
            and config.rounding != "subpixel"
            and MOTIONS[config.motion].edges == "walls"
            and MOTIONS[config.motion].step is None  # which may go anywhere
            and config.bounce == "clamp"  # a step that looks ahead may still leave a narrow room
            and config.walls == "edge"
            and config.margin >= 0
            and _is_always(config.rotation, 0)
            and _is_always(config.scale, 1)
            and _is_always(config.illumination, 1)
            and widest <= LANES <= config.canvas[1]
        )

    @cached_property
    def _is_plain(self) -> bool:
        """Whether there is nothing but digits that fast kernels move and paint."""
        config = self.config
        return (
            self._is_classic
            and self._is_simple
            and self._is_black
            and config.occluder == "none"
            and config.missing == 0
            and config.noise.high == 0
        )

    def _paint(self, block: Block, drawn: Draws, light: NDArray[np.int64]) -> None:
        config = self.config
        channels = 1 if config.color == "grey" else 3
        frames = block.frames.reshape((*block.frames.shape[:4], channels))
        if not self._is_black:
            self._fill_background(block.index, drawn, frames)
        cover = self._cover(block.index)
        is_missing = np.zeros(frames.shape[:2], np.bool_)
        if config.missing > 0:
            until = self.rules.random_until
            tracks.draw_missing(self.drawer.key, block.index, config.missing, until, is_missing)
        hides_more = config.occluder != "none" or config.missing > 0
        if self._is_simple and block.mask is None and (block.visible is None or not hides_more):
            self._paint_simple(block)
        else:
            self._paint_pictures(block, drawn, light, frames, cover, is_missing)
        if hides_more or config.noise.high > 0:
            effects.finish(
                self.drawer.key,
                block.index,
                drawn.num_frames,
                cover,
                self._cover_px,
                drawn.shared[:, tracks.OF_NOISE].copy(),
                normal_table(),
                self.rules.random_until,
                is_missing,
                frames,
            )

    def _paint_simple(self, block: Block) -> None:
        patches = self.patches
        packed, offset = patches.packed
        placed = block.glyph_index, patches.first
        paint.paint(
            *(packed, offset, patches.ink_box, *placed, block.num_frames, block.position),
            *(self._overlap, not self._is_black, block.frames),
        )
        if block.box is not None:
            paint.measure_boxes(
                patches.ink_box, patches.num_ink, *placed, block.position, block.box
            )
        if block.visible is not None:
            ink = packed, offset, patches.ink_box, patches.num_ink
            paint.measure_visible(*ink, *placed, block.position, self._overlap, block.visible)

    def _paint_pictures(
        self,
        block: Block,
        drawn: Draws,
        light: NDArray[np.int64],
        frames: NDArray[np.uint8],
        cover: NDArray[np.int64],
        is_missing: NDArray[np.bool_],
    ) -> None:
        patches = self.patches
        num_digits = block.position.shape[2]
        side = self._picture_px
        color = np.full((len(frames), num_digits, frames.shape[4]), 255, np.uint8)
        if self.config.color == "random":
            tracks.draw_colors(self.drawer.key, block.index, color)
        picture.paint_pictures(
            patches.bordered,
            patches.size,
            patches.ink_box,
            drawn.glyph_index,
            patches.first,
            drawn.num_frames,
            block.position,
            block.angle,
            block.scale,
            light,
            color,
            is_torus(self.config.motion),
            self._overlap,
            not self._is_black,
            self._cells(num_digits),
            np.empty((num_digits, side, side + 3 * LANES), np.uint8),
            np.empty((num_digits, 2, side), np.int64),
            np.empty((num_digits, 3), np.int64),
            np.empty(num_digits, np.int64),
            frames,
            cover,
            self._cover_px,
            is_missing,
            np.empty(self.config.canvas, np.uint8),
            np.empty(self.config.canvas, np.uint8),
            np.empty((0, 0, 0, 4), np.int16) if block.box is None else block.box,
            np.empty((0, 0, 0), np.float32) if block.visible is None else block.visible,
            np.empty((0, 0, 0, 0), np.uint8) if block.mask is None else block.mask,
        )

    @cached_property
    def _growth(self) -> float:
        """By what factor a digit can grow or shrink."""
        longest = min(self.config.period, self.config.frames.high)
        return max(self.config.scale.high, 1 / self.config.scale.low) ** longest

    @cached_property
    def _picture_px(self) -> int:
        """Side of the room that any digit's own picture fits in."""
        height, width = (int(side) for side in self.patches.size.max(0))
        return 2 * (math.ceil(self._growth * (math.hypot(height, width) / 2 + 1.5)) + 2) + 2

    def _cells(self, num_digits: int) -> NDArray[np.uint32]:
        """Return room for the cells of turned or scaled digits, none if there are none."""
        if _is_always(self.config.rotation, 0) and _is_always(self.config.scale, 1):
            return np.empty((0, 0, 0), np.uint32)
        border = 5 + math.ceil(self._growth)
        height, width = self.patches.images.shape[1:]
        return np.empty((num_digits, height + 2 * border, width + 2 * border), np.uint32)

    def _fill_background(
        self, index: NDArray[np.int64], drawn: Draws, frames: NDArray[np.uint8]
    ) -> None:
        config, patches = self.config, self.patches
        if config.background != "distractors":
            level = drawn.shared[:, tracks.OF_LEVEL].astype(np.int64)
            is_textured = config.background == "noise"
            effects.fill_background(
                self.drawer.key, index, drawn.num_frames, level, is_textured, frames
            )
            return
        side = config.distractor_size
        moved = self.drawer.draw_distractors(index, self._plain_rules, config.distractors)
        position = self._move_plainly(moved, side)
        effects.paint_distractors(
            *(self.drawer.key, index, patches.bordered, patches.size),
            *(moved.glyph_index, patches.first, moved.num_frames, position, side, frames),
        )

    @property
    def _cover_px(self) -> int:
        return self.config.occluder_size if self.config.occluder != "none" else 0

    def _cover(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where the occluder's corner is: int64 (N, T, 2)."""
        config = self.config
        if config.occluder == "none":
            return np.empty((0, 0, 2), np.int64)
        side = config.occluder_size
        moved = self.drawer.draw_occluder(index, self._plain_rules)
        if config.occluder == "static":
            corner = (moved.start[:, 0] * (np.array(config.canvas) - side)).astype(np.int64)
            return np.repeat(corner[:, None], config.frames.high, 1)
        position = self._move_plainly(moved, side)
        return np.nan_to_num(position[:, :, 0]).astype(np.int64)

    def _move_plainly(self, drawn: Draws, side: int) -> NDArray[np.float32]:
        """Move squares by the classic rule; return their positions, float32 (N, T, K, 2)."""
        num_sequences, num_digits = drawn.glyph_index.shape
        shape = (num_sequences, self.config.frames.high, num_digits)
        position, velocity = (np.empty((*shape, 2), np.float32) for _ in range(2))
        size = np.full_like(self.patches.size, side)
        tracks.move_classic(
            drawn.num_frames,
            drawn.glyph_index,
            self.patches.first,
            size,
            drawn.start,
            drawn.direction,
            drawn.quantity,
            self._plain_rules,
            position,
            velocity,
            np.empty(shape, np.bool_),
        )
        return position


def _is_always(value: FloatRange, number: float) -> bool:
    return value.low == value.high == number


@lru_cache(maxsize=1)
def normal_table() -> NDArray[np.int16]:
    """Return the inverse of the normal distribution function: 4096 places, 4096 = one sigma.

    No place lies so near to half a step that a libm could round it the other way: the nearest is
    further off than 1e-5, tested.
    """
    inverse = NormalDist().inv_cdf
    return np.array([round(4096 * inverse((n + 0.5) / 4096)) for n in range(4096)], np.int16)


_renderer = lru_cache(maxsize=16)(_Renderer)


def block_length(config: GeneratorConfig) -> int:
    """Return how many sequences to render at a time: 8 MiB of frames.

    Threads take turns between blocks: two scale 1.3-fold with 2 MiB, 1.8-fold with 8 (Xeon).
    """
    return max(1, _BLOCK_BYTES // (config.frames.high * math.prod(config.frame_shape)))


def check_config(config: GeneratorConfig, glyphs: GlyphSet) -> None:
    """Refuse, with an InputError, a config that cannot be rendered with some split's glyphs."""
    for split in glyphs.splits:
        _Renderer(config, glyphs, 0, split)


def _checked(out: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    # A kernel would write past the end in silence, and compile again for another layout.
    if out.shape != shape or out.dtype != np.uint8 or not out.flags.carray:
        raise ValueError(
            f"out must be writeable C-contiguous uint8 {shape}, is {out.dtype} {out.shape}"
        )
    return out
