"""The generator once more, in plain loops: the answer the fast kernels must equal bit for bit.

It is written from RENDERING.md, not from the kernels, and imports nothing of mmgen. Python ints
and floats only (a float is IEEE float64), no libm but sqrt (correctly rounded everywhere), and no
uint8 arithmetic (it wraps). NumPy only holds the input and the result, and rounds to float32.

T longest frames, H, W canvas, C channels, K most digits, N glyphs in the whole set of h by w px
each. Always (y, x). Motion is in oracle_motion.py, what a digit looks like in oracle_picture.py.
"""

import math
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray
from oracle_motion import Dice, Fields, track
from oracle_picture import Bitmap, cut_to_ink, picture, resize

Grey = dict[tuple[int, int], int]  # (y, x) -> brightness
Ink = dict[tuple[int, int], list[int]]  # (y, x) -> brightnesses > 0; two only round a torus

DISTRACTOR, OCCLUDER = 2**16, 2**17  # the number of the first and the only, where they draw
PLAIN = {  # how distractors and the occluder move, whatever the digits do
    "motion": "bounce", "bounce": "clamp", "walls": "edge", "margin": 0.0, "velocity": "uniform",
    "acceleration": (0.0, 0.0),
}  # fmt: skip
BELL = [round(4096 * NormalDist().inv_cdf((n + 0.5) / 4096)) for n in range(4096)]


def render(
    fields: Fields, images: NDArray[np.uint8], labels: NDArray[np.uint8], pool: tuple[int, int],
    seed: int, split: int, index: int,
    random_until: int | None = None, straight_from: int | None = None,
    size: tuple[int, int] | None = None,
) -> dict[str, NDArray[Any]]:  # fmt: skip
    """Generate one sequence.

    images uint8 (N, h, w); labels uint8 (N,); pool [first, last) of N; split 0 train, 1 val, 2
    test; random_until the last frame that draws anything of its own, None: all do; straight_from
    the last frame before digits only go straight on, None: never; size (T, K) of the result, None:
    the most that the config allows.
    Returns frames uint8 (T, H, W) or (T, H, W, 3), zero past num_frames; num_frames int32 ();
    index int64 (); label int16 (K,) and glyph_index int32 (K,), which counts in the whole set, -1
    if the sequence has fewer digits; position (top-left) and velocity float32 (T, K, 2); angle and
    scale float32 (T, K); box int16 (T, K, 4); visible float32 (T, K); bounced bool (T, K); mask
    uint8 (T, H, W). Where a digit is not there: NaN, box -1, visible 0, bounced False.
    """
    dice = Dice(seed, split, index, math.inf if random_until is None else random_until)
    classes = fields["classes"]
    members = [n for n in range(*pool) if classes == "all" or int(labels[n]) in classes]
    num_frames = dice.integer("NUM_FRAMES", fields["frames"])
    num_digits = dice.integer("NUM_DIGITS", fields["digits"])
    shape = size or (fields["frames"][1], fields["digits"][1])
    out = nothing(shape, fields["canvas"], () if fields["color"] == "grey" else (3,))
    out["num_frames"][()], out["index"][()] = num_frames, index
    inks: list[dict[int, Ink]] = [{} for _ in range(num_frames)]  # frame -> digit -> its picture
    for k in range(num_digits):
        glyph_index, patch = draw_patch(dice, fields, images, members, k)
        out["glyph_index"][k], out["label"][k] = glyph_index, labels[glyph_index]
        moved = digit_moments(dice, fields, k, patch, num_frames, straight_from)
        for t, moment in moved.items():
            inks[t][k] = moment.pop("ink")
            for name, value in moment.items():
                out[name][t, k] = value
    colours = [draw_colour(dice, k) for k in range(num_digits)]
    behind = backgrounds(dice, fields, images, members, num_frames)
    covered = occluders(dice, fields, num_frames)
    for t in range(num_frames):
        is_missing = t <= dice.random_until and dice.unit("MISSING", 0, t) < fields["missing"]
        if not is_missing:
            paint(out["frames"][t], dice, fields, t, behind[t], inks[t], colours, covered[t])
        measure(out, t, fields, inks[t], covered[t], is_missing)
    return out


def nothing(
    shape: tuple[int, int], canvas: tuple[int, int], channels: tuple[int, ...]
) -> dict[str, NDArray[Any]]:
    """Return the arrays of a sequence in which there is nothing."""
    T, K = shape
    return {
        "frames": np.zeros((T, *canvas, *channels), np.uint8),
        "num_frames": np.array(0, np.int32),
        "index": np.array(0, np.int64),
        "label": np.full(K, -1, np.int16),
        "glyph_index": np.full(K, -1, np.int32),
        "position": np.full((T, K, 2), np.nan, np.float32),
        "velocity": np.full((T, K, 2), np.nan, np.float32),
        "angle": np.full((T, K), np.nan, np.float32),
        "scale": np.full((T, K), np.nan, np.float32),
        "box": np.full((T, K, 4), -1, np.int16),
        "visible": np.zeros((T, K), np.float32),
        "bounced": np.zeros((T, K), np.bool_),
        "mask": np.zeros((T, *canvas), np.uint8),
    }


def draw_patch(
    dice: Dice, fields: Fields, images: NDArray[np.uint8], members: list[int], k: int
) -> tuple[int, Bitmap]:
    """Return the glyph of digit k: its place in the whole set, and its patch."""
    glyph_index = members[dice.integer("GLYPH", (0, len(members) - 1), k)]
    bitmap = images[glyph_index].tolist()
    if fields["glyph_size"] is not None:
        bitmap = resize(bitmap, fields["glyph_size"])
    return glyph_index, cut_to_ink(bitmap) if fields["crop"] == "tight" else bitmap


def digit_moments(
    dice: Dice, fields: Fields, k: int, patch: Bitmap, num_frames: int, straight_from: int | None
) -> dict[int, dict[str, Any]]:
    """Return what digit k is in each frame in which it is there."""
    rotation = dice.real("ROTATION", fields["rotation"], k)
    factor = dice.real("SCALE", fields["scale"], k)
    dimming = dice.real("ILLUMINATION", fields["illumination"])
    appear = dice.integer("APPEAR", fields["appear"], k)
    vanish = dice.integer("VANISH", fields["vanish"], k)
    size, scale, light, moments = (len(patch), len(patch[0])), 1.0, 1.0, {}
    last = math.inf if straight_from is None else straight_from
    for t, moment in enumerate(track(dice, fields, k, size, num_frames, last)):
        if t > 0 and t // fields["period"] % 2 == 0:
            scale, light = scale / factor, light * dimming
        elif t > 0:
            scale, light = scale * factor, light / dimming
        angle = rotation * t
        angle = float(np.float32(angle - 360 * math.floor((angle + 180) / 360)))
        drawn_scale = float(np.float32(scale))
        position = [stored(moment[0][axis], fields, fields["canvas"][axis]) for axis in (0, 1)]
        if appear <= t < vanish:
            ink = picture(patch, (position[0], position[1]), angle, drawn_scale, light)
            moments[t] = {
                "ink": placed(ink, fields["canvas"] if fields["motion"] == "wrap" else None),
                "position": position,
                "velocity": moment[1],
                "bounced": moment[2],
                "angle": angle,
                "scale": drawn_scale,
            }
    return moments


def stored(at: float, fields: Fields, side: int) -> float:
    """Round a coordinate to what is stored, and drawn."""
    if fields["rounding"] != "subpixel":
        at = int(at) if fields["rounding"] == "truncate" else round(at)
    at = float(np.float32(at))
    return 0.0 if fields["motion"] == "wrap" and at >= side else at


def placed(ink: Grey, torus: tuple[int, int] | None) -> Ink:
    """Take pixels modulo a torus, on which a digit may meet itself."""
    on_canvas: Ink = {}
    for (y, x), value in ink.items():
        pixel = (y % torus[0], x % torus[1]) if torus else (y, x)
        on_canvas.setdefault(pixel, []).append(value)
    return on_canvas


def draw_colour(dice: Dice, k: int) -> list[int]:
    """Return red, green and blue, the largest of which is 255."""
    values = [dice.bits("COLOR", k, 0, channel) % 256 for channel in range(3)]
    m = max(values)
    return [(value * 255 + m // 2) // m if m else 255 for value in values]


def walk(dice: Dice, fields: Fields, number: int, size: int, num_frames: int) -> list[list[int]]:
    """Return the corner of a moving square in each frame."""
    moments = track(dice, fields | PLAIN, number, (size, size), num_frames)
    return [[int(at) for at in position] for position, _, _ in moments]


def backgrounds(
    dice: Dice, fields: Fields, images: NDArray[np.uint8], members: list[int], num_frames: int
) -> list[Grey]:
    """Return what is behind the digits in each frame."""
    (height, width), level = fields["canvas"], 0
    behind: list[Grey] = [{} for _ in range(num_frames)]
    if fields["background"] in ("constant", "noise"):
        level = dice.integer("BACKGROUND_LEVEL", fields["background_level"])
    if fields["background"] == "constant":
        behind = [{(y, x): level for y in range(height) for x in range(width)}] * num_frames
    if fields["background"] == "noise":
        texture = {}
        for i in range(height * width):
            byte = (dice.bits("BACKGROUND_NOISE", 0, 0, i // 8) >> (8 * (i % 8))) % 256
            texture[i // width, i % width] = (byte * (level + 1)) >> 8
        behind = [texture] * num_frames
    if fields["background"] == "distractors":
        d = fields["distractor_size"]
        for number in range(DISTRACTOR, DISTRACTOR + fields["distractors"]):
            _, patch = draw_patch(dice, fields, images, members, number)
            top = dice.integer("CUT_Y", (0, max(0, len(patch) - d)), number)
            left = dice.integer("CUT_X", (0, max(0, len(patch[0]) - d)), number)
            for t, (y, x) in enumerate(walk(dice, fields, number, d, num_frames)):
                for i, row in enumerate(patch[top : top + d]):
                    for j, ink in enumerate(row[left : left + d]):
                        behind[t][y + i, x + j] = max(ink, behind[t].get((y + i, x + j), 0))
    return behind


def occluders(dice: Dice, fields: Fields, num_frames: int) -> list[set[tuple[int, int]]]:
    """Return the pixels that are covered in each frame."""
    size, (height, width) = fields["occluder_size"], fields["canvas"]
    if fields["occluder"] == "none":
        return [set()] * num_frames
    y = int(dice.unit("START_Y", OCCLUDER) * (height - size))
    x = int(dice.unit("START_X", OCCLUDER) * (width - size))
    corners = [[y, x]] * num_frames
    if fields["occluder"] == "moving":
        corners = walk(dice, fields, OCCLUDER, size, num_frames)
    return [{(y + i, x + j) for i in range(size) for j in range(size)} for y, x in corners]


def paint(
    frame: NDArray[np.uint8], dice: Dice, fields: Fields, t: int, behind: Grey,
    inks: dict[int, Ink], colours: list[list[int]], covered: set[tuple[int, int]],
) -> None:  # fmt: skip
    """Fill a frame: background, digits, occluder, noise, one value after the other."""
    (height, width), is_grey = fields["canvas"], fields["color"] == "grey"
    level = dice.real("NOISE_LEVEL", fields["noise"]) if t <= dice.random_until else 0.0
    strength, bits = math.floor(256 * level + 0.5), 0
    values: list[int] = []
    for y in range(height):
        for x in range(width):
            for channel in range(1 if is_grey else 3):
                value = behind.get((y, x), 0)
                for k, ink in inks.items():
                    for brightness in ink.get((y, x), []):
                        colour = 255 if is_grey else colours[k][channel]
                        over = (brightness * colour + 127) // 255
                        add, brighter = min(255, value + over), max(value, over)
                        value = {"max": brighter, "add": add, "over": over}[fields["overlap"]]
                if (y, x) in covered:
                    value = 0
                i = len(values)
                if strength > 0:
                    bits = dice.bits("NOISE", 0, t, i // 5) >> (12 * (i % 5))
                grows = (BELL[bits % 4096] * strength + 2**19) >> 20
                values.append(min(255, max(0, value + grows)))
    frame[...] = np.array(values).reshape(frame.shape)


def measure(
    out: dict[str, NDArray[Any]], t: int, fields: Fields,
    inks: dict[int, Ink], covered: set[tuple[int, int]], is_missing: bool,
) -> None:  # fmt: skip
    """Fill mask, box and visible of frame t."""
    height, width = fields["canvas"]
    for k, ink in inks.items():
        num_seen, rows, columns = 0, [], []
        for y, x in ink:
            if not (0 <= y < height and 0 <= x < width):
                continue
            rows.append(y)
            columns.append(x)
            rivals = {other: max(inks[other][y, x]) for other in inks if (y, x) in inks[other]}
            owner = max(rivals)
            if fields["overlap"] != "over":
                owner = min(other for other in rivals if rivals[other] == max(rivals.values()))
            is_seen = (y, x) not in covered and not is_missing
            if is_seen and owner == k:
                out["mask"][t, y, x] = k + 1
            if is_seen and (owner == k or fields["overlap"] == "add"):
                num_seen += len(ink[y, x])
        if rows:
            out["box"][t, k] = min(rows), min(columns), max(rows) + 1, max(columns) + 1
        out["visible"][t, k] = num_seen / sum(map(len, ink.values())) if ink else 0.0
