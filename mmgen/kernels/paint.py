"""The fast path: unturned, unscaled grey digits at whole px, all of their ink on the canvas.

A row of ink is one instruction on a vector of LANES bytes. What `picture.py` computes for such
digits is the same to the bit; without a compiler (NUMBA_DISABLE_JIT) it does them too.

Letters: N sequences in a block, T frames, K digits a sequence, H x W canvas, G glyphs.

A packed glyph set is one uint8 array: the rows of each glyph's ink box one after the other, each
LANES bytes with zeros behind the ink, `offset` int64 (G,) the place of each glyph's first row,
and LANES zeros before each glyph. So a vector that would leave the canvas on the right can
start further left: what it then reads before its row is zeros, of the row above or of the gap.
"""

import numpy as np

from mmgen.kernels.exact import kernel
from mmgen.kernels.lanes import (
    LANES,
    add_to,
    copy_to,
    count_bits,
    hiding_mask,
    ink_mask,
    put_on,
    raise_to,
)

MAX, ADD, OVER = range(3)


@kernel
def pack_rows(images, ink_box, offset, packed):
    """Write the rows of each ink box into `packed`, zeroed, at the places of `offset`."""
    for g in range(images.shape[0]):
        left, right = ink_box[g, 1], ink_box[g, 3]
        for y in range(ink_box[g, 0], ink_box[g, 2]):
            first = offset[g] + (y - ink_box[g, 0]) * LANES
            for x in range(left, right):
                packed[first + x - left] = images[g, y, x]


@kernel
def paint(
    packed,
    offset,
    ink_box,
    glyph_index,
    first_glyph,
    num_frames,
    position,
    overlap,
    is_cleared,
    frames,
):
    """Paint digits on frames uint8 (N, T, H, W), which are cleared before unless they are already.

    position  float32 (N, T, K, 2), whole px, NaN where a digit is not there
    """
    num_sequences, longest, height, width = frames.shape
    flat = frames.reshape((num_sequences * longest, height * width))
    start = packed.ctypes.data
    if not is_cleared:
        flat[:1] = 0
    for n in range(num_sequences):
        for t in range(longest):
            # The next frame is cleared while this one is painted: the CPU does both at once.
            number = n * longest + t
            if not is_cleared and number + 1 < flat.shape[0]:
                flat[number + 1] = 0
            if t >= num_frames[n]:
                if is_cleared:
                    flat[number] = 0
                continue
            canvas = flat.ctypes.data + np.uint64(number * height * width)
            is_empty = not is_cleared
            for k in range(glyph_index.shape[1]):
                if np.isnan(position[n, t, k, 0]):
                    continue
                glyph = glyph_index[n, k] - first_glyph
                top = np.int64(position[n, t, k, 0]) + ink_box[glyph, 0]
                left = np.int64(position[n, t, k, 1]) + ink_box[glyph, 1]
                first = min(left, width - LANES)
                into = canvas + np.uint64(top * width + first)
                source = start + np.uint64(offset[glyph] - (left - first))
                num_rows = ink_box[glyph, 2] - ink_box[glyph, 0]
                if is_empty:  # nothing is there yet: no need to look
                    is_empty = False
                    for y in range(num_rows):
                        copy_to(into + np.uint64(y * width), source + np.uint64(y * LANES))
                elif overlap == MAX:
                    for y in range(num_rows):
                        raise_to(into + np.uint64(y * width), source + np.uint64(y * LANES))
                elif overlap == ADD:
                    for y in range(num_rows):
                        add_to(into + np.uint64(y * width), source + np.uint64(y * LANES))
                else:
                    for y in range(num_rows):
                        put_on(into + np.uint64(y * width), source + np.uint64(y * LANES))


@kernel
def measure_boxes(ink_box, num_ink, glyph_index, first_glyph, position, box):
    """Measure where each digit's ink is: box int16 (N, T, K, 4), y0 x0 y1 x1, -1 if none."""
    for n in range(box.shape[0]):
        for t in range(box.shape[1]):
            for k in range(box.shape[2]):
                glyph = glyph_index[n, k] - first_glyph
                if np.isnan(position[n, t, k, 0]) or num_ink[glyph] == 0:
                    for side in range(4):
                        box[n, t, k, side] = -1
                    continue
                top = np.int64(position[n, t, k, 0])
                left = np.int64(position[n, t, k, 1])
                box[n, t, k, 0] = ink_box[glyph, 0] + top
                box[n, t, k, 1] = ink_box[glyph, 1] + left
                box[n, t, k, 2] = ink_box[glyph, 2] + top
                box[n, t, k, 3] = ink_box[glyph, 3] + left


@kernel
def measure_visible(
    packed, offset, ink_box, num_ink, glyph_index, first_glyph, position, overlap, visible
):
    """Measure the share of each digit's ink that no other hides: visible float32 (N, T, K)."""
    start = packed.ctypes.data
    for n in range(visible.shape[0]):
        for t in range(visible.shape[1]):
            for k in range(visible.shape[2]):
                glyph = glyph_index[n, k] - first_glyph
                if np.isnan(position[n, t, k, 0]) or num_ink[glyph] == 0:
                    visible[n, t, k] = 0.0
                    continue
                hidden = 0
                if overlap != ADD:
                    hidden = _count_hidden(
                        start,
                        offset,
                        ink_box,
                        glyph_index[n],
                        first_glyph,
                        position[n, t],
                        k,
                        overlap,
                    )
                visible[n, t, k] = (num_ink[glyph] - hidden) / num_ink[glyph]


@kernel
def _count_hidden(start, offset, ink_box, glyph_index, first_glyph, position, k, overlap):
    """Count the ink of digit k whose place another digit owns."""
    glyph = glyph_index[k] - first_glyph
    top = np.int64(position[k, 0]) + ink_box[glyph, 0]
    left = np.int64(position[k, 1]) + ink_box[glyph, 1]
    bottom = top + ink_box[glyph, 2] - ink_box[glyph, 0]
    right = left + ink_box[glyph, 3] - ink_box[glyph, 1]
    hidden = 0
    for y in range(top, bottom):
        mask = np.uint32(0)
        mine = start + np.uint64(offset[glyph] + (y - top) * LANES)
        for other in range(glyph_index.shape[0]):
            if other == k or np.isnan(position[other, 0]) or (overlap == OVER and other < k):
                continue
            over = glyph_index[other] - first_glyph
            row = y - np.int64(position[other, 0])
            if not ink_box[over, 0] <= row < ink_box[over, 2]:
                continue
            shift = np.int64(position[other, 1]) + ink_box[over, 1] - left
            lanes = ink_box[over, 3] - ink_box[over, 1] + shift  # past the last it has ink in
            if lanes <= 0 or left + shift >= right:
                continue
            row -= ink_box[over, 0]
            theirs = start + np.uint64(offset[over] + row * LANES - shift)
            valid = np.uint64(0xFFFFFFFF) << np.uint64(max(shift, 0))
            valid &= np.uint64(0xFFFFFFFF) >> np.uint64(max(LANES - lanes, 0))
            if overlap == OVER:
                mask |= np.uint32(ink_mask(mine) & ink_mask(theirs) & valid)
            else:
                mask |= np.uint32(hiding_mask(mine, theirs, other < k) & valid)
        hidden += count_bits(mask)
    return hidden
