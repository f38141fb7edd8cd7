"""Ask what the latent knows: `mmtrain probe`."""

import json
from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("data")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="Folder of scores.csv and few_labels.png.  [default: RUN/probe]",
)
@click.option("--split", default="train", show_default=True, help="Whose labels: train or val.")
@click.option(
    "--sequences",
    type=click.IntRange(min=1),
    help="Labelled sequences, the first ones.  [default: all, or 1000 of live data]",
)
@click.option(
    "--steps",
    default=200,
    show_default=True,
    type=click.IntRange(min=1),
    help="Steps to train an encoder with each number of labels.",
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(min=0, max=2**63 - 1),
    help="Which sequences are labelled first, and first weights.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def probe(
    run: Path,
    data: str,
    out: Path | None,
    split: str,
    sequences: int | None,
    steps: int,
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Probe which digits the encoder of RUN knows of, where they are and how fast they move.

    Probes learn from 1, 2, 5, 10 ... all labelled sequences a class and answer for the split test
    of DATA: from the encoder as it is (frozen), trained on with the labels (fine-tuned), with first
    weights (random) and trained from those (scratch). Everything is asked of the last frame of the
    context. The result also goes into the run's folder.

    Example: mmtrain probe runs/easy data/easy
    """
    from trainer.probe import probe_run
    from trainer.probe_tables import all_label_table, few_label_table, write_tables
    from trainer.result_files import check_folder

    if out is not None:
        check_folder(out)
    result = probe_run(
        run,
        data,
        split=split,
        num_sequences=sequences,
        steps=steps,
        device=device,
        seed=seed,
        say=lambda line: click.echo(line, err=True),
    )
    write_tables(out or run / "probe", result)
    if as_json:
        click.echo(json.dumps(result))
        return
    counts = result["sequences"]
    learned = f"{counts['labelled']} labelled sequences of {split}, {counts['test']} of test"
    _print(f"{data}: {learned}", *all_label_table(result))
    _print("share of digits right, by labels a class", *few_label_table(result, "digits"))


def _print(title: str, header: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for column in header:
        name = column.replace(" ", "\n")
        table.add_column(name, justify="left" if column == "probe" else "right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
