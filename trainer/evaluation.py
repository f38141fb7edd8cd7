"""How good a predictor is on a split, beside those that know nothing and one that knows the rules.

black              an empty frame
copy-last          the last context frame, again and again
mean frame         the mean of the scored frames themselves: the best constant picture in hindsight,
                   so beating it is never luck of the draw
constant velocity  the true state at the end of the context, moved on in straight lines, no walls
known dynamics     the sequence rendered again with nothing drawn after the context: without error
                   where nothing is random after it

Letters: N sequences, B of them at a time, T frames, P predicted, D values a frame.
"""

from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer import losses
from trainer.baselines import Redrawn
from trainer.config import DataConfig
from trainer.hardness import hardness
from trainer.lengths import check_lengths, check_shape
from trainer.model import Decoded, VideoAutoencoder, to_values
from trainer.noise import Noise, StackNoise
from trainer.perceptual import load_lpips
from trainer.scored import BASELINES, TEACHER_FORCED, Gatherer, Scored
from trainer.source import Source, count_sequences
from trainer.stream import in_order

_BATCH = 64


class Said(NamedTuple):
    """What a predictor says of some sequences, and what is so; (B, T, D), truth in [0, 1].

    nats  its cross-entropy (B, T); None for that of the output, clipped
    """

    output: Tensor
    target: Tensor
    nats: Tensor | None = None


class Window(NamedTuple):
    """Consecutive sequences, cut: which they are (B,), context (B, T, D) and future (B, P, D).

    seen  the context as it was read, uint8 (B, T, H, W) or (B, T, H, W, 3)
    """

    indices: Tensor
    seen: Tensor
    context: Tensor
    future: Tensor


Predictor = Callable[[Window], dict[str, Said]]


def evaluate(
    model: VideoAutoencoder,
    source: Source,
    data: DataConfig,
    num_sequences: int | None = None,
    *,
    baselines: bool = True,
    facts: bool = False,
    lpips: bool = False,
) -> Scored:
    """Score reconstruction and prediction of a model on the first sequences of a split.

    Decoders read their own output. Those that learn from true frames are also scored as they are
    trained, `teacher-forced` and named so. Other parameters and errors as of `measure`.
    """
    check_fits(model, source, data)
    model.eval()
    # Where nothing is predicted, frames after the context are nobody's business and may be missing.
    steps = data.predict if model.config.predicts else 0
    return measure(
        _heads(model, data.num_reconstructed, steps),
        source,
        data.context,
        steps,
        num_sequences,
        baselines=baselines and model.config.predicts,
        facts=facts,
        lpips=lpips,
        device=next(model.parameters()).device,
    )


@torch.inference_mode()
def measure(
    predictor: Predictor,
    source: Source,
    num_context: int,
    steps: int,
    num_sequences: int | None = None,
    *,
    baselines: bool | Collection[str] = True,
    facts: bool = False,
    lpips: bool = False,
    device: torch.device | str = "cpu",
) -> Scored:
    """Score whatever a predictor says of the first sequences of a split.

    predictor      window -> name -> what it says
    num_context    frames that are shown, before the `steps` that are asked for
    num_sequences  how many; if None all, or 1000 of live data, which have no end
    baselines      also score the predictors that need no training, or those of these names: costs a
                   second pass
    facts          also find what makes each sequence hard
    lpips          also score by LPIPS, which costs more than all else together
    device         where frames come to and scores are worked out
    raises         InputError if there are not as many sequences, or LPIPS is not to be had
    """
    count = count_sequences(source, num_sequences)
    gatherer = Gatherer(source.sequence_shape[1:], load_lpips() if lpips else None)
    place = torch.device(device)
    wanted = BASELINES if baselines is True else baselines or ()
    untrained = _untrained(source, num_context, steps, count, place, wanted) if wanted else None
    known = []
    for window in _windows(source, num_context, steps, count, place):
        said = predictor(window) | (untrained(window) if untrained else {})
        for name, (output, target, nats) in said.items():
            gatherer.add(name, output, target, nats)
        if steps:
            gatherer.add_entropy(window.future)
        if facts:
            first, last = (num_context, num_context + steps) if steps else (0, num_context)
            known.append(hardness(source, window.indices.tolist(), first, last))
    names = known[0] if known else {}
    return Scored(
        source.address,
        source.split,
        np.arange(count),
        num_context,
        gatherer.frames(),
        {name: np.concatenate([part[name] for part in known]) for name in names},
    )


def check_fits(model: VideoAutoencoder, source: Source, data: DataConfig) -> None:
    """Refuse data whose frames are not the model's, or too few."""
    check_lengths(source, data, predicts=model.config.predicts)
    check_shape(source, model)


def _windows(
    source: Source, num_context: int, steps: int, count: int, device: torch.device
) -> Iterator[Window]:
    last = num_context + steps
    for batch in in_order(source, count, _BATCH):
        frames = batch.frames[:, :last].to(device)
        values = to_values(frames)
        context, future = values[:, :num_context], values[:, num_context:]
        yield Window(batch.index, frames[:, :num_context], context, future)


def _heads(model: VideoAutoencoder, num_reconstructed: int, steps: int) -> Predictor:
    """Return what scores a model's decoders, on their own output and, where they can, on truth."""
    is_logit = model.config.output == "sigmoid"

    def said(decoded: Decoded, window: Window, how: str = "") -> dict[str, Said]:
        pairs = (
            ("prediction", decoded.prediction, window.future),
            ("reconstruction", decoded.reconstruction, window.context[:, -num_reconstructed:]),
        )
        return {
            how + name: Said(
                model.emit(output),
                target,
                losses.output_cross_entropy(output, target, is_logit=True) if is_logit else None,
            )
            for name, output, target in pairs
            if output is not None
        }

    def heads(window: Window) -> dict[str, Said]:
        context, future = window.context, window.future
        asked = {"num_reconstructed": num_reconstructed}
        found = said(model(context, steps, **asked), window)
        if model.reads_truth:
            shown = _all_shown(len(context), num_reconstructed, steps, context.device)
            forced = model(context, steps, **asked, future=future, noise=shown)
            found |= said(forced, window, TEACHER_FORCED)
        return found

    return heads


def _all_shown(batch: int, num_reconstructed: int, steps: int, device: torch.device) -> Noise:
    """Return the noise under which a scheduled decoder reads nothing but true frames."""

    def shown(frames: int) -> StackNoise:
        return StackNoise(is_shown=torch.ones(frames, batch, 1, dtype=torch.bool, device=device))

    return Noise(reconstruct=shown(num_reconstructed), predict=shown(steps))


def _untrained(
    source: Source,
    num_context: int,
    steps: int,
    count: int,
    device: torch.device,
    wanted: Collection[str],
) -> Predictor:
    """Return what scores the predictors that need no training, those that know nothing first."""
    redrawn = Redrawn.of(source, num_context)

    def redraw(draw: Callable[[NDArray[np.int64], int], NDArray[np.uint8]], window: Window) -> Said:
        frames = torch.from_numpy(draw(window.indices.numpy(), steps)).to(device)
        return Said(to_values(frames), window.future)

    def as_it_is(output: Tensor, future: Tensor) -> Said:
        """Score what is a probability already: black is infinitely wrong."""
        return Said(output, future, losses.cross_entropy(output, future))

    known: dict[str, Callable[[Window], Said]] = {
        "black": lambda window: as_it_is(torch.zeros_like(window.future), window.future),
        "copy-last": lambda window: Said(
            window.context[:, -1:].expand_as(window.future), window.future
        ),
    }
    if "mean frame" in wanted:
        mean = _mean_frame(source, num_context, steps, count, device)
        known["mean frame"] = lambda window: as_it_is(mean.expand_as(window.future), window.future)
    if redrawn:
        known["constant velocity"] = partial(redraw, redrawn.constant_velocity)
        known["known dynamics"] = partial(redraw, redrawn.known_dynamics)

    def untrained(window: Window) -> dict[str, Said]:
        return {name: say(window) for name, say in known.items() if name in wanted}

    return untrained


def _mean_frame(
    source: Source, num_context: int, steps: int, count: int, device: torch.device
) -> Tensor:
    total: Tensor | float = 0.0
    for window in _windows(source, num_context, steps, count, device):
        total = total + window.future.double().sum((0, 1))
    assert isinstance(total, Tensor)
    return (total / (count * steps)).float()
