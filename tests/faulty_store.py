"""An object store in memory whose next reads can fail in every way a network has."""

import io
from typing import ClassVar

from fsspec.implementations.memory import MemoryFileSystem


class FaultyFileSystem(MemoryFileSystem):
    """`faulty://`: each read takes the next of `faults`, which makes a stream of the content."""

    protocol = "faulty"
    store: ClassVar = {}
    pseudo_dirs: ClassVar = [""]
    faults: ClassVar[list] = []
    num_reads: ClassVar[int] = 0
    waits: ClassVar[list] = []  # of the tries, noted and not waited

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + path.partition("://")[2].strip("/") if "://" in path else path.rstrip("/")

    def _open(self, path, mode="rb", **options):
        if mode != "rb":
            return super()._open(path, mode, **options)
        FaultyFileSystem.num_reads += 1
        content = super()._open(path, mode).getvalue()
        fault = self.faults.pop(0) if self.faults else io.BytesIO
        return fault(content)


def loses_connection(content):
    raise ConnectionResetError("the connection was reset")


def refuses(content):
    raise PermissionError("not yours")


def truncates(content):
    return io.BytesIO(content[:-5])


def lengthens(content):
    return io.BytesIO(content + b"more")


def empties(content):
    return io.BytesIO()


def flips_a_bit(content):
    return io.BytesIO(content[:-1] + bytes([content[-1] ^ 1]))


class breaks_off(io.BytesIO):
    """Gives half of the content, then times out."""

    def read(self, size=-1):
        if self.tell():
            raise TimeoutError("the server said nothing for long")
        return super().read(min(size, len(self.getvalue()) // 2))
