"""The stream hands out what is stored, in the order of order.py, from any place on."""

import threading
from contextlib import closing
from itertools import islice

import numpy as np
import pytest
import torch
from trainer_data import damaged, make_data, stored

from mmgen.errors import ShardError
from trainer.errors import InputError
from trainer.order import batch_indices
from trainer.stream import SequenceStream


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Sequences of 6 to 8 frames; an epoch is 5 batches of 4, and 2 sequences are left out."""
    folder = tmp_path_factory.mktemp("stream") / "data"
    return make_data(folder, fields=("canvas=30", "frames=6..8"))


def take(stream, count):
    with closing(iter(stream)) as batches:
        return [batch.index.tolist() for batch in islice(batches, count)]


def expected_order(first, last, seed=1):
    sizes = {"num_sequences": 22, "batch_size": 4, "seed": seed}
    return [batch_indices(step, **sizes).tolist() for step in range(first, last)]


def test_batches_hold_what_is_stored_in_the_order_of_the_epochs(data):
    frames, num_frames = stored(data, "train"), stored(data, "train", "num_frames")
    with closing(iter(SequenceStream(data, 4, seed=1))) as batches:
        for batch, indices in zip(batches, expected_order(0, 12), strict=False):
            assert batch.index.tolist() == indices
            np.testing.assert_array_equal(batch.frames, frames[indices], strict=True)
            np.testing.assert_array_equal(batch.num_frames, num_frames[indices], strict=True)
            assert batch.frames.dtype == torch.uint8


@pytest.mark.parametrize("cursor", [0, 3, 5, 7])
def test_a_saved_state_goes_on_with_the_tail_of_the_order(data, cursor):
    first = SequenceStream(data, 4, seed=1)
    take(first, cursor)
    second = SequenceStream(data, 4, seed=1)
    second.load_state_dict(first.state_dict())
    assert take(second, 4) == expected_order(cursor, cursor + 4)
    third = SequenceStream(data, 4, seed=1)
    third.load_state_dict(second.state_dict())
    assert take(third, 4) == expected_order(cursor + 4, cursor + 8)


def test_a_state_of_another_order_is_refused(data):
    state = SequenceStream(data, 4, seed=1).state_dict()
    for other, line in (
        (SequenceStream(data, 4, seed=2), "seed is 1 in the saved state, 2 here"),
        (SequenceStream(data, 5, seed=1), "batch_size is 4 in the saved state, 5 here"),
    ):
        with pytest.raises(InputError, match=f"^the stream's {line}$"):
            other.load_state_dict(state)
    with pytest.raises(InputError, match=r"data: is not the data set that the saved state is of$"):
        SequenceStream(data, 4, seed=1, split="test").load_state_dict(state)
    with pytest.raises(InputError, match="order is 0"):
        SequenceStream(data, 4, seed=1).load_state_dict(state | {"order": 0})


def test_a_damaged_shard_raises_in_the_consumer_at_its_turn(tmp_path):
    data = make_data(tmp_path / "data", {"train": 22}, shard_size=1)
    order = expected_order(0, 5)
    index = next(i for i in order[2] if i)  # the first shard is read before all
    with damaged(data, "train", index):
        stream = SequenceStream(data, 4, seed=1)
        with closing(iter(stream)) as batches:
            assert [next(batches).index.tolist() for _ in range(2)] == order[:2]
            with pytest.raises(ShardError, match=f"train-{index:06d}.h5: is not the file that "):
                next(batches)
        assert stream.state_dict()["step"] == 2
    assert not reading_threads()


def test_closing_the_iterator_leaves_no_thread(data):
    batches = iter(SequenceStream(data, 4))
    next(batches)
    assert reading_threads()
    batches.close()
    assert not reading_threads()


def reading_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("shards")]
