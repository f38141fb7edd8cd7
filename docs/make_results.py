"""Put the published rows that `mmtrain report` knows into docs/results.md.

python docs/make_results.py
"""

from itertools import groupby
from pathlib import Path

from made_block import with_block

from trainer.published import PUBLISHED, Published

PAGE = Path(__file__).parent / "results.md"
COLUMNS = ("mse", "mae", "psnr", "ssim", "ssim_openstl", "ce")
TITLES = ("MSE", "MAE", "PSNR", "SSIM", "SSIM (OpenSTL)", "CE (nats)")


def tables() -> str:
    """Return a table a test set and source, of the columns that it has numbers in."""

    def origin(row: Published) -> tuple[str, str]:
        return row.test_set, row.source

    parts = []
    for (test_set, source), group in groupby(PUBLISHED, origin):
        rows = list(group)
        shown = [
            (name, title)
            for name, title in zip(COLUMNS, TITLES, strict=True)
            if any(getattr(row, name) is not None for row in rows)
        ]
        heads = "".join(f" {title} |" for _, title in shown)
        parts.append(f"\nTest set: {test_set}. Source: {source}.\n\n| |{heads}\n| --- |")
        parts.append(" --: |" * len(shown) + "\n")
        for row in rows:
            values = [getattr(row, name) for name, _ in shown]
            cells = "".join(f" {'' if value is None else value} |" for value in values)
            parts.append(f"| {row.method} |{cells}\n")
    return "".join(parts) + "\n"


def with_tables() -> str:
    """Return the text of the page with its tables made anew, between two comments."""
    return with_block(PAGE.read_text(encoding="utf-8"), "published", tables())


if __name__ == "__main__":
    PAGE.write_text(with_tables(), encoding="utf-8")
