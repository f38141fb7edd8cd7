"""How a step of training is taken: launch by launch, or on CUDA as one graph.

A step is hundreds of kernels, most of them short, and one thread would have to start each. So it is
captured once, after a few that were taken as they are, and replayed from then on: the same kernels
on the same memory, into which what differs from step to step is copied. Capturing runs nothing, so
the updates are those of the plain loop. Has not run on a GPU yet.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.noise import Noise
from trainer.optimizer import Updater
from trainer.pointwise import why_not_triton
from trainer.stream import Batch

# The whole of a step, from a batch, its noise and the learning rate to the next weights; returns
# the losses by name and the norm of the gradient, scalars on the device.
Take = Callable[[Batch, Noise, float | Tensor], tuple[dict[str, Tensor], Tensor]]

_TAKEN_FIRST = 3  # steps in which libraries choose kernels and allocate, and Triton compiles


def make_step(
    take: Take,
    updater: Updater,
    device: torch.device,
    log: Callable[[str], None],
    *,
    ranks: int = 1,
) -> Take:
    """Return what takes the steps of a run on a device, in their order.

    take     waits for nothing, and finds the weights and all it keeps in the same memory each time
    updater  the one that `take` calls
    log      is told, in one line each, what on CUDA is not as fast as it could be
    """
    if device.type != "cuda":
        return take
    if reason := why_not_triton():
        log(f"Triton's kernels are not used, several of torch's stand in for each: {reason}")
    if ranks > 1:
        log("steps are not captured in a CUDA graph: ranks exchange gradients in between")
        return take
    return CapturedStep(take, updater, device, log)


class _Captured(NamedTuple):
    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]  # where it reads what differs from step to step
    names: tuple[str, ...]
    values: Tensor  # where it leaves the losses of these names, and the norm

    def fits(self, inputs: list[Tensor]) -> bool:
        return [x.shape for x in inputs] == [x.shape for x in self.inputs]

    def replay(self, inputs: list[Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        for place, values in zip(self.inputs, inputs, strict=True):
            place.copy_(values)
        self.graph.replay()
        *losses, norm = self.values.clone()  # the next replay writes over them
        return dict(zip(self.names, losses, strict=True)), norm


class CapturedStep:
    """A `Take` that captures the one it is given."""

    def __init__(
        self, take: Take, updater: Updater, device: torch.device, log: Callable[[str], None]
    ) -> None:
        self._take, self._updater, self._log = take, updater, log
        # As float32 in every step, captured or not: else the two would differ in the last bit.
        self._rate = torch.zeros((), device=device)
        # Torch asks for the first steps and the capture to share a stream that is not the default.
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._num_taken = 0
        self._captured: _Captured | None = None

    def __call__(
        self, batch: Batch, noise: Noise, rate: float | Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Take a step."""
        self._rate.fill_(rate)
        if self._num_taken == _TAKEN_FIRST:
            self._captured = self._capture(batch, noise)
        self._num_taken += 1
        inputs = _inputs(batch, noise)
        if self._captured is not None and self._captured.fits(inputs):
            return self._captured.replay(inputs)
        here = torch.cuda.current_stream()
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            taken = self._take(batch, noise, self._rate)
        here.wait_stream(self._stream)
        return taken

    def _capture(self, batch: Batch, noise: Noise) -> _Captured | None:
        """Capture a step on copies of its inputs; None, and a line of log, where that fails."""
        batch = replace(batch, frames=batch.frames.clone(), num_frames=batch.num_frames.clone())
        noise = noise.map(torch.clone)
        graph = torch.cuda.CUDAGraph()
        here = torch.cuda.current_stream()
        try:
            # Other threads read and pin the batches that follow meanwhile.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                losses, norm = self._take(batch, noise, self._rate)
                values = torch.stack([*losses.values(), norm])
        except RuntimeError as error:
            torch.cuda.set_stream(here)  # which torch leaves as it was while capturing
            for weight in self._updater.weights.values():
                weight.grad = None  # nothing was computed
            # Ending the capture fails as well then, and says less.
            first = error.__context__ or error
            if not isinstance(first, RuntimeError):
                raise
            reason = f"{type(first).__name__}: {first}".splitlines()[0]
            self._log(f"steps are not captured in a CUDA graph: {reason}")
            return None
        return _Captured(graph, _inputs(batch, noise), tuple(losses), values)


def _inputs(batch: Batch, noise: Noise) -> list[Tensor]:
    """Return what differs from step to step, the rate aside."""
    found = [batch.frames, batch.num_frames]

    def keep(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    noise.map(keep)
    return found
