"""What the latent knows: which digits there are, where they are and how fast they move.

Probes learn from labelled sequences of one split and answer for the test split, whose digits nobody
has seen. The questions are those of `probe_targets.py`, the encoders are four:

frozen      the run's, as it is            fine-tuned  the run's, trained on with the labels
random      first weights, as they are     scratch     first weights, trained with the labels

Each is asked with the first 1, 2, 5, 10 ... all labelled sequences of each class. Beside them stand
chance, an answer without looking, and probes that learned from shuffled labels: should these do
better than chance, the others' scores mean nothing.

Letters: N sequences, D values of a latent.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmgen.shard.manifest import canonical_json, write_atomic
from trainer.address import Address, absolute
from trainer.build import build_model
from trainer.checkpoint import open_run
from trainer.errors import InputError
from trainer.latents import encode, truth_at
from trainer.lengths import check_context, check_shape
from trainer.model import VideoAutoencoder
from trainer.probe_fit import FEWEST, Scale, fit_linear, fit_mlp
from trainer.probe_tables import written
from trainer.probe_targets import (
    Scores,
    Targets,
    constant_answer,
    label_ranks,
    make_targets,
    score,
)
from trainer.probe_tune import Tuned, best_answers, tune, unchanged
from trainer.source import Source, count_sequences, open_source
from trainer.world import one_line_when_out_of_memory

PROBE_NAME = "probe.json"
_TEST = "test"
_NEARLY_ALL = 0.9  # of the labelled sequences: no more levels between these and all
_PROBES = {"linear": fit_linear, "mlp": fit_mlp}

Rows = list[dict[str, Any]]


@one_line_when_out_of_memory()
def probe_run(
    run: Path,
    data: Address,
    *,
    split: str = "train",
    num_sequences: int | None = None,
    steps: int,
    device: str = "auto",
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Probe a run's newest checkpoint and keep the result in the run's folder.

    split          whose sequences are the labelled ones: any but test
    num_sequences  the first ones of it; None for all, of live data 1000
    steps          that fine-tuned and scratch may take with each number of labels
    seed           which sequences are labelled first, first weights, shuffled labels
    say            is told what is being done
    returns        the object of `mmtrain probe --json`. rows: a dict for each encoder ("none",
                   "frozen", "random", "fine-tuned", "scratch"), probe ("chance", "linear", "mlp",
                   "shuffled linear", "shuffled mlp"; "linear" of what was trained as a whole) and
                   number of labels a class ("labels", None for all) with the number of labelled
                   sequences and for each of MEASURES value and interval, None where undefined
    raises         InputError for data without ground truth, with too few frames or sequences
    """
    name, _, config, model = open_run(run, device)
    asked = _ask(model, data, split, num_sequences, config.data.context, seed)
    fresh = _fresh(model, seed)
    rows: Rows = [_row("none", "chance", None, asked.num_labelled, asked.chance())]
    latents = _latents_of(model, asked)
    rows += _probe_shuffled("frozen", latents, asked)
    rows += _probe_encoder(("frozen", "fine-tuned"), model, latents, asked, steps, say)
    latents = _latents_of(fresh, asked)
    rows += _probe_encoder(("random", "scratch"), fresh, latents, asked, steps, say)
    result = {
        "checkpoint": name,
        "data": absolute(data),
        "split": split,
        "sequences": {"labelled": asked.num_labelled, "test": asked.num_test},
        "classes": asked.classes,
        "steps": steps,
        "seed": seed,
        "rows": rows,
    }
    write_atomic(run / PROBE_NAME, canonical_json(result))
    return result


@dataclass(frozen=True)
class _Asked:
    """The labelled sequences, those of the test, and what is true of both."""

    labelled: Source
    test: Source
    num_context: int
    classes: list[int]
    labels: Targets
    truth: Targets
    seed: int

    @property
    def num_labelled(self) -> int:
        return len(self.labels.digits)

    @property
    def num_test(self) -> int:
        return len(self.truth.digits)

    def chance(self) -> Scores:
        return score(constant_answer(self.labels, self.num_test), self.truth)

    def levels(self) -> Iterator[tuple[int | None, Tensor]]:
        """Yield numbers of labels a class, None for all, and the places of those sequences."""
        ranks = label_ranks(self.labels.digits, self.seed)
        everything = (ranks < self.num_labelled).nonzero()[:, 0]
        for number in one_two_five():
            places = (ranks < number).nonzero()[:, 0]
            if len(places) > _NEARLY_ALL * len(everything):
                break
            if len(places) >= FEWEST:
                yield number, places
        yield None, everything


def one_two_five() -> Iterator[int]:
    """Yield 1, 2, 5, 10, 20, 50 ... without end."""
    return (digit * 10**power for power in count() for digit in (1, 2, 5))


def _ask(
    model: VideoAutoencoder,
    data: Address,
    split: str,
    num_sequences: int | None,
    num_context: int,
    seed: int,
) -> _Asked:
    """Open both splits and read what is true; refuse what cannot be probed before any work."""
    if split == _TEST:
        raise InputError("split: probes are scored on test; take labels from train or val")
    sources = open_source(data, split), open_source(data, _TEST)
    counts = count_sequences(sources[0], num_sequences), count_sequences(sources[1], None)
    for source, number, fewest in zip(sources, counts, (FEWEST, 2), strict=True):
        check_shape(source, model)
        check_context(source, num_context)
        _check_truth(source, number, fewest)
    truths = [
        truth_at(source, 0, n, num_context - 1) for source, n in zip(sources, counts, strict=True)
    ]
    classes = np.unique(np.concatenate([truth["label"].ravel() for truth in truths]))
    classes = classes[classes >= 0]
    device = next(model.parameters()).device
    labels, truth = (make_targets(known, classes).to(device) for known in truths)
    if (labels.digits.amax(1) > 0).sum() < FEWEST:
        raise InputError(
            f"{sources[0].address}: after {num_context} frames fewer than {FEWEST} sequences of "
            f"{split} show a digit; nothing can be asked"
        )
    return _Asked(*sources, num_context, classes.tolist(), labels, truth, seed)


def _check_truth(source: Source, number: int, fewest: int) -> None:
    known = truth_at(source, 0, 1, 0)
    for name in ("label", "position", "velocity"):
        if name not in known:
            raise InputError(
                f"{source.address}: has no {name} of its digits, and probing needs ground truth; "
                "take a set of `mmgen generate`, or live:PRESET"
            )
    if number < fewest:
        raise InputError(
            f"{source.address}: {number} sequences of {source.split} are too few, probing needs "
            f"{fewest}"
        )


def _fresh(model: VideoAutoencoder, seed: int) -> VideoAutoencoder:
    """Return a model of the same form with first weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = build_model(model.config, model.frame_shape)
    fresh.round_products(model.product_dtype)
    return fresh.to(next(model.parameters()).device).eval()


class _Latents(NamedTuple):
    """Latents of labelled and of test sequences, standardised by the former: (N, D) each."""

    labelled: Tensor
    test: Tensor
    scale: Scale


def _latents_of(model: VideoAutoencoder, asked: _Asked) -> _Latents:
    labelled, test = (
        torch.cat(list(encode(model, source, asked.num_context, number)))
        for source, number in (
            (asked.labelled, asked.num_labelled),
            (asked.test, asked.num_test),
        )
    )
    scale = Scale.of(labelled)  # which needs no labels
    return _Latents(scale.down(labelled), scale.down(test), scale)


def _probe_shuffled(encoder: str, latents: _Latents, asked: _Asked) -> Rows:
    """Let probes learn labels that belong to other sequences."""
    generator = torch.Generator().manual_seed(asked.seed)
    labels = asked.labels.rows(torch.randperm(asked.num_labelled, generator=generator))
    return [
        _row(encoder, f"shuffled {probe}", None, asked.num_labelled, score(answer, asked.truth))
        for probe, fit in _PROBES.items()
        for answer in [fit(latents.labelled, labels, asked.seed)(latents.test)]
    ]


def _probe_encoder(
    names: tuple[str, str],
    model: VideoAutoencoder,
    latents: _Latents,
    asked: _Asked,
    steps: int,
    say: Callable[[str], None],
) -> Rows:
    """Probe an encoder as it is and trained with the labels, with each number of labels.

    names  what it is called as it is, and trained
    """
    as_it_is, trained = names
    rows: Rows = []
    for number, places in asked.levels():
        labels, many = asked.labels.rows(places), (number, len(places))
        for probe, fit in _PROBES.items():
            answer = fit(latents.labelled[places], labels, asked.seed)(latents.test)
            rows.append(_row(as_it_is, probe, *many, score(answer, asked.truth)))
        tuned = Tuned(model, asked.num_context, labels, latents.scale)
        with unchanged(model.encoder):
            bests = tune(tuned, asked.labelled, places, labels, steps, asked.seed)
            answer = best_answers(tuned, bests, asked.test, asked.num_test)
        rows.append(_row(trained, "linear", *many, score(answer, asked.truth)))
        found = ", ".join(
            f"{row['encoder']} {row['probe']} {written(row['digits'])}" for row in rows[-3:]
        )
        say(f"{len(places)} labelled sequences, share of digits right: {found}")
    return rows


def _row(
    encoder: str, probe: str, labels: int | None, sequences: int, scores: Scores
) -> dict[str, Any]:
    about = {"encoder": encoder, "probe": probe, "labels": labels, "sequences": sequences}
    return about | scores
