"""Where a run happens: its ranks, its device, and what matrix products can be rounded to.

The only file of trainer that reads or sets the environment for any of these.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.errors import InputError, RunError

# Launchers end all ranks once one has ended: a rank waits before it says what others say as well,
# and a rank that misses another waits longer, for that one may know why.
HEAD_START_S = 3.0
_PLACE = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
_MEETING_POINT = ("MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class World:
    """This process among those that train together; without a launcher it is the only one."""

    rank: int = 0
    local_rank: int = 0  # its place on this host
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes and speaks."""
        return self.rank == 0

    @contextmanager
    def joined(self, device: torch.device, timeout_s: float = 600) -> Iterator[None]:
        """Connect the ranks for a while, and make the device the current one.

        timeout_s  how long a rank waits for the others: more than rank 0 needs for what it alone
                   does, such as writing a checkpoint
        raises     RunError where the ranks do not meet, or one of them has ended
        """
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            if self.size == 1:
                yield
                return
            self._connect(device, timeout_s)
            try:
                try:
                    yield
                    self.wait()  # who leaves first takes the others' connections away
                finally:
                    dist.destroy_process_group()
            except RuntimeError as error:
                if not _is_of_ranks(error):
                    raise
                time.sleep(HEAD_START_S + 1)
                raise RunError(
                    f"another rank has ended, or did not answer for {timeout_s:g} s; look what it "
                    "says, then go on with --resume"
                ) from error

    def _connect(self, device: torch.device, timeout_s: float) -> None:
        is_cuda = device.type == "cuda"
        try:
            dist.init_process_group(
                # gloo beside NCCL: flags need not wait for what the device still has to do.
                "cpu:gloo,cuda:nccl" if is_cuda else "gloo",
                rank=self.rank,
                world_size=self.size,
                timeout=timedelta(seconds=timeout_s),
                device_id=device if is_cuda else None,
            )
        except RuntimeError as error:
            where = ":".join(os.environ[name] for name in _MEETING_POINT)
            reason = " ".join(str(error).split("Exception raised from")[0].split())
            raise RunError(f"the {self.size} ranks do not meet at {where}: {reason}") from error

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor over the ranks, the same bits on each of them."""
        if self.size == 1:
            return tensor
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total

    def any(self, flag: bool) -> bool:
        """Tell whether a flag is set on any rank; waits for the ranks, but not for CUDA."""
        if self.size == 1:
            return flag
        flags = torch.tensor(int(flag))
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags)

    def let_first_speak(self) -> None:
        """Give rank 0 the time to say what every rank has found, and a launcher to act on it."""
        if not self.is_first:
            time.sleep(HEAD_START_S)

    def wait(self) -> None:
        """Go on when every rank has come here."""
        self.any(False)


def find_world(environment: Mapping[str, str] = os.environ) -> World:
    """Return the place that a launcher such as torchrun gave this process.

    raises  InputError for numbers that make no sense, or only some of them
    """
    given = [name for name in _PLACE if name in environment]
    if not given:
        return World()
    needed = _PLACE if environment.get("WORLD_SIZE") == "1" else _PLACE + _MEETING_POINT
    missing = [name for name in needed if name not in environment]
    if missing:
        raise InputError(
            f"{given[0]} is in the environment, {missing[0]} is not; start ranks with torchrun, "
            f"or unset {', '.join(given)}"
        )
    numbers = {name: _number(name, environment[name]) for name in needed if name != "MASTER_ADDR"}
    rank, local_rank, size = (numbers[name] for name in _PLACE)
    if rank >= size:
        raise InputError(f"RANK={rank} and WORLD_SIZE={size} in the environment: RANK must be less")
    return World(rank, local_rank, size)


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise InputError(f"{name}={text!r} in the environment: only whole numbers from 0 on go")
    return int(text)


def _is_of_ranks(error: RuntimeError) -> bool:
    """Tell whether an error comes from what connects the ranks; gloo has no class of its own."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def pick_device(name: str, world: World = World()) -> torch.device:
    """Return the device of a name; `auto` is CUDA when it is there. InputError if it is not.

    Of several ranks on a host, each gets a CUDA device of its own.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device: {name!r} is unknown; use auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device: {name!r} is not supported; use auto, cpu, cuda or cuda:N")
    if device.type == "cpu":
        return device
    count = torch.cuda.device_count()
    if (device.index or 0) >= count:
        raise InputError(f"device: {name!r} is not there ({count} CUDA devices); use cpu")
    if world.size > 1:
        if device.index is not None:
            raise InputError(f"device: {name!r} is one device for {world.size} ranks; use cuda")
        if world.local_rank >= count:
            raise InputError(
                f"device: rank {world.rank} has no CUDA device of its own ({count} on its host); "
                f"start {count} ranks a host, or use cpu"
            )
        return torch.device("cuda", world.local_rank)
    return torch.device("cuda", device.index or 0)


def pick_precision(name: str, device: torch.device, *, or_fp32: bool = False) -> str:
    """Return fp32, tf32, bf16 or fp16; `auto` is bf16 where the device multiplies it in hardware.

    or_fp32  take fp32 where the device has no tf32, as for a model that was trained elsewhere
    raises   InputError where it has none
    """
    is_ampere = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    if name == "auto":
        has_bf16 = is_ampere if device.type == "cuda" else _cpu_multiplies_bf16()
        return "bf16" if has_bf16 else "fp32"
    if name == "tf32" and not is_ampere:
        if or_fp32:
            return "fp32"
        raise InputError(
            "precision: tf32 needs a CUDA device of compute capability 8.0 or more; use fp32 or "
            f"{'fp16' if device.type == 'cuda' else 'bf16'}"
        )
    return name


def product_dtype(precision: str) -> torch.dtype | None:
    """Return what the factors of matrix products are rounded to; None leaves them as they are."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """Let CUDA multiply float32 in TF32 where the precision is tf32, and exactly elsewhere."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def make_deterministic() -> None:
    """Make equal runs on one device equal bit for bit; to be called before the first product."""
    # cuBLAS reads it once, when it starts; an own choice of somebody stays.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def _cpu_multiplies_bf16() -> bool:
    # torch has no public question for this; a release without these names means fp32.
    checks = (
        getattr(torch.cpu, name, lambda: False)
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
    return any(check() for check in checks)


# What is no OutOfMemoryError, and means the same.
_OUT_OF_MEMORY = (
    "can't allocate memory",  # the CPU's allocator
    "std::bad_alloc",
    "Storage size calculation overflowed",  # a tensor beyond what 64 bits count
    "CUDA error: out of memory",  # pinned memory, streams, graphs
    "CUBLAS_STATUS_ALLOC_FAILED",
)


@contextmanager
def one_line_when_out_of_memory() -> Iterator[None]:
    """Say what to change where the device, or the machine, has too little memory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        has_class = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        if has_class or any(words in str(error) for words in _OUT_OF_MEMORY):
            raise RunError(
                "not enough memory; lower batch_size, hidden or layers, or raise accumulate"
            ) from error
        raise
