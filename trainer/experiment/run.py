"""The runs of an experiment: checked, trained and scored, here or by the workers of a cluster.

A run is finished once its result.json is there, which comes last; killed anywhere, the same call
goes on with what is missing.
"""

import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmgen.errors import MmgenError
from mmgen.shard.manifest import canonical_json, write_atomic
from trainer.address import absolute, parse_live
from trainer.errors import InputError, RunError, Stopped, TrainerError
from trainer.evaluated import evaluate_run
from trainer.experiment.config import Cell, ExperimentConfig
from trainer.experiment.folder import ExperimentFolder, Json, make_request
from trainer.lengths import check_lengths
from trainer.loop import fit
from trainer.setup import find_start
from trainer.source import open_scored, open_source
from trainer.world import find_world

_SEEN_WITHIN_S = 60
_LOOK_EVERY_S = 0.2
# Drawing the first weights sets the seed of the whole process, so its threads take turns.
_one_run_a_process = threading.Lock()


@dataclass(frozen=True)
class Job:
    """A run that is to be made, wherever that is: root and addresses are absolute.

    train, test  DATA to train on, and whose split test scores
    sequences    how many of the split test; None for all, or 1000 of live data
    """

    root: Path
    cell: Cell
    train: str
    test: str
    sequences: int | None


def run_experiment(
    experiment: ExperimentConfig, root: Path, *, cluster: str | None = None, quiet: bool = False
) -> None:
    """Make and score every run that is not finished; one that fails leaves a note, others go on.

    root     the experiment's folder
    cluster  address of a Dask scheduler whose workers make the runs; they share the folder
    quiet    nothing on stderr
    raises   InputError before work starts; Stopped after a signal
    """
    folder = ExperimentFolder(root)
    request = check_experiment(experiment, folder)
    if cluster is not None:
        # The cluster's file knows of calls and workers alone, nothing of generating.
        from mmgen.cluster import check_that_it_answers

        check_that_it_answers(cluster)
    with folder.held(request):
        folder.check(request)  # again, now that nobody else can change it
        jobs = find_jobs(experiment, folder)
        _store_fixed_sets(experiment, folder, {job.cell.data for job in jobs}, quiet=quiet)
        if cluster is None:
            _run_here(jobs, quiet=quiet)
        else:
            _run_on_cluster(cluster, jobs, quiet=quiet)


def check_experiment(experiment: ExperimentConfig, folder: ExperimentFolder) -> Json:
    """Look at all that the unfinished runs need; nothing is written.

    returns  the request, as the folder keeps it
    raises   InputError that names the variant and the data of the first run that cannot be
    """
    if find_world().size > 1:
        raise InputError("an experiment is no job for torchrun: each of its runs has one process")
    request = make_request(experiment)
    folder.check(request)
    for job in find_jobs(experiment, folder):
        try:
            _check_job(job, experiment)
        except (TrainerError, MmgenError) as error:
            where = f"variants.{job.cell.variant} on data.{job.cell.data}"
            raise InputError(f"{where}: {error}") from error
    return request


def find_jobs(experiment: ExperimentConfig, folder: ExperimentFolder) -> list[Job]:
    """Return the runs that are not finished."""
    jobs = []
    for cell in experiment.cells:
        row = experiment.data[cell.data]
        train = absolute(folder.fixed_set(cell.data) if row.fixed else row.train)
        if not folder.result(cell).is_file():
            test = absolute(experiment.test_of(row))
            jobs.append(Job(folder.root.resolve(), cell, train, test, experiment.sequences))
    return jobs


def _check_job(job: Job, experiment: ExperimentConfig) -> None:
    """Refuse what `fit` or scoring would refuse; a fixed set may not be there yet."""
    config, row = job.cell.config, experiment.data[job.cell.data]
    run = ExperimentFolder(job.root).run(job.cell)
    start = find_start(config, row.train, run, resume=True, overwrite=False, init_from=None)
    if row.fixed is not None and row.fixed < config.data.batch_size:
        raise InputError(
            f"fixed: {row.fixed} sequences are fewer than the batch_size {config.data.batch_size}"
        )
    test = open_scored(job.test, "test")
    check_lengths(test, config.data, predicts=config.model.predicts)
    shapes = [start.stream.sequence_shape[1:], test.sequence_shape[1:]]
    if shapes[0] != shapes[1]:
        raise InputError(f"{job.test}: frames of test are {shapes[1]}, of train {shapes[0]}")
    if test.count is not None and (job.sequences or 1) > test.count:
        raise InputError(f"sequences: {job.sequences} asked for, {job.test} has {test.count}")


def _store_fixed_sets(
    experiment: ExperimentConfig, folder: ExperimentFolder, rows: set[str], *, quiet: bool
) -> None:
    """Make the data sets of a fixed number of sequences, or finish those of a killed call.

    They are the first ones of the endless stream, and val is what is looked at there, so that
    nothing differs but how often a sequence comes.
    """
    # The one way round the rule that the trainer knows mmgen by its format alone: these sets are
    # part of what an experiment is asked for, and a user's own command could make others.
    from mmgen.pipeline import generate_dataset

    for name, row in experiment.data.items():
        if row.fixed is None or name not in rows:
            continue
        config, seed = parse_live(row.train)
        looked_at = max(cell.config.run.eval_sequences for cell in experiment.cells)
        _say(f"data.{name}: {row.fixed} sequences of {row.train}", quiet=quiet)
        counts = {"train": row.fixed, "val": looked_at}
        generate_dataset(folder.fixed_set(name), config, counts, seed=seed)


def _run_here(jobs: Sequence[Job], *, quiet: bool) -> None:
    for number, job in enumerate(jobs, 1):
        _say(f"run {number} of {len(jobs)}: {job.cell.name}", quiet=quiet)
        make_run(job, quiet=quiet)


def make_run(job: Job, *, quiet: bool) -> None:
    """Train and score; what ends the run leaves a note, and is nobody else's business."""
    folder, cell = ExperimentFolder(job.root), job.cell
    run, device = folder.run(cell), cell.config.run.device
    folder.note(cell).unlink(missing_ok=True)
    try:
        fitted = fit(cell.config, job.train, run, resume=True, quiet=quiet)
        scores = evaluate_run(run, job.test, "test", job.sequences, device)
    except Stopped as error:
        raise Stopped(
            f"{cell.name}: ended by a signal: what is complete stays; the same command goes on"
        ) from error
    except (TrainerError, MmgenError) as error:
        folder.fail(cell, str(error))
        return
    result = {
        "variant": cell.variant,
        "data": cell.data,
        "seed": cell.seed,
        "steps": fitted.step,
        "train_sequences": open_source(job.train, "train").count,
        "scores": scores,
    }
    write_atomic(folder.result(cell), canonical_json(result))


def _run_on_cluster(address: str, jobs: Sequence[Job], *, quiet: bool) -> None:
    from mmgen.cluster import call_on_cluster

    done: list[Job] = []

    def tell(job: Job) -> None:
        _await_end(job)
        done.append(job)
        _say(f"run {len(done)} of {len(jobs)}: {job.cell.name}", quiet=quiet)

    call_on_cluster(address, _make_on_worker, jobs, tell)


def _make_on_worker(job: Job) -> None:
    if not ExperimentFolder(job.root).is_there:
        raise InputError(
            f"{job.root}: is not there for the workers; they have to share this folder"
        )
    with _one_run_a_process:
        make_run(job, quiet=True)


def _await_end(job: Job) -> None:
    """Wait for what a worker has left; network file systems show a new file late."""
    folder = ExperimentFolder(job.root)
    until = time.monotonic() + _SEEN_WITHIN_S
    while not (folder.result(job.cell).is_file() or folder.why_failed(job.cell)):
        if time.monotonic() > until:
            raise RunError(
                f"{folder.run(job.cell)}: a worker has made it, but it is not here; workers have "
                "to share this folder"
            )
        time.sleep(_LOOK_EVERY_S)


def _say(line: str, *, quiet: bool) -> None:
    if not quiet:
        print(line, file=sys.stderr, flush=True)
