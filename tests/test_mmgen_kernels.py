"""The kernels equal the plain oracle bit for bit, on every path through them."""

import numpy as np
import oracle
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import GLYPHS, Case, cases

from mmgen import kernels
from mmgen.config import GeneratorConfig
from mmgen.draws import SPLIT_CODES
from mmgen.generate import render
from mmgen.glyphs import load_glyphs

needs_jit = pytest.mark.skipif(not kernels.IS_JITTED, reason="NUMBA_DISABLE_JIT is set")


def assert_equals_oracle(config, glyphs, seed, split, index):
    block = render(config, [index], split=split, seed=seed, glyphs=glyphs)
    expected = oracle.srivastava(
        *(glyphs.images, glyphs.labels, glyphs.splits[split], seed, SPLIT_CODES[split], index),
        canvas=config.canvas,
        frames=(config.frames.low, config.frames.high),
        digits=(config.digits.low, config.digits.high),
        speed=(config.speed.low, config.speed.high),
    )
    assert vars(block).keys() >= expected.keys()
    for name, values in expected.items():
        found = getattr(block, name)[0]
        assert (found.dtype, found.shape) == (values.dtype, values.shape), name
        assert found.tobytes() == values.tobytes(), name


@given(cases())
@example(Case(GeneratorConfig(canvas=(5, 7), speed=3), GLYPHS[5, 7], 2**63 - 1, "test", 2**63 - 1))
def test_oracle_on_random_glyphs(case):
    assert_equals_oracle(**vars(case))


@settings(max_examples=5)
@given(st.integers(0, 2**63 - 1), st.sampled_from(list(SPLIT_CODES)), st.integers(0, 10**6))
def test_oracle_on_mnist(seed, split, index):
    config = GeneratorConfig(canvas="30x41", frames="2..4", digits="1..3", speed="2..9")
    assert_equals_oracle(config, load_glyphs(), seed, split, index)


def test_oracle_on_a_long_track_with_many_bounces():
    config = GeneratorConfig(canvas=(11, 40), frames=120, digits=1, speed="7..8")
    assert_equals_oracle(config, GLYPHS[5, 7], 1, "train", 3)


@needs_jit
@given(cases(shapes=[(5, 7), (7, 32), (1, 1)]), st.integers(32, 70))
def test_vector_painter_equals_the_general_one(case, width):
    config = case.config.model_copy(update={"canvas": (case.config.canvas[0], width)})
    block = render(config, 3, split=case.split, seed=case.seed, glyphs=case.glyphs)
    frames = np.full_like(block.frames, 7)  # what was there before must not shine through
    placed = block.glyph_index, block.num_frames, block.position
    kernels.paint_max(case.glyphs.images, *placed, frames)
    assert np.array_equal(frames, block.frames)


@pytest.mark.parametrize("axis", [0, 1])
def test_mirrored_glyphs_on_mirrored_tracks_make_mirrored_frames(axis):
    glyphs = GLYPHS[5, 7]
    config = GeneratorConfig(canvas=(20, 31), frames=5, digits=3)
    block = render(config, 4, glyphs=glyphs)
    position = block.position.copy()
    position[..., axis] = config.canvas[axis] - (5, 7)[axis] - position[..., axis]
    images = np.ascontiguousarray(np.flip(glyphs.images, axis + 1))
    mirrored = np.empty_like(block.frames)
    kernels.paint_max(images, block.glyph_index, block.num_frames, position, mirrored)
    assert np.array_equal(np.flip(mirrored, axis + 2), block.frames)


@needs_jit
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["NUMBA_DISABLE_JIT", "NUMBA_BOUNDSCHECK"])
def test_oracle_again_without_compiler_or_with_checked_bounds(mode, start_python, tmp_path):
    own_cache = {"NUMBA_CACHE_DIR": str(tmp_path)}  # numba's cache does not know of bounds checks
    tests = "-Werror", "-m", "pytest", "-p", "no:cacheprovider", "-q", __file__, "-k", "oracle_on"
    process = start_python(*tests, **own_cache, **{mode: "1"})
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, out + err
    assert "3 passed" in out
    assert any(tmp_path.rglob("*.nbc")) == (mode == "NUMBA_BOUNDSCHECK")


@needs_jit
@given(cases(shapes=[(5, 7), (7, 32), (1, 1)]))
def test_vector_measure_equals_the_general_one(case):
    block = render(case.config, 3, split=case.split, seed=case.seed, glyphs=case.glyphs)
    box, visible = np.full_like(block.box, 7), np.full_like(block.visible, 7)
    glyphs = case.glyphs.images, case.glyphs.ink_box, case.glyphs.num_ink
    placed = block.glyph_index, block.num_frames, block.position
    kernels.measure_max(*glyphs, *placed, box, visible)
    assert box.tobytes() == block.box.tobytes()
    assert visible.tobytes() == block.visible.tobytes()
