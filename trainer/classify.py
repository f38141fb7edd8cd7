"""Train the many-to-one recurrent classifier, once for each seed, and count what it confuses.

The run's folder:
config.json           the choices, and what was trained on: `rows`, or a DATA address
metrics.jsonl         losses: seed, step, loss; timing.jsonl has the speed
classification.json   what this module returns: accuracies and counts of each seed, their mean
confusion.csv, .png   the counts of all seeds together
classifier.pt         weights of the last seed; torch.load opens it with weights_only
"""

import io
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mmgen.errors import MmgenError
from mmgen.fields import validated
from mmgen.shard.manifest import canonical_json, write_atomic
from trainer.address import Address, absolute
from trainer.checkpoint import CLASSIFIER_NAME
from trainer.classifier import Classifier, ClassifyConfig
from trainer.confusion import Confusion, count_one, count_several, write_csv, write_png
from trainer.errors import InputError, RunError
from trainer.labelled import Examples, Labelled, Rows, Sequences
from trainer.lock import check_free
from trainer.log import RunLog
from trainer.run_folder import CONFIG_NAME, new_folder
from trainer.world import one_line_when_out_of_memory, pick_device

_LOG_EVERY = 10  # steps
_TEST_BATCH = 500
_FORMAT = 1


@one_line_when_out_of_memory()
def classify(
    config: ClassifyConfig,
    data: Address | None,
    run: Path,
    *,
    overwrite: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train on the split train of DATA, test on its test, and leave a run behind.

    data     a DATA address; None for the rows of MNIST
    returns  the content of classification.json: accuracies are shares in [0, 1], of sequences whose
             class, or whole set of classes, was said; per_class of each class's sequences, or of
             the answers whether it is present; confusion as in `Confusion`
    raises   InputError for data without labels or a folder in use, RunError for a loss not finite
    """
    examples = Rows(config.num_classes) if data is None else Sequences(data, config.num_classes)
    steps = _num_steps(config, examples)
    device = pick_device(config.device)
    is_run = _holds_classifier(run)
    if not is_run:
        check_free(run / CONFIG_NAME)
    elif not overwrite:
        raise InputError(f"{run}: holds a classifier; overwrite it, or name another folder")
    named = "rows" if data is None else absolute(data)
    asked = canonical_json({"classify": config.model_dump(), "data": named})
    with new_folder(run, asked, overwrite=overwrite, is_run=is_run):
        log = RunLog(run, steps * config.seeds, config.batch_size, quiet=quiet)
        confusions = []
        for number in range(config.seeds):
            seed, begun = config.seed + number, time.monotonic()
            model = train(config, examples, steps, seed, device, log, number * steps)
            trained_s = time.monotonic() - begun
            confusions.append(evaluate(model, examples))
            log.timing((number + 1) * steps)
            log.say(
                f"seed {seed}: {confusions[-1].accuracy:.2%} of {examples.num_test} right, "
                f"trained in {trained_s:.1f} s"
            )
        result = _summary(named, examples, model, config.seed, confusions)
        _write(run, result, confusions, _checkpoint(config, model))
    return result


def train(
    config: ClassifyConfig,
    examples: Examples,
    steps: int,
    seed: int,
    device: torch.device,
    log: RunLog,
    steps_before: int = 0,
) -> Classifier:
    """Train a new classifier; the seed fixes its first weights and the order of the examples.

    steps_before  those of earlier seeds, which the log has counted
    """
    torch.manual_seed(seed)
    model = Classifier(config, examples.num_values).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, fused=True)
    batches = examples.train(config.batch_size, seed)
    for step in range(1, steps + 1):
        batch = _next(batches, log).to(device)
        loss = _loss(model(batch.frames, batch.num_frames), batch.target)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % _LOG_EVERY == 0 or step == steps:
            value = loss.item()
            if not math.isfinite(value):
                raise RunError(f"the loss of seed {seed} is {value} at step {step}; lower lr")
            log.metrics({"seed": seed, "step": step, "loss": value})
            log.progress(steps_before + step)
    return model


@torch.inference_mode()
def evaluate(model: Classifier, examples: Examples) -> Confusion:
    """Count what a classifier says of the test examples."""
    device = next(model.parameters()).device
    model.eval()
    truth, logits = [], []
    for batch in examples.test(_TEST_BATCH):
        logits.append(model(batch.frames.to(device), batch.num_frames.to(device)).cpu())
        truth.append(batch.target)
    said, shown = torch.cat(logits), torch.cat(truth)
    if examples.has_one:
        return count_one(shown.numpy(), said.argmax(1).numpy(), said.shape[1])
    return count_several(shown.bool().numpy(), (said > 0).numpy())


def _next(batches: Iterator[Labelled], log: RunLog) -> Labelled:
    asked = time.monotonic()
    batch = next(batches)
    log.waited(time.monotonic() - asked)
    return batch


def _loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropy: of one class each, or of each class's presence."""
    if target.ndim == 1:
        return F.cross_entropy(logits, target)
    return F.binary_cross_entropy_with_logits(logits, target)


def _num_steps(config: ClassifyConfig, examples: Examples) -> int:
    """Return the steps of a training; an epoch leaves out less than a batch."""
    if examples.num_train is None:
        if config.steps is None:
            raise InputError(
                f"{examples.name}: live data have no end; say how far to go with --steps N"
            )
        return config.steps
    if config.batch_size > examples.num_train:
        raise InputError(
            f"batch_size: {config.batch_size} is more than the {examples.num_train} sequences "
            f"there are to train on; lower it"
        )
    return config.steps or config.epochs * (examples.num_train // config.batch_size)


def _summary(
    data: str, examples: Examples, model: Classifier, first_seed: int, confusions: list[Confusion]
) -> dict[str, Any]:
    seeds = [
        {
            "seed": first_seed + number,
            "accuracy": one.accuracy,
            "per_class": one.per_class,
            "confusion": one.counts.tolist(),
        }
        for number, one in enumerate(confusions)
    ]
    return {
        "data": data,
        "one_class_each": examples.has_one,
        "train": examples.num_train,
        "test": examples.num_test,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "columns": confusions[0].columns,
        "accuracy": sum(one.accuracy for one in confusions) / len(confusions),
        "seeds": seeds,
    }


def _checkpoint(config: ClassifyConfig, model: Classifier) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "config": config.model_dump(),
        "num_values": model.recurrent.input_size,
        "model": {name: weight.cpu() for name, weight in model.state_dict().items()},
    }


def _write(
    run: Path, result: dict[str, Any], confusions: list[Confusion], checkpoint: dict[str, Any]
) -> None:
    """Write what the run leaves; classification.json comes last."""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    write_atomic(run / CLASSIFIER_NAME, buffer.getvalue())
    total = confusions[0]
    for other in confusions[1:]:
        total += other
    write_csv(run / "confusion.csv", total)
    sets = "" if total.has_one else " whole sets"
    seeds = f"{len(confusions)} seed{'s' if len(confusions) > 1 else ''}"
    title = f"{total.accuracy:.2%} of {result['test']}{sets} right, {seeds}"
    write_png(run / "confusion.png", total, title)
    write_atomic(run / "classification.json", canonical_json(result))


def _holds_classifier(run: Path) -> bool:
    """Tell whether a folder is a run of this command; another program's config.json is none."""
    try:
        stored = json.loads((run / CONFIG_NAME).read_text(encoding="utf-8"))
        validated(ClassifyConfig, stored["classify"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, MmgenError):
        return False
    return True
