"""The folder of an experiment: what it was asked for, whose it is now, what it holds.

FOLDER/experiment.json   the request: equal ones go on with the folder
FOLDER/data/ROW          the data sets of a fixed number of sequences
FOLDER/runs/CELL         run folders as `mmtrain fit` makes them, and result.json once one is scored
FOLDER/failed/CELL.txt   why a run could not be finished the last time
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmgen.errors import MmgenError
from mmgen.shard.manifest import canonical_json, write_atomic
from trainer.address import absolute
from trainer.errors import InputError, TrainerError
from trainer.experiment.config import Cell, ExperimentConfig, slug
from trainer.lock import check_free, locked, locked_new
from trainer.source import open_scored, open_source

_FORMAT = 1
_NAME = "experiment.json"

Json = dict[str, Any]


class ExperimentFolder:
    """The paths in one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, cell: Cell) -> Path:
        """Where a run is."""
        return self.root / "runs" / cell.name

    def result(self, cell: Cell) -> Path:
        """Where its scores are: what says that a run is finished."""
        return self.run(cell) / "result.json"

    def fixed_set(self, row: str) -> Path:
        """Where the stored sequences of a row of data are."""
        return self.root / "data" / slug(row)

    def note(self, cell: Cell) -> Path:
        """Where it stands why a run has failed."""
        return self.root / "failed" / f"{cell.name}.txt"

    @property
    def is_there(self) -> bool:
        """Whether it is an experiment's."""
        return (self.root / _NAME).is_file()

    def fail(self, cell: Cell, reason: str) -> None:
        """Leave a note why a run has failed."""
        note = self.note(cell)
        note.parent.mkdir(exist_ok=True)
        write_atomic(note, f"{reason}\n")

    def why_failed(self, cell: Cell) -> str | None:
        """Return the note on a run, None if there is none."""
        note = self.note(cell)
        return note.read_text(encoding="utf-8").strip() if note.is_file() else None

    def check(self, request: Json) -> None:
        """Refuse a folder that is another experiment's, or nobody's; nothing in it changes."""
        root = self.root
        stored = self._read()
        if stored is None:
            check_free(root / _NAME)
        elif difference := _first_difference(stored, request):
            raise InputError(
                f"{root}: holds another experiment ({difference}); name another folder"
            )

    @contextmanager
    def held(self, request: Json) -> Iterator[None]:
        """Make a checked folder an experiment's, or go on with it; nobody else can meanwhile."""
        refusal = f"{self.root}: another process is at work there; wait, or name another folder"
        path = self.root / _NAME
        if self._read() is not None:
            with locked(path, refusal):
                yield
            return
        self.root.mkdir(parents=True, exist_ok=True)
        with locked_new(path, canonical_json(request), refusal):
            yield

    def _read(self) -> Json | None:
        """Return the stored request; None if there is no file, or another program's."""
        try:
            stored = json.loads((self.root / _NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return stored if isinstance(stored, dict) and "variants" in stored else None


def make_request(experiment: ExperimentConfig) -> Json:
    """Return all that determines runs and scores; title and metrics may change later.

    raises  InputError for DATA that cannot be opened
    """
    variants = {}
    for cell in experiment.cells:
        fields = cell.config.model_dump()
        del fields["run"]["seed"]  # seeds says it
        variants[cell.variant] = fields
    data = {name: _describe(experiment, name) for name in experiment.data}
    request = {
        "format": _FORMAT,
        "variants": variants,
        "data": data,
        "seeds": list(experiment.seeds),
        "sequences": experiment.sequences,
    }
    return dict(json.loads(json.dumps(request)))  # as it will be read


def _describe(experiment: ExperimentConfig, name: str) -> Json:
    """Return what a row of data is, to the last frame."""
    row = experiment.data[name]
    test = experiment.test_of(row)
    try:
        # An address may come to mean something else, that of live:FILE.toml for example.
        train_id = open_source(row.train, "train").fingerprint
        test_id = open_scored(test, "test").fingerprint
    except (TrainerError, MmgenError) as error:
        raise InputError(f"data.{name}: {error}") from error
    return {
        "train": absolute(row.train),
        "fixed": row.fixed,
        "test": absolute(test),
        "train_sha256": train_id,
        "test_sha256": test_id,
    }


def _first_difference(there: Json, wanted: Json, place: str = "") -> str | None:
    """Say where a stored request is another one, None if it is this."""
    for name in [*wanted, *(name for name in there if name not in wanted)]:
        inside = place + name
        if name not in there or name not in wanted:
            return f"{inside} is only {'in the file' if name in wanted else 'there'}"
        old, new = there[name], wanted[name]
        if isinstance(old, dict) and isinstance(new, dict):
            if difference := _first_difference(old, new, f"{inside}."):
                return difference
        elif old != new:
            return f"{inside} is {old}, asked for is {new}"
    return None
