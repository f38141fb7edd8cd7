"""What is behind the digits and what is before them: background, occluder, noise, missing frames.

Letters: N sequences in a block, T frames, H x W canvas, C channels, D distractors of d x d px.
"""

import numpy as np

from mmgen.kernels.exact import (
    BACKGROUND_NOISE,
    CUT_X,
    CUT_Y,
    FIRST_DISTRACTOR,
    NOISE,
    absorb,
    draw_bits,
    draw_integer,
    kernel,
)


@kernel
def fill_background(key, index, num_frames, level, is_textured, frames):
    """Fill frames uint8 (N, T, H, W, C) with one grey a sequence, or a texture up to that grey."""
    height, width, channels = frames.shape[2:]
    for n in range(frames.shape[0]):
        sequence = absorb(key, np.uint64(index[n]))
        grey = np.uint64(level[n])
        frames[n, 0] = np.uint8(grey)
        bits = np.uint64(0)
        for i in range(height * width if is_textured else 0):
            if i % 8 == 0:
                bits = draw_bits(sequence, BACKGROUND_NOISE, 0, 0, i // 8)
            value = ((bits & np.uint64(255)) * (grey + np.uint64(1))) >> np.uint64(8)
            bits >>= np.uint64(8)
            for channel in range(channels):
                frames[n, 0, i // width, i % width, channel] = value
        picture = frames[n].reshape(frames.shape[1], height * width * channels)
        for t in range(1, num_frames[n]):
            for i in range(picture.shape[1]):
                picture[t, i] = picture[0, i]
        for t in range(num_frames[n], frames.shape[1]):
            frames[n, t] = 0


@kernel
def paint_distractors(
    key, index, images, size, glyph_index, first_glyph, num_frames, position, side, frames
):
    """Clear frames uint8 (N, T, H, W, C) and paint small cuts of glyphs, the brighter on top.

    images    uint8 (G, h + 2, w + 2), with a border      position  float32 (N, T, D, 2), whole px
    """
    channels = frames.shape[4]
    for n in range(frames.shape[0]):
        sequence = absorb(key, np.uint64(index[n]))
        frames[n] = 0
        for k in range(glyph_index.shape[1]):
            glyph = glyph_index[n, k] - first_glyph
            digit = FIRST_DISTRACTOR + k
            height, width = size[glyph, 0], size[glyph, 1]
            top = draw_integer(sequence, CUT_Y, digit, 0, 0, 0, max(0, height - side))
            left = draw_integer(sequence, CUT_X, digit, 0, 0, 0, max(0, width - side))
            for t in range(num_frames[n]):
                y, x = np.int64(position[n, t, k, 0]), np.int64(position[n, t, k, 1])
                for i in range(min(side, height)):
                    for j in range(min(side, width)):
                        ink = images[glyph, top + i + 1, left + j + 1]
                        for channel in range(channels):
                            before = frames[n, t, y + i, x + j, channel]
                            frames[n, t, y + i, x + j, channel] = max(before, ink)


@kernel
def finish(key, index, num_frames, cover, cover_px, noise, table, random_until, is_missing, frames):
    """Lay the occluder on, add noise, take missing frames out.

    cover   int64 (N, T, 2), corner of a square of cover_px (0: there is none)
    noise   float64 (N,), standard deviation in grey levels     table  int16 (4096,), 4096 = one
    is_missing  bool (N, T)                                     frames  uint8 (N, T, H, W, C)
    """
    for n in range(frames.shape[0]):
        sequence = absorb(key, np.uint64(index[n]))
        strength = np.int64(np.floor(256.0 * noise[n] + 0.5))
        for t in range(num_frames[n]):
            frame = frames[n, t]
            if is_missing[n, t]:
                frame[:] = 0
                continue
            if cover_px > 0:
                top, left = cover[n, t, 0], cover[n, t, 1]
                frame[top : top + cover_px, left : left + cover_px] = 0
            if strength > 0 and t <= random_until:
                _add_noise(sequence, t, strength, table, frame.reshape(frame.size))


@kernel
def _add_noise(sequence, t, strength, table, values):
    """Add Gaussian noise to values uint8 (H * W * C,): a hash is good for five of them."""
    bits = np.uint64(0)
    for i in range(values.shape[0]):
        if i % 5 == 0:
            bits = draw_bits(sequence, NOISE, 0, t, i // 5)
        deviate = np.int64(table[bits & np.uint64(4095)])
        bits >>= np.uint64(12)
        value = np.int64(values[i]) + ((deviate * strength + 524288) >> 20)
        values[i] = min(max(value, 0), 255)
