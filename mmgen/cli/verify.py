"""Check a data set: `mmgen verify`."""

import click

from mmgen.cli.options import counted, open_data
from mmgen.errors import ShardError


@click.command()
@click.argument("data")
@click.option("--regrow", metavar="N|all", help="Render N of each split again, compare bytes.")
@click.option("--glyphs", metavar="SET", help="Where its glyphs lie here, for --regrow.")
def verify(data: str, regrow: str | None, glyphs: str | None) -> None:
    """Check every shard against the manifest, its checksums and, if asked, its config.

    Example: mmgen verify data/easy --regrow 100
    """
    from mmgen.progress import progress_bar
    from mmgen.verify import find_damage, find_difference

    if regrow not in (None, "all") and not (regrow.isdecimal() and int(regrow) > 0):
        raise click.BadParameter("say how many sequences, or all", param_hint="--regrow")
    if glyphs is not None and regrow is None:
        raise click.UsageError("--glyphs is for rendering again; add --regrow, or leave it out")
    dataset = open_data(data)
    total = sum(len(split) for split in dataset.splits.values())
    problems: list[str] = []
    with progress_bar("checked", total) as progress:
        problems += find_damage(dataset, progress)
    if regrow and not problems:
        wanted = None if regrow == "all" else int(regrow)
        asked = sum(min(wanted or total, len(split)) for split in dataset.splits.values())
        with progress_bar("rendered", asked) as progress:
            problems += find_difference(dataset, wanted, progress, glyphs)
    for problem in problems:
        click.echo(problem)
    if problems:
        raise ShardError(f"{data}: {len(problems)} of its parts do not hold; each is named above")
    asked_for = "all" if regrow == "all" else f"up to {regrow}"
    again = f", {asked_for} of each split rendered again and equal" if regrow else ""
    if dataset.manifest.config is None:
        again = "; imported, so there is no config to render them from again"
    hold = "holds" if total == 1 else "hold"
    click.echo(f"{data}: {counted(total, 'sequence')} {hold}{again}")
