"""Write the page of a run: `mmtrain report`."""

from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="FILE.html")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
def report(run: Path, out: Path, device: str) -> None:
    """Write one self-contained HTML page: scores, curves, animations, data, a look inside.

    Every plot also goes into a folder beside it, FILE_files, as PNG and its data as CSV. RUN may
    be a folder that `mmtrain score -o` has left, too.

    Example: mmtrain report runs/easy -o report.html
    """
    from trainer.report import write_report

    folder = write_report(run, out, device)
    click.echo(f"{out}: report of {run}; its plots are in {folder}")
