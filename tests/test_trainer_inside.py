"""Weights lie where they belong, states are those of an independent model, PCA is PCA."""

import numpy as np
import pytest
import torch
import trainer_oracle
from trainer_data import tiny_config

from trainer import build_model
from trainer.inside import (
    GATE_NAMES,
    direction,
    input_weights,
    latents,
    most_active,
    output_weights,
    principal_components,
    sheet,
    unroll,
)
from trainer.inside_plots import activity_plot, trajectory_plot, weight_sheets
from trainer.noise import Noise

SHAPE = (5, 7)
FORMS = [
    ("cell=lstm",),
    ("cell=peephole", "feedback=sigmoid", "output=sigmoid"),
    ("cell=gru", "decoder_input=unconditional", "decoders=predict", "layers=3"),
    ("cell=rnn", "copy_initial_state=true", "layers=1", "feedback=detached"),
    ("cell=lstm", "copy_initial_state=true", "decoder_input=scheduled"),
]


def make_model(*fields, shape=SHAPE, reference=False):
    torch.manual_seed(3)
    model = build_model(tiny_config(*fields).model, shape, reference=reference)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(2)  # the first weights of so few units hardly move anything
    return model.eval()


def make_context(num_sequences, num_frames, shape=SHAPE):
    torch.manual_seed(4)
    return torch.randint(0, 256, (num_sequences, num_frames, *shape), dtype=torch.uint8)


class Watched(trainer_oracle.Sequence):
    """The oracle, which also keeps the states of every step."""

    def __init__(self, model, fields):
        weights = {name: value.double().numpy() for name, value in model.state_dict().items()}
        form = tiny_config(*fields).model.model_dump()
        super().__init__(weights, form, Noise(), 0)
        self.after = {"encoder": [], "predict_decoder": []}

    def advance(self, stack, *rest):
        new = super().advance(stack, *rest)
        self.after[stack].append(new)
        return new


@pytest.mark.parametrize("reference", [True, False])
@pytest.mark.parametrize("fields", FORMS)
def test_states_of_a_long_rollout_are_those_of_the_oracle(fields, reference):
    model, context = make_model(*fields, reference=reference), make_context(1, 4)
    found = unroll(model, context, 12)
    np.testing.assert_allclose(found.frames, model.generate(context, 12)[0], atol=2e-5)

    oracle = Watched(model, fields)
    state = oracle.encode(context[0].flatten(1).numpy() / 255)
    oracle.decode("predict", state, 12, None)
    wanted = [layers[-1][0] for layers in oracle.after["predict_decoder"]]
    if "copy_initial_state=true" in fields:
        wanted.insert(0, state[-1][0])
    np.testing.assert_allclose(found.states, wanted, atol=2e-5)
    assert np.ptp(found.states, axis=0).max() > 0.01


@pytest.mark.parametrize("fields", FORMS)
def test_latents_are_all_parts_of_all_layers_after_each_frame(fields):
    model, context = make_model(*fields), make_context(3, 4)
    found = latents(model, context)
    for sequence, one in zip(context, found, strict=True):
        oracle = Watched(model, fields)
        oracle.encode(sequence.flatten(1).numpy() / 255)
        wanted = [
            np.concatenate([p for layer in s for p in layer]) for s in oracle.after["encoder"]
        ]
        np.testing.assert_allclose(one, wanted, atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
@pytest.mark.parametrize("cell", ["lstm", "peephole", "gru", "rnn"])
def test_a_weight_is_seen_at_its_unit_gate_and_pixel(cell, shape):
    model = make_model(f"cell={cell}", shape=shape)
    gates, pixel = GATE_NAMES[cell], (2, 4, 1)[: len(shape)]
    weight = model.encoder.lstm.weight_ih_l0
    unit, gate = 3, len(gates) - 1
    with torch.no_grad():
        weight.zero_()
        weight[1] = 1e-3  # another unit, of the first gate
        weight[gate * 6 + unit, np.ravel_multi_index(pixel, shape)] = -7
    found = input_weights(model, 4)
    assert found.units[:2].tolist() == [unit, 1]
    assert list(found.pictures) == list(gates)
    wanted = np.zeros((4, *shape))
    wanted[(0, *pixel)] = -7
    if gate == 0:
        wanted[1] = np.float32(1e-3)
    np.testing.assert_array_equal(found.pictures[gates[gate]], wanted)
    assert [picture.any() for picture in found.pictures.values()].count(True) == min(2, len(gates))


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_a_unit_paints_with_its_column_of_the_read_out(shape):
    model = make_model(shape=shape)
    weight = model.predict_decoder.fc.weight  # (D, U)
    with torch.no_grad():
        weight[:, 2] = torch.arange(len(weight))
    found = output_weights(model, "predict", 100)
    assert found.units[0] == 2
    assert sorted(found.units) == list(range(6))
    pixel = (3, 1, 2)[: len(shape)]
    assert found.pictures["predict"][(0, *pixel)] == np.ravel_multi_index(pixel, shape)
    assert not np.array_equal(
        found.pictures["predict"], output_weights(model, "reconstruct", 100).pictures["reconstruct"]
    )


def test_pictures_lie_row_by_row_with_a_gap_between_them():
    pictures = np.arange(5 * 2 * 3, dtype=np.float32).reshape(5, 2, 3)
    laid = sheet(pictures, 3)
    assert laid.shape == (2 * 2 + 1, 3 * 3 + 2)
    for number, (top, left) in enumerate([(0, 0), (0, 4), (0, 8), (3, 0), (3, 4)]):
        np.testing.assert_array_equal(laid[top : top + 2, left : left + 3], pictures[number])
    assert np.isnan(laid[2]).all()
    assert np.isnan(laid[:, [3, 7]]).all()
    assert np.isnan(laid[3:, 8:]).all()
    assert sheet(pictures[:2], 6).shape == (2, 7)


def test_the_most_active_units_come_in_the_order_of_their_peaks():
    states = np.zeros((6, 5), np.float32)
    states[4, 0], states[1, 2], states[2, 4] = 1, -2, 0.5
    states[:, 3] = 9  # large and still
    assert most_active(states, 3).tolist() == [2, 4, 0]


def test_components_are_the_eigenvectors_of_the_covariance():
    samples = np.random.default_rng(5).normal(size=(40, 6)).astype(np.float32)
    samples *= [5, 3, 2, 1, 1, 1]
    found = principal_components(samples, 2)
    centred = samples.astype(np.float64) - samples.mean(0, dtype=np.float64)
    values, vectors = np.linalg.eigh(centred.T @ centred / 40)
    for place in range(2):
        wanted = centred @ vectors[:, -1 - place]
        sign = np.sign(wanted[np.abs(wanted).argmax()])
        np.testing.assert_allclose(found.places[:, place], sign * wanted, atol=1e-9)
    np.testing.assert_allclose(found.shares, values[:-3:-1] / values.sum())


def test_components_that_are_not_there_are_zero():
    assert not principal_components(np.ones((4, 3), np.float32), 2).places.any()
    found = principal_components(np.array([[0], [2]], np.float32), 2)
    np.testing.assert_allclose(np.abs(found.places), [[1, 0], [1, 0]])


def test_directions_go_round_from_the_right_over_the_top():
    velocity = np.array([[0, 1], [-2, 0], [0, -3], [4, 0], [1, 1], [np.nan, np.nan]], np.float32)
    np.testing.assert_allclose(direction(velocity), [0, 90, 180, 270, 315, np.nan])


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
@pytest.mark.parametrize("fields", FORMS)
def test_every_form_can_be_drawn(fields, shape):
    model = make_model(*fields, shape=shape)
    context = make_context(3, 4, shape)
    names = [plot.name for plot in weight_sheets(model)]
    gates = GATE_NAMES[model.config.cell]
    heads = model.config.decoders.split(",")
    assert names == [*(f"weights_in_{g}" for g in gates), *(f"weights_out_{h}" for h in heads)]
    velocity = np.ones((3, 4, 2), np.float32)
    velocity[0, :2] = np.nan
    lines = trajectory_plot(model, context, velocity).csv.splitlines()
    assert lines[0] == "sequence,frame,first,second,vy,vx"
    places = principal_components(latents(model, context).reshape(12, -1), 2).places
    written = [[float(cell) for cell in line.split(",")[2:4]] for line in lines[1:]]
    np.testing.assert_allclose(written, places, atol=1e-5)
    assert lines[1].endswith(",,")
    assert trajectory_plot(model, context, None).csv.count(",,") == 3 * 4 * 1
    lines = activity_plot(model, context[:1], 3).csv.splitlines()
    assert len(lines) == 1 + 6
    states = unroll(model, context[:1], 100).states
    unit, *values = lines[3].split(",")
    np.testing.assert_allclose(
        [float(v) for v in values], states[:, int(unit)], rtol=1e-3, atol=1e-6
    )
