"""An encoder trained for the labels, together with a linear head: fine-tuned, or from scratch.

The head answers all questions at once from the standardised latent and begins with the constant
answer; the loss is the sum of the three, positions and velocities standardised. A fifth of the
labelled sequences is held out, and for each question the weights that do best on it are kept. Adam,
gradients clipped at a norm of 1, a rate that falls linearly to zero over the steps there may be.
Training ends after those at the latest: with many labels more of them would help.

Letters: n labelled sequences, N test sequences, D values of a latent.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from trainer.latents import encode, flattened
from trainer.model import VideoAutoencoder, to_values
from trainer.probe_fit import (
    LOSSES,
    Best,
    Scale,
    begin_with,
    first_answers,
    hold_out,
    shuffled_batches,
    target_scales,
)
from trainer.probe_targets import Targets
from trainer.source import Source
from trainer.stream import read_ahead

_RATE, _BATCH, _CLIP_NORM = 1e-3, 32, 1.0
_MOST_HELD = 128  # sequences that are looked at, all of whose contexts are kept in memory
_LOOK_EVERY, _PATIENCE = 20, 5


@contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """Give a module its weights back in the end."""
    before = {name: value.detach().clone() for name, value in module.state_dict().items()}
    try:
        yield
    finally:
        module.load_state_dict(before)


class Tuned:
    """The encoder of a model with a linear head for all three questions.

    labels   those it learns from: they say how many answers there are, and in which scale
    latents  the scale of the latents before training
    """

    def __init__(
        self, model: VideoAutoencoder, num_context: int, labels: Targets, latents: Scale
    ) -> None:
        self._model, self._num_context = model, num_context
        self._latents, self._scales = latents, target_scales(labels)
        self._sizes = [part.shape[1] for part in labels]
        self.head = nn.Linear(len(latents.centre), sum(self._sizes), device=latents.centre.device)
        begin_with(self.head, torch.cat(first_answers(labels)))
        self.modules = nn.ModuleList([model.encoder, self.head])

    def read(self, source: Source, places: Tensor) -> Tensor:
        """Read contexts, uint8 (B, T, H, W)."""
        frames = np.empty((len(places), *source.sequence_shape), np.uint8)
        source.read(places.numpy(), frames)
        return torch.from_numpy(frames)[:, : self._num_context]

    def scaled(self, labels: Targets) -> Targets:
        """Return targets as the head answers them."""
        pairs = zip(self._scales, labels, strict=True)
        return Targets(*(scale.down(part) for scale, part in pairs))

    def losses(self, frames: Tensor, scaled: Targets) -> Tensor:
        """Return the loss of each question, (3,), of contexts, uint8 (B, T, H, W)."""
        values = to_values(frames.to(self.head.weight.device))
        answer = self._answer(flattened(self._model.encode(values)))
        parts = zip(LOSSES, answer, scaled, strict=True)
        return torch.stack([loss(said, true) for loss, said, true in parts])

    @torch.no_grad()
    def answers(self, source: Source, num_sequences: int) -> Targets:
        """Answer for the first sequences of a source."""
        batches = encode(self._model, source, self._num_context, num_sequences)
        said = [self._answer(latent) for latent in batches]
        parts = (torch.cat(part) for part in zip(*said, strict=True))
        pairs = zip(self._scales, parts, strict=True)
        return Targets(*(scale.up(part) for scale, part in pairs))

    def _answer(self, latent: Tensor) -> Targets:
        return Targets(*self.head(self._latents.down(latent)).split(self._sizes, 1))


def tune(
    tuned: Tuned, source: Source, places: Tensor, labels: Targets, steps: int, seed: int
) -> list[Best]:
    """Train encoder and head, in place; return the best state for each question.

    places  int64 (n,), where in the source the labelled sequences are; labels has those
    steps   optimizer steps there may be
    """
    scaled = tuned.scaled(labels)
    kept, held = hold_out(len(places), seed)
    held = held[:_MOST_HELD]
    looked_at = tuned.read(source, places[held])
    weights = list(tuned.modules.parameters())
    optimizer = torch.optim.Adam(weights, _RATE, fused=True)
    rate = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    bests = [Best(tuned.modules, _PATIENCE) for _ in LOSSES]
    jobs = list(shuffled_batches(kept, _BATCH, steps, seed))
    with closing(read_ahead(lambda job: tuned.read(source, places[job]), jobs, 1)) as batches:
        for step, (job, frames) in enumerate(zip(jobs, batches, strict=True)):
            if step % _LOOK_EVERY == 0 and _look(bests, tuned, looked_at, scaled.rows(held)):
                break
            optimizer.zero_grad()
            tuned.losses(frames, scaled.rows(job)).sum().backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(weights, _CLIP_NORM)
            optimizer.step()
            rate.step()
    _look(bests, tuned, looked_at, scaled.rows(held))
    return bests


@torch.no_grad()
def _look(bests: list[Best], tuned: Tuned, frames: Tensor, scaled: Targets) -> bool:
    """Look at what is held out; tell whether no question has hope of a better answer."""
    errors = tuned.losses(frames, scaled).tolist()
    are_done = [best.note(error) for best, error in zip(bests, errors, strict=True)]
    return all(are_done)


def best_answers(tuned: Tuned, bests: list[Best], source: Source, num_sequences: int) -> Targets:
    """Answer each question with the state that is best for it."""
    parts = []
    for number, best in enumerate(bests):
        best.restore()
        parts.append(tuned.answers(source, num_sequences)[number])
    return Targets(*parts)
