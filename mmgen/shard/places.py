"""Where a data set lies: a local folder, or a folder at any fsspec address such as s3://bucket/data.

Both kinds answer the same few questions, under names that can only lie inside the place; what is
written into a local one is the business of `folder.py`. What a driver raises becomes one line here:
InputError before the address has answered once (the address, the key, the network: the user's to
mend), after that MmgenError, when tries have run out. fsspec and its drivers take a second to
import, so only a remote place does that.

Endpoint and credentials are the driver's own affair; nothing here takes or stores them. For s3://
(s3fs 2026.9, botocore 1.43) these are honoured:

AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, or AWS_PROFILE and the files in ~/.aws
AWS_ENDPOINT_URL_S3 before AWS_ENDPOINT_URL before `endpoint_url` of the profile; AWS_DEFAULT_REGION
AWS_MAX_ATTEMPTS (1: do not wait for an endpoint that refuses), AWS_CA_BUNDLE
FSSPEC_S3_ENDPOINT_URL before all of them, FSSPEC_S3_ANON=true for public buckets, and
~/.config/fsspec/*.json: read once, when fsspec is imported
"""

import hashlib
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

from mmgen.errors import InputError, MmgenError, ShardError

_BLOCK_BYTES = 8 << 20  # one ranged request; several shards in flight make up for its latency
_MAX_TRIES = 4
_FIRST_WAIT_S = 0.5
_PATIENCE_S = 60.0  # drivers retry too, and slowly: no new try after this
_PERMANENT = (PermissionError, NotImplementedError, TypeError, ValueError)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")

R = TypeVar("R")


def find_place(address: str | os.PathLike[str]) -> "Place":
    """Return the place an address names, without asking whether anything is there.

    `scheme://...` is remote, but `file://` and everything else is a local folder. InputError if
    nobody knows the scheme or its driver is not installed.
    """
    text = os.fspath(address)
    if not text:
        raise InputError("the address of a data set is empty; name a folder")
    scheme, separator, rest = text.partition("://")
    if not separator or "/" in scheme:
        return LocalPlace(Path(text))
    if scheme in ("file", "local"):
        return LocalPlace(Path(rest))
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme) or not rest.strip("/") or "?" in rest:
        raise InputError(f"{_public(text)}: is no address of a folder, such as s3://bucket/folder")
    _import_driver(scheme, _public(text))
    return RemotePlace(text.rstrip("/"))


class LocalPlace:
    """A folder of this machine."""

    is_remote: Literal[False] = False

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = str(root)

    def __repr__(self) -> str:
        return f"<LocalPlace {self.name}>"

    def path(self, relative: str) -> Path:
        """Return where a file of this place lies, or would."""
        return self.root / _checked(relative, self.name)

    def where(self, relative: str) -> str:
        """Return the name of a file for messages."""
        return str(self.path(relative))

    def exists(self, relative: str) -> bool:
        """Tell whether there is a file of that name."""
        return self.path(relative).is_file()

    def size(self, relative: str) -> int | None:
        """Return the bytes of a file, None where there is none."""
        path = self.path(relative)
        return path.stat().st_size if path.is_file() else None

    def read_text(self, relative: str, max_bytes: int) -> str:
        """Read a small UTF-8 file; InputError if it is missing, larger or no text."""
        path = self.path(relative)
        if not path.is_file():
            raise InputError(f"{path}: is not there")
        with path.open("rb") as stream:
            return _read_text(stream, max_bytes, str(path))

    def remove(self, relative: str) -> None:
        """Remove a file; one that is not there is fine."""
        self.path(relative).unlink(missing_ok=True)


class RemotePlace:
    """A folder at an fsspec address; picklable, and of use on both sides of a fork.

    Writing suits object stores: a put is seen whole or not at all, and equal content makes a
    second put harmless. A process that is killed while it puts a file of 100 MB or more leaves an
    unfinished multipart upload that no listing shows; the bucket's lifecycle rules clear those.
    """

    is_remote: Literal[True] = True

    def __init__(self, address: str) -> None:
        self._address = address
        self.name = _public(address)
        self._has_answered = False
        # One driver for each process: s3fs refuses to work across a fork. The parent's stays in
        # here, since letting go of it in the child waits for an event loop that is not there.
        self._drivers: dict[int, tuple[Any, str]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_drivers": {}}

    def __repr__(self) -> str:
        return f"<RemotePlace {self.name}>"

    def where(self, relative: str) -> str:
        """Return the name of a file for messages; it never shows a password."""
        return f"{self.name}/{_checked(relative, self.name)}"

    def exists(self, relative: str) -> bool:
        """Tell whether there is a file of that name."""
        return self.size(relative) is not None

    def size(self, relative: str) -> int | None:
        """Return the bytes of a file, None where there is none."""

        def ask(driver: Any, path: str) -> int | None:
            info = driver.info(path)
            return int(info["size"]) if info["type"] == "file" else None

        try:
            return self._ask(relative, ask)
        except FileNotFoundError:
            return None

    def entries(self, folder: str = "") -> dict[str, int | None]:
        """Return name -> bytes of what lies in a folder, None for folders; {} where it is not."""

        def ask(driver: Any, path: str) -> dict[str, int | None]:
            found = {}
            for info in driver.ls(path, detail=True):
                name = info["name"].strip("/")
                if name != path.strip("/"):  # the folder's own mark, or a file of that name
                    is_file = info["type"] == "file"
                    found[name.rpartition("/")[2]] = int(info["size"]) if is_file else None
            return dict(sorted(found.items()))

        try:
            return self._ask(folder or None, ask)
        except FileNotFoundError:
            return {}

    def read_text(self, relative: str, max_bytes: int) -> str:
        """Read a small UTF-8 file; InputError if it is missing, larger or no text."""

        def ask(driver: Any, path: str) -> str:
            with driver.open(path, "rb", cache_type="none") as stream:
                return _read_text(stream, max_bytes, self.where(relative))

        try:
            return self._ask(relative, ask)
        except FileNotFoundError as error:
            raise InputError(f"{self.where(relative)}: is not there") from error

    def fetch(
        self, relative: str, size: int, receive: Callable[[int, bytes], None]
    ) -> tuple[int, str]:
        """Stream a file through `receive(offset, block)`, which begins at 0 again after a failure.

        size     the bytes it should have; at most one more is read
        returns  bytes and SHA-256 of what came
        raises   ShardError if it is missing; the MmgenError that `receive` raises
        """

        def ask(driver: Any, path: str) -> tuple[int, str]:
            received, digest = 0, hashlib.sha256()
            with driver.open(path, "rb", cache_type="none") as stream:
                for block in _blocks(stream, size + 1):
                    receive(received, block)
                    digest.update(block)
                    received += len(block)
            return received, digest.hexdigest()

        try:
            return self._ask(relative, ask)
        except FileNotFoundError as error:
            raise ShardError(
                f"{self.where(relative)}: is missing, though the manifest lists it"
            ) from error

    def write_text(self, relative: str, text: str) -> None:
        """Put a small file in one request, in place of an older one, and read it back."""
        content = text.encode()
        self._ask(relative, lambda driver, path: driver.pipe_file(path, content))
        if self._ask(relative, lambda driver, path: driver.cat_file(path)) != content:
            raise MmgenError(f"{self.where(relative)}: reads back otherwise than it was written")

    def put_file(self, local: Path, relative: str) -> None:
        """Put a finished file, in place of an older one, and see that all of it arrived.

        Content is guarded on its way by the driver (botocore sends a CRC-32 that the server
        checks), length here.
        """
        size = local.stat().st_size
        self._ask(relative, lambda driver, path: driver.put_file(str(local), path))
        if (stored := self.size(relative)) != size:
            raise MmgenError(f"{self.where(relative)}: has {stored} bytes, {size} were written")

    def remove(self, relative: str) -> None:
        """Remove a file; one that is not there is fine."""
        with suppress(FileNotFoundError):
            self._ask(relative, lambda driver, path: driver.rm_file(path))

    def _ask(self, relative: str | None, action: Callable[[Any, str], R]) -> R:
        """Call `action(driver, path)` for a file, or for the place; again if it failed and may yet.

        FileNotFoundError is an answer and comes through, unless the bucket itself is missing.
        """
        where = self.name if relative is None else self.where(relative)
        deadline = time.monotonic() + _PATIENCE_S
        for tries in range(1, _MAX_TRIES + 1):
            try:
                driver, root = self._driver()
                driver.invalidate_cache()  # what others wrote since the last listing counts
                answer = action(driver, root if relative is None else f"{root}/{relative}")
            except MmgenError:
                raise
            except Exception as raised:  # drivers raise what their libraries raise
                error = _reason_of(raised)
                if isinstance(error, FileNotFoundError) and not _lacks_bucket(error):
                    self._has_answered = True
                    raise
                is_last = tries == _MAX_TRIES or time.monotonic() > deadline
                if is_last or not self._has_answered or _is_permanent(error):
                    raise self._refusal(where, error) from error
            else:
                self._has_answered = True
                return answer
            # Jitter: many workers that lost the same server do not come back at the same moment.
            time.sleep(_FIRST_WAIT_S * 2 ** (tries - 1) * random.uniform(0.5, 1))
        raise AssertionError("the last try returns or raises")

    def _driver(self) -> tuple[Any, str]:
        """Return this process's fsspec file system, and the root's path in it."""
        if os.getpid() not in self._drivers:
            from fsspec.core import url_to_fs

            self._drivers[os.getpid()] = url_to_fs(self._address, skip_instance_cache=True)
        return self._drivers[os.getpid()]

    def _refusal(self, where: str, error: Exception) -> MmgenError:
        kind = MmgenError if self._has_answered else InputError
        secret = self._address.partition("://")[2].rpartition("@")[0]
        reason = " ".join(str(error).split()) or type(error).__name__
        if secret:
            reason = reason.replace(secret, "...")
        return kind(f"{where}: {_remedy(error, reason)}")


Place = LocalPlace | RemotePlace


def _checked(relative: str, name: str) -> str:
    """Return a name that can only lie inside a place: no `..`, nothing absolute or hidden."""
    if not _NAME.fullmatch(relative):
        raise InputError(f"{name}: {relative!r} is no name of a file in a data set")
    return relative


def _public(address: str) -> str:
    """Return an address without user, password and query."""
    scheme, _, rest = address.partition("://")
    authority, slash, path = rest.partition("?")[0].rstrip("/").partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"


def _import_driver(scheme: str, name: str) -> None:
    import fsspec

    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        is_s3 = scheme in ("s3", "s3a")
        remedy = "pip install 'moving-mnist[s3]'" if is_s3 else " ".join(str(error).split())
        raise InputError(f"{name}: the driver of {scheme}:// is not installed; {remedy}") from error
    except ValueError as error:
        raise InputError(f"{name}: nothing here knows {scheme}://; mend the address") from error


def _blocks(stream: BinaryIO, limit: int) -> Iterator[bytes]:
    """Read a stream to its end, or `limit` bytes of it."""
    while limit > 0 and (block := stream.read(min(_BLOCK_BYTES, limit))):
        yield block
        limit -= len(block)


def _read_text(stream: BinaryIO, max_bytes: int, where: str) -> str:
    content = b"".join(_blocks(stream, max_bytes + 1))
    if len(content) > max_bytes:
        raise InputError(f"{where}: is larger than {max_bytes} bytes; not one of ours")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: cannot be read ({error})") from error


def _reason_of(error: Exception) -> Exception:
    """Return what has gone wrong: for the HTTP driver a server that is not there lacks the file."""
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and isinstance(cause, OSError):
        return cause
    return error


def _lacks_bucket(error: Exception) -> bool:
    response = getattr(error.__cause__, "response", None)  # what botocore keeps of the answer
    return isinstance(response, dict) and response.get("Error", {}).get("Code") == "NoSuchBucket"


def _lacks_credentials(error: Exception) -> bool:
    return "Credentials" in type(error).__name__  # botocore's; it is not ours to import


def _is_permanent(error: Exception) -> bool:
    return isinstance(error, _PERMANENT) or _lacks_credentials(error) or _lacks_bucket(error)


def _remedy(error: Exception, reason: str) -> str:
    if _lacks_bucket(error):
        return "the bucket does not exist; make it, or mend the address"
    if _lacks_credentials(error):
        return f"{reason}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if isinstance(error, PermissionError):
        return f"access is refused ({reason}); check the credentials and the bucket's policy"
    return f"cannot be reached ({reason}); check the network, and AWS_ENDPOINT_URL for s3://"
