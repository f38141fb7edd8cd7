"""What a training step must do at least, counted; and the time a machine needs for that.

Counted is the step of `fused.py`, the cheapest that is known to be exact: no product with what is
zero, a weight's gradient in one product for all frames, every weight read once a frame where a
frame waits for the one before. Nothing here runs a model or looks at a machine.

Letters: B batch, T context, R reconstructed, P predicted, D values a frame, U units, G gates.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from trainer.cells import NUM_GATES
from trainer.config import ModelConfig, TrainConfig

_FLOAT = 4  # bytes of weights, gradients, moments and activations, whatever products take
# Values a unit keeps of each frame for its gradient: gates, and what the cell makes of them.
_KEPT = {"lstm": 6, "peephole": 6, "gru": 5, "rnn": 1}
# Tensors of the weights' size that a step of the optimizer keeps, and reads or writes.
_MOMENTS = {"adam": 2, "adamw": 2, "paper-sgd": 1}
_TOUCHED = {"adam": 7, "adamw": 7, "paper-sgd": 5}


class _Product(NamedTuple):
    """What one weight matrix is multiplied with in a step, in rows: of a frame there are B.

    size          values of the matrix
    plain         rows, forward, where zeros are multiplied too, as a plain loop does
    forward       rows without zeros
    data, weight  rows of the gradient of what is multiplied, and of the matrix
    forward_steps, data_steps
                  how often the matrix is read where a frame waits for the one before; 0 where all
                  frames are one product
    """

    size: int
    plain: int
    forward: int
    data: int
    weight: int
    forward_steps: int = 0
    data_steps: int = 0

    @property
    def macs(self) -> int:
        return self.size * (self.forward + self.data + self.weight)

    @property
    def serial_macs(self) -> int:
        forward = self.forward if self.forward_steps else 0
        return self.size * (forward + (self.data if self.data_steps else 0))


@dataclass(frozen=True)
class Memory:
    """Bytes that a step holds at its fullest, without what the framework keeps for itself.

    copies       of the weights, rounded for the products
    activations  what the gradient needs, the frames and the noise of one part of the batch
    """

    weights: int
    copies: int
    gradients: int
    moments: int
    average: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(vars(self).values())


@dataclass(frozen=True)
class StepCost:
    """Multiply-accumulates (macs) and bytes to and from memory of one optimizer step of a rank.

    plain_macs    forward, with the products of zeros that a plain loop takes
    serial_macs   of forward_macs and data_macs, those of frames that wait for the one before
    serial_bytes  weights read for those, once a frame, by stack: together they may fit a cache
    stack_bytes   the same weights once, by stack
    """

    num_parameters: int
    plain_macs: int
    forward_macs: int
    data_macs: int
    weight_macs: int
    serial_macs: int
    serial_bytes: tuple[int, ...]
    stack_bytes: tuple[int, ...]
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    memory: Memory

    @property
    def macs(self) -> int:
        """Forward and backward."""
        return self.forward_macs + self.data_macs + self.weight_macs

    @property
    def flop(self) -> int:
        """The same in operations: a multiplication and an addition each."""
        return 2 * self.macs

    @property
    def num_bytes(self) -> int:
        """Bytes to and from memory where no cache holds the weights of a stack."""
        return (
            sum(self.serial_bytes)
            + self.gradient_bytes
            + self.optimizer_bytes
            + self.activation_bytes
        )


@dataclass(frozen=True)
class Ceilings:
    """What a machine reaches: operations a second of products, bytes a second to and from memory.

    cache_bytes  of its largest cache, 0 if that is not known
    """

    flop_per_s: float
    bytes_per_s: float
    cache_bytes: int = 0


@dataclass(frozen=True)
class Floor:
    """Seconds of each part of a step at the ceilings; one part follows the other.

    serial   products of frames that wait for the one before, or reading their weights
    batched  products of all frames at once
    """

    serial: float
    batched: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.serial + self.batched + self.gradients + self.optimizer + self.activations


def count_parameters(model: ModelConfig, num_values: int) -> int:
    """Return how many weights a model has; num_values is D."""
    num_inputs = 0 if model.decoder_input == "unconditional" else num_values
    read_out = num_values * (model.hidden + 1)
    num_decoders = model.reconstructs + model.predicts
    return _count_stack(model, num_values) + num_decoders * (
        _count_stack(model, num_inputs) + read_out
    )


def count_step(config: TrainConfig, num_values: int) -> StepCost:
    """Count a step on one device; num_values is D, and precision auto counts as fp32."""
    model, optimizer = config.model, config.optimizer
    parts = optimizer.accumulate
    batch = config.data.batch_size // parts
    stacks = list(_stacks(config, num_values, batch))
    products = [product for stack in stacks for product in stack]
    num_parameters = count_parameters(model, num_values)
    weights = _FLOAT * num_parameters
    is_half = config.run.precision in ("bf16", "fp16")
    rounded = 2 if is_half else _FLOAT
    activations = _FLOAT * batch * _kept_values(config, num_values)
    touched = _TOUCHED[optimizer.optimizer] + 2 * (optimizer.ema is not None)
    return StepCost(
        num_parameters,
        plain_macs=parts * sum(product.size * product.plain for product in products),
        forward_macs=parts * sum(product.size * product.forward for product in products),
        data_macs=parts * sum(product.size * product.data for product in products),
        weight_macs=parts * sum(product.size * product.weight for product in products),
        serial_macs=parts * sum(product.serial_macs for product in products),
        serial_bytes=tuple(
            parts * rounded * sum(p.size * (p.forward_steps + p.data_steps) for p in stack)
            for stack in stacks
        ),
        stack_bytes=tuple(
            rounded * sum(p.size for p in stack if p.forward_steps) for stack in stacks
        ),
        gradient_bytes=(2 * parts - 1) * weights,  # what is added to is read as well
        optimizer_bytes=touched * weights + is_half * rounded * num_parameters,
        activation_bytes=2 * parts * activations,  # written once, read once
        memory=Memory(
            weights,
            is_half * rounded * num_parameters,
            weights,
            _MOMENTS[optimizer.optimizer] * weights,
            weights if optimizer.ema is not None else 0,
            activations,
        ),
    )


def find_floor(cost: StepCost, ceilings: Ceilings) -> Floor:
    """Return the time of a step on a machine that does everything at its ceilings."""
    streamed = sum(
        every
        for every, once in zip(cost.serial_bytes, cost.stack_bytes, strict=True)
        if once > ceilings.cache_bytes
    )
    batched_macs = cost.macs - cost.serial_macs
    return Floor(
        max(2 * cost.serial_macs / ceilings.flop_per_s, streamed / ceilings.bytes_per_s),
        2 * batched_macs / ceilings.flop_per_s,
        cost.gradient_bytes / ceilings.bytes_per_s,
        cost.optimizer_bytes / ceilings.bytes_per_s,
        cost.activation_bytes / ceilings.bytes_per_s,
    )


def _count_stack(model: ModelConfig, num_inputs: int) -> int:
    rows = NUM_GATES[model.cell] * model.hidden
    # A peephole cell has one bias a gate and sees its cell at three places.
    vectors = rows + 3 * model.hidden if model.cell == "peephole" else 2 * rows
    below = num_inputs + (model.layers - 1) * model.hidden
    return rows * (below + model.layers * model.hidden) + model.layers * vectors


def _stacks(config: TrainConfig, num_values: int, batch: int) -> Iterator[list[_Product]]:
    """Yield the products of each stack, for a part of `batch` sequences."""
    yield _encoder(config, num_values, batch)
    frames = []
    if config.model.reconstructs:
        frames.append(config.data.num_reconstructed)
    if config.model.predicts:
        frames.append(config.data.predict)
    for steps in frames:
        unfolded = _decoder(config.model, num_values, batch, steps)
        folded = _folded_decoder(config.model, num_values, batch, steps)
        yield min(unfolded, folded or unfolded, key=lambda stack: sum(p.macs for p in stack))


def _encoder(config: TrainConfig, num_values: int, batch: int) -> list[_Product]:
    model, steps = config.model, config.data.context
    rows, every = NUM_GATES[model.cell] * model.hidden, steps * batch
    later = every - batch  # the first state is zero
    entry = _Product(rows * num_values, every, every, 0, every)  # frames have no gradient
    between = _Product(rows * model.hidden, every, every, every, every)
    recurrent = _Product(rows * model.hidden, every, later, later, later, steps - 1, steps - 1)
    return [entry, *[between] * (model.layers - 1), *[recurrent] * model.layers]


def _decoder(model: ModelConfig, num_values: int, batch: int, steps: int) -> list[_Product]:
    """Return the products of a decoder of `steps` frames that makes each before it reads it."""
    rows = NUM_GATES[model.cell] * model.hidden
    waits = model.decoder_input in ("free", "scheduled")
    waits_back = waits and model.feedback != "detached"
    runs = steps - 1 if model.copy_initial_state else steps
    every, run, read = steps * batch, runs * batch, (steps - 1) * batch
    read_out = _Product(
        num_values * model.hidden, every, every, every, every, steps * waits, steps * waits_back
    )
    between = _Product(rows * model.hidden, run, run, run, run, runs * waits, runs * waits_back)
    recurrent = between._replace(forward_steps=runs, data_steps=runs)
    entry = _Product(
        rows * num_values,
        run,
        read,  # nothing is read before the first frame
        read * waits_back,
        read,
        (steps - 1) * waits,
        (steps - 1) * waits_back,
    )
    stack = [read_out, *[between] * (model.layers - 1), *[recurrent] * model.layers]
    return stack if model.decoder_input == "unconditional" else [*stack, entry]


def _folded_decoder(
    model: ModelConfig, num_values: int, batch: int, steps: int
) -> list[_Product] | None:
    """Return the same with W_in W_out as one matrix; None where something stands between them."""
    if model.decoder_input != "free" or model.feedback != "linear" or model.input_dropout:
        return None
    read_out, *stack, entry = _decoder(model, num_values, batch, steps)
    hidden, read = model.hidden, entry.forward
    return [
        read_out._replace(forward_steps=0, data_steps=0),
        *stack,
        _Product(entry.size // num_values * hidden, 0, read, read, read, steps - 1, steps - 1),
        # Making the matrix, and from its gradient that of both factors.
        _Product(entry.size, entry.plain, hidden, 0, 2 * hidden),
    ]


def _kept_values(config: TrainConfig, num_values: int) -> int:
    """Return the values kept of one sequence: of cells, frames and noise."""
    model, data = config.model, config.data
    decoded = data.num_reconstructed * model.reconstructs + data.predict * model.predicts
    frames = data.context + data.predict + decoded
    run = data.context + decoded
    cells = run * model.layers * _KEPT[model.cell] * model.hidden
    masks = run * (model.layers - 1) * model.hidden * (model.dropout > 0)
    masks += run * num_values * (model.input_dropout > 0)
    masks += decoded * model.hidden * (model.output_dropout > 0)
    return frames * num_values + cells + masks
