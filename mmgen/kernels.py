"""Every jitted function of the generator, and nothing that is not one.

Kernels that call each other share this file, because numba's disk cache does not notice an edit in
another one. They take checked arrays from `draws.py` and `generate.py`, write into the caller's
`out` arrays and allocate nothing. What reaches a pixel or an annotation uses only operations that
IEEE 754 rounds exactly (+ - * / sqrt, comparisons, integer hashing): no libm, no fastmath.

Letters: N sequences in a block, T frames, K digits a sequence, H x W canvas, h x w glyph.
"""

import numpy as np
from numba import config, njit
from numba.extending import intrinsic

# nogil: blocks render side by side in a thread pool. numba's own parallel loops are not used, since
# its default threading layer aborts when two threads launch them at once.
kernel = njit(nogil=True, cache=True)
IS_JITTED = not config.DISABLE_JIT

# What a random number is for. Fixed for ever: a changed or reused number changes every data set.
NUM_DIGITS = np.uint64(1)
NUM_FRAMES = np.uint64(2)
GLYPH = np.uint64(3)
START_Y = np.uint64(4)
START_X = np.uint64(5)
DIRECTION_Y = np.uint64(6)
DIRECTION_X = np.uint64(7)
SPEED = np.uint64(8)

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_2_POW_MINUS_53 = 1.0 / 9007199254740992.0


@kernel
def absorb(state, word):
    """Mix one more uint64 word of the key into the state (finaliser of splitmix64)."""
    z = (state ^ word) + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))


@kernel
def draw_bits(sequence, purpose, digit, frame, attempt):
    """Return the 64 random bits of a key; `sequence` is the state after seed, split and index."""
    state = absorb(sequence, (purpose << np.uint64(32)) | np.uint64(digit))
    return absorb(state, (np.uint64(frame) << np.uint64(32)) | np.uint64(attempt))


@kernel
def unit(bits):
    """Turn 64 bits into a float64 in [0, 1)."""
    return np.float64(bits >> np.uint64(11)) * _2_POW_MINUS_53


@kernel
def draw_integer(sequence, purpose, digit, low, high):
    """Draw an int64 in low..high, both included; draws nothing where they are equal."""
    if low == high:
        return low
    bits = draw_bits(sequence, purpose, digit, 0, 0)
    return low + np.int64(bits % np.uint64(high - low + 1))


@kernel
def draw_float(sequence, purpose, digit, low, high):
    """Draw a float64 uniform on [low, high); draws nothing where they are equal."""
    if low == high:
        return low
    attempt = 0
    while True:
        value = low + unit(draw_bits(sequence, purpose, digit, 0, attempt)) * (high - low)
        if value < high:  # the sum may round up to high
            return value
        attempt += 1


@kernel
def draw_block(
    seed,
    split,
    index,
    digits,
    frames,
    pool,
    speed,
    num_digits,
    num_frames,
    glyph_index,
    start,
    direction,
    speed_px,
):
    """Draw everything random about the sequences `index` of a split.

    seed, split  uint64              index   int64 (N,)
    digits, frames  int64 (2,), low..high    pool  int64 (2,), half open    speed  float64 (2,)
    num_digits, num_frames  int32 (N,)       glyph_index  int32 (N, K), -1 where there is no digit
    start      float64 (N, K, 2), (y, x) as a share of the travel, [0, 1)
    direction  float64 (N, K, 2), (y, x), length 1       speed_px  float64 (N, K)
    """
    key = absorb(absorb(np.uint64(0), seed), split)
    for n in range(index.shape[0]):
        sequence = absorb(key, np.uint64(index[n]))
        num_digits[n] = draw_integer(sequence, NUM_DIGITS, 0, digits[0], digits[1])
        num_frames[n] = draw_integer(sequence, NUM_FRAMES, 0, frames[0], frames[1])
        for k in range(glyph_index.shape[1]):
            if k >= num_digits[n]:
                glyph_index[n, k] = -1
                continue
            glyph_index[n, k] = draw_integer(sequence, GLYPH, k, pool[0], pool[1] - 1)
            start[n, k, 0] = unit(draw_bits(sequence, START_Y, k, 0, 0))
            start[n, k, 1] = unit(draw_bits(sequence, START_X, k, 0, 0))
            speed_px[n, k] = draw_float(sequence, SPEED, k, speed[0], speed[1])
            attempt = 0
            while True:  # a direction without sin and cos: a point of the unit disc, normalised
                y = 2.0 * unit(draw_bits(sequence, DIRECTION_Y, k, 0, attempt)) - 1.0
                x = 2.0 * unit(draw_bits(sequence, DIRECTION_X, k, 0, attempt)) - 1.0
                square = y * y + x * x
                if 0.0 < square <= 1.0:
                    break
                attempt += 1
            length = np.sqrt(square)
            direction[n, k, 0] = y / length
            direction[n, k, 1] = x / length


@kernel
def move_bounce(
    num_frames,
    glyph_index,
    start,
    direction,
    speed_px,
    travel,
    position,
    velocity,
    bounced,
):
    """Move digits in straight lines; a step past a wall ends on it and turns that component round.

    The rule of the released code of Srivastava et al. (arXiv:1502.04681): step, clamp and flip,
    store; so frame 0 is one step after the start. It works in shares of the travel and truncates
    to whole px, which is kept operation by operation.

    travel    int64 (2,), canvas minus glyph, (y, x) in px
    position  float32 (N, T, K, 2), whole px, NaN where there is no digit or frame
    velocity  float32 (N, T, K, 2), px per frame with which the digit leaves the frame
    bounced   bool (N, T, K), touched a wall in the step into the frame
    """
    bounced[:] = False
    for n in range(position.shape[0]):
        for k in range(position.shape[2]):
            for axis in range(2):
                reach = np.float64(travel[axis])
                at = 0.0
                heading = 0.0
                step = 0.0
                if glyph_index[n, k] >= 0:
                    at = start[n, k, axis]
                    if travel[axis] > 0:
                        heading = direction[n, k, axis]
                        step = speed_px[n, k] / reach
                for t in range(position.shape[1]):
                    if glyph_index[n, k] < 0 or t >= num_frames[n]:
                        position[n, t, k, axis] = np.nan
                        velocity[n, t, k, axis] = np.nan
                        continue
                    at += heading * step
                    if at <= 0.0:
                        at = 0.0
                        heading = -heading
                        bounced[n, t, k] = bounced[n, t, k] or travel[axis] > 0
                    if at >= 1.0:
                        at = 1.0
                        heading = -heading
                        bounced[n, t, k] = bounced[n, t, k] or travel[axis] > 0
                    position[n, t, k, axis] = np.float32(np.int64(reach * at))
                    velocity[n, t, k, axis] = np.float32(heading * speed_px[n, k])


@kernel
def paint_max(images, glyph_index, num_frames, position, frames):
    """Paint glyphs at whole-px positions; the brighter ink wins where two overlap.

    images  uint8 (G, h, w)    position  float32 (N, T, K, 2), inside the travel
    frames  uint8 (N, T, H, W), overwritten
    """
    height, width = images.shape[1], images.shape[2]
    for n in range(frames.shape[0]):
        frames[n] = 0
        for t in range(num_frames[n]):
            for k in range(glyph_index.shape[1]):
                if glyph_index[n, k] < 0:
                    continue
                top = np.int64(position[n, t, k, 0])
                left = np.int64(position[n, t, k, 1])
                for y in range(height):
                    row = frames[n, t, top + y, left : left + width]
                    ink = images[glyph_index[n, k], y]
                    for x in range(width):
                        row[x] = max(row[x], ink[x])


VECTOR_PX = 32


@intrinsic
def _max_vector(_context, target, source):
    """Raise VECTOR_PX bytes at one address to those at another, in one vector instruction.

    LLVM does not find this form by itself in the loop of `paint_max` (it must allow for aliasing
    and for negative indices): 5 times slower on a Xeon with AVX-512. It lowers the vector to what
    the CPU has, so the result is the same everywhere.
    """
    from llvmlite import ir
    from numba import types

    def emit(context, builder, _signature, addresses):
        vector = ir.VectorType(ir.IntType(8), VECTOR_PX).as_pointer()
        into, other = (builder.inttoptr(address, vector) for address in addresses)
        old, new = builder.load(into, align=1), builder.load(other, align=1)
        brighter = builder.select(builder.icmp_unsigned(">", old, new), old, new)
        builder.store(brighter, into, align=1)
        return context.get_dummy_value()

    return types.void(types.uintp, types.uintp), emit


@kernel
def paint_max_vector(padded, glyph_index, num_frames, position, frames):
    """Do as `paint_max`, a row an instruction, for glyphs up to and canvases from VECTOR_PX wide.

    padded  uint8 (G, h, p + w + p) with p = VECTOR_PX - w columns without ink on either side, so
            that a vector which would leave the canvas on the right starts further left instead
    """
    height, row_px = padded.shape[1], padded.shape[2]
    pad = row_px - VECTOR_PX
    canvas_height, canvas_width = frames.shape[2], frames.shape[3]
    for n in range(frames.shape[0]):
        frames[n] = 0
        for t in range(num_frames[n]):
            for k in range(glyph_index.shape[1]):
                if glyph_index[n, k] < 0:
                    continue
                top = np.int64(position[n, t, k, 0])
                left = np.int64(position[n, t, k, 1])
                first = min(left, canvas_width - VECTOR_PX)
                row = ((n * frames.shape[1] + t) * canvas_height + top) * canvas_width + first
                ink = glyph_index[n, k] * height * row_px + pad - (left - first)
                into = frames.ctypes.data + np.uint64(row)
                source = padded.ctypes.data + np.uint64(ink)
                for y in range(height):
                    _max_vector(into + np.uint64(y * canvas_width), source + np.uint64(y * row_px))


@kernel
def measure_max(images, ink_box, num_ink, glyph_index, num_frames, position, box, visible):
    """Measure where each digit's ink is on the canvas, and how much of it `paint_max` lets show.

    images   uint8 (G, h, w)    ink_box  int16 (G, 4), y0 x0 y1 x1    num_ink  int32 (G,), pixels
    box      int16 (N, T, K, 4), tight box of the digit's own ink, half open; -1 if there is none
    visible  float32 (N, T, K), share of its ink where it is the brightest; of equals the lower
             digit number shows; 0 if there is none
    """
    for n in range(box.shape[0]):
        for t in range(box.shape[1]):
            for k in range(box.shape[2]):
                glyph = glyph_index[n, k]
                if glyph < 0 or t >= num_frames[n] or num_ink[glyph] == 0:
                    box[n, t, k] = -1
                    visible[n, t, k] = 0.0
                    continue
                for side in range(4):
                    corner = np.int64(position[n, t, k, side % 2])
                    box[n, t, k, side] = ink_box[glyph, side] + corner
                hidden = 0
                for other in range(box.shape[2]):
                    if other != k and glyph_index[n, other] >= 0:
                        hidden += _hidden_by(images, glyph_index[n], position[n, t], k, other)
                visible[n, t, k] = (num_ink[glyph] - hidden) / num_ink[glyph]


@kernel
def _hidden_by(images, glyph_index, position, k, other):
    """Count the ink of digit k that `other` hides and no digit numbered below `other` does."""
    height, width = images.shape[1], images.shape[2]
    glyph = images[glyph_index[k]]
    down = np.int64(position[other, 0]) - np.int64(position[k, 0])
    right = np.int64(position[other, 1]) - np.int64(position[k, 1])
    hidden = 0
    for y in range(max(0, down), min(height, height + down)):
        for x in range(max(0, right), min(width, width + right)):
            ink = glyph[y, x]
            if ink == 0 or not _hides(images, glyph_index, other, y - down, x - right, ink, k):
                continue
            is_new = True
            for lower in range(other):
                if lower == k or glyph_index[lower] < 0:
                    continue
                row = y + np.int64(position[k, 0]) - np.int64(position[lower, 0])
                column = x + np.int64(position[k, 1]) - np.int64(position[lower, 1])
                is_inside = 0 <= row < height and 0 <= column < width
                if is_inside and _hides(images, glyph_index, lower, row, column, ink, k):
                    is_new = False
            if is_new:
                hidden += 1
    return hidden


@kernel
def _hides(images, glyph_index, other, row, column, ink, k):
    """Tell whether a pixel of digit `other` owns the place of digit k's ink."""
    there = images[glyph_index[other], row, column]
    return there > ink or (there == ink and other < k)


@kernel
def measure_max_vector(
    images, ink_box, num_ink, glyph_index, num_frames, position, box, visible, padded
):
    """Do as `measure_max`, a row an instruction, for glyphs up to VECTOR_PX wide.

    padded  uint8 (K, h, VECTOR_PX + w + VECTOR_PX), zeros: room for the glyphs of a sequence, with
            columns without ink that a row of one glyph beside another may reach into
    """
    height, width = images.shape[1], images.shape[2]
    row_px = padded.shape[2]
    start = padded.ctypes.data
    for n in range(box.shape[0]):
        for k in range(box.shape[2]):
            if glyph_index[n, k] >= 0:
                padded[k, :, VECTOR_PX : VECTOR_PX + width] = images[glyph_index[n, k]]
        for t in range(box.shape[1]):
            for k in range(box.shape[2]):
                glyph = glyph_index[n, k]
                if glyph < 0 or t >= num_frames[n] or num_ink[glyph] == 0:
                    box[n, t, k] = -1
                    visible[n, t, k] = 0.0
                    continue
                top, left = np.int64(position[n, t, k, 0]), np.int64(position[n, t, k, 1])
                box[n, t, k, 0] = ink_box[glyph, 0] + top
                box[n, t, k, 1] = ink_box[glyph, 1] + left
                box[n, t, k, 2] = ink_box[glyph, 2] + top
                box[n, t, k, 3] = ink_box[glyph, 3] + left
                hidden = 0
                for y in range(ink_box[glyph, 0], ink_box[glyph, 2]):
                    mine = (k * height + y) * row_px + VECTOR_PX
                    mask = np.uint32(0)
                    for other in range(box.shape[2]):
                        row = y + top - np.int64(position[n, t, other, 0])
                        right = np.int64(position[n, t, other, 1]) - left
                        if other == k or glyph_index[n, other] < 0:
                            continue
                        if 0 <= row < height and -width < right < width:
                            theirs = (other * height + row) * row_px + VECTOR_PX - right
                            mask |= _hiding_mask(
                                start + np.uint64(mine), start + np.uint64(theirs), other < k
                            )
                    hidden += _count_bits(mask)
                visible[n, t, k] = (num_ink[glyph] - hidden) / num_ink[glyph]


@intrinsic
def _hiding_mask(_context, mine, theirs, wins_ties):
    """Compare VECTOR_PX bytes at two addresses; a bit is set where theirs owns the place of ink."""
    from llvmlite import ir
    from numba import types

    def emit(context, builder, _signature, arguments):
        vector = ir.VectorType(ir.IntType(8), VECTOR_PX)
        mine, theirs = (
            builder.load(builder.inttoptr(address, vector.as_pointer()), align=1)
            for address in arguments[:2]
        )
        wins_ties = builder.icmp_unsigned("!=", arguments[2], arguments[2].type(0))
        brighter = builder.icmp_unsigned(">", theirs, mine)
        as_bright = builder.icmp_unsigned(">=", theirs, mine)
        owns = builder.select(wins_ties, as_bright, brighter)
        has_ink = builder.icmp_unsigned("!=", mine, ir.Constant(vector, None))
        return builder.bitcast(builder.and_(owns, has_ink), ir.IntType(VECTOR_PX))

    return types.uint32(types.uintp, types.uintp, types.boolean), emit


@intrinsic
def _count_bits(_context, mask):
    """Count the bits that are set."""
    from numba import types

    def emit(context, builder, _signature, arguments):
        return builder.ctpop(arguments[0])

    return types.uint32(types.uint32), emit
