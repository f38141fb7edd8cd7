"""Train the LSTM autoencoder of Srivastava et al. 2015 on Moving MNIST, and measure it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.build import build_model
    from trainer.checkpoint import load_model
    from trainer.config import ModelConfig, TrainConfig
    from trainer.dataset import SequenceDataset
    from trainer.difficulty_curves import difficulty
    from trainer.model import VideoAutoencoder
    from trainer.scoring import score
    from trainer.stream import Batch, SequenceStream

__distribution__ = "moving-mnist"  # tells ours from others of the name

# Public names load on first use: importing torch takes a second that `mmtrain --help` must not pay.
_EXPORTS = {
    "Batch": "trainer.stream",
    "ModelConfig": "trainer.config",
    "SequenceDataset": "trainer.dataset",
    "SequenceStream": "trainer.stream",
    "TrainConfig": "trainer.config",
    "VideoAutoencoder": "trainer.model",
    "build_model": "trainer.build",
    "difficulty": "trainer.difficulty_curves",
    "load_model": "trainer.checkpoint",
    "score": "trainer.scoring",
}

__all__ = [
    "Batch",
    "ModelConfig",
    "SequenceDataset",
    "SequenceStream",
    "TrainConfig",
    "VideoAutoencoder",
    "build_model",
    "difficulty",
    "load_model",
    "score",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'trainer' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return __all__
