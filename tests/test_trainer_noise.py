"""The noise of a step: a function of seed and step, in the stated shares, cut by rows."""

import pytest
import torch

from trainer.config import DataConfig, ModelConfig
from trainer.noise import Noise, StackNoise, draw_noise, step_generator

CPU = torch.device("cpu")
DATA = DataConfig(context=5, reconstruct=3, predict=4)
DROPS = {"dropout": 0.25, "input_dropout": 0.5, "output_dropout": 0.1}


def draw(seed=1, step=2, data=DATA, batch=6, num_values=7, share=0.5, **fields):
    model = ModelConfig(**{"hidden": 8, "layers": 3, "dropout": 0.0} | fields)
    return draw_noise(model, data, batch, num_values, share, step_generator(seed, step, CPU))


def tensors(noise):
    """Return what there is, by name."""
    found = {}
    for part in ("encoder", "reconstruct", "predict"):
        stack = getattr(noise, part)
        named = {"input": stack.input, "output": stack.output, "is_shown": stack.is_shown}
        named |= {f"between{n}": mask for n, mask in enumerate(stack.between)}
        found |= {f"{part}.{name}": mask for name, mask in named.items() if mask is not None}
    return found


def assert_equal(one, other):
    one, other = tensors(one), tensors(other)
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_decoder_has_masks_for_each_of_its_frames():
    shapes = {name: tuple(t.shape) for name, t in tensors(draw(**DROPS)).items()}
    frames = {"encoder": 5, "reconstruct": 3, "predict": 4}
    expected = {f"{part}.input": (count, 6, 7) for part, count in frames.items()}
    for number in (0, 1):
        expected |= {f"{part}.between{number}": (n, 6, 8) for part, n in frames.items()}
    expected |= {"reconstruct.output": (3, 6, 8), "predict.output": (4, 6, 8)}
    assert shapes == expected


def test_what_is_off_is_not_drawn():
    generator = step_generator(1, 2, CPU)
    before = generator.get_state()
    model = ModelConfig(hidden=8, layers=3, dropout=0.0, decoder_input="teacher")
    noise = draw_noise(model, DATA, 6, 7, 0.5, generator)
    assert tensors(noise) == {}
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"dropout": 0.5, "layers": 1}, []),
        ({"dropout": 0.5, "layers": 2, "decoders": "predict"}, ["encoder.b", "predict.b"]),
        ({"input_dropout": 0.5, "decoders": "reconstruct"}, ["encoder.i", "reconstruct.i"]),
        ({"input_dropout": 0.5, "decoder_input": "unconditional"}, ["encoder.i"]),
        ({"output_dropout": 0.5, "decoders": "predict"}, ["predict.o"]),
        ({"decoder_input": "scheduled"}, ["reconstruct.is", "predict.is"]),
    ],
)
def test_only_what_the_form_reads_is_drawn(fields, names):
    found = list(tensors(draw(**fields)))
    assert len(found) == len(names)
    assert all(name.startswith(start) for name, start in zip(found, names, strict=True))


def test_masks_have_their_share_of_zeros_and_keep_the_mean():
    noise = draw(batch=500, num_values=40, **DROPS)
    rates = {"input": 0.5, "between0": 0.25, "between1": 0.25, "output": 0.1}
    for name, mask in tensors(noise).items():
        rate = rates[name.split(".")[1]]
        kept = mask[mask != 0]
        torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - rate)))
        error = (rate * (1 - rate) / mask.numel()) ** 0.5
        assert (mask == 0).float().mean().item() == pytest.approx(rate, abs=4 * error), name


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_schedule_shows_its_share_of_true_frames(share):
    noise = draw(batch=3000, share=share, decoder_input="scheduled")
    assert noise.encoder.is_shown is None
    for stack, frames in ((noise.reconstruct, 3), (noise.predict, 4)):
        assert stack.is_shown.shape == (frames, 3000, 1)
        assert stack.is_shown.dtype == torch.bool
        error = (share * (1 - share) / stack.is_shown.numel()) ** 0.5
        assert stack.is_shown.float().mean().item() == pytest.approx(share, abs=4 * error)


def test_more_of_a_schedule_only_adds_true_frames():
    less, more = (draw(share=share, decoder_input="scheduled") for share in (0.3, 0.6))
    assert (less.predict.is_shown <= more.predict.is_shown).all()


def test_noise_depends_on_seed_and_step_alone():
    fields = DROPS | {"decoder_input": "scheduled"}
    torch.manual_seed(5)
    noise = draw(**fields)
    torch.manual_seed(6)
    assert_equal(draw(**fields), noise)
    for other in (draw(seed=2, **fields), draw(step=3, **fields)):
        assert not torch.equal(other.predict.input, noise.predict.input)
    one, other = (draw(seed=seed, step=step, **fields) for seed, step in ((1, 12), (11, 2)))
    assert not torch.equal(one.predict.input, other.predict.input)  # as their digits would say


def test_the_largest_seed_has_noise():
    assert draw(seed=2**63 - 1, step=10**9, **DROPS).predict.input.unique().tolist() == [0, 2]


def test_every_mask_is_another_one():
    rates = dict.fromkeys(DROPS, 0.5)
    masks = tensors(draw(data=DataConfig(context=4, predict=4), num_values=8, **rates)).values()
    zeros = {tuple((mask == 0).flatten().tolist()) for mask in masks}
    assert len(zeros) == len(masks) == 11


def test_a_rank_gets_its_rows_of_the_whole_batch():
    fields = DROPS | {"decoder_input": "scheduled"}
    whole = draw(**fields)
    parts = [tensors(whole.rows(first, first + 2)) for first in (0, 2, 4)]
    for name, mask in tensors(whole).items():
        assert torch.equal(torch.cat([part[name] for part in parts], 1), mask)
        assert parts[0][name].shape[1] == 2


def test_map_reaches_each_tensor_there_is_and_leaves_out_the_rest():
    one, two, three, four = (torch.full((1,), float(n)) for n in (1, 2, 3, 4))
    noise = Noise(StackNoise(one, (two, None)), StackNoise(output=three), StackNoise(is_shown=four))
    assert tensors(noise.map(lambda tensor: 10 * tensor)) == {
        "encoder.input": 10,
        "encoder.between0": 20,
        "reconstruct.output": 30,
        "predict.is_shown": 40,
    }
