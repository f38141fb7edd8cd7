"""The kernels equal the plain oracle bit for bit, on every path through them."""

import numpy as np
import oracle
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import GLYPHS, Case, bounce_cases, cases, oracle_fields

from mmgen import generate
from mmgen.config import GeneratorConfig
from mmgen.draws import SPLIT_CODES
from mmgen.generate import render
from mmgen.glyphs import load_glyphs
from mmgen.kernels import paint
from mmgen.kernels.exact import IS_JITTED
from mmgen.patches import make_patches
from mmgen.presets import load_config

needs_jit = pytest.mark.skipif(not IS_JITTED, reason="NUMBA_DISABLE_JIT is set")
ALL = ("box", "visible", "mask")


def assert_equals_oracle(config, glyphs, seed, split, index, **ends):
    asked = {"split": split, "seed": seed, "glyphs": glyphs, **ends}
    expected = oracle.render(
        *(oracle_fields(config), glyphs.images, glyphs.labels, glyphs.splits[split]),
        *(seed, SPLIT_CODES[split], index),
        **ends,
    )
    for truth in (ALL, ("box", "visible")):  # masks take the general path
        block = render(config, [index], truth=truth, **asked)
        for name, values in expected.items():
            if name in ALL and name not in truth:
                continue
            found = getattr(block, name)[0]
            assert (found.dtype, found.shape) == (values.dtype, values.shape), name
            assert found.tobytes() == values.tobytes(), name


@settings(max_examples=2 * settings.default.max_examples)
@given(cases())
def test_oracle_on_random_configs(case):
    assert_equals_oracle(**vars(case))


@pytest.mark.slow
@settings(max_examples=12 * settings.default.max_examples)
@given(cases())
def test_many_more_random_configs_equal_the_oracle(case):
    assert_equals_oracle(**vars(case))


@given(cases(motions=("stochastic", "turn")), st.integers(0, 6))
def test_oracle_where_randomness_ends(case, random_until):
    assert_equals_oracle(**vars(case), random_until=random_until)


@settings(max_examples=2 * settings.default.max_examples)
@given(cases(), st.integers(0, 3), st.none() | st.integers(-1, 3))
def test_oracle_where_digits_go_straight_on(case, straight_from, random_until):
    assert_equals_oracle(**vars(case), straight_from=straight_from, random_until=random_until)


@given(bounce_cases())
@example(Case(GeneratorConfig(canvas=(5, 7), speed=3), GLYPHS[5, 7], 2**63 - 1, "test", 2**63 - 1))
def test_oracle_on_random_glyphs(case):
    assert_equals_oracle(**vars(case))


@settings(max_examples=5)
@given(st.integers(0, 2**63 - 1), st.sampled_from(list(SPLIT_CODES)), st.integers(0, 10**6))
def test_oracle_on_mnist(seed, split, index):
    config = GeneratorConfig(canvas="30x41", frames="2..4", digits="1..3", speed="2..9")
    assert_equals_oracle(config, load_glyphs(), seed, split, index)


@pytest.mark.parametrize("preset", ["svg-stochastic", "mnist++", "tencia", "hard", "extreme"])
def test_oracle_on_presets(preset):
    config = load_config(preset, assignments=["frames=4"])
    assert_equals_oracle(config, load_glyphs(), 0, "test", 7)


def test_oracle_on_a_long_track_with_many_bounces():
    config = GeneratorConfig(canvas=(11, 40), frames=120, digits=1, speed="7..8")
    assert_equals_oracle(config, GLYPHS[5, 7], 1, "train", 3)


def test_oracle_on_quarter_turns():
    """Along a row, one of the two coordinates of the glyph does not change at all."""
    config = GeneratorConfig(canvas=(40, 41), frames=5, digits=2, rotation=90, scale="1..1.1")
    assert_equals_oracle(config, GLYPHS[5, 7], 0, "train", 4)


@needs_jit
@given(cases(shapes=[(5, 7), (7, 32), (1, 1)]), st.integers(41, 70))
def test_vectors_equal_plain_loops(case, width):
    """The oracle is slow on wide canvases; the loops without vectors are not."""
    config = case.config.model_copy(update={"canvas": (case.config.canvas[0], width)})
    asked = {"split": case.split, "seed": case.seed, "glyphs": case.glyphs}
    block = render(config, 3, **asked)
    colored = render(config.model_copy(update={"color": "random"}), 3, **asked)
    for name in ("box", "visible", "position"):
        assert getattr(block, name).tobytes() == getattr(colored, name).tobytes()


@given(bounce_cases(), st.sampled_from(["max", "add", "over"]))
def test_the_fast_painter_equals_the_general_one(case, overlap):
    config = case.config.model_copy(update={"overlap": overlap})
    asked = {"split": case.split, "seed": case.seed, "glyphs": case.glyphs}
    fast = render(config, 3, **asked)
    general = render(config, 3, truth=ALL, **asked)
    for name in ("frames", "box", "visible"):
        assert getattr(fast, name).tobytes() == getattr(general, name).tobytes()


@needs_jit
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("overlap", ["max", "add"])
def test_mirrored_glyphs_on_mirrored_tracks_make_mirrored_frames(axis, overlap):
    glyphs = GLYPHS[5, 7]
    config = GeneratorConfig(canvas=(20, 40), frames=5, digits=3, overlap=overlap)
    block = render(config, 4, glyphs=glyphs)
    position = block.position.copy()
    position[..., axis] = config.canvas[axis] - (5, 7)[axis] - position[..., axis]
    images = np.ascontiguousarray(np.flip(glyphs.images, axis + 1))
    flipped = type(glyphs)("flipped", images, glyphs.labels, glyphs.splits)
    patches = make_patches(flipped, "test", "all", None, "patch")
    mirrored = np.empty_like(block.frames)
    paint.paint(
        *(*patches.packed, patches.ink_box, block.glyph_index, patches.first, block.num_frames),
        *(position, {"max": paint.MAX, "add": paint.ADD}[overlap], False, mirrored),
    )
    assert np.array_equal(np.flip(mirrored, axis + 2), block.frames)


EVERY_OTHER = np.arange(6)[::-2]


@pytest.mark.parametrize("indices", [range(5, -1, -2), [5, 3, 1], EVERY_OTHER, EVERY_OTHER.copy()])
def test_indices_of_any_kind_name_the_same_sequences(indices):
    block = render("srivastava", indices, truth=())
    assert block.index.tolist() == [5, 3, 1]
    assert not np.shares_memory(block.index, indices)  # which may hold the next batch by now
    for i, frames in zip(block.index, block.frames, strict=True):
        assert np.array_equal(frames, render("srivastava", [i], truth=()).frames[0])


def test_no_libm_can_round_the_noise_table_otherwise():
    exact = [4096 * generate.NormalDist().inv_cdf((n + 0.5) / 4096) for n in range(4096)]
    assert min(abs(abs(value) % 1 - 0.5) for value in exact) > 1e-5
    assert generate.normal_table().tolist() == [round(value) for value in exact]


@needs_jit
@pytest.mark.slow
@pytest.mark.parametrize(
    "mode", ["NUMBA_DISABLE_JIT=1", "NUMBA_BOUNDSCHECK=1", "NUMBA_CPU_NAME=generic"]
)
def test_oracle_again_without_compiler_with_checked_bounds_and_on_any_cpu(
    mode, start_python, tmp_path
):
    own_cache = {"NUMBA_CACHE_DIR": str(tmp_path)}  # numba's cache does not know of bounds checks
    tests = "-Werror", "-m", "pytest", "-p", "no:cacheprovider", "-q", __file__
    chosen = "--hypothesis-profile=few", "-k", "oracle_on and not presets"
    name, _, value = mode.partition("=")
    process = start_python(*tests, *chosen, **own_cache, **{name: value})
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, out + err
    assert "5 passed" in out
    assert any(tmp_path.rglob("*.nbc")) == (name != "NUMBA_DISABLE_JIT")


def test_where_nothing_can_be_kept_kernels_are_compiled_all_the_same(start_python):
    """As in a container whose packages are root's, for a user without a home."""
    code = """
from numba.core import caching
caching.CacheImpl._locator_classes = []  # all of which found no folder to write to
from mmgen.kernels.exact import kernel
print(kernel(lambda x: x + 1)(2))
"""
    out, err = start_python("-Werror", "-c", code).communicate(timeout=60)
    assert (out, err) == ("3\n", "")
