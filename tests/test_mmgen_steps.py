"""Motions written as steps: three that kernels have too equal the oracle, and what steps may do."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import cases
from test_mmgen_kernels import assert_equals_oracle

import mmgen
from mmgen import generate
from mmgen.motions import MOTIONS, Motion

SMALL = {"canvas": 40, "frames": 12, "digits": "1..3", "glyph_size": 12, "speed": "1..4"}


def straight_on(track, t):
    track.position = track.position + track.velocity
    return np.zeros(track.is_there.shape, bool)


def gravity(track, t):
    straight_on(track, t)
    met = track.bounce()
    track.velocity[..., 0] += track.config.gravity.low
    return met


STEPS = {"leave": straight_on, "wrap": straight_on, "gravity": gravity}


@pytest.fixture
def add_motion(monkeypatch):
    """Add a motion to the table, as a script of somebody's would."""
    generate._renderer.cache_clear()

    def add(name, step, **about):
        motion = (
            replace(MOTIONS[name], step=step) if name in MOTIONS else Motion(**about, step=step)
        )
        monkeypatch.setitem(MOTIONS, name, motion)

    yield add
    generate._renderer.cache_clear()


def is_plain(case):
    """Whether a step can be told all: nothing is drawn for each digit or sequence but its speed."""
    fields = case.config
    return fields.acceleration.low == fields.acceleration.high == 0 and (
        fields.motion != "gravity" or fields.gravity.low == fields.gravity.high
    )


@pytest.mark.parametrize("motion", STEPS)
def test_a_step_does_what_the_kernel_does(motion, add_motion):
    add_motion(motion, STEPS[motion])

    @settings(max_examples=settings.default.max_examples // 2)
    @given(cases(motions=(motion,)).filter(is_plain), st.none() | st.integers(0, 3))
    def check(case, straight_from):
        assert_equals_oracle(**vars(case), straight_from=straight_from)

    check()


def wander(track, t):
    """Go back by chance."""
    turns = track.draw(1000, t) < 0.3
    track.velocity = np.where(turns[..., None], -track.velocity, track.velocity)
    track.position = track.position + track.velocity
    return track.bounce()


def test_a_step_may_draw_and_each_sequence_stays_the_same(add_motion):
    add_motion("wander", wander)
    config = mmgen.GeneratorConfig(**SMALL, motion="wander")
    block = mmgen.render(config, range(20), seed=3)
    alone = mmgen.render(config, [7], seed=3)
    for name in ("frames", "position", "velocity", "box", "visible", "bounced"):
        np.testing.assert_array_equal(getattr(alone, name)[0], getattr(block, name)[7])
    reversals = (block.velocity[:, 1:] == -block.velocity[:, :-1]).all(-1) & ~block.bounced[:, 1:]
    there = ~np.isnan(block.position[:, 1:, :, 0])
    assert 0.2 < reversals[there].mean() < 0.4


def test_who_foresees_by_the_rules_draws_nothing_more(add_motion):
    add_motion("wander", wander)
    config = mmgen.GeneratorConfig(**SMALL, motion="wander")
    known = mmgen.render(config, 20, random_until=4)
    free = mmgen.render(config, 20)
    np.testing.assert_array_equal(known.frames[:, :5], free.frames[:, :5])
    later = known.velocity[:, 5:]
    turned = (later[:, 1:] != later[:, :-1]).any(-1) & ~np.isnan(later[:, 1:, :, 0])
    assert not (turned & ~known.bounced[:, 6:]).any()


def test_digits_may_see_each_other(add_motion):
    def attract(track, t):
        towards = track.position[:, ::-1] - track.position
        track.velocity = track.velocity + 0.02 * towards
        return straight_on(track, t)

    add_motion("attract", attract, edges="none")
    config = mmgen.GeneratorConfig(
        **SMALL | {"digits": 2}, motion="attract", rounding="subpixel", first_frame="start"
    )
    block = mmgen.render(config, 10)
    total = block.velocity.sum(2)
    np.testing.assert_allclose(total, np.broadcast_to(total[:, :1], total.shape), atol=1e-4)


@pytest.mark.parametrize("rounding", ["truncate", "round", "subpixel"])
@pytest.mark.parametrize("first_frame", ["start", "step"])
def test_a_step_far_beyond_the_canvas_is_drawn(add_motion, rounding, first_frame):
    def flee(track, t):
        track.position = track.position + 4000 * track.velocity
        return np.zeros(track.is_there.shape, bool)

    add_motion("flee", flee)
    config = mmgen.GeneratorConfig(
        **SMALL, motion="flee", rounding=rounding, first_frame=first_frame, color="random"
    )
    block = mmgen.render(config, 5, truth=("box", "visible", "mask"))
    assert not block.frames[:, -1].any()


@pytest.mark.parametrize("motion", ["flee", "bounce"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 2.0**31])
def test_a_step_that_leaves_no_position_is_named(add_motion, motion, value):
    def lose(track, t):
        track.position = track.position + (value if t == 3 else 0)
        return np.zeros(track.is_there.shape, bool)

    add_motion(motion, lose)
    config = mmgen.GeneratorConfig(**SMALL, motion=motion)
    with pytest.raises(ValueError, match=rf"motion {motion}: its step into frame 3 leaves a posi"):
        mmgen.render(config, 2)


def test_a_step_that_leaves_another_shape_is_named(add_motion):
    def shrink(track, t):
        track.position = track.position[:, :1]
        return False

    add_motion("shrink", shrink)
    config = mmgen.GeneratorConfig(**SMALL, motion="shrink")
    with pytest.raises(
        ValueError, match=r"leaves a position of \(4, 1, 2\), expected is \(4, 3, 2"
    ):
        mmgen.render(config, 4)


def test_fields_that_a_new_motion_does_not_use_are_refused(add_motion):
    add_motion("wander", wander, uses=("margin",))
    assert mmgen.GeneratorConfig(motion="wander", margin=2).margin == 2
    for field, value in (("walls", "centre"), ("acceleration", 1), ("bounce", "ahead")):
        with pytest.raises(ValueError, match=f"{field}: does nothing with motion = wander, only"):
            mmgen.GeneratorConfig(motion="wander", **{field: value})
    with pytest.raises(ValueError, match="leaves whole px and motion = wander does not"):
        mmgen.GeneratorConfig(motion="wander", velocity="whole-components", speed=2)


def test_a_motion_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="'gravity' or 'turn', got 'wander'"):
        mmgen.GeneratorConfig(motion="wander")
