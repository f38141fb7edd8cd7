"""Sequences drawn again against those that are stored: bit for bit, wherever nothing is random."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from trainer_data import make_data

from mmgen.imports import import_dataset, parse_splits
from mmgen.imports import open_source as open_array
from trainer.baselines import Redrawn
from trainer.errors import InputError
from trainer.source import open_source

CONTEXT, LATER = 4, 16
INDICES = np.arange(5, 25)
SIZES = "canvas=64&frames=20"
FORESEEN = (
    *(f"live:{preset}?{SIZES}" for preset in ("srivastava", "tfds", "svg-deterministic")),
    *(f"live:{preset}?{SIZES}" for preset in ("tencia", "mnist++", "easy", "circle")),
    *(f"live:medium?{SIZES}&motion={motion}" for motion in ("gravity", "leave", "wrap")),
    f"live:easy?{SIZES}&color=random",
    f"live:easy?{SIZES}&occluder=moving&background=distractors",
)
RANDOM_MOTION = (
    *(f"live:{preset}?{SIZES}" for preset in ("svg-stochastic", "hard")),
    f"live:easy?{SIZES}&motion=turn",
)


def redrawn(address, num_context=CONTEXT):
    return Redrawn.require(open_source(address, "test"), num_context)


def truth(address, name="frames", indices=INDICES):
    source = open_source(address, "test")
    if name != "frames":
        return np.array([sequence[name] for sequence in source.truth(indices)])
    frames = np.empty((len(indices), *source.sequence_shape), np.uint8)
    source.read(np.asarray(indices), frames)
    return frames


def first_surprise(address):
    """Return the frame of each sequence that the first draw after the context leaves: (B,).

    What is drawn is a new velocity, which shows in the frame after; walls only turn it round.
    """
    is_drawn = truth(address, "bounced").any(2)
    if "turn" in address:
        speed = abs(truth(address, "velocity"))
        is_drawn[:, 1:] = (abs(np.diff(speed, axis=1)) > 1e-4).any((2, 3))
    is_drawn[:, :CONTEXT] = False
    is_drawn[:, -1] = True
    return is_drawn.argmax(1)


@pytest.mark.parametrize("address", FORESEEN)
def test_who_knows_the_dynamics_foresees_every_bit(address):
    found = redrawn(address).known_dynamics(INDICES, LATER)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, truth(address)[:, CONTEXT:], strict=True)


@pytest.mark.parametrize("address", RANDOM_MOTION)
def test_chance_is_not_foreseen_but_all_before_it(address):
    found, frames = redrawn(address).known_dynamics(INDICES, LATER), truth(address)[:, CONTEXT:]
    is_equal = (found == frames).all((2, 3))
    for row, first in enumerate(first_surprise(address) - CONTEXT):
        assert is_equal[row, : first + 1].all()
        assert first + 1 == LATER or not is_equal[row, first + 1 :].all()
    assert not is_equal.all(1).all()
    assert is_equal[:, 1].any()


def test_missing_frames_are_not_foreseen():
    address = f"live:easy?{SIZES}&missing=0.5"
    found, frames = redrawn(address).known_dynamics(INDICES, LATER), truth(address)[:, CONTEXT:]
    is_missing = ~frames.any((2, 3))
    assert 0.3 < is_missing.mean() < 0.7
    assert found.any((2, 3)).all()
    assert np.array_equal(found[~is_missing], frames[~is_missing])


def test_noise_is_not_foreseen():
    address, quiet = (f"live:easy?{SIZES}&noise={level}" for level in (20, 0))
    found = redrawn(address).known_dynamics(INDICES, LATER)
    assert np.array_equal(found, truth(quiet)[:, CONTEXT:])
    assert (found != truth(address)[:, CONTEXT:]).any((2, 3)).all()


@pytest.mark.parametrize("preset", ["srivastava", "easy", "svg-deterministic", "mnist++"])
def test_straight_on_is_right_until_a_wall_is_met(preset):
    address = f"live:{preset}?{SIZES}"
    found, frames = redrawn(address).constant_velocity(INDICES, LATER), truth(address)[:, CONTEXT:]
    is_equal = (found == frames).all((2, 3))
    has_bounced = truth(address, "bounced")[:, CONTEXT:].any(2).cumsum(1) > 0
    assert is_equal[~has_bounced].all()
    assert (~has_bounced).any()
    assert is_equal[has_bounced].mean() < 0.05, "rounding hides a slow step"


def test_straight_on_leaves_the_circle():
    address = f"live:circle?{SIZES}"
    found, frames = redrawn(address).constant_velocity(INDICES, LATER), truth(address)[:, CONTEXT:]
    is_equal = (found == frames).all((2, 3))
    assert not is_equal[:, 1:].any()


def test_straight_on_draws_nothing_either():
    noisy, quiet = (f"live:hard?{SIZES}{more}" for more in ("&noise=9&missing=0.5", ""))
    found, expected = (redrawn(a).constant_velocity(INDICES, LATER) for a in (noisy, quiet))
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("preset", ["srivastava", "extreme"])
def test_a_longer_sequence_begins_with_the_shorter_one(preset):
    address = f"live:{preset}?{SIZES}"
    found = redrawn(address).longer(INDICES, 33)
    assert found.shape == (len(INDICES), 33, 64, 64)
    assert np.array_equal(found[:, :20], truth(address))
    longer = truth(address.replace("frames=20", "frames=33"))
    assert np.array_equal(found, longer)


def test_sequences_of_different_length_all_go_on():
    address = f"live:extreme?{SIZES}".replace("frames=20", "frames=6..20")
    source = redrawn(address)
    frames, num_frames = truth(address), truth(address, "num_frames")
    assert len(set(num_frames)) > 3
    longer = source.longer(INDICES, 25)
    assert longer.any((2, 3)).mean() > 0.8, "a tenth is missing"
    still = f"live:easy?{SIZES}".replace("frames=20", "frames=6..20")
    foreseen, seen = redrawn(still).known_dynamics(INDICES, LATER), truth(still)
    assert foreseen.any((2, 3)).all()
    for row, end in enumerate(num_frames):
        assert np.array_equal(longer[row, :end], frames[row, :end])
        own = truth(still, "num_frames")[row]
        assert np.array_equal(foreseen[row, : own - CONTEXT], seen[row, CONTEXT:own])


def test_stored_sequences_are_drawn_as_live_ones(tmp_path):
    fields = ("canvas=30", "frames=8..12", "motion=stochastic", "noise=5", "color=random")
    data = make_data(tmp_path / "data", {"test": 7, "train": 3}, fields=fields)
    live = f"live:srivastava?seed=3&{'&'.join(fields)}"
    indices = np.array([6, 0, 3])
    for name in ("known_dynamics", "constant_velocity", "longer"):
        one, other = (getattr(redrawn(address), name)(indices, 9) for address in (data, live))
        np.testing.assert_array_equal(one, other, strict=True)
        assert one.shape == (3, 9, 30, 30, 3)


def test_more_than_is_drawn_at_once_is_drawn():
    address = "live:easy?canvas=512&frames=12"  # 3 MB a sequence
    indices = np.arange(5)
    found = redrawn(address, 10).known_dynamics(indices, 2)
    assert np.array_equal(found, truth(address, indices=indices)[:, 10:])


def test_what_appears_late_may_be_asked_for_early():
    address = f"live:easy?{SIZES}&appear=9"
    found = redrawn(address).known_dynamics(INDICES, 3)
    assert found.shape == (len(INDICES), 3, 64, 64)
    assert not found.any()
    assert redrawn(address).known_dynamics(INDICES, 6)[:, 5].any((1, 2)).all()


def refusal(address):
    """Return why a source cannot be drawn again."""
    source = open_source(address, "test")
    assert Redrawn.of(source, CONTEXT) is None
    with pytest.raises(InputError) as caught:
        Redrawn.require(source, CONTEXT)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_imported_sequences_cannot_be_drawn_again(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((12, 3, 30, 30), np.uint8))
    source = open_array(tmp_path / "a.npy")
    import_dataset(source, tmp_path / "data", parse_splits("test", source))
    line = f"{tmp_path}/data: was imported; there is no config to render it from"
    assert refusal(tmp_path / "data") == line


def test_bare_frames_cannot_be_drawn_again():
    bare = SimpleNamespace(address="a.npy", split="test", sequence_shape=(8, 30, 30))
    assert Redrawn.of(bare, CONTEXT) is None
    with pytest.raises(InputError, match=r"^a\.npy: there is no config to draw it from; name a"):
        Redrawn.require(bare, CONTEXT)


@pytest.fixture(scope="module")
def own_glyphs(tmp_path_factory):
    """Return a data set of glyphs at a path, and that path; each test copies both."""
    folder = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (36, 28, 28), np.uint8), np.arange(36) % 10
    np.savez(folder / "glyphs.npz", images=images, labels=labels)
    fields = ("canvas=30", "frames=8", f"glyphs={folder / 'glyphs.npz'}")
    return make_data(folder / "data", {"test": 5}, fields=fields), folder / "glyphs.npz"


@pytest.fixture
def copy_of(own_glyphs, tmp_path):
    return shutil.copytree(own_glyphs[0], tmp_path / "copy")


def test_glyphs_that_are_elsewhere_are_missed(own_glyphs, copy_of, edit_manifest):
    indices = np.arange(5)
    found = redrawn(copy_of).known_dynamics(indices, 4)
    assert np.array_equal(found, truth(copy_of, indices=indices)[:, CONTEXT:])
    gone = own_glyphs[1].with_name("gone.npz")
    edit_manifest(copy_of, lambda data: data["config"].update(glyphs=str(gone)))
    line = refusal(copy_of)
    assert line.startswith(f"{copy_of}: its glyphs are not here (glyph set '{gone}' does not exist")
    assert line.endswith("; put them back")


def test_other_glyphs_under_the_same_name_are_noticed(copy_of, edit_manifest):
    edit_manifest(copy_of, lambda data: data["glyphs"].update(sha256="0" * 64))
    line = refusal(copy_of)
    assert line.startswith(f"{copy_of}: was made from other glyphs (SHA-256 {'0' * 64}, here ")
    assert line.endswith("; put them back")


def test_unknown_rules_and_another_canvas_are_refused(copy_of, edit_manifest):
    edit_manifest(copy_of, lambda data: data["config"].update(rendering=2))
    assert f"{copy_of}: was made by mmgen " in refusal(copy_of)
    assert refusal(copy_of).endswith("; update mmgen")
    edit_manifest(copy_of, lambda data: data["config"].update(rendering=1, canvas="40x30"))
    holds = "holds sequences of (8, 30, 30), its config draws (8, 40, 30); make the set again"
    assert refusal(copy_of) == f"{copy_of}: {holds}"


@pytest.mark.parametrize(
    ("num_frames", "line"),
    [
        (100_001, "frames: 100001 is out of range, allowed are 1..100000"),
        (
            99_999,
            "canvas x frames is 1638383616 bytes a sequence, allowed are 1073741824; lower frames "
            "or canvas",
        ),
    ],
)
def test_no_sequence_grows_without_end(num_frames, line):
    address = "live:easy?canvas=128&frames=20"
    with pytest.raises(InputError) as caught:
        redrawn(address).longer(INDICES, num_frames)
    assert str(caught.value) == f"{address}: {line}"


def test_glyphs_once_checked_are_kept(own_glyphs, copy_of, tmp_path, edit_manifest):
    path = shutil.copy(own_glyphs[1], tmp_path / "glyphs.npz")
    edit_manifest(copy_of, lambda data: data["config"].update(glyphs=str(path)))
    source = redrawn(copy_of)
    path.unlink()
    assert np.array_equal(source.longer([4], 8), truth(copy_of, indices=[4]))


def test_glyphs_of_live_data_that_go_away_are_one_line(own_glyphs, tmp_path):
    path = shutil.copy(own_glyphs[1], tmp_path / "glyphs.npz")
    address = f"live:srivastava?canvas=30&glyphs={path}"
    source = redrawn(address)
    path.unlink()
    with pytest.raises(InputError) as caught:
        source.longer(INDICES, 30)
    assert str(caught.value).startswith(f"{address}: glyph set '{path}' does not exist; ")
