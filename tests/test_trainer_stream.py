"""The stream hands out what is stored or rendered, in the order of order.py, from any place on."""

import pickle
import threading
from contextlib import closing
from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from trainer_data import damaged, make_data, stored

from mmgen.errors import ShardError
from trainer.errors import InputError
from trainer.order import Mixture, Order
from trainer.source import open_source
from trainer.stream import Memory, SequenceStream, in_order

FIELDS = ("canvas=30", "frames=6..8")
LIVE = "live:srivastava?canvas=30&frames=6..8&seed=3"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Sequences of 6 to 8 frames; an epoch is 5 batches of 4, and 2 sequences are left out."""
    return make_data(tmp_path_factory.mktemp("stream") / "data", fields=FIELDS)


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """Sequences of 5 frames, for mixing."""
    folder = tmp_path_factory.mktemp("stream") / "short"
    return make_data(folder, {"train": 9}, fields=("canvas=30", "frames=5"))


def batches_of(stream, count):
    with closing(iter(stream)) as batches:
        return list(islice(batches, count))


def take(stream, count):
    return [batch.index.tolist() for batch in batches_of(stream, count)]


def expected_order(first, last, seed=1, shard_counts=(8, 8, 6)):
    return Order(shard_counts, 4, seed).batches(first, last).tolist()


@pytest.mark.parametrize("readers", [1, 3])
def test_batches_hold_what_is_stored_in_the_order_of_the_epochs(data, readers):
    frames, num_frames = stored(data, "train"), stored(data, "train", "num_frames")
    stream = SequenceStream(data, 4, seed=1, readers=readers)
    for batch, indices in zip(batches_of(stream, 40), expected_order(0, 40), strict=True):
        assert batch.index.tolist() == indices
        np.testing.assert_array_equal(batch.frames, frames[indices], strict=True)
        np.testing.assert_array_equal(batch.num_frames, num_frames[indices], strict=True)
        assert batch.frames.dtype == torch.uint8
        assert batch.source is None


@pytest.mark.parametrize("cursor", [0, 3, 5, 34])
def test_a_saved_state_goes_on_with_the_tail_of_the_order(data, cursor):
    first = SequenceStream(data, 4, seed=1)
    take(first, cursor)
    second = SequenceStream(data, 4, seed=1)
    second.load_state_dict(first.state_dict())
    assert take(second, 4) == expected_order(cursor, cursor + 4)
    third = SequenceStream(data, 4, seed=1)
    third.load_state_dict(second.state_dict())
    assert take(third, 4) == expected_order(cursor + 4, cursor + 8)


def test_a_state_of_another_order_is_refused(data, short):
    state = SequenceStream(data, 4, seed=1).state_dict()
    for other, line in (
        (SequenceStream(data, 4, seed=2), "the stream's seed is 1 in the saved state, 2 here"),
        (SequenceStream(data, 5, seed=1), "the stream's batch_size is 4 in the saved state, 5 "),
        (SequenceStream(short, 4), f"{short}: is not the data set that the saved state is of$"),
        (SequenceStream(LIVE, 4), "seed=3: is not the data set that the saved state is of$"),
        (SequenceStream({data: 1, short: 1}, 4), "saved state is of 1 data sets, the stream of 2"),
    ):
        with pytest.raises(InputError, match=line):
            other.load_state_dict(state)
    for name in ("lanes", "window"):
        with pytest.raises(InputError, match=f"^the stream's {name} is 99 in the saved state, "):
            SequenceStream(data, 4, seed=1).load_state_dict(state | {name: 99})
    mixed = SequenceStream({data: 1, short: 1}, 4).state_dict()
    with pytest.raises(InputError, match=r"^the stream's weights is "):
        SequenceStream({data: 2, short: 1}, 4).load_state_dict(mixed)


def test_what_cannot_be_cut_into_batches_is_refused(data):
    for options, line in (
        ({"batch_size": 0}, "batch_size: 0 is no whole number from 1 to "),
        ({"batch_size": 23}, "batch_size: 23 is more than the 22 sequences there are; lower "),
        ({"batch_size": 4, "num_ranks": 3}, "batch_size: 4 is not divisible by 3 ranks; choose "),
    ):
        with pytest.raises(InputError, match=f"^{line}"):
            SequenceStream(data, **options)


@pytest.mark.parametrize(
    ("name", "values", "allowed"),
    [
        ("batch_size", (2.0, "4", None, -1, 10**19), f"from 1 to {2**31 - 1}"),
        ("seed", (3.0, "x", None, -1, 2**63), f"from 0 to {2**63 - 1}"),
        ("readers", (2.5, 0, -1), f"from 1 to {2**31 - 1}"),
        ("num_ranks", (2.0, 0), f"from 1 to {2**31 - 1}"),
        ("rank", (1.0, 2, -1), "from 0 to 1"),
    ],
)
def test_what_is_no_whole_number_in_range_is_refused(data, name, values, allowed):
    for value in values:
        with pytest.raises(InputError, match=rf"^{name}: .* is no whole number {allowed}$"):
            SequenceStream(data, **{"batch_size": 4, "num_ranks": 2, name: value})


def test_numbers_of_numpy_leave_a_state_that_torch_loads(data, short, tmp_path):
    stream = SequenceStream(
        {data: np.float32(1), short: 1}, np.int32(4), seed=np.int64(3), readers=np.int8(1)
    )
    stream.load_state_dict(stream.state_dict() | {"step": np.int64(2)})
    torch.save(stream.state_dict(), tmp_path / "state.pt")
    assert torch.load(tmp_path / "state.pt", weights_only=True) == stream.state_dict()
    assert stream.step == 2


@pytest.mark.parametrize("mixed", [False, True])
def test_a_state_goes_as_far_as_numbers_do_and_no_further(data, mixed):
    def make():
        return SequenceStream({data: 1, LIVE: 1} if mixed else data, 4, seed=1)

    state = make().state_dict()
    last = 2**62 // 4
    for step in (-1, 2.0, "x", None, last + 1, 10**30):
        with pytest.raises(InputError, match=rf"^the saved state's step: .* from 0 to {last}$"):
            make().load_state_dict(state | {"step": step})
    del state["step"]
    with pytest.raises(InputError, match=r"^the saved state's step: None is no whole number"):
        make().load_state_dict(state)
    stream = make()
    stream.load_state_dict(state | {"step": last})
    assert len(take(stream, 1)[0]) == 4


@pytest.mark.parametrize("state", [None, [], {}, {"sources": None}, {"sources": "a"}])
def test_a_state_that_is_none_is_refused(data, state):
    with pytest.raises(InputError, match=r"^the saved state is none of a SequenceStream$"):
        SequenceStream(data, 4).load_state_dict(state)


def test_a_state_of_the_same_data_in_another_order_says_so(data, short):
    state = SequenceStream({data: 1, short: 2}, 4).state_dict()
    line = "^the saved state names the same data sets in another order; name them as they were$"
    with pytest.raises(InputError, match=line):
        SequenceStream({short: 2, data: 1}, 4).load_state_dict(state)


def test_ranks_share_each_batch(data):
    parts = [take(SequenceStream(data, 4, seed=1, rank=r, num_ranks=2), 7) for r in range(2)]
    assert [[*a, *b] for a, b in zip(*parts, strict=True)] == expected_order(0, 7)


def test_a_batch_that_is_kept_stays_as_it_is(data):
    frames = stored(data, "train")
    kept = []
    stream = SequenceStream(data, 4, seed=1, readers=2)
    with closing(iter(stream)) as batches:
        for number, batch in enumerate(islice(batches, 60)):
            if number == 3:
                kept.append((batch.index[1:2], batch.frames[1:2].numpy()))  # a mere look inside
            if number in (10, 11, 12):
                kept.append((batch.index, batch.frames))
    for indices, seen in kept:
        np.testing.assert_array_equal(seen, frames[indices.tolist()])


def test_memory_is_used_again_when_nobody_looks_at_it_and_not_before():
    memory = Memory(4, (6, 30, 30), is_pinned=False)
    first, second = memory.take(4), memory.take(4)
    place, look = first.data_ptr(), first[2, 1].numpy()
    assert place != second.data_ptr()
    del first
    assert memory.take(4).data_ptr() != place  # `look` still shows it
    del look
    others = [np.empty((4, 6, 30, 30), np.uint8) for _ in range(20)]  # take what is given back
    last = memory.take(3)
    assert last.data_ptr() == place
    assert last.shape == (3, 6, 30, 30)
    assert place not in {other.ctypes.data for other in others}


def test_a_damaged_shard_is_named_with_its_sequence_in_the_consumer_at_its_turn(tmp_path):
    data = make_data(tmp_path / "data", {"train": 22}, shard_size=1)
    order = expected_order(0, 5, shard_counts=(1,) * 22)
    line = r"train-00{0:04d}\.h5: is not the file that .*; damaged there: sequence {0}$"
    index = next(i for i in order[2] if i)  # the first shard is read before all
    with damaged(data, "train", index):
        stream = SequenceStream(data, 4, seed=1)
        with closing(iter(stream)) as batches:
            assert [next(batches).index.tolist() for _ in range(2)] == order[:2]
            with pytest.raises(ShardError, match=line.format(index)):
                next(batches)
        assert stream.state_dict()["step"] == 2
    assert not reading_threads()
    with damaged(data, "train", 0), pytest.raises(ShardError, match=line.format(0)):
        next(iter(SequenceStream(data, 4)))


def test_threads_begin_with_the_first_batch_and_end_with_the_iterator(data):
    batches = iter(SequenceStream(data, 4))
    assert not reading_threads()
    next(batches)
    assert reading_threads()
    batches.close()
    assert not reading_threads()


def reading_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("shards")]


@pytest.mark.parametrize(
    ("address", "workers", "start"),
    [("stored", 2, "fork"), (LIVE, 2, "fork"), ("stored", 1, "spawn")],
)
def test_workers_of_a_data_loader_keep_the_order(data, address, workers, start):
    address = data if address == "stored" else address
    undisturbed = batches_of(SequenceStream(address, 4, seed=1), 12)
    stream = SequenceStream(address, 4, seed=1)
    stream.step = 5
    loader = DataLoader(stream, batch_size=None, num_workers=workers, multiprocessing_context=start)
    for found, expected in zip(islice(loader, 7), undisturbed[5:], strict=True):
        assert found.index.tolist() == expected.index.tolist()
        assert torch.equal(found.frames, expected.frames)
        assert torch.equal(found.num_frames, expected.num_frames)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_loader_that_would_make_batches_of_batches_is_refused(data, workers):
    loader = DataLoader(SequenceStream(data, 4), num_workers=workers)
    line = r"is a batch already; write DataLoader\(stream, batch_size=None\)"
    with pytest.raises(InputError, match=line):
        next(iter(loader))


def test_workers_that_live_on_refuse_to_begin_again(data):
    """They are ahead of what was consumed, each by another number of batches."""
    stream = SequenceStream(data, 4, seed=1)
    loader = DataLoader(stream, batch_size=None, num_workers=2, persistent_workers=True)
    assert [batch.index.tolist() for batch in islice(loader, 5)] == expected_order(0, 5)
    stream.step = 5
    with pytest.raises(InputError, match=r"a worker begins once, .* persistent_workers=False"):
        next(iter(loader))


def test_a_stream_pickles_at_its_step(data):
    stream = SequenceStream(data, 4, seed=1)
    take(stream, 3)
    assert take(pickle.loads(pickle.dumps(stream)), 2) == expected_order(3, 5)


@pytest.mark.parametrize("batch_size", [3, 4, 64])
def test_a_split_comes_in_its_own_order_to_its_last_sequence(data, batch_size):
    batches = list(in_order(open_source(data, "train"), 21, batch_size))
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(21))
    frames = torch.cat([batch.frames for batch in batches])
    np.testing.assert_array_equal(frames, stored(data, "train")[:21])
    assert {len(batch.index) for batch in batches[:-1]} <= {batch_size}


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_live_sequences_equal_stored_ones(data, split):
    frames, num_frames = stored(data, split), stored(data, split, "num_frames")
    stream = SequenceStream(LIVE, 2, split=split, seed=9)  # of the order, which is none
    batches = batches_of(stream, len(frames) // 2)
    for t, batch in enumerate(batches):
        assert batch.index.tolist() == [2 * t, 2 * t + 1]
        np.testing.assert_array_equal(batch.frames, frames[2 * t : 2 * t + 2], strict=True)
        assert batch.num_frames.tolist() == num_frames[2 * t : 2 * t + 2].tolist()


def test_live_batches_go_on_where_a_state_says():
    first = SequenceStream(LIVE, 3)
    take(first, 5)
    second = SequenceStream(LIVE, 3)
    second.load_state_dict(first.state_dict())
    assert take(second, 2) == [[15, 16, 17], [18, 19, 20]]
    for change in ("&seed=4", "&speed=4"):
        with pytest.raises(InputError, match=r"is not the data set that the saved state is of$"):
            SequenceStream(LIVE + change, 3).load_state_dict(first.state_dict())


def test_long_live_sequences_are_rendered_some_at_a_time():
    """Two of 5 MB are more than are rendered at once."""
    address = "live:srivastava?canvas=512&frames=20"
    batch = batches_of(SequenceStream(address, 5), 1)[0]
    one = np.empty((1, 20, 512, 512), np.uint8)
    for index in range(5):
        open_source(address, "train").read(np.array([index]), one)
        np.testing.assert_array_equal(batch.frames[index : index + 1], one)


def test_a_mixture_pads_short_sequences_and_says_whose_each_is(data, short):
    mixed = {str(data): 0.75, str(short): 0.25}
    stream = SequenceStream(mixed, 4, seed=1)
    source, index = Mixture.of([(8, 8, 6), (8, 1)], [0.75, 0.25], 4, 1).batches(0, 9)
    sets = [stored(folder, "train") for folder in mixed]
    lengths = [stored(folder, "train", "num_frames") for folder in mixed]
    batches = batches_of(stream, 9)
    for batch, whose, places in zip(batches, source, index, strict=True):
        assert batch.source.tolist() == whose.tolist()
        assert batch.index.tolist() == places.tolist()
        for row, (s, i) in enumerate(zip(whose, places, strict=True)):
            expected = np.zeros((8, 30, 30), np.uint8)
            expected[: sets[s].shape[1]] = sets[s][i]
            np.testing.assert_array_equal(batch.frames[row], expected)
            assert batch.num_frames[row] == lengths[s][i]
    assert {s for batch in batches for s in batch.source.tolist()} == {0, 1}


def test_a_mixture_goes_on_in_two_halves_and_may_hold_live_data(short):
    def make():
        return SequenceStream({LIVE: 1, str(short): 2}, 6, seed=1)

    whole = batches_of(make(), 8)
    first, second = make(), make()
    halves = batches_of(first, 3)
    second.load_state_dict(first.state_dict())
    halves += batches_of(second, 5)
    for one, other in zip(whole, halves, strict=True):
        assert one.source.tolist() == other.source.tolist()
        assert torch.equal(one.frames, other.frames)
    live = torch.cat([batch.index[batch.source == 0] for batch in whole])
    assert sorted(live.tolist()) == list(range(len(live)))
    large = batches_of(SequenceStream({LIVE: 1, str(short): 2}, 100), 1)[0]  # read in parts
    for number, frames in enumerate((batch_of_live(100), stored(short, "train"))):
        rows = large.source == number
        assert rows.sum() > 20
        expected = frames[large.index[rows].tolist()]
        np.testing.assert_array_equal(large.frames[rows, : frames.shape[1]], expected)
    assert not large.frames[large.source == 1, 5:].any()


def batch_of_live(count):
    frames = np.empty((count, 8, 30, 30), np.uint8)
    open_source(LIVE, "train").read(np.arange(count), frames)
    return frames


def test_canvases_do_not_mix(data):
    line = rf"{data}: frames are \(30, 30\), of live:srivastava \(64, 64\); only equal ones"
    with pytest.raises(InputError, match=line):
        SequenceStream({str(data): 1, "live:srivastava": 1}, 4)
    with pytest.raises(InputError, match=r"frames are \(30, 30\), of .* \(30, 30, 3\); only equal"):
        SequenceStream({str(data): 1, LIVE + "&color=random": 1}, 4)


def test_to_a_device_goes_all_of_a_batch(data):
    moved = batches_of(SequenceStream({str(data): 1, LIVE: 1}, 4), 1)[0].to("meta")
    parts = (moved.frames, moved.num_frames, moved.index, moved.source)
    assert {part.device.type for part in parts} == {"meta"}
