"""The map-style dataset: every item, its ground truth, and what DataLoaders make of them."""

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler
from trainer_data import make_data, stored

import trainer
from mmgen.imports import import_dataset
from mmgen.imports import open_source as open_array
from mmgen.shard.schema import ANNOTATIONS
from trainer.errors import InputError

LIVE = "live:srivastava?canvas=30&frames=6..8&seed=3"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset") / "data"
    return make_data(folder, fields=("canvas=30", "frames=6..8"))


def test_items_are_what_is_stored(data):
    dataset = trainer.SequenceDataset(data, "train")
    assert (len(dataset), dataset.sequence_shape) == (22, (8, 30, 30))
    columns = {name: stored(data, "train", name) for name in ("frames", *ANNOTATIONS)}
    for index in (0, 9, 21, -1, np.int64(3)):
        frames, truth = dataset[index]
        assert frames.dtype == torch.uint8
        np.testing.assert_array_equal(frames, columns["frames"][index], strict=True)
        assert sorted(truth) == sorted(ANNOTATIONS)
        for name, tensor in truth.items():
            expected = np.asarray(columns[name][index])
            np.testing.assert_array_equal(tensor.numpy(), expected, strict=True)
    assert len(list(dataset)) == 22  # ends as a list does
    for index in (22, -23):
        with pytest.raises(IndexError):
            dataset[index]


def test_annotations_may_be_left_aside(data):
    whole = trainer.SequenceDataset(data, "train")
    bare = trainer.SequenceDataset(data, "train", annotations=False)
    for (frames, truth), (others, known) in zip(whole, bare, strict=True):
        assert torch.equal(frames, others)
        assert list(known) == ["num_frames", "index"]
        for name, tensor in known.items():
            np.testing.assert_array_equal(tensor, truth[name], strict=True)


def test_an_item_may_be_changed_without_harm(data):
    dataset = trainer.SequenceDataset(data, "train")
    for tensor in (changed := dataset[3])[1].values():
        tensor.fill_(1)
    changed[0].fill_(1)
    np.testing.assert_array_equal(dataset[3][0], stored(data, "train")[3])
    np.testing.assert_array_equal(dataset[3][1]["box"], stored(data, "train", "box")[3])


def test_what_a_set_has_not_is_left_out(data, tmp_path):
    folder = tmp_path / "bare"
    array = stored(data, "test").transpose(1, 0, 2, 3)
    np.save(tmp_path / "test.npy", array)
    import_dataset(open_array(tmp_path / "test.npy"), folder, {"test": (0, 7)})
    items = [trainer.SequenceDataset(folder, "test")[index] for index in range(7)]
    assert {tuple(truth) for _, truth in items} == {("num_frames", "index")}
    np.testing.assert_array_equal(
        torch.stack([frames for frames, _ in items]), stored(data, "test")
    )


def test_live_data_end_where_one_says(data):
    with pytest.raises(InputError, match=r"has no end; say how many with num_sequences$"):
        trainer.SequenceDataset(LIVE, "train")
    with pytest.raises(InputError, match=r"23 sequences asked for, train has 22$"):
        trainer.SequenceDataset(data, "train", num_sequences=23)
    live = trainer.SequenceDataset(LIVE, "train", num_sequences=22)
    assert len(live) == 22
    for index in (0, 21):
        assert torch.equal(live[index][0], trainer.SequenceDataset(data, "train")[index][0])


def test_a_dataset_pickles_when_it_has_open_files(data):
    dataset = trainer.SequenceDataset(data, "train")
    frames, truth = dataset[9]
    again, known = pickle.loads(pickle.dumps(dataset))[9]
    assert torch.equal(again, frames)
    assert known.keys() == truth.keys()


@pytest.mark.parametrize(
    ("workers", "start"),
    [(0, None), (2, "fork"), pytest.param(1, "spawn", marks=pytest.mark.slow)],
)
def test_workers_of_a_data_loader_bring_every_sequence_once(data, workers, start):
    dataset = trainer.SequenceDataset(data, "train")
    dataset[0]  # files are open before the fork
    sampler = RandomSampler(dataset, generator=torch.Generator().manual_seed(1))
    context = {"num_workers": workers, "multiprocessing_context": start}
    batches = list(DataLoader(dataset, batch_size=5, sampler=sampler, **context))
    seen = torch.cat([truth["index"] for _, truth in batches])
    assert seen.tolist() != sorted(seen.tolist())
    assert sorted(seen.tolist()) == list(range(22))
    np.testing.assert_array_equal(
        torch.cat([frames for frames, _ in batches]), stored(data, "train")[seen]
    )
    position = torch.cat([truth["position"] for _, truth in batches])
    np.testing.assert_array_equal(position, stored(data, "train", "position")[seen])
