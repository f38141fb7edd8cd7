"""What a run needs before its first step: its data, and a model with its first weights."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from mmgen.shard.cache import ShardCache
from trainer.build import build_model
from trainer.config import TrainConfig
from trainer.errors import InputError
from trainer.initial import set_brightness
from trainer.initial_weights import load_weights, mean_brightness
from trainer.lengths import check_frames
from trainer.model import VideoAutoencoder
from trainer.source import Source, find_source
from trainer.stream import SequenceStream
from trainer.world import World


def open_stream(
    config: TrainConfig, weighted: Mapping[str, float], world: World, device: torch.device
) -> SequenceStream:
    """Open the split train of DATA; InputError if it has not what the config asks for."""
    parts = world.size * config.optimizer.accumulate
    if config.data.batch_size % parts:
        raise InputError(
            f"batch_size: {config.data.batch_size} is not divisible by {world.size} ranks times "
            f"{config.optimizer.accumulate} parts; choose a multiple of {parts}"
        )
    stream = SequenceStream(
        weighted,
        config.data.batch_size,
        seed=config.run.seed,
        rank=world.rank,
        num_ranks=world.size,
        readers=_num_readers(),
        pin_memory=device.type == "cuda",
        cache=ShardCache(max_bytes=int(config.run.cache_gb * 1e9)),
    )
    for source in stream.sources:
        check_frames(source, config)
    return stream


def find_watched(train: Source, config: TrainConfig) -> Source | None:
    """Return the split that is looked at while training, None if the set has none."""
    val = find_source(train.address, "val")
    if val is None:
        return None
    check_frames(val, config)
    if val.sequence_shape[1:] != train.sequence_shape[1:]:
        raise InputError(
            f"{train.address}: frames of val are {val.sequence_shape[1:]}, of train "
            f"{train.sequence_shape[1:]}"
        )
    return val


def first_model(
    config: TrainConfig,
    sources: Mapping[str, float],
    stream: SequenceStream,
    init_from: str | None,
    *,
    reference: bool,
) -> VideoAutoencoder:
    """Return a model with its first weights, on the CPU.

    init_from  the file they are read from; None to draw them
    """
    torch.manual_seed(config.run.seed)
    model = build_model(config.model, stream.sequence_shape[1:], reference=reference)
    if init_from is not None:
        load_weights(model, Path(init_from))
    elif config.model.output_bias == "mean":
        mean = mean_brightness(zip(stream.sources, sources.values(), strict=True))
        set_brightness(model, config.model, mean)
    return model


def _num_readers() -> int:
    """Return how many threads read: half the cores, four at most: each holds a batch."""
    return max(1, min(4, len(os.sched_getaffinity(0)) // 2))
