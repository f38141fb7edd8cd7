"""Measure a training step: `mmtrain bench`."""

import json

import click


@click.command()
@click.option(
    "--preset", default="tutorial", show_default=True, help="tutorial (2048 units) or small."
)
@click.option(
    "--set", "assignments", metavar="FIELD=VALUE", multiple=True, help="Set one field: hidden=256."
)
@click.option("--device", help="auto (CUDA when it is there), cpu, cuda or cuda:N.")
@click.option("--reference", is_flag=True, help="Measure the plain model's step, not the fused.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def bench(
    preset: str, assignments: tuple[str, ...], device: str | None, reference: bool, as_json: bool
) -> None:
    """Measure a training step, beside the least time that this machine needs for one.

    The least time is that of its operations at the speed of a large matrix product, and of its
    bytes at the speed of a large copy, both measured first. On a CPU the preset tutorial takes
    minutes and 5 GB.

    Example: mmtrain bench --preset small
    """
    from trainer.bench import bench as run
    from trainer.bench import print_result
    from trainer.config import load_config

    given = [] if device is None else [f"device={device}"]
    config = load_config(preset, None, (*assignments, *given))
    result = run(config, reference=reference, say=lambda line: click.echo(line, err=True))
    if as_json:
        click.echo(json.dumps(result))
    else:
        print_result(result)
