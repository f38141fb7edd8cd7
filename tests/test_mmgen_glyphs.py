"""The shipped digits are the original ones, and a damaged glyph file is refused in one line."""

import gzip
import hashlib
import re
import struct
from pathlib import Path

import numpy as np
import pytest

import mmgen
from mmgen.errors import InputError
from mmgen.glyphs import load_glyphs, read_idx

DATA = Path(mmgen.__file__).parents[1] / "data"


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


def idx(*shape, num_bytes=None, magic=b"\x00\x00\x08"):
    header = magic + bytes([len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
    return header + bytes(range(int(np.prod(shape)) if num_bytes is None else num_bytes))


def test_idx_is_read_as_its_header_says(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx(2, 3, 4)))
    assert np.array_equal(read_idx(tmp_path / "a.gz"), np.arange(24).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "is no readable gzip file .*No such file"),
        (b"", "is truncated"),
        (idx(2, 3), "is no readable gzip file .*incorrect header check"),
        (gzip.compress(idx(2, 3, 4))[:-9], "is truncated"),
        (gzip.compress(idx(2, 3, 4))[:12], "is truncated"),
        (gzip.compress(idx(2, 3))[:-8] + bytes(8), "is no readable gzip file .*incorrect data"),
        (gzip.compress(idx(2, 3)) + b"more", "holds more behind the end of its gzip stream"),
        (gzip.compress(b""), r"is no IDX file of bytes \(magic number \)"),
        (gzip.compress(idx(2, 3, magic=b"\x00\x00\x0d")), r"is no IDX .* 00000d02\)"),
        (gzip.compress(idx(2, 3)[:9]), "is no IDX file of bytes"),
        (gzip.compress(idx()), "is no IDX file of bytes"),
        (gzip.compress(idx(1, 1, 1, 1)), "is no IDX file of bytes"),
        (gzip.compress(idx(2, 3, num_bytes=5)), r"promises 6 bytes \(2, 3\) and holds 5"),
        (gzip.compress(idx(2, 3, num_bytes=7)), r"promises 6 bytes \(2, 3\) and holds 7"),
        (gzip.compress(idx(*[2**32 - 1] * 3, num_bytes=9)), r"promises \d{29} bytes .* holds 9"),
    ],
)
def test_a_damaged_idx_file_is_refused_in_one_line(tmp_path, content, problem):
    path = tmp_path / "a.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}: {problem}") as caught:
        read_idx(path)
    assert "\n" not in str(caught.value)
