"""Glyph sets: where they lie, and how they are split so that no glyph is in two splits."""

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmgen.errors import InputError
from mmgen.glyph_files import Part, read_idx_parts, read_npz, read_pngs
from mmgen.shard.cache import user_cache

# The wheel carries data/mnist inside the package; a checkout has it beside the package.
_SHIPPED_FOLDERS = (
    Path(__file__).parent / "data" / "mnist",
    Path(__file__).parent.parent / "data" / "mnist",
)
_IMAGES = "images-idx3-ubyte"
_DOWNLOAD_PREFIX = "download-"


class _IdxFiles(NamedTuple):
    """Where four IDX files lie, and how they are called: PART-images-idx3-ubyte, PART-LABELS."""

    folder: str
    parts: tuple[str, str] = ("train", "t10k")
    labels: str = "labels-idx1-ubyte"

    def under(self, root: Path) -> tuple[Path, ...]:
        """Return images and labels of train, then of test; with `.gz` where that is what exists."""
        names = (f"{part}-{kind}" for part in self.parts for kind in (_IMAGES, self.labels))
        return tuple(_with_or_without_gz(root / self.folder / name) for name in names)


# Where torchvision leaves the sets that it downloads, below its root.
_DOWNLOADS = {
    "fashion": _IdxFiles("FashionMNIST/raw"),
    "kmnist": _IdxFiles("KMNIST/raw"),
    "emnist-letters": _IdxFiles("EMNIST/raw", ("emnist-letters-train", "emnist-letters-test")),
    "qmnist": _IdxFiles("QMNIST/raw", ("qmnist-train", "qmnist-test"), "labels-idx2-int"),
}
_NAMES = ("mnist", *_DOWNLOADS)

_Reader = Callable[[Sequence[Path]], list[Part]]  # files -> one part, or train and test
_Splits = dict[str, tuple[int, int]]
_Joined = tuple[NDArray[np.uint8], NDArray[np.uint8], _Splits]  # images, labels, splits


@dataclass(frozen=True, eq=False)
class GlyphSet:
    """Bitmaps with their labels, and which of them each split may use; equal only to itself.

    images  uint8 (N, h, w), ink 0..255     labels  uint8 (N,)
    splits  split name -> (first, last), half open, disjoint
    """

    name: str
    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    splits: _Splits

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of all bitmaps, then all labels: what a data set names to be made again."""
        digest = hashlib.sha256(self.images.data)
        digest.update(self.labels.data)
        return digest.hexdigest()


def is_path(name: str) -> bool:
    """Tell where somebody's own glyphs lie from the name of a set that everybody has."""
    return name not in _NAMES


def is_here(name: str) -> bool:
    """Tell whether loading a set needs no download; a path's own troubles are for loading it."""
    return name not in _DOWNLOADS or all(
        file.is_file() for file in _DOWNLOADS[name].under(user_cache())
    )


def transposed(glyphs: GlyphSet) -> GlyphSet:
    """Return a set with every bitmap mirrored at its diagonal."""
    images = np.ascontiguousarray(glyphs.images.swapaxes(1, 2))
    return GlyphSet(f"{glyphs.name}, transposed", images, glyphs.labels, glyphs.splits)


def load_glyphs(name: str = "mnist") -> GlyphSet:
    """Load a glyph set: mnist, fashion, kmnist, emnist-letters, qmnist, or what a path names.

    A path is an IDX images file with its labels beside it, a folder with the four files of MNIST,
    an `.npz` with `images` and `labels`, or a folder of class folders of PNGs. A set with a test
    part is numbered through, and the last 1/12 of its train part is val; any other is ordered by
    the SHA-256 of each bitmap. The last two sets stay in memory until one of their files changes.

    raises  InputError if the set does not exist, cannot be downloaded, is damaged or too small
    """
    return _load_shipped() if name == "mnist" else _load_afresh(name)


@lru_cache(maxsize=1)
def _load_shipped() -> GlyphSet:
    """Load the digits whose files nobody edits: looking at them takes as long as rendering 20."""
    return _load_afresh("mnist")


def _load_afresh(name: str) -> GlyphSet:
    try:
        read, files = _locate(name)
        stats = [path.stat() for path in files]
    except OSError as error:
        raise InputError(f"{error.filename or name}: cannot be read ({error.strerror})") from error
    stamps = tuple((stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats)
    return _load(name, read, files, stamps)


@lru_cache(maxsize=2)
def _load(name: str, read: _Reader, files: tuple[Path, ...], stamps: object) -> GlyphSet:
    parts = read(files)
    joined = _as_published(name, *parts) if len(parts) == 2 else _by_hash(name, *parts[0])
    shown = Path(os.path.realpath(name)).name if is_path(name) else name
    return GlyphSet(shown, *joined)


def _as_published(name: str, train: Part, test: Part) -> _Joined:
    """Number train and test through; the last 1/12 of train is val."""
    num_train, num_test = len(train[0]), len(test[0])
    if num_train < 2 or num_test < 1:
        raise InputError(
            f"{name}: has {num_train} train and {num_test} test glyphs; needed are at least 2 and 1"
        )
    if train[0].shape[1:] != test[0].shape[1:]:
        sizes = [f"{images.shape[1]}x{images.shape[2]}" for images, _ in (train, test)]
        raise InputError(f"{name}: train glyphs are {sizes[0]} px, test glyphs {sizes[1]} px")
    first_val = num_train - max(1, num_train // 12)
    images, labels = (np.concatenate(both) for both in zip(train, test, strict=True))
    splits = {
        "train": (0, first_val),
        "val": (first_val, num_train),
        "test": (num_train, num_train + num_test),
    }
    return images, labels, splits


def _by_hash(name: str, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> _Joined:
    """Order glyphs by their SHA-256; of the different bitmaps 5/6 are train, 1/12 val, 1/12 test.

    Equal bitmaps stay together, so that a bitmap that is there twice is still in one split only.
    """
    digests = [hashlib.sha256(image.tobytes()).digest() for image in images]
    order = sorted(range(len(images)), key=lambda i: (digests[i], labels[i]))
    first_of_bitmap = [
        place
        for place, i in enumerate(order)
        if place == 0 or digests[i] != digests[order[place - 1]]
    ]
    num_bitmaps = len(first_of_bitmap)
    if num_bitmaps < 3:
        raise InputError(
            f"{name}: has {num_bitmaps} different bitmaps; needed are at least 3, one a split"
        )
    num_test = num_val = max(1, num_bitmaps // 12)
    val, test = first_of_bitmap[-num_test - num_val], first_of_bitmap[-num_test]
    splits = {"train": (0, val), "val": (val, test), "test": (test, len(order))}
    return images[order], labels[order], splits


def _locate(name: str) -> tuple[_Reader, tuple[Path, ...]]:
    """Return what reads a set, and its files; download them where that is what the name asks."""
    if name == "mnist":
        folder = next((folder for folder in _SHIPPED_FOLDERS if folder.is_dir()), None)
        if folder is None:
            raise InputError(f"{_SHIPPED_FOLDERS[-1]}: the MNIST digits are missing; install again")
        return read_idx_parts, _all_there(_IdxFiles("").under(folder))
    if name in _DOWNLOADS:
        return read_idx_parts, _downloaded(name)
    path = Path(name)
    if path.is_dir():
        files = _IdxFiles("").under(path)
        is_idx = any(file.is_file() for file in files)
        return (read_idx_parts, _all_there(files)) if is_idx else (read_pngs, _find_pngs(path))
    if not path.is_file():
        raise InputError(
            f"glyph set {name!r} does not exist; choose from: {', '.join(_NAMES)}, or name a file "
            "or a folder"
        )
    if path.suffix == ".npz":
        return read_npz, (path,)
    labels = re.sub(r"images([-.])idx3", r"labels\1idx1", path.name)
    if labels == path.name:
        raise InputError(
            f"{path}: is no glyph set; name an IDX file (*images-idx3-ubyte, .gz or not), an .npz, "
            "or a folder"
        )
    return read_idx_parts, _all_there((path, _with_or_without_gz(path.with_name(labels))))


def _with_or_without_gz(path: Path) -> Path:
    other = path.with_suffix("") if path.suffix == ".gz" else path.with_name(f"{path.name}.gz")
    return other if other.is_file() and not path.is_file() else path


def _all_there(files: tuple[Path, ...]) -> tuple[Path, ...]:
    is_there = [path.is_file() for path in files]
    if not all(is_there):
        missing = files[is_there.index(False)]
        there = f"beside {files[is_there.index(True)].name}" if any(is_there) else "there"
        raise InputError(f"{missing}: is missing; it belongs {there}")
    return files


def _find_pngs(folder: Path) -> tuple[Path, ...]:
    """List the PNGs of all class folders, in order of their names; hidden files do not count."""
    classes = sorted(path for path in folder.glob("[!.]*") if path.is_dir())
    if not classes:
        raise InputError(
            f"{folder}: holds neither IDX files ({_IMAGES} and so on) nor class folders with PNGs"
        )
    files: list[Path] = []
    for class_folder in classes:
        found = sorted(p for p in class_folder.glob("[!.]*") if p.suffix.lower() == ".png")
        if not found:
            raise InputError(f"{class_folder}: holds no PNG; fill this class folder or remove it")
        files += found
    return tuple(files)


def _downloaded(name: str) -> tuple[Path, ...]:
    """Return the files of a set that torchvision knows, from the cache folder or the network."""
    cache = user_cache()
    files = _DOWNLOADS[name].under(cache)
    if not all(path.is_file() for path in files):
        _download(name, cache)
    return _DOWNLOADS[name].under(cache)


def _download(name: str, cache: Path) -> None:
    """Let torchvision download and verify a set in a new folder; move what we read to the cache.

    torchvision unpickles a processed .pt file where its root has one: a new folder has none.
    """
    try:
        from torchvision import datasets
    except ImportError as error:
        raise InputError(
            f"glyph set {name!r} needs torchvision to be downloaded ({error}); install it, or use "
            "another set"
        ) from error
    make: Callable[..., object] = {
        "fashion": datasets.FashionMNIST,
        "kmnist": datasets.KMNIST,
        "emnist-letters": partial(datasets.EMNIST, split="letters"),
        "qmnist": datasets.QMNIST,
    }[name]
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _held(cache):
            if all(path.is_file() for path in _DOWNLOADS[name].under(cache)):
                return  # another process has fetched them meanwhile
            for left in cache.glob(f"{_DOWNLOAD_PREFIX}*"):
                shutil.rmtree(left, ignore_errors=True)  # by a killed process
            with TemporaryDirectory(prefix=_DOWNLOAD_PREFIX, dir=cache) as root:
                for is_train in (True, False):
                    make(root, train=is_train, download=True)
                for path in _DOWNLOADS[name].under(Path(root)):
                    with path.open("rb") as file:
                        os.fsync(file.fileno())
                    final = cache / path.relative_to(root)
                    final.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(path, final)
    except (OSError, RuntimeError, HTTPException) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"glyph set {name!r} cannot be downloaded ({reason}); load it once where there is "
            f"network, and copy {cache / _DOWNLOADS[name].folder} from there"
        ) from error


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder, which ends with the process; wait for whoever has it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
