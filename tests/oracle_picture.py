"""The oracle's bitmaps: resized, cut to their ink, turned, scaled and dimmed, in plain loops.

h, w a patch, m, n sides before and after resizing; bitmaps are lists of rows of ints 0..255.
"""

import math

Bitmap = list[list[int]]


def resize_line(line: list[int], n: int) -> list[int]:
    """Resize m values to n: each takes the inputs around its centre, the near ones count more."""
    m = len(line)
    ratio = m / n
    reach = max(ratio, 1.0)
    resized = []
    for i in range(n):
        centre = (i + 0.5) * ratio
        first, end = max(0, int(centre - reach + 0.5)), min(m, int(centre + reach + 0.5))
        weights = [max(0.0, 1.0 - abs((j - centre + 0.5) / reach)) for j in range(first, end)]
        total = 0.0
        for weight in weights:
            total += weight
        value = 2**21
        for weight, ink in zip(weights, line[first:end], strict=True):
            value += math.floor(weight / total * 2**22 + 0.5) * ink
        resized.append(min(255, max(0, value >> 22)))
    return resized


def turned_over(bitmap: Bitmap) -> Bitmap:
    """Exchange rows and columns."""
    return [list(column) for column in zip(*bitmap, strict=True)]


def resize(bitmap: Bitmap, size: tuple[int, int]) -> Bitmap:
    """Resize to (h, w), first along x, then along y."""
    wide = [resize_line(row, size[1]) for row in bitmap]
    return turned_over([resize_line(column, size[0]) for column in turned_over(wide)])


def cut_to_ink(bitmap: Bitmap) -> Bitmap:
    """Cut to the box of ink brighter than 5; all of it if there is none."""
    rows = [y for y, row in enumerate(bitmap) if max(row) > 5]
    columns = [x for x, column in enumerate(turned_over(bitmap)) if max(column) > 5]
    if not rows:
        return bitmap
    return [row[columns[0] : columns[-1] + 1] for row in bitmap[rows[0] : rows[-1] + 1]]


def sin_cos(degrees: float) -> tuple[float, float]:
    """Return sin and cos: the Taylor series of what is left after whole quarter turns."""
    quarters = math.floor(degrees / 90 + 0.5)
    r = (degrees - 90 * quarters) * 0.017453292519943295
    z = r * r
    s, c = 0.0, 0.0
    for n in (13, 11, 9, 7, 5, 3):  # the innermost term first
        s = z * ((-1) ** (n // 2) / math.factorial(n) + s)
        c = z * ((-1) ** ((n + 1) // 2) / math.factorial(n + 1) + c)
    c = z * (-1 / 2 + c)
    s, c = r * (1 + s), 1 + c
    return ((s, c), (c, -s), (-s, -c), (-c, s))[quarters % 4]


def fix(v: float) -> int:
    """Return v in units of 2^-32."""
    return math.floor(v * 2**32 + 0.5)


def picture(
    patch: Bitmap, position: tuple[float, float], angle: float, scale: float, light: float
) -> dict[tuple[int, int], int]:
    """Return a digit's own picture, (y, x) -> brightness > 0: each pixel looks up its place.

    position  top-left of the unturned, unscaled patch in px; angle in degrees; light 1 = as it is
    """
    h, w = len(patch), len(patch[0])
    centre_y, centre_x = position[0] + h / 2, position[1] + w / 2
    reach = math.ceil(scale * (math.sqrt(h * h + w * w) / 2 + 1.5)) + 1
    top, left = math.floor(centre_y) - reach, math.floor(centre_x) - reach
    sin, cos = sin_cos(angle)
    a, b = cos / scale, sin / scale
    fixed_a, fixed_b = fix(a), fix(b)
    x_of_corner = fix(w / 2 + (a * (left - centre_x) - b * (top - centre_y)))
    y_of_corner = fix(h / 2 + (b * (left - centre_x) + a * (top - centre_y)))
    gain = min(math.floor(4096 * light + 0.5), 65535)

    def ink(y: int, x: int) -> int:
        return patch[y][x] if 0 <= y < h and 0 <= x < w else 0

    seen = {}
    for i in range(2 * reach + 2):
        for j in range(2 * reach + 2):
            y = (j * fixed_b + i * fixed_a + y_of_corner + 2**20) >> 21  # now in 1/2048 px
            x = (j * fixed_a - i * fixed_b + x_of_corner + 2**20) >> 21
            iy, fy, ix, fx = y // 2048, y % 2048, x // 2048, x % 2048
            upper = (2048 - fx) * ink(iy, ix) + fx * ink(iy, ix + 1)
            lower = (2048 - fx) * ink(iy + 1, ix) + fx * ink(iy + 1, ix + 1)
            blend = (2048 - fy) * upper + fy * lower
            value = min(255, ((blend >> 14) * gain + 2**19) >> 20)
            if value > 0:
                seen[top + i, left + j] = value
    return seen
