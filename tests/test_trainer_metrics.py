"""PSNR and SSIM against scikit-image, on the frames that fool a fast implementation."""

import math

import numpy as np
import pytest
import torch
from skimage.filters import gaussian
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from trainer_data import make_data, stored

from trainer import metrics


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    """Frames as they are, float64 (5, 3, 30, 34)."""
    folder = tmp_path_factory.mktemp("metrics") / "data"
    data = make_data(folder, {"test": 5}, fields=("canvas=30x34", "frames=3"))
    return stored(data, "test") / 255


def outputs(truth):
    """What models say: blurred, noisy, too bright, a constant, black, the truth itself."""
    noise = np.random.default_rng(0).normal(0, 0.05, truth.shape)
    return {
        "blurred": np.stack([[gaussian(f, 1.5) for f in frames] for frames in truth]),
        "noisy": truth + noise,  # below 0 and above 1 too
        "bright": 0.7 + 0.5 * truth,
        "constant": np.full(truth.shape, 0.25),
        "black": np.zeros(truth.shape),
        "true": truth,
    }


def as_values(frames):
    return torch.from_numpy(frames).float().flatten(2)


@pytest.mark.parametrize("name", ["blurred", "noisy", "bright", "constant", "black", "true"])
def test_ssim_equals_scikit_image_in_both_conventions(truth, name):
    output = outputs(truth)[name]
    found = metrics.ssim(as_values(output), as_values(truth), (30, 34))
    for data_range, values in zip((1, 2), found, strict=True):
        expected = [
            [
                structural_similarity(
                    said.astype(np.float32).clip(0, 1).astype(float),
                    true.astype(np.float32).astype(float),
                    data_range=data_range,
                )
                for said, true in zip(*pair, strict=True)
            ]
            for pair in zip(output, truth, strict=True)
        ]
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-9)


def test_ssim_of_colour_is_the_mean_of_its_channels(truth):
    true = np.stack([truth, truth[::-1], truth[:, ::-1]], -1)
    output = true * 0.8 + 0.1
    found = metrics.ssim(as_values(output), as_values(true), (30, 34, 3))
    for data_range, values in zip((1, 2), found, strict=True):
        expected = structural_similarity(
            output[2, 1].astype(np.float32).astype(float),
            true[2, 1].astype(np.float32).astype(float),
            data_range=data_range,
            channel_axis=-1,
        )
        assert values[2, 1].item() == pytest.approx(expected, abs=1e-9)


def test_frames_smaller_than_the_window_have_no_ssim():
    for shape in ((6, 40), (40, 6)):
        for values in metrics.ssim(torch.zeros(2, 1, 240), torch.zeros(2, 1, 240), shape):
            assert values.shape == (2, 1)
            assert values.isnan().all()


def test_psnr_equals_scikit_image_of_clipped_frames(truth):
    output = outputs(truth)["noisy"]
    found = metrics.psnr(as_values(output), as_values(truth))
    expected = [
        [peak_signal_noise_ratio(t, s.clip(0, 1), data_range=1) for s, t in zip(*pair, strict=True)]
        for pair in zip(output, truth, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert metrics.psnr(as_values(truth), as_values(truth)).eq(math.inf).all()
