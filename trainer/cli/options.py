"""What several commands share."""

from typing import Any


def print_evaluation(result: dict[str, Any], data: str) -> None:
    """Print an evaluation as a table, and what must be said with it."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    from trainer.metrics import METRICS, explained
    from trainer.tables import metric_rows, shown_metrics, skill_line

    console = Console()
    title = f"{result['split']} of {data}, {result['sequences']} sequences, per frame"
    table = Table(title=title, box=SIMPLE)
    table.add_column("", no_wrap=True)
    for metric in shown_metrics(result):
        table.add_column(METRICS[metric].title, justify="right")
    for row in metric_rows(result):
        table.add_row(*row)
    console.print(table)
    for line in (skill_line(result), explained()):
        if line:
            console.print(line, highlight=False)
    if elsewhere := result.get("out_of_domain"):
        _print_elsewhere(console, elsewhere)


def _print_elsewhere(console: Any, elsewhere: dict[str, Any]) -> None:
    from rich.box import SIMPLE
    from rich.table import Table

    from trainer.tables import elsewhere_rows

    table = Table(title="out of domain: prediction MSE per frame", box=SIMPLE)
    for number, heading in enumerate(("", "model", "mean frame", "known dynamics", "skill")):
        table.add_column(heading, justify="right" if number else "left")
    for row in elsewhere_rows(elsewhere):
        table.add_row(*row)
    console.print(table)
