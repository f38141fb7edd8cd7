"""A plot: its picture, the words beside it, and its data; each also stands alone as PNG and CSV."""

import io
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from mmgen.shard.manifest import write_atomic
from trainer import result_files

# So wide that text of 10 points is read easily on a telephone, where a plot is 328 px wide.
_WIDTH_IN = 4.6
_DPI = 170
_NUM_COLORS = 256


@dataclass(frozen=True)
class Plot:
    """One plot.

    name  of its files, without the ending
    alt   what is to be seen, for those who do not see it
    png   dark on white; a page that is dark turns it over
    csv   the numbers drawn, with a header
    note  a sentence below it, or nothing
    """

    name: str
    title: str
    alt: str
    png: bytes
    csv: str
    note: str = ""


def new_figure(height_in: float = 3.0) -> tuple[Figure, Axes]:
    """Return a figure of the width that all have, and its axes."""
    figure = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
    return figure, figure.subplots()


def add_legend(figure: Figure, title: str | None = None, columns: int = 3) -> None:
    """Name what is drawn above the axes, where it covers nothing."""
    figure.legend(
        loc="outside upper center",
        ncols=columns,
        frameon=False,
        fontsize="small",
        title=title,
        title_fontsize="small",
    )


def as_small_png(figure: Figure) -> bytes:
    """Draw a figure; 256 colours are enough for it, and a third of the bytes."""
    written = io.BytesIO()
    with Image.open(io.BytesIO(result_files.as_png(figure, _DPI))) as picture:
        few = picture.convert("RGB").quantize(
            _NUM_COLORS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        )
    few.save(written, "PNG", optimize=True)
    return written.getvalue()


def write_plot(folder: Path, plot: Plot) -> None:
    """Write the picture and the numbers of a plot, each whole or not at all."""
    write_atomic(folder / f"{plot.name}.png", plot.png)
    write_atomic(folder / f"{plot.name}.csv", plot.csv)
