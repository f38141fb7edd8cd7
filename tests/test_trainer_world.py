"""Devices by name."""

import pytest
import torch

from trainer.errors import InputError
from trainer.world import pick_device, pick_precision

has_cuda = torch.cuda.is_available()


def test_auto_is_cuda_where_there_is_one():
    assert pick_device("auto").type == ("cuda" if has_cuda else "cpu")
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "CPU"])
def test_unknown_devices_are_refused(name):
    with pytest.raises(InputError, match=f"^device: '{name}' is unknown; use auto, cpu, cuda or c"):
        pick_device(name)
    with pytest.raises(
        InputError, match=r"^device: 'mps' is not supported; use auto, cpu, cuda or"
    ):
        pick_device("mps")


def test_a_device_that_is_not_there_is_refused():
    count = torch.cuda.device_count()
    line = rf"^device: 'cuda:{count}' is not there \({count} CUDA devices\); use cpu$"
    with pytest.raises(InputError, match=line):
        pick_device(f"cuda:{count}")


def test_precision_auto_becomes_one_of_two():
    assert pick_precision("auto", pick_device("auto")) in ("fp32", "bf16")
    assert [pick_precision(name, pick_device("cpu")) for name in ("fp32", "bf16")] == [
        "fp32",
        "bf16",
    ]


@pytest.mark.cuda
@pytest.mark.skipif(not has_cuda, reason="needs a CUDA device")
def test_cuda_gives_what_the_cpu_gives():
    from trainer.config import ModelConfig
    from trainer.model import VideoAutoencoder

    torch.manual_seed(0)
    model = VideoAutoencoder(ModelConfig(hidden=16), (8, 8)).double().eval()
    context = torch.rand(4, 5, 64, dtype=torch.float64)
    expected = model(context, 6)
    found = model.cuda()(context.cuda(), 6)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-10, atol=1e-12)
