"""What a run needs before its first step: its data, its folder, a model with its first weights."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mmgen.shard.cache import ShardCache
from trainer.address import Address, absolute, as_weighted
from trainer.board import check_board
from trainer.build import build_model
from trainer.checkpoint import list_checkpoints, load_checkpoint
from trainer.config import TrainConfig
from trainer.errors import InputError
from trainer.initial import set_brightness
from trainer.initial_weights import load_weights, mean_brightness
from trainer.lengths import check_frames
from trainer.model import VideoAutoencoder
from trainer.run_folder import Request, check_run_folder, first_weights
from trainer.source import Source, find_source
from trainer.stream import SequenceStream
from trainer.world import World, find_world, pick_device, pick_precision


@dataclass(frozen=True)
class Start:
    """What a call of `fit` stands on, once it is known that nothing speaks against it.

    weighted   address -> weight, as they were given
    watched    val, where there is one
    precision  of products; never auto
    newest     the checkpoint the run goes on from, None at its beginning
    """

    world: World
    device: torch.device
    precision: str
    weighted: Mapping[str, float]
    stream: SequenceStream
    watched: Source | None
    request: Request
    newest: Path | None

    @property
    def init_from(self) -> Path | None:
        """The file of the first weights; None where they are drawn, or `newest` has later ones."""
        if self.newest is not None or self.request.init_from is None:
            return None
        return Path(self.request.init_from)


def find_start(
    config: TrainConfig,
    data: Address | Mapping[str, float],
    run: Path,
    *,
    resume: bool,
    overwrite: bool,
    init_from: Path | None,
) -> Start:
    """Look at all that a run needs; nothing is written, and no rank waits for another.

    raises  InputError if the run cannot begin, or go on
    """
    world = find_world()
    device = pick_device(config.run.device, world)
    precision = pick_precision(config.run.precision, device)
    if config.run.tensorboard:
        check_board()
    weighted = as_weighted(data)
    stream = open_stream(config, weighted, world, device)
    watched = find_watched(stream.sources[0], config)
    named = {absolute(address): weight for address, weight in weighted.items()}
    request = Request(config, named, absolute(init_from) if init_from else None)
    if world.is_first:
        check_run_folder(run, request, resume=resume, overwrite=overwrite)
    if resume and request.init_from is None:
        request = replace(request, init_from=first_weights(run))
    checkpoints = list_checkpoints(run) if resume and not overwrite else []
    newest = checkpoints[-1] if checkpoints else None
    return Start(world, device, precision, weighted, stream, watched, request, newest)


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


def first_model(config: TrainConfig, start: Start, *, reference: bool) -> VideoAutoencoder:
    """Return a model with its first weights, on the CPU."""
    stream = start.stream
    torch.manual_seed(config.run.seed)
    model = build_model(config.model, stream.sequence_shape[1:], reference=reference)
    if start.init_from is not None:
        load_weights(model, start.init_from)
    elif config.model.output_bias == "mean":
        mean = mean_brightness(zip(stream.sources, start.weighted.values(), strict=True))
        set_brightness(model, config.model, mean)
    return model


def open_checkpoint(path: Path, stream: SequenceStream) -> dict[str, Any]:
    """Read the checkpoint that a run goes on from, and set its stream behind the last step.

    raises  InputError if the data are not those that the run was trained on
    """
    checkpoint = load_checkpoint(path)
    frame_shape = stream.sequence_shape[1:]
    if tuple(checkpoint["frame_shape"]) != frame_shape:
        raise InputError(
            f"the run was trained on frames {tuple(checkpoint['frame_shape'])}, the data set now "
            f"has {frame_shape}"
        )
    stream.load_state_dict(checkpoint["stream"])
    return checkpoint


@contextmanager
def naming_misfit(path: Path) -> Iterator[None]:
    """Say of a checkpoint whose weights or state do not fit the run's own config what to do."""
    try:
        yield
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: does not fit its run ({type(error).__name__}); remove it, or overwrite the "
            "run"
        ) from error


def _num_readers() -> int:
    """Return how many threads read: half the cores, four at most: each holds a batch."""
    return max(1, min(4, len(os.sched_getaffinity(0)) // 2))
