"""The counts against the published ones, and against the products that a model really takes."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from trainer_data import tiny_config

from trainer.cells import NUM_GATES
from trainer.config import find_preset, load_config
from trainer.fused import FusedAutoencoder
from trainer.model import VideoAutoencoder
from trainer.noise import draw_noise, step_generator
from trainer.roofline import Ceilings, count_parameters, count_step, find_floor
from trainer.step import decode, make_task, task_losses

aten = torch.ops.aten

D = 64 * 64
SHAPE = (3, 4)

FORMS = (
    (),
    ("layers=1", "cell=rnn", "decoders=predict", "predict=1"),
    ("layers=3", "cell=gru", "reconstruct=2", "decoder_input=teacher"),
    ("cell=peephole", "decoder_input=unconditional", "decoders=predict"),
    ("cell=peephole", "decoder_input=unconditional", "copy_initial_state=true", "layers=1"),
    ("decoder_input=scheduled", "feedback=sigmoid", "copy_initial_state=true", "truth_start=0.5"),
    ("feedback=detached", "decoders=reconstruct", "dropout=0.2", "output_dropout=0.2"),
    ("input_dropout=0.1", "cell=gru", "context=1", "predict=2"),
)
# Large enough a batch for W_in W_out to pay.
FOLDED = ("hidden=4", "batch_size=16", "layers=2", "predict=6")


class Macs(TorchDispatchMode):
    """Counts the multiply-accumulates of all products of matrices."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket in (aten.mm, aten.addmm, aten.addmm_):
            left, right = args[-2:]
            self.count += left.numel() * right.shape[1]
        return function(*args, **(kwargs or {}))


def products_of(kind, config):
    """Count what a step of a model multiplies: forward, and backward."""
    model = kind(config.model, SHAPE)
    data = config.data
    frames = torch.zeros(data.batch_size, data.context + data.predict, *SHAPE, dtype=torch.uint8)
    generator = step_generator(0, 1, torch.device("cpu"))
    noise = draw_noise(config.model, data, data.batch_size, 12, 0.5, generator)
    task = make_task(frames, None, data)
    with Macs() as forward:
        loss = task_losses(decode(model, task, noise, training=True), task, config).loss
    with Macs() as backward:
        loss.backward()
    return forward.count, backward.count


@pytest.mark.parametrize("form", FORMS, ids=",".join)
def test_the_counts_are_those_of_the_plain_model(form):
    # Dropout on its input keeps a decoder of this size from being folded, and costs no product.
    free = not any(field.startswith("decoder_input") for field in form)
    config = tiny_config(*form, *(["input_dropout=0.1"] if free else []))
    cost = count_step(config, 12)
    forward, backward = products_of(VideoAutoencoder, config)
    model = config.model
    # The plain encoder multiplies its first state, which is zero.
    zeros = model.layers * NUM_GATES[model.cell] * model.hidden**2 * config.data.batch_size
    assert cost.forward_macs + zeros == forward
    assert cost.data_macs + cost.weight_macs + zeros == backward


@pytest.mark.parametrize("form", [*FORMS, FOLDED], ids=",".join)
def test_the_fused_step_takes_the_counted_products_and_no_more(form):
    config = tiny_config(*form)
    model = config.model
    zeros = model.layers * NUM_GATES[model.cell] * model.hidden**2 * config.data.batch_size
    more = sum(products_of(FusedAutoencoder, config)) - count_step(config, 12).macs
    assert 0 <= more <= 3 * zeros  # those of the encoder's first state, forward and backward


@pytest.mark.parametrize("form", FORMS, ids=",".join)
def test_parameters_are_counted_without_a_model(form):
    model = tiny_config(*form).model
    built = VideoAutoencoder(model, SHAPE)
    assert count_parameters(model, 12) == sum(weight.numel() for weight in built.parameters())


def test_the_published_models_have_their_published_numbers_of_parameters():
    assert count_parameters(find_preset("tutorial").model, D) == 268_541_952
    assert count_parameters(find_preset("shi-fc-lstm").model, D) == 142_667_776


def test_the_tutorial_takes_1_90_tera_operations():
    cost = count_step(load_config("tutorial"), D)
    giga = [macs / 1e9 for macs in (cost.plain_macs, cost.forward_macs, cost.data_macs)]
    assert giga == pytest.approx([343.6, 330.7, 287.8], abs=0.05)
    assert cost.weight_macs == cost.forward_macs
    assert cost.flop == pytest.approx(1.90e12, abs=0.005e12)


def test_adam_moves_28_bytes_a_parameter():
    cost = count_step(load_config("tutorial"), D)
    assert cost.optimizer_bytes == 28 * cost.num_parameters
    assert cost.gradient_bytes == 4 * cost.num_parameters
    sgd = count_step(load_config("tutorial", assignments=["optimizer=paper-sgd"]), D)
    assert sgd.optimizer_bytes == 20 * cost.num_parameters


def test_halved_products_stream_half_the_weights_and_write_the_copies():
    exact, halved = (
        count_step(load_config("tutorial", assignments=[f"precision={name}"]), D)
        for name in ("tf32", "bf16")
    )
    assert sum(halved.serial_bytes) == pytest.approx(8.32e9, rel=1e-3)
    assert sum(exact.serial_bytes) == 2 * sum(halved.serial_bytes)
    assert halved.optimizer_bytes - exact.optimizer_bytes == 2 * exact.num_parameters
    assert halved.memory.copies == 2 * exact.num_parameters
    assert exact.memory.copies == 0


def test_read_out_and_entry_are_one_matrix_where_that_is_cheaper():
    # B (P - 1) > D U / (D - U), here 80 > 6 with D 12, U 4; D 5 and U 4 ask for 20.
    folded = count_step(tiny_config(*FOLDED, "decoders=predict"), 12)
    held_apart = count_step(tiny_config(*FOLDED, "decoders=predict", "input_dropout=0.1"), 12)
    gates, units, reads = 16, 4, 16 * 5
    saved = 3 * gates * (12 - units) * reads - 3 * gates * 12 * units
    assert held_apart.macs - folded.macs == saved > 0
    assert held_apart.plain_macs == folded.plain_macs
    tutorial = load_config("tutorial")  # 1 152 rows, 4 096 asked for
    apart = load_config("tutorial", assignments=["input_dropout=0.1"])
    assert count_step(tutorial, D).macs == count_step(apart, D).macs


def test_memory_holds_weights_moments_and_average():
    memory = count_step(load_config("tutorial", assignments=["ema=0.99"]), D).memory
    weights = 4 * 268_541_952
    assert (memory.weights, memory.gradients, memory.average) == (weights,) * 3
    assert memory.moments == 2 * weights
    assert memory.total == 5 * weights + memory.activations


def test_activations_are_cells_frames_and_masks():
    with_masks = count_step(load_config("tutorial"), D).memory.activations
    without = count_step(load_config("tutorial", assignments=["dropout=0"]), D).memory.activations
    frames = 128 * 4 * (20 + 20) * D  # shown and true ones, decoded ones
    cells = 128 * 4 * 30 * 2 * 6 * 2048  # four gates, c and h
    assert without == frames + cells
    assert with_masks - without == 128 * 4 * 30 * 2048


def test_parts_of_a_batch_share_the_operations_and_read_the_weights_again():
    whole, halves = (
        count_step(load_config("tutorial", assignments=[f"accumulate={parts}"]), D)
        for parts in (1, 2)
    )
    assert halves.macs == whole.macs
    assert sum(halves.serial_bytes) == 2 * sum(whole.serial_bytes)
    assert halves.gradient_bytes == 3 * whole.gradient_bytes
    assert halves.memory.activations * 2 == whole.memory.activations


def test_the_floor_of_an_h200_is_5_3_ms():
    cost = count_step(load_config("tutorial", assignments=["precision=bf16"]), D)
    floor = find_floor(cost, Ceilings(790e12, 4.3e12))
    milliseconds = {name: 1e3 * seconds for name, seconds in vars(floor).items()}
    assert milliseconds == pytest.approx(
        {"serial": 1.94, "batched": 1.05, "gradients": 0.25, "optimizer": 1.87, "activations": 0.2},
        abs=0.04,
    )
    assert 1e3 * floor.total == pytest.approx(5.3, abs=0.05)


def test_weights_that_stay_in_the_cache_are_not_read_again():
    cost = count_step(load_config("tutorial", assignments=["precision=bf16"]), D)
    in_memory = Ceilings(1e18, 1e12)
    one_stack = replace(in_memory, cache_bytes=100_000_000)  # the encoder's 67 MB alone
    every_stack = replace(in_memory, cache_bytes=10**9)
    streamed = sum(cost.serial_bytes) / 1e12
    assert find_floor(cost, in_memory).serial == streamed
    without = streamed - cost.serial_bytes[0] / 1e12
    assert find_floor(cost, one_stack).serial == pytest.approx(without, rel=1e-12)
    assert find_floor(cost, every_stack).serial == 2 * cost.serial_macs / 1e18
