"""Which class a model is made of: the only place that chooses."""

from trainer.config import ModelConfig
from trainer.fused import FusedAutoencoder
from trainer.model import VideoAutoencoder


def build_model(
    config: ModelConfig, frame_shape: tuple[int, ...], *, reference: bool = False
) -> VideoAutoencoder:
    """Return a model with its first weights, drawn from torch's default generator.

    reference  take the plain one, the oracle of the fast one
    """
    return (VideoAutoencoder if reference else FusedAutoencoder)(config, frame_shape)
