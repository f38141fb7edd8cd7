"""How commands leave results behind: where they may go, tables as CSV, figures as PNG."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_folder(folder: Path) -> None:
    """Refuse a name that no folder can have, before the work."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is no folder; name another")
    check_parent(folder)


def check_parent(path: Path) -> None:
    """Refuse a file or a folder in a folder that is not there."""
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: is no folder; make it first")


def as_csv(header: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """Write a table as CSV; None becomes an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def as_png(figure: "Figure", dpi: int = 130) -> bytes:
    """Draw a figure."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi)
    return drawn.getvalue()
