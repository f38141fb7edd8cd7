"""What was taken for what, counted: as numbers, as a CSV file and as a picture.

Letters: N sequences, C classes.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmgen.shard.manifest import write_atomic
from trainer.result_files import as_csv, as_png

# What an answer to "is a digit of this class present?" can be: yes, no; wrongly yes, rightly no.
ANSWERS = ("found", "missed", "false alarm", "rightly absent")


class Confusion(NamedTuple):
    """How often each class was taken for what.

    counts    int64; (C, C), the true class and the class said, where each sequence shows one; else
              (C, 4), a question for each class and sequence, with the columns of ANSWERS
    has_one   which of the two
    num_right, num_sequences  sequences of which all is right, and all
    """

    counts: NDArray[np.int64]
    has_one: bool
    num_right: int
    num_sequences: int

    def __add__(self, other: "Confusion") -> "Confusion":  # type: ignore[override]
        """Count both."""
        counts, right = self.counts + other.counts, self.num_right + other.num_right
        return Confusion(counts, self.has_one, right, self.num_sequences + other.num_sequences)

    @property
    def accuracy(self) -> float:
        """Share of sequences of which all is right: their class, or their whole set of classes."""
        return self.num_right / self.num_sequences

    @property
    def per_class(self) -> list[float | None]:
        """Share of each class's sequences, or answers, that are right; None where it has none."""
        right = np.diag(self.counts) if self.has_one else self.counts[:, [0, 3]].sum(1)
        asked = self.counts.sum(1)
        pairs = zip(right.tolist(), asked.tolist(), strict=True)
        return [one / all_ if all_ else None for one, all_ in pairs]

    @property
    def columns(self) -> list[str]:
        """What the columns of `counts` are."""
        return [str(label) for label in range(len(self.counts))] if self.has_one else list(ANSWERS)


def count_one(truth: NDArray[np.int64], said: NDArray[np.int64], num_classes: int) -> Confusion:
    """Count classes (N,) against classes said (N,)."""
    pairs = np.bincount(truth * num_classes + said, minlength=num_classes**2)
    counts = pairs.reshape(num_classes, num_classes).astype(np.int64)
    return Confusion(counts, True, int((truth == said).sum()), len(truth))


def count_several(truth: NDArray[np.bool_], said: NDArray[np.bool_]) -> Confusion:
    """Count which classes are present (N, C) against which are said to be."""
    answers = (truth & said, truth & ~said, ~truth & said, ~truth & ~said)
    counts = np.stack([answer.sum(0) for answer in answers], 1).astype(np.int64)
    return Confusion(counts, False, int((truth == said).all(1).sum()), len(truth))


def write_csv(path: Path, confusion: Confusion) -> None:
    """Write a line for each class: its label, then its counts."""
    rows = ([label, *row] for label, row in enumerate(confusion.counts.tolist()))
    write_atomic(path, as_csv(["label", *confusion.columns], rows))


def write_png(path: Path, confusion: Confusion, title: str) -> None:
    """Draw the counts, each as dark as its share of a class, present and absent ones apart."""
    from matplotlib.figure import Figure  # takes a second

    shares = _shares(confusion)
    rows, columns = shares.shape
    figure = Figure(figsize=(1.6 + 0.62 * max(columns, 6), 1.4 + 0.42 * rows), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), count in np.ndenumerate(confusion.counts):
        color = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize="small")
    axes.set_xticks(range(columns), confusion.columns)
    axes.set_yticks(range(rows), [str(label) for label in range(rows)])
    across, down = ("class said", "true class") if confusion.has_one else ("", "class")
    axes.set(xlabel=across, ylabel=down, title=title)
    write_atomic(path, as_png(figure, 110))


def _shares(confusion: Confusion) -> NDArray[np.float64]:
    """Return each count's share of its class; of present and of absent ones apart if several."""
    counts = confusion.counts
    parts = [counts] if confusion.has_one else [counts[:, :2], counts[:, 2:]]
    return np.hstack([part / np.maximum(part.sum(1, keepdims=True), 1) for part in parts])
