"""What a device reaches at its best: a large matrix product, and a large copy. It takes seconds."""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from trainer.roofline import Ceilings
from trainer.world import float32_products, product_dtype

# Large enough that starting a product, or a cache, plays no part.
_SIDE = {"cpu": 2048, "cuda": 8192}
_COPIED_BYTES = {"cpu": 2**28, "cuda": 2**30}
_ROUNDS = {"cpu": 3, "cuda": 10}


def measure_ceilings(device: torch.device, precision: str) -> Ceilings:
    """Measure a device, a CPU with the threads that torch has now; precision is of products."""
    with float32_products(precision):
        flop_per_s = _flop_per_s(device, product_dtype(precision))
    return Ceilings(flop_per_s, _bytes_per_s(device), _cache_bytes(device))


def timed_s(run: Callable[[], object], device: torch.device) -> float:
    """Return how long a call takes, all that it gives a CUDA device to do included."""
    is_cuda = device.type == "cuda"
    if is_cuda:
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if is_cuda:
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def written_s(seconds: float) -> str:
    """Write a time with its unit."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def _flop_per_s(device: torch.device, dtype: torch.dtype | None) -> float:
    side = _SIDE[device.type]
    left = torch.rand(side, side, device=device, dtype=dtype)
    right, product = left.clone(), torch.empty_like(left)
    return 2 * side**3 / _best_s(lambda: torch.mm(left, right.t(), out=product), device)


def _bytes_per_s(device: torch.device) -> float:
    source = torch.zeros(_COPIED_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    # A copy reads and writes each byte.
    return 2 * source.numel() / _best_s(lambda: target.copy_(source), device)


def _best_s(run: Callable[[], object], device: torch.device) -> float:
    timed_s(run, device)  # warms up
    return min(timed_s(run, device) for _ in range(_ROUNDS[device.type]))


def _cache_bytes(device: torch.device) -> int:
    """Return the size of the largest cache, 0 where nobody says."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    sizes = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    return max((_kib(path.read_text()) * 1024 for path in sizes), default=0)


def _kib(text: str) -> int:
    """Read what Linux writes, such as 107520K."""
    number = text.strip().removesuffix("K")
    return int(number) if number.isdigit() else 0
