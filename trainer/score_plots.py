"""The plots of scores without a page: metrics over the frames, errors against what is hard."""

from pathlib import Path

from trainer.curves import hardness, horizon_curves
from trainer.evaluated import FOLDER
from trainer.findings import read_evaluation, read_sequences
from trainer.plot import write_plot


def write_score_plots(folder: Path) -> None:
    """Draw what an evaluation in a folder says, each plot as PNG and CSV beside its tables."""
    evaluation = read_evaluation(folder)
    assert evaluation is not None, "it has just been written"
    sequences = read_sequences(folder, None)
    for plot in (*horizon_curves(evaluation, sequences), *hardness(evaluation.head, sequences)):
        write_plot(folder / FOLDER, plot)
