"""The general path: every digit's own picture, put together, and what is to be seen of it.

Turned, scaled, lit, at fractions of a px, over the edge, round the torus, in colour. Pictures are
integer arithmetic throughout: places in units of 2**-32 px, weights of 1/2048, light of 1/4096.

Letters: N sequences in a block, T frames, K digits a sequence, H x W canvas, C channels,
S side of the room for one picture.
"""

import numpy as np

from mmgen.kernels.exact import IS_JITTED, kernel, sin_cos
from mmgen.kernels.lanes import (
    CELLS,
    LANES,
    add_to,
    claim_ink,
    claim_where_brighter,
    clear,
    count_bits,
    highest_bit,
    ink_mask,
    lowest_bit,
    owned_mask,
    put_on,
    raise_to,
    weigh_cells,
    weigh_rows,
)
from mmgen.kernels.paint import ADD, MAX, OVER

_ONE = 1 << 32
_SLACK = 1 << 24
_HALF_WEIGHT = 1 << 20  # of the 21 bits that a weight of 1/2048 px drops


@kernel
def paint_pictures(
    images,
    size,
    ink_box,
    glyph_index,
    first_glyph,
    num_frames,
    position,
    angle,
    scale,
    light,
    color,
    is_torus,
    overlap,
    is_cleared,
    cells,
    ink,
    extent,
    corner,
    num_ink,
    frames,
    cover,
    cover_px,
    is_missing,
    owner,
    brightest,
    box,
    visible,
    mask,
):
    """Paint digits on frames uint8 (N, T, H, W, C), and measure what is asked for.

    frames    are cleared before unless they are already, or hold a background

    images    uint8 (G, h + 2, w + 2), bitmaps with a border of one px without ink, and LANES + 1
              bytes of memory behind them
    position, angle, scale  float32 (N, T, K, ...), NaN where a digit is not there
    light     int64 (N, T), 4096 = unlit       color  uint8 (N, K, C)
    cover     int64 (N, T, 2), corner of the occluder, a square of cover_px (0: there is none)
    is_missing  bool (N, T)
    box, visible, mask  as in FORMAT.md; what is not asked for has a length of 0
    cells uint32 (K, h + 2 b, w + 2 b), or of length 0 where nothing is turned or scaled,
    ink uint8 (K, S, S + 3 LANES), extent int64 (K, 2, S), corner int64 (K, 3), num_ink int64 (K,),
    owner, brightest uint8 (H, W)  room to work in
    """
    num_digits = glyph_index.shape[1]
    in_lanes = IS_JITTED and not is_torus and frames.shape[3] >= LANES
    num_sequences, longest, height, width, channels = frames.shape
    flat = frames.reshape((num_sequences, longest, height * width * channels))
    for n in range(frames.shape[0]):
        for k in range(num_digits if cells.shape[0] > 0 else 0):
            if glyph_index[n, k] >= 0:
                glyph = glyph_index[n, k] - first_glyph
                _lay_out(images, glyph, ink_box, cells, k)
        for t in range(frames.shape[1]):
            if not is_cleared:
                flat[n, t] = 0
            for k in range(num_digits):
                corner[k, 2] = 0
                if t >= num_frames[n] or np.isnan(position[n, t, k, 0]):
                    continue
                glyph = glyph_index[n, k] - first_glyph
                degrees, factor = np.float64(angle[n, t, k]), np.float64(scale[n, t, k])
                top, left = np.float64(position[n, t, k, 0]), np.float64(position[n, t, k, 1])
                _draw(
                    images,
                    glyph,
                    size,
                    ink_box,
                    cells,
                    k,
                    top,
                    left,
                    degrees,
                    factor,
                    light[n, t],
                    ink,
                    extent,
                    corner,
                )
                if in_lanes and frames.shape[4] == 1:
                    _blend_lanes(frames, n, t, ink, extent, corner, k, overlap)
                else:
                    _blend(frames, n, t, ink, extent, corner, k, color, is_torus, overlap)
            for k in range(num_digits if box.shape[0] > 0 else 0):
                if in_lanes:
                    _measure_box_lanes(ink, extent, corner, k, owner.shape, box, n, t)
                else:
                    _measure_box(ink, extent, corner, k, is_torus, owner.shape, box, n, t)
            if visible.shape[0] == 0 and mask.shape[0] == 0:
                continue
            owner[:] = 0
            brightest[:] = 0
            for k in range(num_digits):
                num_ink[k] = _count_ink(ink, extent, corner, k)
                if in_lanes:
                    _claim_lanes(ink, extent, corner, k, overlap, owner, brightest)
                else:
                    _claim(ink, extent, corner, k, is_torus, overlap, owner, brightest)
            _take_out(owner, cover, n, t, cover_px, is_missing)
            if mask.shape[0] > 0:
                for y in range(owner.shape[0]):
                    for x in range(owner.shape[1]):
                        mask[n, t, y, x] = owner[y, x]
            if overlap == ADD:  # nothing is lost to others: what is left of the canvas counts
                owner[:] = 1
                _take_out(owner, cover, n, t, cover_px, is_missing)
            for k in range(num_digits if visible.shape[0] > 0 else 0):
                visible[n, t, k] = 0.0
                if corner[k, 2] > 0 and num_ink[k] > 0:
                    number = 1 if overlap == ADD else k + 1
                    if in_lanes:
                        seen = _count_owned_lanes(ink, extent, corner, k, number, owner)
                    else:
                        seen = _count_owned(ink, extent, corner, k, number, is_torus, owner)
                    visible[n, t, k] = seen / num_ink[k]


@kernel
def _take_out(owner, cover, n, t, cover_px, is_missing):
    """Let nobody own what the occluder covers, or anything in a missing frame."""
    if cover_px > 0:
        top, left = cover[n, t, 0], cover[n, t, 1]
        owner[top : top + cover_px, left : left + cover_px] = 0
    if is_missing[n, t]:
        owner[:] = 0


@kernel
def _fix(value):
    """Turn a float64 into units of 2**-32."""
    return np.int64(np.floor(value * 4294967296.0 + 0.5))


@kernel
def _draw(
    images,
    glyph,
    size,
    ink_box,
    cells,
    k,
    top,
    left,
    degrees,
    factor,
    light,
    ink,
    extent,
    corner,
):
    """Draw digit k's own picture.

    ink     uint8 (K, S, S + 3 LANES): column j is at LANES + j, and LANES columns to either side of
            the extent are 0 (where vectors read them)
    extent  int64 (K, 2, S), first and past the last column of each row
    corner  int64 (K, 3), the canvas's (y, x) of row and column 0, and the number of rows
    """
    height, width = np.float64(size[glyph, 0]), np.float64(size[glyph, 1])
    centre_y = top + height / 2.0
    centre_x = left + width / 2.0
    reach = np.ceil(factor * (np.sqrt(height * height + width * width) / 2.0 + 1.5)) + 1.0
    top, left = np.floor(centre_y) - reach, np.floor(centre_x) - reach
    sin, cos = sin_cos(degrees)
    a, b = cos / factor, sin / factor
    step = _fix(a), _fix(b)
    begin = (
        _fix(height / 2.0 + (b * (left - centre_x) + a * (top - centre_y))),
        _fix(width / 2.0 + (a * (left - centre_x) - b * (top - centre_y))),
    )
    corner[k, 0], corner[k, 1] = np.int64(top), np.int64(left)
    if ink_box[glyph, 2] == ink_box[glyph, 0]:
        corner[k, 2] = 0
    elif step[0] == _ONE and step[1] == 0:
        _shift(images, glyph, ink_box, begin, light, ink, extent, corner, k)
    else:
        # Only the rows that the turned box of ink can reach.
        up = factor * (cos * (ink_box[glyph, 0] - 1 - height / 2.0))
        down = factor * (cos * (ink_box[glyph, 2] - height / 2.0))
        one = factor * (sin * (ink_box[glyph, 1] - 1 - width / 2.0))
        other = factor * (sin * (ink_box[glyph, 3] - width / 2.0))
        first = np.int64(np.floor(centre_y - top + min(up, down) - max(one, other))) - 1
        last = np.int64(np.ceil(centre_y - top + max(up, down) - min(one, other))) + 2
        first, last = max(first, 0), min(last, 2 * np.int64(reach) + 2)
        begin = begin[0] + first * step[0], begin[1] - first * step[1]
        corner[k, 0] += first
        corner[k, 2] = last - first
        border = (cells.shape[1] - images.shape[1] + 2) // 2
        _warp(cells, border, glyph, ink_box, begin, step, light, ink, extent, corner, k)


@kernel
def _lit(value, light):
    """Turn a sum of ink, weighted with 22 bits, into ink under a light."""
    return min(((value >> 14) * light + (1 << 19)) >> 20, 255)


@kernel
def _shift(images, glyph, ink_box, begin, light, ink, extent, corner, k):
    """Draw an unturned digit of its own size: the same four weights for every pixel."""
    down, right = (begin[0] + _HALF_WEIGHT) >> 21, (begin[1] + _HALF_WEIGHT) >> 21
    y, x = down & 2047, right & 2047
    first_y = ink_box[glyph, 0] - (1 if y > 0 else 0)
    first_x = ink_box[glyph, 1] - (1 if x > 0 else 0)
    num_rows = np.int64(ink_box[glyph, 2] - first_y)
    num_columns = np.int64(ink_box[glyph, 3] - first_x)
    corner[k, 0] += first_y - (down >> 11)
    corner[k, 1] += first_x - (right >> 11)
    corner[k, 2] = num_rows
    weights = (2048 - y) * (2048 - x), (2048 - y) * x, y * (2048 - x), y * x
    row_px = images.shape[2]
    if IS_JITTED:
        first_row = glyph * images.shape[1] + first_y + 1
        source = images.ctypes.data + np.uint64(first_row * row_px + first_x + 1)
        target, row_ink = _room_of(ink, k)
        for i in range(num_rows):
            extent[k, 0, i], extent[k, 1, i] = 0, num_columns
            clear(target)
            for j in range(0, num_columns, LANES):
                weigh_rows(
                    target + np.uint64(LANES + j),
                    source + np.uint64(j),
                    source + np.uint64(row_px + j),
                    weights,
                    light,
                    num_columns - j,
                )
            clear(target + np.uint64(LANES + num_columns))
            target += np.uint64(row_ink)
            source += np.uint64(row_px)
        return
    for i in range(num_rows):
        extent[k, 0, i], extent[k, 1, i] = 0, num_columns
        upper = images[glyph, first_y + i + 1, first_x + 1 :].astype(np.int64)
        lower = images[glyph, first_y + i + 2, first_x + 1 :].astype(np.int64)
        for j in range(num_columns):
            value = weights[0] * upper[j] + weights[1] * upper[j + 1]
            value += weights[2] * lower[j] + weights[3] * lower[j + 1]
            ink[k, i, LANES + j] = _lit(value, light)


@kernel
def _lay_out(images, glyph, ink_box, cells, k):
    """Put the four pixels that a place lies between into one uint32, so that it takes one load.

    cells  uint32 (K, h + 2 b, w + 2 b); (y + b, x + b) holds the ink at y, x and its neighbours
    """
    cells[k] = 0
    border = (cells.shape[1] - images.shape[1] + 2) // 2
    for y in range(ink_box[glyph, 0] - 1, ink_box[glyph, 2]):
        for x in range(ink_box[glyph, 1] - 1, ink_box[glyph, 3]):
            cell = np.uint32(images[glyph, y + 1, x + 1])
            cell |= np.uint32(np.uint32(images[glyph, y + 1, x + 2]) << np.uint32(8))
            cell |= np.uint32(np.uint32(images[glyph, y + 2, x + 1]) << np.uint32(16))
            cell |= np.uint32(np.uint32(images[glyph, y + 2, x + 2]) << np.uint32(24))
            cells[k, y + border, x + border] = cell


@kernel
def _warp(cells, border, glyph, ink_box, begin, step, light, ink, extent, corner, k):
    """Draw a turned or scaled digit, each row only where ink can be.

    No place is further off the ink than that, which is what the border of cells is for.
    """
    along, across = step
    num_rows = corner[k, 2]
    _narrow_rows(num_rows, ink.shape[1], begin, step, ink_box[glyph], extent[k])
    row_cells = cells.shape[2]
    first_cell = (k * cells.shape[1] + border) * row_cells + border
    origin = cells.ctypes.data + np.uint64(4 * first_cell)
    target, row_ink = _room_of(ink, k)
    for i in range(num_rows):
        row_y = begin[0] + i * along + _HALF_WEIGHT
        row_x = begin[1] - i * across + _HALF_WEIGHT
        first, last = extent[k, 0, i], extent[k, 1, i]
        if IS_JITTED:
            clear(target + np.uint64(first))
            for j in range(first, last, CELLS):
                weigh_cells(
                    target + np.uint64(LANES + j),
                    origin,
                    row_cells,
                    (row_y + j * across, row_x + j * along),
                    (across, along),
                    light,
                    last - j,
                )
            clear(target + np.uint64(LANES + last))
            target += np.uint64(row_ink)
            continue
        for j in range(first, last):
            y = (row_y + j * across) >> 21
            x = (row_x + j * along) >> 21
            cell = cells[k, (y >> 11) + border, (x >> 11) + border]
            ink[k, i, LANES + j] = _lit(_weigh(cell, y & 2047, x & 2047), light)


@kernel
def _narrow_rows(num_rows, side, begin, step, ink_box, extent):
    """Find the columns of each row that a place reaches where ink can be: extent int64 (2, S).

    Without a branch, so that LLVM does several rows at a time. One px to either side of the ink is
    a pixel's reach, 1/256 more allows for the rounding of what says where that is. A step of 0
    counts as one of 2**-32 px: less, over all columns, than what is allowed for.
    """
    along, across = step
    per_along = 1.0 / np.float64(along if along != 0 else 1)
    per_across = 1.0 / np.float64(across if across != 0 else 1)
    low_y = (np.int64(ink_box[0]) - 1) * _ONE - _SLACK
    low_x = (np.int64(ink_box[1]) - 1) * _ONE - _SLACK
    high_y = np.int64(ink_box[2]) * _ONE + _SLACK
    high_x = np.int64(ink_box[3]) * _ONE + _SLACK
    for i in range(num_rows):
        row_y, row_x = begin[0] + i * along, begin[1] - i * across
        left = np.float64(low_x - row_x) * per_along
        right = np.float64(high_x - row_x) * per_along
        upper = np.float64(low_y - row_y) * per_across
        lower = np.float64(high_y - row_y) * per_across
        enter = max(0.0, max(min(left, right), min(upper, lower)))
        leave = min(np.float64(side), min(max(left, right), max(upper, lower)))
        is_reached = np.int64(enter <= leave)
        extent[0, i] = is_reached * np.int64(np.ceil(enter))
        extent[1, i] = is_reached * min(np.int64(leave) + 1, side)


@kernel
def _weigh(cell, y, x):
    """Weigh the four pixels of a cell at a place inside it, in units of 1/2048 px."""
    ink = np.int64(cell)
    upper = (2048 - x) * (ink & 255) + x * ((ink >> 8) & 255)
    lower = (2048 - x) * ((ink >> 16) & 255) + x * (ink >> 24)
    return (2048 - y) * upper + y * lower


@kernel
def _on_canvas(extent, corner, k, i, width):
    """Return the first and past the last column of a picture's row that lie on the canvas."""
    return max(extent[k, 0, i], -corner[k, 1]), min(extent[k, 1, i], width - corner[k, 1])


@kernel
def _room_of(ink, k):
    """Return the address of digit k's picture, and the bytes of its rows."""
    return ink.ctypes.data + np.uint64(k * ink.shape[1] * ink.shape[2]), ink.shape[2]


@kernel
def _blend_lanes(frames, n, t, ink, extent, corner, k, overlap):
    """Do as `_blend` for grey frames uint8 (N, T, H, W, 1) of at least LANES columns."""
    height, width = frames.shape[2], frames.shape[3]
    canvas = frames.ctypes.data + np.uint64((n * frames.shape[1] + t) * height * width)
    room, row_ink = _room_of(ink, k)
    for i in range(max(0, -corner[k, 0]), min(corner[k, 2], height - corner[k, 0])):
        first, last = _on_canvas(extent, corner, k, i, width)
        into = canvas + np.uint64((corner[k, 0] + i) * width)
        source = room + np.uint64(i * row_ink + LANES)
        for j in range(first, last, LANES):
            # What would leave the canvas on the right starts further left, where ink is 0 or,
            # behind a first vector, what that has painted already.
            column = min(corner[k, 1] + j, width - LANES)
            target, brush = into + np.uint64(column), source + np.uint64(column - corner[k, 1])
            if overlap == MAX:
                raise_to(target, brush)
            elif overlap == OVER:
                put_on(target, brush)
            elif column == corner[k, 1] + j or j == first:
                add_to(target, brush)
            else:
                for x in range(corner[k, 1] + j, corner[k, 1] + last):
                    value = np.int64(frames[n, t, corner[k, 0] + i, x, 0])
                    value += np.int64(ink[k, i, LANES + x - corner[k, 1]])
                    frames[n, t, corner[k, 0] + i, x, 0] = min(value, 255)


@kernel
def _claim_lanes(ink, extent, corner, k, overlap, owner, brightest):
    """Do as `_claim` for a canvas of at least LANES columns."""
    height, width = owner.shape
    owners, ranks = owner.ctypes.data, brightest.ctypes.data
    room, row_ink = _room_of(ink, k)
    for i in range(max(0, -corner[k, 0]), min(corner[k, 2], height - corner[k, 0])):
        first, last = _on_canvas(extent, corner, k, i, width)
        source = room + np.uint64(i * row_ink + LANES)
        for j in range(first, last, LANES):
            column = min(corner[k, 1] + j, width - LANES)
            place = np.uint64((corner[k, 0] + i) * width + column)
            brush = source + np.uint64(column - corner[k, 1])
            if overlap == OVER:
                claim_ink(brush, owners + place, k + 1)
            else:
                claim_where_brighter(brush, ranks + place, owners + place, k + 1)


@kernel
def _count_owned_lanes(ink, extent, corner, k, number, owner):
    """Do as `_count_owned` for a canvas of at least LANES columns."""
    height, width = owner.shape
    owners = owner.ctypes.data
    room, row_ink = _room_of(ink, k)
    total = 0
    for i in range(max(0, -corner[k, 0]), min(corner[k, 2], height - corner[k, 0])):
        first, last = _on_canvas(extent, corner, k, i, width)
        source = room + np.uint64(i * row_ink + LANES)
        for j in range(first, last, LANES):
            column = min(corner[k, 1] + j, width - LANES)
            place = np.uint64((corner[k, 0] + i) * width + column)
            brush = source + np.uint64(column - corner[k, 1])
            seen = owned_mask(brush, owners + place, number)
            # Lanes before column j, where a vector has started further left, are counted already.
            total += count_bits(seen >> np.uint32(corner[k, 1] + j - column))
    return total


@kernel
def _measure_box_lanes(ink, extent, corner, k, canvas, box, n, t):
    """Do as `_measure_box` for a canvas that is no torus."""
    height, width = canvas
    top, left, bottom, right = height, width, 0, 0
    room, row_ink = _room_of(ink, k)
    for i in range(max(0, -corner[k, 0]), min(corner[k, 2], height - corner[k, 0])):
        first, last = _on_canvas(extent, corner, k, i, width)
        source = room + np.uint64(i * row_ink + LANES)
        for j in range(first, last, LANES):
            bits = ink_mask(source + np.uint64(j))
            if last - j < LANES:
                bits &= np.uint32((np.uint64(1) << np.uint64(last - j)) - np.uint64(1))
            if bits != 0:
                top, bottom = min(top, corner[k, 0] + i), corner[k, 0] + i + 1
                left = min(left, corner[k, 1] + j + np.int64(lowest_bit(bits)))
                right = max(right, corner[k, 1] + j + np.int64(highest_bit(bits)) + 1)
    _store_box(top, left, bottom, right, box, n, t, k)


@kernel
def _piece(first, last, left, width, is_torus):
    """Cut the next piece of a row that lies on the canvas in one: (first, length, column).

    The length is 0 or less where nothing of the row is left on the canvas.
    """
    column = left + first
    if is_torus:
        column %= width
    elif column < 0:
        first -= column
        column = 0
    return first, min(last - first, width - column), column


@kernel
def _row_of(y, height, is_torus):
    """Return the canvas's row, -1 if there is none."""
    if is_torus:
        return y % height
    return y if 0 <= y < height else -1


@kernel
def _blend(frames, n, t, ink, extent, corner, k, color, is_torus, overlap):
    """Put a picture on a frame."""
    height, width, channels = frames.shape[2:]
    for i in range(corner[k, 2]):
        y = _row_of(corner[k, 0] + i, height, is_torus)
        first, last = extent[k, 0, i], extent[k, 1, i]
        while y >= 0 and first < last:
            first, length, column = _piece(first, last, corner[k, 1], width, is_torus)
            for j in range(length):
                value = np.int64(ink[k, i, LANES + first + j])
                for channel in range(channels):
                    before = np.int64(frames[n, t, y, column + j, channel])
                    tinted = (value * np.int64(color[n, k, channel]) + 127) // 255
                    if overlap == MAX:
                        before = max(before, tinted)
                    elif overlap == ADD:
                        before = min(before + tinted, 255)
                    elif value > 0:
                        before = tinted
                    frames[n, t, y, column + j, channel] = before
            first += max(length, 1)


@kernel
def _count_ink(ink, extent, corner, k):
    """Count a picture's ink, on the canvas or off it."""
    total = 0
    room, row_ink = _room_of(ink, k)
    for i in range(corner[k, 2]):
        if IS_JITTED:
            source = room + np.uint64(i * row_ink + LANES)
            for j in range(extent[k, 0, i], extent[k, 1, i], LANES):
                total += count_bits(ink_mask(source + np.uint64(j)))
        else:
            for j in range(extent[k, 0, i], extent[k, 1, i]):
                total += ink[k, i, LANES + j] > 0
    return total


@kernel
def _claim(ink, extent, corner, k, is_torus, overlap, owner, brightest):
    """Let a digit own the pixels it is the brightest at, or in front of the others."""
    height, width = owner.shape
    for i in range(corner[k, 2]):
        y = _row_of(corner[k, 0] + i, height, is_torus)
        first, last = extent[k, 0, i], extent[k, 1, i]
        while y >= 0 and first < last:
            first, length, column = _piece(first, last, corner[k, 1], width, is_torus)
            for j in range(length):
                value = ink[k, i, LANES + first + j]
                if overlap == OVER:
                    if value > 0:
                        owner[y, column + j] = k + 1
                elif value > brightest[y, column + j]:
                    brightest[y, column + j] = value
                    owner[y, column + j] = k + 1
            first += max(length, 1)


@kernel
def _count_owned(ink, extent, corner, k, number, is_torus, owner):
    """Count the ink of a picture at pixels that hold the number."""
    height, width = owner.shape
    total = 0
    for i in range(corner[k, 2]):
        y = _row_of(corner[k, 0] + i, height, is_torus)
        first, last = extent[k, 0, i], extent[k, 1, i]
        while y >= 0 and first < last:
            first, length, column = _piece(first, last, corner[k, 1], width, is_torus)
            for j in range(length):
                if ink[k, i, LANES + first + j] > 0 and owner[y, column + j] == number:
                    total += 1
            first += max(length, 1)
    return total


@kernel
def _measure_box(ink, extent, corner, k, is_torus, canvas, box, n, t):
    """Find the tight box of a picture's ink on the canvas."""
    height, width = canvas
    top, left, bottom, right = height, width, 0, 0
    for i in range(corner[k, 2]):
        y = _row_of(corner[k, 0] + i, height, is_torus)
        first, last = extent[k, 0, i], extent[k, 1, i]
        while y >= 0 and first < last:
            first, length, column = _piece(first, last, corner[k, 1], width, is_torus)
            for j in range(length):
                if ink[k, i, LANES + first + j] > 0:
                    top, bottom = min(top, y), max(bottom, y + 1)
                    left, right = min(left, column + j), max(right, column + j + 1)
            first += max(length, 1)
    _store_box(top, left, bottom, right, box, n, t, k)


@kernel
def _store_box(top, left, bottom, right, box, n, t, k):
    if bottom == 0:
        top = left = bottom = right = -1
    box[n, t, k, 0], box[n, t, k, 1] = top, left
    box[n, t, k, 2], box[n, t, k, 3] = bottom, right
