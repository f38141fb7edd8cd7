"""Pictures: the right frames, at the right place, in files that open."""

import numpy as np
import pytest
from PIL import Image

import mmgen
from mmgen.errors import InputError
from mmgen.preview import write_picture

GAP = 2


@pytest.fixture(scope="module")
def frames():
    return mmgen.render(mmgen.GeneratorConfig(canvas=(40, 50), frames=6, digits=1), 3).frames


def test_a_gif_shows_the_sequences_side_by_side_frame_by_frame(tmp_path, frames):
    write_picture(tmp_path / "a.gif", frames)
    factor = 192 // 40
    with Image.open(tmp_path / "a.gif") as picture:
        assert (picture.format, picture.n_frames, picture.info["loop"]) == ("GIF", 6, 0)
        assert picture.size == (factor * (3 * 50 + 2 * GAP), factor * 40)
        for t in range(6):
            picture.seek(t)
            shown = np.asarray(picture.convert("L"))[::factor, ::factor]
            assert np.array_equal(shown[:, 52:102], frames[1, t])


def test_a_png_is_a_contact_sheet_with_a_row_a_sequence(tmp_path, frames):
    write_picture(tmp_path / "a.PNG", frames)
    with Image.open(tmp_path / "a.PNG") as picture:
        assert (picture.format, picture.size) == ("PNG", (6 * 50 + 5 * GAP, 3 * 40 + 2 * GAP))
        sheet = np.asarray(picture)
    for n, t in np.ndindex(3, 6):
        top, left = n * (40 + GAP), t * (50 + GAP)
        assert np.array_equal(sheet[top : top + 40, left : left + 50], frames[n, t])


@pytest.mark.parametrize("name", ["a.mp4", "a", "a.gif.txt", ".gif"])
def test_another_ending_is_refused(tmp_path, frames, name):
    problem = f"{name}: unknown kind of picture; end the name in .gif or .png$"
    with pytest.raises(InputError, match=problem):
        write_picture(tmp_path / name, frames)


def test_show_takes_blocks_sequences_and_arrays_of_any_depth(small_dataset, frames):
    sheet = np.asarray(mmgen.show(frames))
    assert np.array_equal(mmgen.show(frames / 255), sheet)
    assert np.array_equal(mmgen.show(frames[0]), sheet[:40])
    assert np.array_equal(mmgen.show(frames[0, 0]), sheet[:40, :50])
    for holder in (mmgen.render(indices=1), mmgen.open(small_dataset)["test"][0]):
        assert np.array_equal(mmgen.show(holder), mmgen.show(holder.frames))
    with pytest.raises(InputError, match=r"frames of shape \(3,\); show takes \(H, W\) to \(N, T"):
        mmgen.show(np.zeros(3))
