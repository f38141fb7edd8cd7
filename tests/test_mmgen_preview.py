"""Pictures: the right frames and truth, at the right place, in files that open."""

import re
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
from PIL import Image
from strategies import table

import mmgen
from mmgen.errors import InputError, MmgenError
from mmgen.overlay import Drawing, Overlay, stored_overlay
from mmgen.preview import write_picture

GAP = 4
FACTOR = 192 // 40
ORANGE, BLUE = (255, 165, 0), (64, 190, 255)


@pytest.fixture(scope="module")
def grey():
    return mmgen.render(mmgen.GeneratorConfig(canvas=(40, 50), frames=6, digits=1), 3).frames


@pytest.fixture(params=["grey", "colour"])
def frames(request, grey):
    return grey if request.param == "grey" else np.stack([grey, grey // 2, 0 * grey], axis=-1)


def as_rgb(frame):
    return frame if frame.ndim == 3 else np.repeat(frame[..., None], 3, axis=-1)


def test_a_gif_shows_the_sequences_side_by_side_frame_by_frame(tmp_path, frames):
    write_picture(tmp_path / "a.gif", frames)
    with Image.open(tmp_path / "a.gif") as picture:
        assert (picture.format, picture.n_frames, picture.info["loop"]) == ("GIF", 6, 0)
        assert picture.info["duration"] == 100
        assert picture.size == (3 * FACTOR * 50 + 2 * GAP, FACTOR * 40)
        left = FACTOR * 50 + GAP
        for t in range(6):
            picture.seek(t)
            shown = np.asarray(picture.convert("RGB"))[::FACTOR, left : left + 200 : FACTOR]
            assert np.abs(shown.astype(int) - as_rgb(frames[1, t])).max() <= 8 * (frames.ndim == 5)


def test_a_png_is_a_contact_sheet_with_a_row_a_sequence(tmp_path, frames):
    assert write_picture(tmp_path / "a.PNG", frames) == 1
    with Image.open(tmp_path / "a.PNG") as picture:
        assert (picture.format, picture.size) == ("PNG", (6 * 50 + 5 * GAP, 3 * 40 + 2 * GAP))
        sheet = np.asarray(picture)
    for n, t in np.ndindex(3, 6):
        top, left = n * (40 + GAP), t * (50 + GAP)
        assert np.array_equal(sheet[top : top + 40, left : left + 50], frames[n, t])


@pytest.mark.parametrize("side", [64, 63])
def test_an_mp4_is_what_every_player_takes(tmp_path, frames, side):
    ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="needs the extra video")
    frames = np.pad(
        frames, ((0, 0), (0, 0), (0, side - 40), (0, side - 50), *[(0, 0)] * (frames.ndim - 4))
    )
    write_picture(tmp_path / "a.mp4", frames)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    decode = [
        ffmpeg.get_ffmpeg_exe(),
        "-i",
        tmp_path / "a.mp4",
        *["-f", "rawvideo", "-pix_fmt", "rgb24", "-"],
    ]
    decoded = subprocess.run(decode, capture_output=True, check=True)
    factor = 192 // side
    width, height = 3 * factor * side + 2 * GAP, factor * side
    size = width + width % 2, height + height % 2
    stderr = decoded.stderr.decode()
    told = re.search(r"Video: (\w+) .*, (yuv\w+).*, (\d+x\d+).*, (\d+) fps", stderr)
    assert told
    assert told.groups() == ("h264", "yuv420p", f"{size[0]}x{size[1]}", "10")
    shown = np.frombuffer(decoded.stdout, np.uint8).reshape(-1, size[1], size[0], 3)
    assert len(shown) == 6
    left = factor * side + GAP
    for picture, frame in zip(shown, frames[1], strict=True):
        tile = picture[1:height:factor, left + 1 : left + factor * side : factor]
        assert np.abs(tile.astype(int) - as_rgb(frame)).mean() < 4


def test_an_mp4_without_ffmpeg_says_how_to_get_it(tmp_path, grey, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(InputError, match=r'pip install "moving-mnist\[video\]", or end the name'):
        write_picture(tmp_path / "a.mp4", grey)


def test_an_mp4_that_cannot_be_written_leaves_nothing(tmp_path, grey, monkeypatch):
    pytest.importorskip("imageio_ffmpeg", reason="needs the extra video")
    failing = tmp_path / "ffmpeg"
    failing.write_text("#!/bin/sh\necho no room >&2\nexit 1\n")
    failing.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(failing))
    with pytest.raises(MmgenError, match=r"a.mp4: could not be written \(ffmpeg: no room\)$"):
        write_picture(tmp_path / "a.mp4", grey)
    assert list(tmp_path.iterdir()) == [failing]


@pytest.mark.parametrize(
    ("num_frames", "shown"), [(58, range(58)), (59, range(0, 59, 2)), (200, range(0, 200, 4))]
)
def test_a_long_sheet_goes_on_below_and_then_leaves_frames_out(tmp_path, num_frames, shown):
    step = shown.step
    frames = np.arange(2 * num_frames, dtype=np.uint8).reshape(2, -1, 1, 1) + np.zeros(
        (64, 64), np.uint8
    )
    assert write_picture(tmp_path / "a.png", frames) == step
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width <= 2000
        sheet = np.asarray(picture)
    lines = -(-len(shown) // 29)
    columns = -(-len(shown) // lines)
    assert sheet.shape == (2 * lines * 68 - GAP + (16 - GAP) * (lines > 1), columns * 68 - GAP)
    for place, t in enumerate(shown):
        line, column = divmod(place, columns)
        assert sheet[68 * line, 68 * column] == frames[0, t, 0, 0]


def test_many_sequences_of_an_animation_go_on_below(tmp_path):
    frames = np.arange(25, dtype=np.uint8).reshape(25, 1, 1, 1) * 10 + np.zeros(
        (2, 64, 64), np.uint8
    )
    write_picture(tmp_path / "a.gif", frames)
    with Image.open(tmp_path / "a.gif") as picture:
        assert picture.size == (10 * 196 - GAP, 3 * 196 - GAP)
        assert np.asarray(picture.convert("L"))[2 * 196, 4 * 196] == frames[24, 0, 0, 0]


def test_a_picture_that_no_program_opens_is_refused(tmp_path):
    with pytest.raises(
        InputError, match=r"a picture of 2x\d+ px is too large, allowed are 16384 a"
    ):
        write_picture(tmp_path / "a.png", np.zeros((300, 1, 64, 2), np.uint8))


# The truth on top. Boxes lie just outside the ink, circles mark bounces, all on the enlarged frame.


def overlay_of(position, box, wraps=False, bounced=None):
    """Return the overlay of one sequence of one digit with the label 7."""
    position = np.array(position, np.float32)[None, :, None]
    box = np.array(box, np.int16)[None, :, None]
    none = np.zeros(position.shape[:3], bool)
    bounced = none if bounced is None else np.array(bounced)[None, :, None]
    return Overlay(np.array([[7]], np.int16), position, box, bounced, wraps)


def drawn(tmp_path, overlay):
    """Return what the last frame of an otherwise black sequence shows, 3 px to a canvas px."""
    num_frames = overlay.position.shape[1]
    write_picture(tmp_path / "a.png", np.zeros((1, num_frames, 64, 64), np.uint8), overlay)
    with Image.open(tmp_path / "a.png") as picture:
        return np.asarray(picture.crop((picture.width - 192, 0, picture.width, 192)))


def is_lit(picture, y, x):
    return bool(picture[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2].any())


NOWHERE = (-1, -1, -1, -1)


def test_a_box_frames_the_ink_and_a_line_joins_its_centres(tmp_path):
    box = [(20, 30, 40, 50), (30, 30, 50, 50)]
    picture = drawn(tmp_path, overlay_of([(16, 26), (26, 26)], box))
    for y, x in ((89, 120), (150, 120), (120, 89), (120, 150)):  # just outside 90..149
        assert tuple(picture[y, x]) == ORANGE
    inside = picture[90:150, 90:150].any(-1)
    ys, xs = np.nonzero(inside)
    assert abs(xs - 30).max() <= 2, "only the trajectory and the centre, both at x = 40 px"
    assert (ys.min(), ys.max()) == (0, 32), "from the old centre, y = 30 px, to the new, 40 px"
    assert picture[70:88, 88:100].any(), "the label stands above the box"
    assert not picture[152:].any()
    assert tuple(picture[120, 120]) == ORANGE


def test_a_bounce_is_marked_where_it_was(tmp_path):
    where = [(10, 10), (20, 20), (40, 40)], [(10, 10, 20, 20), (20, 20, 30, 30), (40, 40, 50, 50)]
    plain = drawn(tmp_path, overlay_of(*where))
    marked = drawn(tmp_path, overlay_of(*where, bounced=[False, True, False]))
    ys, xs = np.nonzero((plain != marked).any(-1))
    assert (ys.min(), ys.max(), xs.min(), xs.max()) == (71, 79, 71, 79)


def test_a_digit_that_has_left_keeps_only_its_trajectory(tmp_path):
    position = [(20, 20), (20, 54), (20, 56), (20, 80)]
    box = [(24, 24, 34, 34), (24, 58, 34, 64), (24, 60, 34, 64), NOWHERE]  # two are cut off
    picture = drawn(tmp_path, overlay_of(position, box))
    ys, xs = np.nonzero(picture.any(-1))
    assert set(ys) == {29 * 3}
    assert (xs.min(), xs.max()) == (29 * 3, 191)


def test_an_absent_digit_leaves_nothing(tmp_path):
    position = [(20, 20), (np.nan, np.nan)]
    assert not drawn(tmp_path, overlay_of(position, [(24, 24, 34, 34), NOWHERE])).any()


@pytest.mark.parametrize("wraps", [True, False])
def test_only_on_a_torus_a_trajectory_jumps(tmp_path, wraps):
    position = [(20, 40), (20, 50), (20, 60), (20, 6)]
    box = [(24, x, 34, x + 10) for x in (44, 54, 0, 10)]  # the middle lies at 49, 59, 5, 15
    picture = drawn(tmp_path, overlay_of(position, box, wraps))
    assert is_lit(picture, 29 * 3, 7 * 3) == wraps, "from the left edge on"
    assert is_lit(picture, 29 * 3, 55 * 3)
    assert is_lit(picture, 29 * 3, 35 * 3) != wraps


def test_on_a_torus_a_box_goes_on_at_the_other_edge(tmp_path):
    position = [(20, 20), (54, 20), (54, 54)]
    box = [(24, 24, 34, 36), (0, 24, 64, 36), (0, 0, 64, 64)]  # 10 x 12 px
    lit = drawn(tmp_path, overlay_of(position[:2], box[:2], wraps=True)).any(-1)
    for y, x in ((173, 71), (190, 108), (12, 80), (3, 71)):  # from 174 = 58 * 3 to 192, and to 12
        assert lit[y, x]
    assert not lit[30:150].any(), "only the label is between its two parts"
    assert not lit[191, 80:88].any(), "and they are open at the edge"
    assert not lit[0, 95:108].any()
    lit = drawn(tmp_path, overlay_of(position, box, wraps=True)).any(-1)
    for y, x in ((173, 173), (12, 173), (173, 18), (12, 18)):  # a corner in each of four parts
        assert lit[y, x]
    lit = drawn(tmp_path, overlay_of(position, box)).any(-1)
    assert lit[0].all(), "without a torus the box is as large as the canvas"
    assert lit[:, 0].all()


def test_on_a_torus_a_position_may_lie_at_the_other_edge(tmp_path):
    position = [(62, 20), (4, 20)]
    box = [(2, 24, 20, 34), (8, 24, 26, 34)]  # 4 px below and right of them
    picture = drawn(tmp_path, overlay_of(position, box, wraps=True))
    assert is_lit(picture, 17 * 3, 29 * 3), "the middle of the ink"
    assert not picture[100:].any()


def test_wrapped_boxes_frame_what_is_rendered():
    config = mmgen.GeneratorConfig(motion="wrap", digits=1)
    block = mmgen.render(config, 6)
    overlay = Overlay(block.label, block.position, block.box, block.bounced, wraps=True)
    boxes = Drawing(overlay, (64, 64), 1).box
    num_across = 0
    for n, t in np.ndindex(block.frames.shape[:2]):
        y0, x0, y1, x1 = boxes[n, t, 0].tolist()
        num_across += y1 > 64 or x1 > 64
        unrolled = np.tile(block.frames[n, t], (2, 2))[y0:y1, x0:x1]
        assert np.count_nonzero(unrolled) == np.count_nonzero(block.frames[n, t])
        for edge in (unrolled[0], unrolled[-1], unrolled[:, 0], unrolled[:, -1]):
            assert edge.any()
    assert num_across > 10


def test_a_line_between_points_far_away_crosses_the_canvas(tmp_path):
    position = [(-4e9, 20), (4e9, 20), (20, 4e9)]
    picture = drawn(tmp_path, overlay_of(position, [NOWHERE] * 3))
    assert picture[:, 60].any(-1).all()
    assert not picture[:, 100:].any()


def test_digits_have_colours_of_their_own_and_frames_stay_below(tmp_path):
    block = mmgen.render(indices=2)
    overlay = Overlay(block.label, block.position, block.box, block.bounced)
    write_picture(tmp_path / "plain.gif", block.frames)
    write_picture(tmp_path / "a.gif", block.frames, overlay)
    pictures = []
    for name in ("plain.gif", "a.gif"):
        with Image.open(tmp_path / name) as picture:
            picture.seek(12)
            pictures.append(np.asarray(picture.convert("RGB")).astype(int))
    plain, over = pictures
    assert plain.shape == over.shape
    for color in (ORANGE, BLUE):
        assert (abs(over - color).max(-1) < 16).sum() > 100
    assert (abs(over - plain).max(-1) > 16).mean() < 0.1


def test_a_stored_overlay_equals_the_live_one(run_mmgen, tmp_path):
    small = ["--set", "canvas=40x50", "--set", "frames=3..4", "--set", "digits=1..2"]
    run_mmgen("generate", tmp_path / "a", *small, "--train", 0, "--val", 0, "--test", 5)
    outs = [tmp_path / name for name in ("stored.png", "live.png", "plain.png")]
    told = run_mmgen("preview", tmp_path / "a", "--overlay", "--index", "1..3,0", "-o", outs[0])
    assert told.stdout == f"{outs[0]}: 4 sequences of 4 frames\n"
    run_mmgen("preview", *small, "--overlay", "--index", "1,2,3,0", "-o", outs[1])
    run_mmgen("preview", *small, "--index", "1,2,3,0", "-o", outs[2])
    stored, live, plain = (out.read_bytes() for out in outs)
    assert stored == live != plain
    stored = mmgen.open(tmp_path / "a")["test"]
    assert stored_overlay(stored, [stored[4]]).wraps is False
    stored.manifest.config["motion"] = "wrap"
    assert stored_overlay(stored, [stored[4]]).wraps is True


def test_a_sheet_with_frames_left_out_says_so(run_mmgen, tmp_path):
    out = tmp_path / "a.png"
    told = run_mmgen("preview", "--set", "frames=150", "--index", "0..1", "-o", out).stdout
    assert told == f"{out}: 2 sequences of 150 frames, one frame in 3 is shown\n"


def test_without_annotations_there_is_nothing_to_overlay(
    run_mmgen, copied_dataset, vouch_for, tmp_path
):
    with h5py.File(copied_dataset / "test/test-000000.h5", "a") as file:
        del file["box"]
    vouch_for(copied_dataset, "test/test-000000.h5")
    told = run_mmgen("preview", copied_dataset, "--overlay", "-o", tmp_path / "a.gif", code=2)
    why = "has no box of its digits, so there is nothing to overlay"
    assert told.stderr == f"Error: {copied_dataset}: {why}\n"


BAD_INPUT = table("""
3..1 => '3..1' is no list such as 0,5 or 0..3
0,a => '0,a' is no list such as 0,5 or 0..3
1..2..3 => '1..2..3' is no list such as 0,5 or 0..3
0..1000000000000 => '0..1000000000000' asks for too many sequences, a picture holds 1000
0..998,1,2 => '0..998,1,2' asks for too many sequences, a picture holds 1000
""")


@pytest.mark.parametrize(("index", "line"), BAD_INPUT)
def test_a_list_of_sequences_is_checked(run_mmgen, tmp_path, index, line):
    told = run_mmgen("preview", "--index", index, "-o", tmp_path / "a.gif", code=2).stderr
    assert told.splitlines()[-1] == f"Error: Invalid value for --index: {line}"


@pytest.mark.parametrize("name", ["a.avi", "a", "a.gif.txt", ".gif"])
def test_another_ending_is_refused(tmp_path, grey, name):
    problem = f"{name}: unknown kind of picture; end the name in .gif, .png or .mp4$"
    with pytest.raises(InputError, match=problem):
        write_picture(tmp_path / name, grey)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 3000), (3000, 1), (2, 40)])
def test_narrow_canvases_are_drawn(tmp_path, height, width):
    frames = np.full((1, 3, height, width), 255, np.uint8)
    for overlay in (None, overlay_of([(0, 0)] * 3, [(0, 0, 1, 1)] * 3)):
        for name in ("a.png", "a.gif"):
            write_picture(tmp_path / name, frames, overlay)
        with Image.open(tmp_path / "a.gif") as picture:
            assert max(picture.size) <= 3000


@pytest.mark.parametrize("kind", ["gif", "png", "mp4"])
@pytest.mark.parametrize("count", [1, 3, 50])
def test_progress_adds_up_to_the_sequences(tmp_path, kind, count):
    if kind == "mp4":
        pytest.importorskip("imageio_ffmpeg", reason="needs the extra video")
    done = []
    write_picture(
        tmp_path / f"a.{kind}", np.zeros((count, 7, 8, 8), np.uint8), progress=done.append
    )
    assert sum(done) == count
    assert len(done) == (count if kind == "png" else 7)


def wait_for(path):
    """Wait until another process has made a file."""
    until = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("kind", ["gif", "png", "mp4"])
def test_an_interrupted_picture_leaves_nothing(tmp_path, grey, kind):
    if kind == "mp4":
        pytest.importorskip("imageio_ffmpeg", reason="needs the extra video")

    def interrupt(_):
        if kind == "mp4":
            wait_for(tmp_path / "a.mp4.partial")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_picture(tmp_path / f"a.{kind}", grey, progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_a_long_preview_shows_progress_and_clears_away_what_is_unfinished(start_python, tmp_path):
    pytest.importorskip("imageio_ffmpeg", reason="needs the extra video")
    code = """
import sys
from mmgen import progress
from mmgen.cli import main
progress._LINE_EVERY_S = 0
main(sys.argv[1:])
"""
    out = tmp_path / "a.mp4"
    long = "--set", "frames=2000", "--index", "0..3", "-o", out
    process = start_python("-c", code, "preview", *long)
    assert re.match(r"drawn \d/4, ", process.stderr.readline())
    wait_for(tmp_path / "a.mp4.partial")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    line = "interrupted: nothing unfinished is left; the same command starts anew"
    assert err.splitlines()[-1] == f"Error: {line}"
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_show_takes_blocks_sequences_and_arrays_of_any_depth(small_dataset, frames):
    sheet = np.asarray(mmgen.show(frames))
    assert np.array_equal(mmgen.show(frames / 255), sheet)
    assert np.array_equal(mmgen.show(frames[0]), sheet[:40])
    assert np.array_equal(mmgen.show(frames[0, 0]), sheet[:40, :50])
    for holder in (mmgen.render(indices=1), mmgen.open(small_dataset)["test"][0]):
        assert np.array_equal(mmgen.show(holder), mmgen.show(holder.frames))


@pytest.mark.parametrize("shape", [(3,), (1, 1, 1, 1, 4), (0, 20, 64, 64)])
def test_show_refuses_what_is_no_frames(shape):
    with pytest.raises(InputError, match=r"frames of shape \(.*\); show takes \(H, W\) to \(N, T"):
        mmgen.show(np.zeros(shape))
