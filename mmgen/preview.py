"""Pictures of sequences: GIF animations and PNG contact sheets.

Letters: N sequences, T frames, H x W canvas.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmgen.errors import InputError
from mmgen.shard.manifest import write_atomic

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_GAP_PX = 2
_GAP_GREY = 64
_TARGET_PX = 192  # small canvases are enlarged to about this height
_FRAME_MS = 100


def show(frames: "ArrayLike | Any") -> Image.Image:
    """Return a contact sheet, which a notebook displays: a row a sequence, frames left to right.

    frames  (H, W), (T, H, W) or (N, T, H, W), uint8 or float in [0, 1]; or anything that has such
            `frames`: a Block of `mmgen.render`, a Sequence of `mmgen.open`
    """
    return contact_sheet(_as_block(getattr(frames, "frames", frames)))


def contact_sheet(frames: NDArray[np.uint8]) -> Image.Image:
    """Lay frames uint8 (N, T, H, W) out as a picture, a row a sequence."""
    rows = [_beside(list(sequence)) for sequence in frames]
    return _enlarged(_beside([row.T for row in rows]).T, frames.shape[2], _TARGET_PX // 3)


def write_gif(path: Path, frames: NDArray[np.uint8]) -> None:
    """Write frames uint8 (N, T, H, W) as an endless animation, the sequences side by side."""
    pictures = [
        _enlarged(_beside(list(instant)), frames.shape[2], _TARGET_PX)
        for instant in frames.swapaxes(0, 1)
    ]
    options = {"append_images": pictures[1:], "duration": _FRAME_MS, "loop": 0}
    _save(path, pictures[0], "GIF", save_all=True, **options)


def write_picture(path: Path, frames: NDArray[np.uint8]) -> None:
    """Write frames uint8 (N, T, H, W) as what the name's ending says: .gif or .png.

    raises  InputError as `check_picture` does
    """
    check_picture(path)
    if path.suffix.lower() == ".gif":
        write_gif(path, frames)
    else:
        _save(path, contact_sheet(frames), "PNG")


def check_picture(path: Path) -> None:
    """Refuse a name that no picture can be written to, before the work."""
    if path.suffix.lower() not in (".gif", ".png"):
        raise InputError(f"{path}: unknown kind of picture; end the name in .gif or .png")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: is no folder; make it first")


def _save(path: Path, picture: Image.Image, kind: str, **options: Any) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    write_atomic(path, buffer.getvalue())


def _as_block(frames: Any) -> NDArray[np.uint8]:
    array = np.asarray(frames)
    if np.issubdtype(array.dtype, np.integer):
        array = array.clip(0, 255).astype(np.uint8)
    else:
        array = (np.clip(array, 0, 1) * 255).round().astype(np.uint8)
    if not 2 <= array.ndim <= 4:
        raise InputError(f"frames of shape {array.shape}; show takes (H, W) to (N, T, H, W)")
    return array.reshape((1,) * (4 - array.ndim) + array.shape)


def _beside(pictures: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    gap = np.full((pictures[0].shape[0], _GAP_PX), _GAP_GREY, np.uint8)
    return np.hstack([part for picture in pictures for part in (gap, picture)][1:])


def _enlarged(picture: NDArray[np.uint8], height: int, target_px: int) -> Image.Image:
    factor = max(1, target_px // height)
    return Image.fromarray(picture.repeat(factor, 0).repeat(factor, 1))
