"""The motions by name: which fields each uses, what is at the edges, and the step of each new one.

A table, so that a motion is added in one place: a row here, and its step above the row. Motions
that have no step are kernels in `kernels/tracks.py`, which cost no NumPy call a frame. This file
stays cheap to import, so neither numpy nor numba is at its top.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mmgen.steps import Track

    Step = Callable[[Track, int], NDArray[np.bool_]]


@dataclass(frozen=True)
class Motion:
    """How digits move.

    edges  walls hold digits, on a torus they come in again at the other edge, or nothing holds them
    uses   fields of the config that mean nothing to motions without them: setting one for such a
           motion is refused, as a mistake
    keeps_whole_px  whether whole components of a velocity stay whole
    step   (track, t) -> who met a wall, bool (N, K); takes all digits of a block into frame t,
           see `steps.Track`. None: a kernel does
    """

    edges: Literal["walls", "torus", "none"] = "walls"
    uses: tuple[str, ...] = ()
    keeps_whole_px: bool = False
    step: "Step | None" = None


_WALLS = ("walls", "margin")

MOTIONS: dict[str, Motion] = {
    "bounce": Motion("walls", ("bounce", *_WALLS, "acceleration"), keeps_whole_px=True),
    "reflect": Motion("walls", (*_WALLS, "acceleration"), keeps_whole_px=True),
    "stochastic": Motion("walls", (*_WALLS, "acceleration"), keeps_whole_px=True),
    "wrap": Motion("torus", ("acceleration",), keeps_whole_px=True),
    "leave": Motion("none", ("acceleration",), keeps_whole_px=True),
    "circle": Motion("walls", (*_WALLS, "radius")),
    "gravity": Motion("walls", (*_WALLS, "gravity")),
    "turn": Motion("walls", (*_WALLS, "acceleration", "turn_chance", "turn_angle")),
}


def is_torus(motion: object) -> bool:
    """Tell whether digits of a motion, by its name, come in again at the other edge."""
    return isinstance(motion, str) and motion in MOTIONS and MOTIONS[motion].edges == "torus"


def users_of_fields() -> dict[str, tuple[str, ...]]:
    """Return the fields that only some motions use, each with the names of these."""
    fields = dict.fromkeys(field for motion in MOTIONS.values() for field in motion.uses)
    return {
        field: tuple(name for name, motion in MOTIONS.items() if field in motion.uses)
        for field in fields
    }
