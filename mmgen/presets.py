"""The named presets, and how preset, file and assignments become one config."""

from collections.abc import Sequence
from pathlib import Path

from mmgen.config import GeneratorConfig
from mmgen.errors import InputError
from mmgen.fields import FloatRange, parse_assignments, read_toml, validated


def _preset(**fields: object) -> GeneratorConfig:
    return GeneratorConfig.model_validate(fields)


_POOL = "glyphs with replacement from the split's own pool"
_LADDER = {"motion": "reflect", "first_frame": "start", "rounding": "subpixel"}

# name -> (config, what it is). The published ones equal their definitions but for the pool.
PRESETS: dict[str, tuple[GeneratorConfig, str]] = {
    "srivastava": (
        _preset(),
        "two digits that bounce, as the released code of Srivastava et al. 2015 moves them (one "
        f"speed for all, although the paper's text draws it); {_POOL}",
    ),
    "openstl": (
        _preset(),
        "the generator of OpenSTL, DDPAE, PhyDNet and SimVP: the motion of srivastava, so equal to "
        f"it here; {_POOL}",
    ),
    "tfds": (
        _preset(motion="reflect", first_frame="start", rounding="round"),
        "the recipe of TensorFlow Datasets: exact reflection, positions rounded, frame 0 is the "
        f"start; {_POOL}",
    ),
    "svg-deterministic": (
        _preset(
            glyph_size=32,
            speed=4,
            velocity="whole-components",
            first_frame="start",
            overlap="add",
        ),
        "Denton & Fergus 2018: digits of 32 px, whole px per frame, overlap added and clipped, the "
        f"last row and column never lit; {_POOL}",
    ),
    "svg-stochastic": (
        _preset(
            glyph_size=32,
            speed=4,
            velocity="whole-components",
            motion="stochastic",
            first_frame="start",
            overlap="add",
        ),
        f"the same with a new random velocity at every wall; {_POOL}",
    ),
    "mnist++": (
        _preset(
            digits=3,
            crop="tight",
            speed="0..3.6",
            walls="centre",
            margin=10,
            first_frame="start",
            rounding="subpixel",
            rotation="-30..30",
            scale=FloatRange(low=1 / 1.1, high=1.1),
            illumination="0.6..1",
        ),
        f"MovingMNIST++ of Shi et al. 2017 (HKO-7): rotation, scale and illumination; {_POOL}",
    ),
    "tencia": (
        _preset(
            speed="2..6",
            velocity="whole-speed",
            bounce="ahead",
            margin=-2,
            first_frame="start",
            overlap="add",
        ),
        "the much copied gist by tencia: whole speeds, walls 2 px outside the canvas, overlap "
        f"added and clipped; {_POOL}",
    ),
    "easy": (_preset(**_LADDER, digits=1, speed="1..2"), "one slow digit, exact reflection"),
    "medium": (_preset(**_LADDER, digits=2, speed="2..4"), "two digits, exact reflection"),
    "hard": (
        _preset(
            **_LADDER | {"motion": "stochastic"},
            digits=3,
            speed="2..6",
            rotation="-10..10",
            scale="0.95..1.05",
        ),
        "three digits that turn on themselves, grow and leave walls at random",
    ),
    "extreme": (
        _preset(
            **_LADDER | {"motion": "stochastic"},
            digits="3..5",
            speed="3..8",
            rotation="-30..30",
            scale="0.9..1.1",
            illumination="0.7..1",
            noise="0..20",
            occluder="moving",
            missing=0.1,
        ),
        "up to five fast digits with everything: noise, an occluder, missing frames",
    ),
    "circle": (
        _preset(motion="circle", speed="2..5", first_frame="start", rounding="subpixel"),
        "each digit on its own circle at its own speed",
    ),
}


def find_preset(name: str) -> GeneratorConfig:
    """Return the config of a named preset; InputError lists the names there are."""
    if name not in PRESETS:
        raise InputError(f"preset {name!r} does not exist; choose from: {', '.join(PRESETS)}")
    return PRESETS[name][0]


def load_config(
    preset: str = "srivastava", path: Path | None = None, assignments: Sequence[str] = ()
) -> GeneratorConfig:
    """Resolve preset < TOML file < FIELD=VALUE; InputError names the first bad field."""
    fields = find_preset(preset).model_dump()
    if path is not None:
        fields |= read_toml(path)
        validated(GeneratorConfig, fields, path)  # blames the file for what is the file's
    return validated(GeneratorConfig, fields | parse_assignments(assignments))
