"""Digits that leave a frame and go straight on; `test_mmgen_kernels.py` has the bits of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import GLYPHS, MOTIONS, TAKE_ACCELERATION, cases

from mmgen.config import GeneratorConfig
from mmgen.fields import FloatRange
from mmgen.generate import TRUTH, render

NONE = FloatRange(low=0, high=0)
LAST = 5  # the frame that digits leave


def draw_again(case, fields=None, **ends):
    asked = {"split": case.split, "seed": case.seed, "glyphs": case.glyphs, "truth": TRUTH}
    config = case.config.model_copy(update=fields or {})
    return vars(render(config, [case.index, case.index + 1], **asked, **ends))


@given(cases(), st.integers(0, 6))
def test_up_to_the_frame_they_leave_all_is_as_ever(case, straight_from):
    ever, straight = draw_again(case), draw_again(case, straight_from=straight_from)
    until = straight_from + 1
    for name in ("frames", "position", "velocity", "bounced", *TRUTH):
        assert straight[name][:, :until].tobytes() == ever[name][:, :until].tobytes(), name
    for name in ("angle", "scale", "num_frames", "label", "glyph_index"):
        assert straight[name].tobytes() == ever[name].tobytes(), name
    assert not straight["bounced"][:, until:].any()


@given(cases(), st.integers(0, 6))
def test_where_randomness_ends_too_nothing_at_all_is_random_any_more(case, last):
    both = draw_again(case, straight_from=last, random_until=last)
    quiet = draw_again(case, {"noise": NONE, "missing": 0.0}, straight_from=last)
    for name in ("frames", "position", "velocity", *TRUTH):
        assert both[name][:, last + 1 :].tobytes() == quiet[name][:, last + 1 :].tobytes(), name


@given(cases(motions=("leave", "wrap")), st.integers(0, 6))
def test_what_always_goes_straight_does_so_bit_for_bit(case, straight_from):
    steady = {"acceleration": NONE}
    ever, straight = (draw_again(case, steady, **e) for e in ({}, {"straight_from": straight_from}))
    for name, values in ever.items():
        assert straight[name].tobytes() == values.tobytes(), name


@pytest.mark.parametrize("motion", MOTIONS)
def test_each_position_lies_on_the_line(motion):
    fields = {"acceleration": "-0.5..0.5"} if motion in TAKE_ACCELERATION else {}
    plain = {"canvas": (40, 50), "frames": 30, "digits": 3, "rounding": "subpixel"}
    config = GeneratorConfig(**plain, motion=motion, speed="1..4", **fields)
    block = render(config, 20, glyphs=GLYPHS[5, 7], straight_from=LAST)
    assert (block.velocity[:, LAST:] == block.velocity[:, LAST : LAST + 1]).all()
    steps = np.arange(30 - LAST)[:, None, None]
    line = block.position[:, LAST : LAST + 1] + steps * block.velocity[:, LAST : LAST + 1]
    distance = abs(block.position[:, LAST:] - line)
    if motion == "wrap":
        distance = abs(distance - config.canvas * np.round(distance / config.canvas))
    assert distance.max() < 1e-3, "float32 of what is float64 inside"
    is_outside = ((line < 0) | (line > config.canvas)).any()
    assert is_outside, "a wall was passed, or there is no test"


def test_who_leaves_the_canvas_is_seen_no_more():
    block = render("srivastava", 12, straight_from=2)
    is_gone = (block.position < -28).any(-1) | (block.position >= 64).any(-1)
    assert is_gone[:, 19].any()
    assert not is_gone[:, :3].any()
    assert not block.visible[is_gone].any()
    assert (block.box[is_gone] == -1).all()
    assert not block.frames[is_gone.all(-1)].any()
    assert block.frames[~is_gone.all(-1)].any((1, 2)).mean() > 0.8, "but for edges without ink"


@pytest.mark.parametrize("frame", [-1, 2**62, 2**63, 2**64])
def test_a_frame_that_is_none_is_refused(frame):
    with pytest.raises(ValueError, match=f"^straight_from: {frame} is no frame, they count from 0"):
        render(indices=1, straight_from=frame)
