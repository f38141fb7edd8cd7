"""The names that trainer offers: there, complete, and loaded on first use."""

import subprocess
import sys

import pytest
import torch
from trainer_data import tiny_config

import trainer


def test_every_public_name_is_there():
    assert dir(trainer) == trainer.__all__ == sorted(trainer.__all__)
    for name in trainer.__all__:
        assert getattr(trainer, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'trainer' has no attribute 'fit_all'"):
        _ = trainer.fit_all


def test_importing_trainer_loads_torch_only_when_a_name_needs_it():
    code = (
        "import sys, trainer\n"
        "trainer.TrainConfig, trainer.ModelConfig\n"
        "assert 'torch' not in sys.modules\n"
        "trainer.build_model\n"
        "assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_build_model_makes_the_fast_model_or_the_plain_one_of_equal_weights():
    config = tiny_config().model
    made = []
    for reference in (False, True):
        torch.manual_seed(0)
        made.append(trainer.build_model(config, frame_shape=(30, 30), reference=reference))
    fast, plain = made
    assert type(plain) is trainer.VideoAutoencoder
    assert type(fast) is not type(plain)
    assert isinstance(fast, trainer.VideoAutoencoder)
    context = torch.randint(0, 256, (2, 4, 30, 30), dtype=torch.uint8)
    assert torch.allclose(fast.generate(context, 3), plain.generate(context, 3), atol=1e-6)
