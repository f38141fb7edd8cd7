"""Draw each field of the generator into examples/fields/, and list them in docs/sequences.md.

    python docs/make_fields.py

A picture has a row a value and every second frame of one sequence, which is the same in all rows
but for the field. Where a field is about paths, all frames laid over each other come first, the
later the brighter.
"""

from pathlib import Path

import numpy as np
from made_block import with_block
from numpy.typing import NDArray
from PIL import Image

from mmgen.config import GeneratorConfig

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "examples" / "fields"
PAGE = ROOT / "docs" / "sequences.md"
TILE_PX, GAP_PX, COLUMNS = 64, 3, 8
GAP_GREY = 96
COLOURS = 16  # of a picture: noise would take twice the bytes with more
SHOWN = 11  # which sequence of test
OTHER_SEQUENCE = {"crop": 3, "bounce": 3, "missing": 2}  # where 11 does not show it

Picture = NDArray[np.uint8]

# field -> (what all rows have besides, the values from the top)
SHOWN_VALUES: dict[str, tuple[str, tuple[str, ...]]] = {
    "canvas": ("", ("64", "48x96")),
    "digits": ("", ("1", "3", "6")),
    "classes": ("digits=3", ("all", "1", "0,6,8,9")),
    "glyph_size": ("", ("native", "14", "40x20")),
    "crop": ("", ("patch", "tight")),
    "speed": ("", ("1", "3.6", "8")),
    "velocity": ("speed=4", ("uniform", "whole-components")),
    "acceleration": ("speed=1", ("0", "0.3")),
    "motion": (
        "digits=1",
        ("bounce", "reflect", "stochastic", "wrap", "leave", "circle", "gravity", "turn"),
    ),
    "bounce": ("digits=1 speed=6", ("clamp", "ahead")),
    "walls": ("", ("edge", "centre")),
    "margin": ("digits=1", ("-14", "0", "10")),
    "gravity": ("motion=gravity speed=2 digits=1", ("0.1", "0.6")),
    "radius": ("motion=circle digits=1", ("0.3", "1")),
    "turn_chance": ("motion=turn digits=1 turn_angle=45", ("0.1", "0.6")),
    "turn_angle": ("motion=turn digits=1 turn_chance=0.4", ("-20..20", "90")),
    "first_frame": ("", ("step", "start")),
    "rounding": ("canvas=32 digits=1 speed=0.3", ("truncate", "round", "subpixel")),
    "appear": ("digits=3", ("0", "0..12")),
    "vanish": ("digits=3", ("100000", "4..14")),
    "rotation": ("", ("0", "10", "-30..30")),
    "scale": ("", ("1", "1.1")),
    "illumination": ("", ("1", "0.7")),
    "period": ("scale=1.1", ("2", "10")),
    "overlap": ("digits=3 canvas=40", ("max", "add", "over")),
    "color": ("digits=3", ("grey", "random")),
    "background": ("", ("black", "constant", "noise", "distractors")),
    "background_level": ("background=constant", ("32", "128")),
    "distractors": ("background=distractors", ("2", "12")),
    "distractor_size": ("background=distractors", ("3", "10")),
    "noise": ("", ("0", "15", "50")),
    "occluder": ("", ("none", "static", "moving")),
    "occluder_size": ("occluder=moving", ("12", "40")),
    "missing": ("", ("0", "0.3")),
}
NOT_SHOWN = {
    "frames": "as many as one likes, or a range",
    "glyphs": "mnist, fashion, kmnist, emnist-letters, qmnist, a path",
    "rendering": "the version of the rules, 1",
}
PATHS = (
    *("speed", "velocity", "acceleration", "motion", "bounce", "walls", "margin", "gravity"),
    *("radius", "turn_chance", "turn_angle"),
)


def row(name: str, value: str) -> Picture:
    """Return the frames of one value side by side, uint8 (h, w, 3)."""
    import mmgen
    from mmgen.presets import load_config

    besides, _ = SHOWN_VALUES[name]
    config = load_config("srivastava", assignments=[*besides.split(), f"{name}={value}"])
    index = OTHER_SEQUENCE.get(name, SHOWN)
    frames = mmgen.render(config, [index], split="test", seed=0, truth=()).frames[0]
    if frames.ndim == 3:
        frames = np.stack([frames] * 3, -1)
    tiles = list(frames[:: 2 if name != "rounding" else 1][:COLUMNS])
    if name in PATHS:
        age = np.linspace(0.25, 1, len(frames))[:, None, None, None]
        tiles = [(frames * age).max(0).astype(np.uint8), *tiles]
    factor = max(1, TILE_PX // frames.shape[1])
    gap = np.full((frames.shape[1] * factor, GAP_PX, 3), GAP_GREY, np.uint8)
    parts = [part for tile in tiles for part in (tile.repeat(factor, 0).repeat(factor, 1), gap)]
    return np.concatenate(parts[:-1], 1)


def draw(name: str) -> None:
    """Write the picture of a field."""
    rows = [row(name, value) for value in SHOWN_VALUES[name][1]]
    width = max(part.shape[1] for part in rows)
    height = sum(part.shape[0] + GAP_PX for part in rows) - GAP_PX
    whole = np.full((height, width, 3), GAP_GREY, np.uint8)
    top = 0
    for part in rows:
        whole[top : top + part.shape[0], : part.shape[1]] = part
        top += part.shape[0] + GAP_PX
    colours = 64 if name == "color" else COLOURS
    picture = Image.fromarray(whole).quantize(colours, Image.Quantize.FASTOCTREE, dither=0)
    picture.save(FOLDER / f"{name}.png", optimize=True)


def table() -> str:
    """Return a row a field: what it is, what is shown of it, the picture."""
    lines = ["| field | | shown, from the top |", "| --- | --- | --- |"]
    for name, field in GeneratorConfig.model_fields.items():
        told = (field.description or "").replace("|", "\\|")
        if name in NOT_SHOWN:
            lines.append(f"| `{name}` | {told} | {NOT_SHOWN[name]} |")
            continue
        besides, values = SHOWN_VALUES[name]
        shown = ", ".join(f"`{value}`" for value in values)
        given = f", with `{besides}`" if besides else ""
        picture = f"![{name} from the top: {', '.join(values)}](../examples/fields/{name}.png)"
        lines.append(f"| `{name}` | {told} | {shown}{given}<br>{picture} |")
    return "\n".join(lines) + "\n"


def with_table() -> str:
    """Return the text of the page with its table made anew, between two comments."""
    return with_block(PAGE.read_text(encoding="utf-8"), "fields", table())


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for field_name in SHOWN_VALUES:
        draw(field_name)
    PAGE.write_text(with_table(), encoding="utf-8")
