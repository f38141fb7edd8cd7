"""Which look at val is the best so far, and since how many looks: best.json and patience.

Both follow from the val lines of metrics.jsonl alone, so that a run killed between two files has
lost nothing.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmgen.shard.manifest import canonical_json, write_atomic
from trainer.checkpoint import checkpoint_path

BEST_NAME = "best.json"


class Best(NamedTuple):
    """A look at val that no other was better than, the first of those.

    looks_since  how many looks came after it
    """

    step: int
    metric: str
    value: float
    looks_since: int


def find_best(lines: Sequence[dict[str, Any]], metric: str) -> Best | None:
    """Find the best of the val lines among `lines` by, for example, prediction.mse."""
    head, name = metric.split(".")
    looks = [line for line in lines if "val" in line]
    values = [line["val"].get(head, {}).get(name) for line in looks]
    ranked = [(math.inf if value is None else value, place) for place, value in enumerate(values)]
    value, place = min(ranked, default=(math.inf, 0))
    if math.isinf(value):
        return None
    return Best(looks[place]["step"], metric, value, len(looks) - 1 - place)


def write_best(run: Path, best: Best | None) -> None:
    """Write RUN/best.json, or remove it where nothing is best.

    A run that grew longer may have dropped the checkpoint of its best look: it is null then.
    """
    path = run / BEST_NAME
    if best is None:
        path.unlink(missing_ok=True)
        return
    checkpoint = checkpoint_path(run, best.step)
    content = {
        "step": best.step,
        "metric": best.metric,
        "value": best.value,
        "checkpoint": checkpoint.name if checkpoint.exists() else None,
    }
    write_atomic(path, canonical_json(content))
