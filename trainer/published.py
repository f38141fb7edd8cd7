"""Published results on Moving MNIST, 10 frames to the next 10, each with its test set and source.

Only numbers that were read in the text or repository named are here. Three test sets go by the name
Moving MNIST, so that a number stands beside another only where its test set does.

MSE and MAE are summed over a frame's 64 x 64 pixels, CE is nats per frame. `ssim` has a data range
of 1 and `ssim_openstl` of 2: they are not the same number; where a source leaves open which it is,
the number is left out.
"""

from typing import NamedTuple

CANVAS, CONTEXT, PREDICT = (64, 64), 10, 10

_CANONICAL = "mnist_test_seq.npy"
_QUOTED = "as VPN quotes it"
_SHI = "Shi et al.'s own 3 000 sequences of 500 digits"
_SHI_TABLE = "Shi et al. 2015, arXiv:1506.04214, table 1, a tenth of the sum over 10 frames"
_VPN = "Kalchbrenner et al. 2016 (VPN), arXiv:1610.00527, table 1"
_OPENSTL = "OpenSTL, docs/en/model_zoos/video_benchmarks.md, commit c74deb5, best of 3 runs"
_README = "README of the method's repository, or a leaderboard that quotes it"
_CLIPPED = f"{_README}; its code clips before the MSE"


class Published(NamedTuple):
    """One row; None where the source has no such number."""

    method: str
    test_set: str
    source: str
    mse: float | None = None
    mae: float | None = None
    psnr: float | None = None
    ssim: float | None = None
    ssim_openstl: float | None = None
    ce: float | None = None


def _by_cross_entropy(test_set: str, source: str, rows: dict[str, float]) -> list[Published]:
    return [Published(method, test_set, source, ce=nats) for method, nats in rows.items()]


_OpenStl = tuple[float, float, float, float | None]  # MSE, MAE, SSIM, PSNR


def _of_openstl(epochs: int, rows: dict[str, _OpenStl]) -> list[Published]:
    source = f"{_OPENSTL}, {epochs} epochs"
    return [
        Published(method, _CANONICAL, source, mse, mae, psnr, None, ssim)
        for method, (mse, mae, ssim, psnr) in rows.items()
    ]


PUBLISHED = [
    *_by_cross_entropy(
        _SHI,
        _SHI_TABLE,
        {
            "FC-LSTM, 2 layers of 2048": 483.2,
            "ConvLSTM, 1 layer": 388.8,
            "ConvLSTM, 2 layers": 373.4,
            "ConvLSTM, 3 layers": 367.1,
        },
    ),
    *_by_cross_entropy(
        _QUOTED,
        _VPN,
        {
            "Composite + conditional LSTM of Srivastava et al.": 341.2,
            "Dynamic filter networks": 285.2,
            "Video ladder network": 187.7,
            "Spatio-temporal autoencoder of Patraucean et al.": 179.8,
        },
    ),
    *_by_cross_entropy(
        _CANONICAL,
        _VPN,
        {
            "VPN baseline": 110.1,
            "VPN": 87.6,
            "lower bound of the entropy": 86.3,
        },
    ),
    Published("PredRNN", _CANONICAL, _CLIPPED, mse=56.8, mae=126.1, ssim=0.867),
    Published("PredRNN++", _CANONICAL, _CLIPPED, mse=46.5, ssim=0.898),
    Published("SwinLSTM-D", _CANONICAL, _README, mse=17.7),
    Published("IAM4VP", _CANONICAL, _README, mse=16.9),
    *_of_openstl(
        200,
        {
            "ConvLSTM-S": (29.80, 90.64, 0.9288, 22.10),
            "ConvLSTM-L": (27.78, 86.14, 0.9343, 22.44),
            "PredNet": (161.38, 201.16, 0.7783, 14.33),
            "PhyDNet": (28.19, 78.64, 0.9374, 22.62),
            "PredRNN": (23.97, 72.82, 0.9462, 23.28),
            "PredRNN++": (22.06, 69.58, 0.9509, 23.65),
            "MIM": (22.55, 69.97, 0.9498, 23.56),
            "MAU": (26.86, 78.22, 0.9398, 22.76),
            "E3D-LSTM": (35.97, 78.28, 0.9320, 21.11),
            "CrevNet": (30.15, 86.28, 0.9350, None),
            "PredRNN-V2": (24.13, 73.73, 0.9453, 23.21),
            "DMVFN": (123.67, 179.96, 0.8140, 16.15),
            "SimVP, IncepU": (32.15, 89.05, 0.9268, 21.84),
            "SimVP, gSTA-S": (26.69, 77.19, 0.9402, 22.78),
            "TAU": (24.60, 71.93, 0.9454, 23.19),
        },
    ),
    *_of_openstl(
        2000,
        {
            "ConvLSTM-S": (22.41, 73.07, 0.9480, 23.54),
            "PredNet": (31.85, 90.01, 0.9273, 21.85),
            "PhyDNet": (20.35, 61.47, 0.9559, 24.21),
            "PredRNN": (26.43, 77.52, 0.9411, 22.90),
            "PredRNN++": (14.07, 48.91, 0.9698, 26.37),
            "MIM": (14.73, 52.31, 0.9678, 25.99),
            "MAU": (22.25, 67.96, 0.9511, 23.68),
            "E3D-LSTM": (24.07, 77.49, 0.9436, 23.19),
            "PredRNN-V2": (17.26, 57.22, 0.9624, 25.01),
            "SimVP, IncepU": (21.15, 64.15, 0.9536, 23.99),
            "SimVP, gSTA-S": (15.05, 49.80, 0.9675, 25.97),
            "TAU": (15.69, 51.46, 0.9661, 25.71),
        },
    ),
]
