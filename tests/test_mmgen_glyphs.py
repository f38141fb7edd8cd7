"""Every glyph set is read as published and split by glyph; damage is refused in one line."""

import fcntl
import gzip
import hashlib
import io
import os
import pickle
import re
import struct
import sys
import threading
import urllib.error
import urllib.request
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mmgen
from mmgen.errors import InputError
from mmgen.glyph_files import read_idx
from mmgen.glyphs import load_glyphs

DATA = Path(mmgen.__file__).parents[1] / "data"
FOUR = [f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """Give each test a cache folder of its own, and no way to download."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def refuse(*_):
    raise urllib.error.URLError("no route to host")


def refused(name, problem):
    with pytest.raises(InputError, match=problem) as caught:
        load_glyphs(str(name))
    assert "\n" not in str(caught.value)


# What sets are made of: numbered bitmaps, all different.


def bitmaps(num_glyphs, height=3, width=4, first=0):
    numbers = np.arange(first, first + num_glyphs, dtype=np.uint16)
    glyphs = np.zeros((num_glyphs, height * width), np.uint8)
    glyphs[:, 0], glyphs[:, 1], glyphs[:, 2] = numbers >> 8, numbers & 255, 7
    return glyphs.reshape(-1, height, width)


def idx(array, magic=None):
    magic = magic or {"u1": b"\0\0\x08", "i4": b"\0\0\x0c"}[array.dtype.str[1:]]
    header = magic + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_four(folder, num_train=24, num_test=5, suffix="-ubyte"):
    folder.mkdir(parents=True, exist_ok=True)
    glyphs = bitmaps(num_train + num_test)
    labels = np.arange(len(glyphs), dtype=np.uint8)
    arrays = glyphs[:num_train], labels[:num_train], glyphs[num_train:], labels[num_train:]
    for name, array in zip(FOUR, arrays, strict=True):
        pack = gzip.compress if suffix.endswith(".gz") else bytes
        (folder / f"{name}{suffix}").write_bytes(pack(idx(array)))
    return glyphs, labels


def write_npz(path, images, labels=None, **others):
    labels = np.arange(len(images)) % 10 if labels is None else labels
    np.savez_compressed(path, images=images, labels=labels, **others)
    return path


def write_png(path, glyph, mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(glyph).convert(mode).save(path)


# Sets with a test part: as published, numbered through.


def test_shipped_files_have_the_sums_of_the_readme():
    sums = re.findall(r"^([0-9a-f]{32})  (\S+)$", (DATA / "README.md").read_text(), re.MULTILINE)
    assert len(sums) == 4
    for md5, name in sums:
        content = gzip.decompress((DATA / "mnist" / f"{name}.gz").read_bytes())
        assert hashlib.md5(content).hexdigest() == md5, name


def test_mnist_is_numbered_through_and_split():
    glyphs = load_glyphs("mnist")
    assert (glyphs.images.shape, glyphs.images.dtype) == ((70_000, 28, 28), np.uint8)
    assert (glyphs.labels.shape, glyphs.labels.dtype) == ((70_000,), np.uint8)
    assert glyphs.splits == {
        "train": (0, 55_000),
        "val": (55_000, 60_000),
        "test": (60_000, 70_000),
    }
    first_test_image = read_idx(DATA / "mnist" / "t10k-images-idx3-ubyte.gz")[0]
    assert np.array_equal(glyphs.images[60_000], first_test_image)
    assert glyphs.labels[60_000:60_005].tolist() == [7, 2, 1, 0, 4]
    assert hashlib.sha256(bytes(glyphs.images) + bytes(glyphs.labels)).hexdigest() == glyphs.sha256


@pytest.mark.parametrize("suffix", ["-ubyte", "-ubyte.gz"])
def test_a_folder_with_four_idx_files_is_a_set_with_a_test_part(tmp_path, suffix):
    images, labels = write_four(tmp_path / "mine", suffix=suffix)
    glyphs = load_glyphs(str(tmp_path / "mine"))
    assert np.array_equal(glyphs.images, images)
    assert np.array_equal(glyphs.labels, labels)
    assert glyphs.splits == {"train": (0, 22), "val": (22, 24), "test": (24, 29)}
    assert glyphs.name == "mine"


def test_a_shipped_set_and_the_same_files_under_a_path_are_equal():
    assert load_glyphs(str(DATA / "mnist")).sha256 == load_glyphs("mnist").sha256


def test_four_files_must_be_there_and_fit(tmp_path):
    folder = tmp_path / "four"
    write_four(folder)
    files = {name: folder / f"{name}-ubyte" for name in FOUR}
    files["t10k-images-idx3"].write_bytes(idx(bitmaps(5, 4, 4)))
    refused(folder, "four: train glyphs are 3x4 px, test glyphs 4x4 px$")
    files["t10k-images-idx3"].write_bytes(idx(bitmaps(4)))
    refused(folder, "t10k-labels-idx1-ubyte: holds 5 labels for 4 glyphs$")
    files["t10k-labels-idx1"].unlink()
    refused(folder, "t10k-labels-idx1-ubyte: is missing; it belongs beside train-images-idx3-ubyte")


@pytest.mark.parametrize(("num_train", "num_test"), [(1, 1), (2, 0)])
def test_a_set_with_a_test_part_needs_a_glyph_for_each_split(tmp_path, num_train, num_test):
    write_four(tmp_path, num_train, num_test)
    problem = f"has {num_train} train and {num_test} test glyphs; needed are at least 2 and 1$"
    refused(tmp_path, problem)
    write_four(tmp_path, 2, 1)
    assert list(load_glyphs(str(tmp_path)).splits.values()) == [(0, 1), (1, 2), (2, 3)]


# Other sets: split by the bitmaps, whatever the order of the file.


def bitmaps_of(glyphs, split):
    first, last = glyphs.splits[split]
    return {image.tobytes() for image in glyphs.images[first:last]}


def test_a_set_without_a_test_part_does_not_depend_on_the_order_of_its_file(tmp_path):
    images, labels = bitmaps(60), np.arange(60)
    glyphs = load_glyphs(str(write_npz(tmp_path / "a.npz", images, labels)))
    assert glyphs.splits == {"train": (0, 50), "val": (50, 55), "test": (55, 60)}
    digests = [hashlib.sha256(image).digest() for image in glyphs.images]
    assert digests == sorted(digests)
    assert np.array_equal(images[glyphs.labels], glyphs.images)
    turned = load_glyphs(str(write_npz(tmp_path / "b.npz", images[::-1], labels[::-1])))
    assert turned.sha256 == glyphs.sha256
    assert glyphs.name == "a.npz"
    assert glyphs.images.flags.writeable, "kernels have one signature, for writable arrays"


@pytest.mark.parametrize("copies", [2, 30])
def test_equal_bitmaps_are_in_one_split(tmp_path, copies):
    distinct = bitmaps(14)
    images = np.concatenate([distinct, np.repeat(distinct[3:6], copies - 1, axis=0)])
    labels = np.arange(len(images)) % 7
    glyphs = load_glyphs(str(write_npz(tmp_path / "a.npz", images, labels)))
    pools = [bitmaps_of(glyphs, split) for split in ("train", "val", "test")]
    assert [len(pool) for pool in pools] == [12, 1, 1]
    assert len(set.union(*pools)) == 14
    assert glyphs.splits["test"][1] == len(images)
    order = np.random.default_rng(0).permutation(len(images))
    shuffled = load_glyphs(str(write_npz(tmp_path / "b.npz", images[order], labels[order])))
    assert shuffled.sha256 == glyphs.sha256


def test_a_set_too_small_for_three_splits_says_what_it_needs(tmp_path):
    images = np.repeat(bitmaps(2), 9, axis=0)
    path = write_npz(tmp_path / "a.npz", images)
    refused(path, "a.npz: has 2 different bitmaps; needed are at least 3, one a split$")
    images[0, 2, 2] = 1
    glyphs = load_glyphs(str(write_npz(path, images)))
    assert [len(bitmaps_of(glyphs, split)) for split in glyphs.splits] == [1, 1, 1]


# IDX.


@pytest.mark.parametrize("images_name", ["x-images-idx3-ubyte", "x-images.idx3-ubyte"])
@pytest.mark.parametrize(("images_gz", "labels_gz"), [(True, True), (False, True), (True, False)])
def test_an_idx_file_has_its_labels_beside_it(tmp_path, images_name, images_gz, labels_gz):
    images, labels = bitmaps(12), np.arange(12, dtype=np.uint8)
    labels_name = images_name.replace("images", "labels").replace("idx3", "idx1")
    paths = []
    for name, array, is_gz in ((images_name, images, images_gz), (labels_name, labels, labels_gz)):
        paths.append(tmp_path / f"{name}{'.gz' if is_gz else ''}")
        paths[-1].write_bytes(gzip.compress(idx(array)) if is_gz else idx(array))
    glyphs = load_glyphs(str(paths[0]))
    assert np.array_equal(images[glyphs.labels], glyphs.images)
    assert glyphs.splits == {"train": (0, 10), "val": (10, 11), "test": (11, 12)}
    paths[1].unlink()
    refused(paths[0], f"{labels_name}(.gz)?: is missing; it belongs beside {paths[0].name}$")


def test_an_idx_file_of_int32_is_read_in_its_byte_order(tmp_path):
    numbers = np.array([[1, -2], [3, 1 << 20]], np.int32)
    (tmp_path / "a").write_bytes(idx(numbers))
    assert np.array_equal(read_idx(tmp_path / "a"), numbers)


BYTES = idx(np.arange(6, dtype=np.uint8).reshape(2, 3))
HUGE = b"\0\0\x08\3" + b"\xff" * 12


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, r"cannot be read \(No such file or directory\)$"),
        (b"", "is truncated"),
        (BYTES, "is no readable gzip file .*incorrect header check"),
        (gzip.compress(BYTES)[:-9], "is truncated"),
        (gzip.compress(BYTES)[:12], "is truncated"),
        (gzip.compress(BYTES)[:-8] + bytes(8), "is no readable gzip file .*incorrect data"),
        (gzip.compress(BYTES) + b"more", "holds more behind the end of its gzip stream"),
        (gzip.compress(b""), r"is no IDX file of bytes or int32 \(magic number \)"),
        (gzip.compress(b"\0\0\x0d" + BYTES[3:]), r"is no IDX .* 00000d02\)"),
        (gzip.compress(BYTES[:9]), "is no IDX file of bytes"),
        (gzip.compress(b"\0\0\x08\0"), "is no IDX file of bytes"),
        (gzip.compress(idx(np.zeros((1, 1, 1, 1), np.uint8))), "is no IDX file of bytes"),
        (gzip.compress(BYTES[:-1]), r"promises 6 bytes \(2, 3\) and holds 5"),
        (gzip.compress(BYTES + b"1"), r"promises 6 bytes \(2, 3\) and holds 7"),
        (gzip.compress(b"\0\0\x0c" + BYTES[3:]), r"promises 24 bytes \(2, 3\) and holds 6"),
        (gzip.compress(HUGE + b"123456789"), r"promises \d{29} bytes .* holds 9"),
    ],
)
def test_a_damaged_idx_file_is_refused_in_one_line(tmp_path, content, problem):
    path = tmp_path / "a.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}: {problem}") as caught:
        read_idx(path)
    assert "\n" not in str(caught.value)


def test_an_idx_file_larger_than_allowed_is_not_taken_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("mmgen.glyph_files._MAX_BYTES", 1000)
    (tmp_path / "a").write_bytes(bytes(1001))
    (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(1001)))
    for name, problem in (("a", "a: holds more than 1000 b"), ("a.gz", "holds more than 1000 b")):
        with pytest.raises(InputError, match=problem):
            read_idx(tmp_path / name)


@pytest.mark.parametrize(
    ("images", "labels", "problem"),
    [
        (
            bitmaps(12, 257),
            None,
            r"has glyphs of 257x4 px; allowed are 1\.\.256 a side",
        ),
        (bitmaps(12)[:, :0], None, "images-idx3: has glyphs of 0x4 px; allowed"),
        (bitmaps(12)[0], None, r"images-idx3: holds uint8 \(3, 4\); glyphs are uint8 \(N, h, w\)"),
        (bitmaps(12).astype("i4"), None, r"holds >?i(nt32|4) \(12, 3, 4\); glyphs are uint8"),
        (bitmaps(12), np.zeros(11, np.uint8), "labels-idx1: holds 11 labels for 12 glyphs"),
        (bitmaps(12), np.zeros((12, 2), np.uint8), r"holds uint8 \(12, 2\); labels are integers"),
        (bitmaps(12), np.full(12, 256, "i4"), r"holds the label 256; allowed are 0\.\.255"),
        (bitmaps(12), np.full(12, -1, "i4"), r"holds the label -1; allowed are 0\.\.255"),
    ],
)
def test_idx_files_that_hold_no_glyphs_are_refused(tmp_path, images, labels, problem):
    labels = np.zeros(12, np.uint8) if labels is None else labels
    (tmp_path / "images-idx3").write_bytes(idx(images))
    (tmp_path / "labels-idx1").write_bytes(idx(labels))
    refused(tmp_path / "images-idx3", problem)


# npz.


def npy(header, data=b"", version=1):
    text = header.encode().ljust(117) + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + data


def header(descr="|u1", shape="(12, 3, 4)"):
    return f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"


def write_zip(path, images, labels=None, compression=zipfile.ZIP_STORED):
    labels = npy(header(shape="(12,)"), bytes(12)) if labels is None else labels
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("images.npy", images)
        archive.writestr("labels.npy", labels)
    return path


class Trap:
    """Unpickling one leaves a file behind."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


def test_pickles_in_an_npz_are_refused_and_not_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trap = np.array([Trap()] * 12, dtype=object)
    write_npz(tmp_path / "a.npz", trap)
    refused("a.npz", "a.npz: images: holds pickled objects, which are never loaded; save numbers$")
    write_npz(tmp_path / "a.npz", bitmaps(12), trap)
    refused("a.npz", "a.npz: labels: holds pickled objects")
    write_zip(tmp_path / "a.npz", pickle.dumps(Trap()))
    refused("a.npz", "a.npz: is no readable npz file .*magic string")
    assert not Path("unpickled").exists()


@pytest.mark.parametrize("dtype", ["u1", "<i8", ">i2", "<u8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_npz_may_hold_any_integers_as_labels_and_either_order(tmp_path, dtype, order):
    images = np.asarray(bitmaps(12), order=order)
    path = write_npz(tmp_path / "a.npz", images, np.arange(244, 256).astype(dtype), other=[1.5])
    glyphs = load_glyphs(str(path))
    assert np.array_equal(images[glyphs.labels - np.uint8(244)], glyphs.images)
    assert glyphs.images.flags.c_contiguous


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"images": bitmaps(12)}, "a.npz: has no array 'labels'; needed are images and labels$"),
        ({"labels": np.arange(12)}, "a.npz: has no array 'images'"),
        ({"images": bitmaps(12) / 255}, r"a.npz: images: holds float64 \(12, 3, 4\); glyphs are"),
        ({"images": bitmaps(12)[..., None]}, r"images: holds uint8 \(12, 3, 4, 1\); glyphs are"),
        ({"images": bitmaps(12, 3, 300)}, "images: has glyphs of 3x300 px"),
        ({"labels": np.zeros(12)}, r"a.npz: labels: holds float64 \(12,\); labels are integers"),
        ({"labels": np.zeros(12, bool)}, "labels: holds bool"),
        ({"labels": np.zeros((12, 1), int)}, r"labels: holds int64 \(12, 1\); labels are"),
        ({"labels": np.arange(13)}, "labels: holds 13 labels for 12 glyphs"),
        ({"labels": np.arange(245, 257)}, "labels: holds the label 256"),
    ],
)
def test_other_arrays_in_an_npz_are_refused_by_name(tmp_path, arrays, problem):
    if len(arrays) == 1 and "has no array" not in problem:
        arrays = {"images": bitmaps(12), "labels": np.arange(12)} | arrays
    np.savez(tmp_path / "a.npz", **arrays)
    refused(tmp_path / "a.npz", problem)


@pytest.mark.parametrize(
    ("images", "problem"),
    [
        (npy(header(), bytes(143)), r"images: promises 144 bytes \(12, 3, 4\) and holds 143$"),
        (npy(header(), bytes(145)), "images: promises 144 bytes .* and holds 145$"),
        (npy(header(shape=f"({2**40}, 3, 4)")), r"images: holds \d{14} bytes; allowed are"),
        (npy(header(shape="(-3, 3, 4)")), "images: promises -36 bytes"),
        (npy(header("|V0")), "images: holds .*; glyphs are uint8"),
        (npy(header("[('a', 'O')]").replace("'[", "[").replace("]'", "]")), "holds pickled"),
        (npy("(" * 117), "is no readable npz file .*EOF in multi-line"),
        (npy("{[]: 1}"), "is no readable npz file .*unhashable"),
        (npy("(1\n  2\n 3"), "is no readable npz file"),
        (npy(header())[:40], "is no readable npz file"),
        (npy(header(), bytes(144), version=9), "is no readable npz file"),
        (npy(header(), bytes(2000)), "images: holds 2128 bytes; allowed are 2000"),
    ],
)
def test_an_npz_that_promises_other_than_it_holds_is_refused(
    tmp_path, monkeypatch, images, problem
):
    if "2000" in problem:
        monkeypatch.setattr("mmgen.glyph_files._MAX_BYTES", 2000)
    refused(write_zip(tmp_path / "a.npz", images), problem)


def test_a_damaged_npz_is_refused(tmp_path):
    good = npy(header(), bitmaps(12).tobytes())
    path = write_zip(tmp_path / "a.npz", good)
    assert len(load_glyphs(str(path)).images) == 12
    content = path.read_bytes()
    path.write_bytes(content[:-30])
    refused(path, "a.npz: is no readable npz file .*not a zip file")
    path.write_bytes(content.replace(bitmaps(12)[11].tobytes(), bytes(12)))
    refused(path, "a.npz: is no readable npz file .*Bad CRC-32")
    write_zip(path, good, compression=zipfile.ZIP_LZMA)
    refused(path, "images: is packed in another way than np.savez_compressed does$")


# Folders of PNGs.


def fill_classes(folder, names, glyphs):
    for n, glyph in enumerate(glyphs):
        write_png(folder / names[n % len(names)] / f"{n:03}.PNG", glyph)
    return folder


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["b", "a", "c"], [1, 0, 2]),
        (["10", "9", "255"], [10, 9, 255]),
        (["10", "9", "256"], [0, 2, 1]),
        (["1", "x", "0"], [1, 2, 0]),
    ],
)
def test_class_folders_give_the_labels(tmp_path, names, labels):
    images = bitmaps(12)
    folder = fill_classes(tmp_path / "kana", names, images)
    (folder / ".cache").mkdir()
    (folder / "notes.txt").touch()
    (folder / names[0] / "._000.png").touch()
    glyphs = load_glyphs(str(folder))
    label_of = {image.tobytes(): labels[n % 3] for n, image in enumerate(images)}
    assert [label_of[image.tobytes()] for image in glyphs.images] == glyphs.labels.tolist()
    assert [len(bitmaps_of(glyphs, split)) for split in glyphs.splits] == [10, 1, 1]
    assert glyphs.name == "kana"


def test_colour_becomes_grey_and_transparency_black(tmp_path):
    red, clear, half = (255, 0, 0, 255), (255, 255, 255, 0), (255, 255, 255, 128)
    grey = 255 * 299 // 1000  # Pillow's L weighs red with 0.299
    paint = np.array([[red, clear, half]], np.uint8)
    for n, mode in enumerate(("RGBA", "LA", "P")):
        write_png(tmp_path / "0" / f"{n}.png", paint + np.uint8([n, 0, 0, 0]), mode)
    write_png(tmp_path / "0" / "3.png", np.array([[255, 0, 255]], np.uint8), "1")
    values = {tuple(image[0]) for image in load_glyphs(str(tmp_path)).images.tolist()}
    assert (grey, 0, 128) in values
    assert (255, 0, 255) in values


def test_folders_of_pngs_that_are_no_set_are_refused(tmp_path):
    refused(tmp_path, "holds neither IDX files .* nor class folders with PNGs$")
    fill_classes(tmp_path, ["a", "b"], bitmaps(12))
    (tmp_path / "c").mkdir()
    refused(tmp_path, "/c: holds no PNG; fill this class folder or remove it$")
    (tmp_path / "c/photo.jpg").touch()
    refused(tmp_path, "/c: holds no PNG")
    write_png(tmp_path / "b/013.png", bitmaps(1, 4, 5)[0])
    write_png(tmp_path / "c/0.png", bitmaps(1, 9, 9)[0])
    refused(tmp_path, r"/b/013.png: is 4x5 px, .*/a/000.PNG is 3x4; all must have one size$")


def test_more_classes_than_labels_are_refused(tmp_path):
    fill_classes(tmp_path, [f"class {n}" for n in range(257)], bitmaps(257))
    refused(tmp_path, r"holds the label 256; allowed are 0\.\.255$")


def png(glyph):
    file = io.BytesIO()
    Image.fromarray(glyph).save(file, "PNG")
    return file.getvalue()


def png_of_size(width, height):
    """Return a PNG of 12 px that promises another size."""
    content = bytearray(png(bitmaps(1)[0]))
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (png_of_size(257, 1), r"has glyphs of 1x257 px; allowed are 1\.\.256 a side"),
        (png_of_size(10_000, 10_000), "is too large"),
        (png_of_size(60_000, 60_000), "is too large"),
        (png(bitmaps(256, 1, 256)[:, 0])[:300], "is no readable PNG .*truncated"),
        (png(bitmaps(1)[0])[:40], "is no readable PNG"),
        (b"", "is no readable PNG"),
    ],
)
def test_a_damaged_png_or_a_bomb_is_refused(tmp_path, content, problem):
    fill_classes(tmp_path, ["a"], bitmaps(3, 1, 4))
    (tmp_path / "a/0.png").write_bytes(content)
    refused(tmp_path, f"/a/0.png: {problem}")


def test_a_png_of_16_bits_and_other_kinds_of_pictures_are_refused(tmp_path):
    (tmp_path / "a").mkdir()
    Image.fromarray(np.full((3, 4), 300, np.uint16)).save(tmp_path / "a/0.png")
    refused(tmp_path, "/a/0.png: has 16 bits a pixel; store it with 8$")
    Image.new("L", (3, 4)).save(tmp_path / "a/0.png", "BMP")
    refused(tmp_path, "/a/0.png: is no readable PNG")


# Names, and what stays in memory.


def test_a_path_that_does_not_exist_lists_the_names_there_are(tmp_path):
    names = "mnist, fashion, kmnist, emnist-letters, qmnist, or name a file or a folder"
    refused(tmp_path / "kanji", f"kanji' does not exist; choose from: {names}$")
    refused("a" * 300, r"cannot be read \(File name too long\)$")
    (tmp_path / "a.png").touch()
    refused(tmp_path / "a.png", r"a.png: is no glyph set; name an IDX file \(\*images-idx3-ubyte")


def test_a_set_is_equal_only_to_itself():
    """Caches are keyed by sets: comparing 70 000 bitmaps for that would be absurd."""
    glyphs = load_glyphs("mnist")
    assert len({glyphs, load_glyphs("mnist"), replace(glyphs)}) == 2


def test_a_set_is_loaded_once_and_again_when_a_file_changed(tmp_path):
    path = write_npz(tmp_path / "a.npz", bitmaps(12))
    first = load_glyphs(str(path))
    assert load_glyphs(str(path)) is first
    time_ns = path.stat().st_mtime_ns
    write_npz(path, bitmaps(12, first=100))
    os.utime(path, ns=(time_ns + 1, time_ns + 1))
    assert load_glyphs(str(path)).sha256 != first.sha256
    folder = fill_classes(tmp_path / "png", ["a"], bitmaps(12))
    assert load_glyphs(str(folder)) is load_glyphs(str(folder))
    write_png(folder / "a" / "new.png", bitmaps(1, first=50)[0])
    assert len(load_glyphs(str(folder)).images) == 13


# Sets that torchvision downloads.


def downloaded_files(name):
    """Return the four files of a downloaded set by name, and what they should be read as."""
    images = bitmaps(29)
    labels = np.arange(29) % 26 + 1
    stored, prefixes, kind = images, ("train", "t10k"), "labels-idx1-ubyte"
    as_stored = labels.astype(np.uint8)
    if name == "emnist-letters":
        stored = images.transpose(0, 2, 1)
        prefixes = ("emnist-letters-train", "emnist-letters-test")
    if name == "qmnist":
        prefixes, kind = ("qmnist-train", "qmnist-test"), "labels-idx2-int"
        as_stored = np.stack([labels, *(labels * 1000 + n for n in range(7))], 1).astype(np.int32)
    files = {}
    for prefix, part in zip(prefixes, (slice(24), slice(24, None)), strict=True):
        files[f"{prefix}-images-idx3-ubyte"] = idx(np.ascontiguousarray(stored[part]))
        files[f"{prefix}-{kind}"] = idx(as_stored[part])
    return files, images, labels


FOLDERS = {
    "fashion": "FashionMNIST/raw",
    "kmnist": "KMNIST/raw",
    "emnist-letters": "EMNIST/raw",
    "qmnist": "QMNIST/raw",
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_downloaded_set_is_found_in_the_cache_without_network(tmp_path, monkeypatch, name):
    files, images, labels = downloaded_files(name)
    folder = tmp_path / "cache/moving-mnist" / FOLDERS[name]
    folder.mkdir(parents=True)
    (folder.parent / "processed").mkdir()
    for pickled in ("training.pt", "test.pt"):
        (folder.parent / "processed" / pickled).write_bytes(pickle.dumps(Trap()))
    for file, content in files.items():
        (folder / file).write_bytes(content)
    monkeypatch.setitem(sys.modules, "torchvision", None)  # importing it raises ImportError
    glyphs = load_glyphs(name)
    assert np.array_equal(glyphs.images, images)
    assert np.array_equal(glyphs.labels, labels)
    assert glyphs.images.flags.c_contiguous
    assert glyphs.splits == {"train": (0, 22), "val": (22, 24), "test": (24, 29)}
    assert glyphs.name == name


class Response(io.BytesIO):
    """What urlopen returns, as far as torchvision looks at it."""

    def __init__(self, url, content):
        super().__init__(content)
        self.url, self.length = url, len(content)


def publish(monkeypatch, name, files):
    """Serve files where torchvision looks for a set, with checksums that hold."""
    from torchvision import datasets

    packed = {f"{file}.gz": gzip.compress(content) for file, content in files.items()}
    sums = {file: hashlib.md5(content).hexdigest() for file, content in packed.items()}
    kind = {"fashion": "FashionMNIST", "kmnist": "KMNIST", "qmnist": "QMNIST"}.get(name, "EMNIST")
    if name == "emnist-letters":
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as writer:
            for file, content in packed.items():
                writer.writestr(f"gzip/{file}", content)
        packed = {"gzip.zip": archive.getvalue()}
        monkeypatch.setattr(datasets.EMNIST, "md5", hashlib.md5(packed["gzip.zip"]).hexdigest())
    elif name == "qmnist":
        pairs = [(f"https://host/{file}", md5) for file, md5 in sums.items()]
        monkeypatch.setattr(datasets.QMNIST, "resources", {"train": pairs[:2], "test": pairs[2:]})
    else:
        monkeypatch.setattr(getattr(datasets, kind), "resources", list(sums.items()))
    asked = []

    def urlopen(request):
        asked.append(request.full_url)
        return Response(request.full_url, packed[request.full_url.rpartition("/")[2]])

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return asked


@pytest.mark.parametrize("name", FOLDERS)
def test_a_set_is_downloaded_once(tmp_path, monkeypatch, name):
    files, images, labels = downloaded_files(name)
    asked = publish(monkeypatch, name, files)
    glyphs = load_glyphs(name)
    assert np.array_equal(glyphs.images, images)
    assert np.array_equal(glyphs.labels, labels)
    cache = tmp_path / "cache/moving-mnist"
    left = {str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file()}
    assert left == {f"{FOLDERS[name]}/{file}" for file in files}
    num_asked = len(asked)
    assert num_asked > 0
    assert load_glyphs(name) is glyphs
    assert len(asked) == num_asked


@pytest.mark.parametrize("name", FOLDERS)
def test_offline_a_set_that_is_not_in_the_cache_is_refused(tmp_path, name):
    refused(name, rf"'{name}' cannot be downloaded \(.*no route to host.*\); load it once where")
    assert list((tmp_path / "cache/moving-mnist").iterdir()) == []


def test_what_a_killed_download_has_left_is_cleared_by_a_later_one(tmp_path, monkeypatch):
    publish(monkeypatch, "fashion", downloaded_files("fashion")[0])
    cache = tmp_path / "cache/moving-mnist"
    (cache / "download-dead" / "FashionMNIST").mkdir(parents=True)
    load_glyphs("fashion")
    assert [path.name for path in cache.iterdir()] == ["FashionMNIST"]


def test_a_download_waits_for_another_one_and_leaves_its_files_alone(tmp_path, monkeypatch):
    asked = publish(monkeypatch, "fashion", downloaded_files("fashion")[0])
    cache = tmp_path / "cache/moving-mnist"
    (cache / "download-at-work").mkdir(parents=True)
    waiting = threading.Thread(target=load_glyphs, args=("fashion",))
    descriptor = os.open(cache, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    assert not asked
    assert (cache / "download-at-work").exists()
    os.close(descriptor)
    waiting.join()
    assert asked


def test_a_download_that_is_not_what_was_published_is_refused(tmp_path, monkeypatch):
    publish(monkeypatch, "fashion", downloaded_files("fashion")[0])
    monkeypatch.setattr(
        urllib.request, "urlopen", lambda request: Response(request.full_url, b"a login page")
    )
    refused("fashion", r"'fashion' cannot be downloaded \(.*File not found or corrupted")
    assert list((tmp_path / "cache/moving-mnist").iterdir()) == []


def test_a_download_without_torchvision_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    refused("kmnist", "'kmnist' needs torchvision to be downloaded .*; install it, or use another")


# On the command line.


def test_the_option_glyphs_beats_set(run_mmgen, tmp_path):
    fill_classes(tmp_path / "kana", ["b", "a"], bitmaps(36, 12, 12))
    small = ["--set", "canvas=20", "--set", "frames=2", "--train", 3, "--val", 0, "--test", 2]
    options = ["--glyphs", tmp_path / "kana", "--set", "glyphs=mnist"]
    run_mmgen("generate", tmp_path / "out", *options, *small)
    assert "  glyphs = " + str(tmp_path / "kana") in run_mmgen("info", tmp_path / "out").stdout
    sequence = mmgen.open(tmp_path / "out")["test"][0]
    assert (sequence.glyph_index >= 33).all()
    line = run_mmgen("preview", "--glyphs", "no", "-o", tmp_path / "a.png", code=2).stderr
    assert line.startswith("Error: glyph set 'no' does not exist; choose from: mnist, fashion")
