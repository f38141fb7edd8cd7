"""GeneratorConfig: every quantity that makes a set harder, with its unit, default and check.

The one source of truth for presets, files, `--set` and manifests. It knows nothing of flags, and
the seed is not part of it: a config says what kind of sequences, a seed says which of them.
"""

import json
import math
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from mmgen.fields import (
    Float,
    FloatRange,
    Floats,
    Frozen,
    Integer,
    Integers,
    IntRange,
    as_written,
    no_bool,
    validated,
)
from mmgen.motions import MOTIONS, users_of_fields

MAX_SIDE_PX = 4096
MAX_FRAMES = 100_000
MAX_DIGITS = 255  # a mask is uint8: digit number + 1
MAX_SEQUENCE_BYTES = 1 << 30
MAX_LABEL = 255
MAX_GROWTH = 16  # of a digit that scales or is lit


def _canvas(value: Any) -> Any:
    """Read 64, "64" or "64x96" as (H, W)."""
    if isinstance(value, str):
        height, times, width = value.partition("x")
        return (height, width if times else height)
    return (value, value) if isinstance(value, int) else value


def _version(value: Any) -> Any:
    """Read "1" as 1, which a literal does not do by itself."""
    return int(value) if isinstance(value, str) and value.isdecimal() else no_bool(value)


def _classes(value: Any) -> Any:
    """Read "all", 7, "0,1,7" or [0, 1, 7] as text: labels in order, each once."""
    if value == "all":
        return value
    parts = value if isinstance(value, (list, tuple)) else str(value).split(",")
    try:
        labels = sorted({int(str(part).strip()) for part in parts})
    except ValueError:
        labels = [-1]
    if not labels or labels[0] < 0 or labels[-1] > MAX_LABEL:
        raise ValueError(f'{value!r} is no list of labels; write "all", or "0,1,7"')
    return ",".join(str(label) for label in labels)


def _glyph_size(value: Any) -> Any:
    """Read "native", 32, "32" or "20x28"; None stands for native."""
    return None if value in (None, "native") else _canvas(value)


def _motion(value: Any) -> Any:
    """Refuse what is no name of a motion, in the words that pydantic has for a list of names."""
    if not (isinstance(value, str) and value in MOTIONS):
        *names, last = map(repr, MOTIONS)
        raise ValueError(f"input should be {', '.join(names)} or {last}, got {value!r}")
    return value


def _sides_as_written(sides: tuple[int, int] | None) -> str:
    return "native" if sides is None else f"{sides[0]}x{sides[1]}"


Side = Annotated[Integer, Field(ge=1, le=MAX_SIDE_PX)]
Canvas = Annotated[
    tuple[Side, Side],
    BeforeValidator(_canvas),
    PlainSerializer(_sides_as_written),
]
GlyphSize = Annotated[
    tuple[Side, Side] | None, BeforeValidator(_glyph_size), PlainSerializer(_sides_as_written)
]
Classes = Annotated[str, BeforeValidator(_classes)]
MotionName = Annotated[str, BeforeValidator(_motion)]


class GeneratorConfig(Frozen):
    """What kind of sequences: the defaults are the preset `srivastava`.

    `RENDERING.md` says exactly what each field does to a pixel.
    """

    canvas: Canvas = Field((64, 64), description="height x width of a frame in px: 64 or 64x96")
    frames: Integers = Field(
        IntRange(low=20, high=20), description="frames per sequence, 20 or a range 10..20"
    )
    digits: Integers = Field(
        IntRange(low=2, high=2), description="digits per sequence, 2 or a range 1..3"
    )
    glyphs: str = Field(
        "mnist",
        min_length=1,
        description="glyph set: mnist, fashion, kmnist, emnist-letters, qmnist, or a path",
    )
    classes: Classes = Field("all", description='labels to draw from: "all", or "0,1,7"')
    glyph_size: GlyphSize = Field(
        None, description='glyph height x width in px, resized bilinearly: 32, 20x28; "native"'
    )
    crop: Literal["patch", "tight"] = Field(
        "patch", description="what meets the walls: the whole patch, or the tight box of its ink"
    )
    speed: Floats = Field(
        FloatRange(low=3.6, high=3.6),
        description="speed of each digit in px per frame, 3.6 or a range 3.0..5.0",
    )
    velocity: Literal["uniform", "whole-speed", "whole-components"] = Field(
        "uniform",
        description="any direction and speed; any direction, whole speed; each component whole, "
        "-speed..speed",
    )
    acceleration: Floats = Field(
        FloatRange(low=0, high=0), description="change of each digit's speed in px per frame^2"
    )
    motion: MotionName = Field("bounce", description="how digits move and what walls do")
    bounce: Literal["clamp", "ahead"] = Field(
        "clamp",
        description="motion bounce: a step past a wall ends on it, or turns round before it",
    )
    walls: Literal["edge", "centre"] = Field(
        "edge", description="which part of a digit the walls hold: its edges, or its centre"
    )
    margin: Float = Field(
        0.0,
        ge=-MAX_SIDE_PX,
        le=MAX_SIDE_PX,
        description="how far inside the canvas the walls stand in px; negative is outside",
    )
    gravity: Floats = Field(
        FloatRange(low=0.3, high=0.3),
        description="motion gravity: downward, px per frame^2, drawn once a sequence",
    )
    radius: Floats = Field(
        FloatRange(low=0.5, high=1.0),
        description="motion circle: radius as a share of the largest that fits",
    )
    turn_chance: Float = Field(
        0.2, ge=0, le=1, description="motion turn: chance in each frame that a digit turns"
    )
    turn_angle: Floats = Field(
        FloatRange(low=-45, high=45), description="motion turn: by how many degrees it turns"
    )
    first_frame: Literal["step", "start"] = Field(
        "step", description="whether frame 0 is one step after the start, or the start"
    )
    rounding: Literal["truncate", "round", "subpixel"] = Field(
        "truncate", description="position to px: toward 0, half to even, or drawn bilinearly"
    )
    appear: Integers = Field(
        IntRange(low=0, high=0), description="frame at which each digit appears"
    )
    vanish: Integers = Field(
        IntRange(low=MAX_FRAMES, high=MAX_FRAMES), description="frame from which each digit is gone"
    )
    rotation: Floats = Field(
        FloatRange(low=0, high=0),
        description="degrees per frame each digit turns on itself, counter-clockwise",
    )
    scale: Floats = Field(
        FloatRange(low=1, high=1),
        description="factor per frame by which each digit shrinks, then grows",
    )
    illumination: Floats = Field(
        FloatRange(low=1, high=1),
        description="factor per frame by which digits dim, then brighten; drawn once a sequence",
    )
    period: Integer = Field(
        5, ge=1, le=MAX_FRAMES, description="frames after which scale and illumination turn round"
    )
    overlap: Literal["max", "add", "over"] = Field(
        "max",
        description="where digits overlap: the brighter, the clipped sum, the higher number",
    )
    color: Literal["grey", "random"] = Field(
        "grey", description="grey frames, or RGB frames with a colour drawn for each digit"
    )
    background: Literal["black", "constant", "noise", "distractors"] = Field(
        "black",
        description="behind the digits: black, one grey, a fixed random texture, moving patches",
    )
    background_level: Integers = Field(
        IntRange(low=64, high=64),
        description="grey 0..255 of a constant background, brightest grey of a noisy one; drawn "
        "once a sequence",
    )
    distractors: Integer = Field(
        6, ge=1, le=MAX_DIGITS, description="background distractors: number of moving patches"
    )
    distractor_size: Integer = Field(
        5, ge=1, le=MAX_SIDE_PX, description="background distractors: side of a patch in px"
    )
    noise: Floats = Field(
        FloatRange(low=0, high=0),
        description="standard deviation of Gaussian pixel noise in grey levels, drawn once a "
        "sequence",
    )
    occluder: Literal["none", "static", "moving"] = Field(
        "none", description="a black square in front of the digits"
    )
    occluder_size: Integer = Field(
        24, ge=1, le=MAX_SIDE_PX, description="side of the occluder in px"
    )
    missing: Float = Field(
        0.0, ge=0, le=1, description="chance that a frame is missing, that is black"
    )
    rendering: Annotated[Literal[1], BeforeValidator(_version)] = Field(
        1, description="version of the rules that turn a config into pixels"
    )

    def __hash__(self) -> int:
        """Hash once: pydantic would do it again for each of the fields, 4 us in every block."""
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(getattr(self, name) for name in type(self).model_fields))

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of a frame: (H, W), or (H, W, 3) in colour."""
        return self.canvas if self.color == "grey" else (*self.canvas, 3)

    @model_validator(mode="after")
    def _ranges_hold(self) -> Self:
        for name, (low, high) in _ALLOWED.items():
            _within(name, getattr(self, name), low, high)
        num_bytes = self.frames.high * math.prod(self.frame_shape)
        if num_bytes > MAX_SEQUENCE_BYTES:
            raise ValueError(
                f"canvas x frames is {num_bytes} bytes a sequence, allowed are "
                f"{MAX_SEQUENCE_BYTES}; lower frames or canvas"
            )
        return self

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        of_motions = {name: ("motion", users) for name, users in users_of_fields().items()}
        for name, (switch, users) in (of_motions | _USED_BY).items():
            is_set = getattr(self, name) != type(self).model_fields[name].default
            if is_set and getattr(self, switch) not in users:
                plain = type(self).model_fields[name].default
                plain = plain if isinstance(plain, (str, int, float)) else as_written(plain)
                raise ValueError(
                    f"{name}: does nothing with {switch} = {getattr(self, switch)}, only with "
                    f"{' or '.join(users)}; otherwise set {name}={plain}"
                )
        if self.velocity != "uniform":
            self._whole_velocity_makes_sense()
        if self.vanish.low <= self.appear.high:
            raise ValueError(
                f"vanish: {as_written(self.vanish)} lets a digit vanish before it has appeared "
                f"(appear: {as_written(self.appear)})"
            )
        if self.appear.low >= self.frames.high:
            raise ValueError(
                f"appear: {as_written(self.appear)} is past the last frame "
                f"({self.frames.high - 1}); no digit would ever be seen"
            )
        num_steps = min(self.period, self.frames.high)
        for name in ("scale", "illumination"):
            factor = getattr(self, name)
            if math.log(_largest_factor(factor)) * num_steps > math.log(MAX_GROWTH):
                raise ValueError(
                    f"{name}: {as_written(factor)} over {num_steps} frames is more than "
                    f"{MAX_GROWTH}-fold; shorten period"
                )
        for name, switch in (("occluder_size", "occluder"), ("distractor_size", "background")):
            is_used = getattr(self, switch) in ("static", "moving", "distractors")
            if is_used and getattr(self, name) > min(self.canvas):
                raise ValueError(
                    f"{name}: {getattr(self, name)} is larger than the canvas "
                    f"{self.canvas[0]}x{self.canvas[1]}"
                )
        return self

    def _whole_velocity_makes_sense(self) -> None:
        for bound in (self.speed.low, self.speed.high):
            if bound != math.floor(bound):
                raise ValueError(
                    f"speed: {bound} is no whole number, which velocity = {self.velocity} needs"
                )
        if self.velocity == "whole-speed":
            return
        if self.speed.low != self.speed.high:
            raise ValueError(
                f"speed: {as_written(self.speed)} is a range; velocity = whole-components draws "
                "each component from -speed..speed already, so give one number"
            )
        if self.walls == "centre":
            raise ValueError(
                "walls: a centre may lie between two px, but velocity = whole-components stays on "
                "whole ones; choose edge"
            )
        if self.margin != math.floor(self.margin):
            raise ValueError(
                f"margin: {self.margin} is no whole number, which velocity = whole-components needs"
            )
        if not MOTIONS[self.motion].keeps_whole_px:
            raise ValueError(
                f"velocity: whole-components leaves whole px and motion = {self.motion} does not; "
                "choose uniform"
            )
        if self.acceleration.low != 0 or self.acceleration.high != 0:
            raise ValueError(
                "acceleration: would leave the whole components of velocity = whole-components"
            )


# Ranges that a field's numbers must lie in.
_ALLOWED: dict[str, tuple[float, float]] = {
    "frames": (1, MAX_FRAMES),
    "digits": (1, MAX_DIGITS),
    "speed": (0, MAX_SIDE_PX),
    "acceleration": (-MAX_SIDE_PX, MAX_SIDE_PX),
    "gravity": (0, MAX_SIDE_PX),
    "radius": (0, 1),
    "turn_angle": (-180, 180),
    "appear": (0, MAX_FRAMES),
    "vanish": (0, MAX_FRAMES),
    "rotation": (-180, 180),
    "scale": (1 / MAX_GROWTH, MAX_GROWTH),
    "illumination": (0.1, 10),
    "background_level": (0, 255),
    "noise": (0, 255),
}

# A field that only some values of another one use; set without them it is a mistake, and said so.
# `motions.py` has those that motions use.
_USED_BY: dict[str, tuple[str, tuple[str, ...]]] = {
    "background_level": ("background", ("constant", "noise")),
    "distractors": ("background", ("distractors",)),
    "distractor_size": ("background", ("distractors",)),
    "occluder_size": ("occluder", ("static", "moving")),
}


def _largest_factor(factor: FloatRange) -> float:
    return max(factor.high, 1 / factor.low)


def _within(name: str, value: IntRange | FloatRange, low: float, high: float) -> None:
    # `not <=` instead of `>`: NaN must fail too.
    if not (low <= value.low <= value.high <= high):
        written = as_written(value)
        raise ValueError(f"{name}: {written} is out of range, allowed are {low}..{high}")


def parse_config(fields: Mapping[str, Any]) -> GeneratorConfig:
    """Check the fields of a manifest or a caller; InputError names the first bad one."""
    return validated(GeneratorConfig, fields)


def to_toml(config: GeneratorConfig) -> str:
    """Write a config as TOML that can be edited and fed back, one field a line with its unit."""
    fields = config.model_dump()
    assigned = [f"{name} = {json.dumps(fields[name], ensure_ascii=False)}" for name in fields]
    width = max(len(line) for line in assigned)
    described = zip(assigned, GeneratorConfig.model_fields.values(), strict=True)
    return "".join(f"{line:<{width}}  # {field.description}\n" for line, field in described)
