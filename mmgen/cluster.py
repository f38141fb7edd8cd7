"""Calls made by the workers of a Dask cluster, in place of threads of this process.

It knows nothing of shards, and imports Dask only when it is used: the extra `cluster` brings it.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any, TypeVar

import mmgen
from mmgen.errors import InputError, MmgenError

A = TypeVar("A")

_ANSWER_WITHIN_S = 5
_LOOK_EVERY_S = 10
_CALLS_A_THREAD = 4  # sent ahead: the scheduler need not hold a million of them


def check_that_it_answers(address: str) -> None:
    """Knock at a scheduler's door; InputError if nobody opens, or Dask is not installed.

    A client that finds nobody takes its time to go, and is loud about it.
    """
    try:
        from distributed.comm import connect
    except ImportError as error:
        raise InputError(
            "a cluster needs the package distributed: pip install 'moving-mnist[cluster]'"
        ) from error

    async def knock() -> None:
        await (await connect(address, timeout=_ANSWER_WITHIN_S)).close()

    try:
        asyncio.run(knock())
    except (OSError, ValueError) as error:  # a timeout is an OSError
        reason = " ".join(str(error).split())
        raise InputError(
            f"cluster {address}: no scheduler answers ({reason}); start one with `dask scheduler`"
        ) from error


def call_on_cluster(
    address: str,
    call: Callable[[A], None],
    arguments: Iterable[A],
    done: Callable[[A], None],
) -> None:
    """Call a function once for each argument; calls lost with a dying worker are made again.

    address    of the scheduler, tcp://HOST:PORT
    call       importable by the workers; may run twice for one argument. What it returned would be
               fetched from the worker, and for half a minute from one that is dead
    done       told of each argument whose call has returned, in any order
    raises     InputError if a worker has another mmgen; MmgenError if there are no workers, a call
               has ended several of them, or the scheduler is gone; and what a call raises
    """
    rest = iter(arguments)
    waiting: dict[Any, A] = {}
    with _connected(address) as client:
        for worker, version in client.run(_version, on_error="return").items():
            _check_version(worker, version)
        try:
            while True:
                room = _CALLS_A_THREAD * _count_threads(client, address) - len(waiting)
                for argument in islice(rest, max(0, room)):
                    future = client.submit(_call, mmgen.__version__, call, argument, pure=False)
                    waiting[future] = argument
                if not waiting:
                    return
                for future in _finished(client, waiting):
                    if future.status != "finished":
                        future.result()  # raises what has ended it
                    done(waiting.pop(future))
        finally:
            with suppress(OSError):  # the scheduler is gone, which is said below
                client.cancel(list(waiting))


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Open a client; what goes wrong meanwhile becomes one line."""
    from distributed import Client, KilledWorker
    from distributed.comm import CommClosedError

    for name in ("distributed", "distributed.client"):  # their lines would tear the progress bar
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with Client(address, timeout=_ANSWER_WITHIN_S, set_as_default=False) as client:
            yield client
    except KilledWorker as error:
        raise MmgenError(
            f"cluster {address}: one call has ended {error.allowed_failures + 1} workers, the "
            f"last of them {error.last_worker.address}; look at that worker's log"
        ) from error
    except (CommClosedError, CancelledError) as error:
        raise MmgenError(
            f"cluster {address}: the scheduler is gone; the same command goes on with what is there"
        ) from error


def _version() -> str:
    return mmgen.__version__


def _check_version(worker: str, version: object) -> None:
    if isinstance(version, Exception):
        raise InputError(f"worker {worker}: cannot run mmgen {mmgen.__version__} ({version})")
    if version != mmgen.__version__:
        raise InputError(
            f"worker {worker}: has mmgen {version}, here it is {mmgen.__version__}; install the "
            "same everywhere"
        )


def _call(version: str, call: Callable[[A], None], argument: A) -> None:
    """Run in a worker, which may have come after the others were asked for their version."""
    if version != mmgen.__version__:
        from distributed import get_worker

        raise InputError(
            f"worker {get_worker().address}: has mmgen {mmgen.__version__}, the client {version}; "
            "install the same everywhere"
        )
    call(argument)


def _count_threads(client: Any, address: str) -> int:
    threads = client.nthreads()
    if not threads:
        raise MmgenError(
            f"cluster {address}: has no workers; start some with `dask worker {address}`, then the "
            "same command goes on with what is there"
        )
    return sum(threads.values())


def _finished(client: Any, waiting: Iterable[Any]) -> list[Any]:
    """Return the calls that have ended, after a while even if none has: the workers may be gone."""
    from distributed import wait

    with client.as_current(), suppress(TimeoutError):
        return list(wait(list(waiting), timeout=_LOOK_EVERY_S, return_when="FIRST_COMPLETED").done)
    return []
