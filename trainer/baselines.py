"""The sequences of a source drawn again by other rules: what is foreseen by who knows the truth.

known dynamics     nothing is drawn after the context, all follows from its true state. Its error is
                   chance: 0 where nothing is random. Where something is, it says what may happen,
                   and a blurred guess at all that may can have the smaller squared error
constant velocity  the true state moves on in a straight line: what walls and forces do is missed
longer             the very sequences, going on past their end

Letters: B sequences, T frames, H x W canvas.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmgen import errors
from mmgen.config import GeneratorConfig, parse_config
from trainer.errors import InputError
from trainer.source import LiveSource, Source, StoredSource

if TYPE_CHECKING:
    from mmgen.glyphs import GlyphSet

Frames = NDArray[np.uint8]  # (B, T, H, W) or (B, T, H, W, 3)


@dataclass(frozen=True, eq=False)
class Redrawn:
    """What draws the sequences of a source again; frames past a sequence's own end go on too.

    indices     int64 (B,), which sequences of the split
    num_frames  how many frames to return
    raises      InputError if a config does not allow so many, or the glyphs of live data have gone
    """

    address: str
    split: str
    config: GeneratorConfig
    seed: int
    glyphs: "GlyphSet | None"  # None: those that the config names
    num_context: int

    @classmethod
    def of(cls, source: Source, num_context: int) -> "Redrawn | None":
        """Return what draws a source again, None where nothing here can: see `require`."""
        try:
            return cls.require(source, num_context)
        except InputError:
            return None

    @classmethod
    def require(cls, source: Source, num_context: int) -> "Redrawn":
        """Return what draws a source again.

        raises  InputError that says why nothing here can: the frames were imported, their glyphs
                are not here, or their rules are unknown to this version
        """
        if isinstance(source, LiveSource):
            origin = source.config, source.seed, source.glyphs
            return cls(source.address, source.split, *origin, num_context)
        if not isinstance(source, StoredSource):
            raise InputError(
                f"{source.address}: there is no config to draw it from; name a data set"
            )
        config, glyphs = _find_origin(source)
        return cls(source.address, source.split, config, source.manifest.seed, glyphs, num_context)

    def known_dynamics(self, indices: NDArray[np.int64], num_frames: int) -> Frames:
        """Return what follows the context if nothing is drawn any more."""
        last = self.num_context - 1
        return self._draw(indices, self.num_context, num_frames, random_until=last)

    def constant_velocity(self, indices: NDArray[np.int64], num_frames: int) -> Frames:
        """Return what follows the context if digits go straight on through every wall."""
        last = self.num_context - 1
        ends = {"random_until": last, "straight_from": last}
        return self._draw(indices, self.num_context, num_frames, **ends)

    def longer(self, indices: NDArray[np.int64], num_frames: int) -> Frames:
        """Return the sequences from their first frame on, as long as is asked for."""
        return self._draw(indices, 0, num_frames)

    def _draw(
        self,
        indices: NDArray[np.int64],
        first: int,
        num_frames: int,
        random_until: int | None = None,
        straight_from: int | None = None,
    ) -> Frames:
        from mmgen.generate import block_length, render  # numba takes a second

        try:
            config = _with_frames(self.config, first + num_frames)
            frames = np.empty((len(indices), num_frames, *config.frame_shape), np.uint8)
            at_once = block_length(config)  # what is drawn before `first` need not all be held
            for row in range(0, len(indices), at_once):
                rows = slice(row, row + at_once)
                block = render(
                    config,
                    indices[rows],
                    split=self.split,
                    seed=self.seed,
                    glyphs=self.glyphs,
                    truth=(),
                    random_until=random_until,
                    straight_from=straight_from,
                )
                frames[rows] = block.frames[:, first : first + num_frames]
        except errors.InputError as error:
            raise InputError(f"{self.address}: {error}") from error
        return frames


def _find_origin(source: StoredSource) -> "tuple[GeneratorConfig, GlyphSet]":
    from mmgen.request import find_origin

    try:
        origin = find_origin(source.manifest, source.address, remedy="put them back")
    except errors.InputError as error:
        raise InputError(str(error)) from error
    config, _ = origin
    drawn = config.frames.high, *config.frame_shape
    if source.sequence_shape != drawn:
        raise InputError(
            f"{source.address}: holds sequences of {source.sequence_shape}, its config draws "
            f"{drawn}; make the set again"
        )
    return origin


def _with_frames(config: GeneratorConfig, num_frames: int) -> GeneratorConfig:
    """Fix the number of frames; a few more where no digit appears before, which is no config."""
    fixed = max(num_frames, config.appear.low + 1)
    return parse_config(config.model_dump() | {"frames": fixed})
