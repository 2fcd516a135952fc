from __future__ import annotations

import pickle
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from mersuite.clip import Sample, Signal, WindowKey
from mersuite.data import dataset as dataset_module
from mersuite.data.dataset import WindowDataset
from mersuite.data.windows import plan_windows
from mersuite.errors import DataError
from mersuite.models.base import StreamInfo

FNIRS_HZ = 1000 / 21


class Memory:
    """Streams held in memory."""

    def __init__(self, signals: Mapping[tuple[str, str], Signal]) -> None:
        self.signals = dict(signals)
        self.num_reads = 0

    def get(self, clip_id: str, stream: str) -> Signal | None:
        self.num_reads += 1
        return self.signals.get((clip_id, stream))

    def example(self, stream: str) -> Signal | None:
        return next((signal for (_, name), signal in self.signals.items() if name == stream), None)


def ramp(duration_s: float, rate_hz: float, num_channels: int = 2, start_s: float = 0.0, short: int = 0) -> Signal:
    """Each row holds its own time in seconds."""
    times = start_s + np.arange(round(duration_s * rate_hz) - short) / rate_hz
    data = np.repeat(times[:, None], num_channels, axis=1).astype(np.float32)
    return Signal(data=data, rate_hz=rate_hz, ch_names=(), start_s=start_s)


def make_samples(durations: Mapping[str, float | None], **fields) -> list[Sample]:
    return [
        Sample(sample_id=name, clip_id=name, groups={}, duration_s=value, **fields) for name, value in durations.items()
    ]


def seconds_of(sample: Sample) -> dict[str, np.ndarray]:
    assert sample.duration_s is not None
    return {"course": np.stack([np.arange(int(sample.duration_s))] * 2, 1).astype(np.float32), "mean": np.array(5.0)}


@pytest.fixture
def reader() -> Memory:
    signals = {}
    for name, duration in {"a": 25, "b": 31}.items():
        signals[name, "eeg"] = ramp(duration, 200.0)
        signals[name, "fnirs"] = ramp(duration, FNIRS_HZ)
    signals["a", "vector"] = Signal(data=np.ones((1, 4), np.float32), rate_hz=0.0, ch_names=())
    return Memory(signals)


@pytest.fixture
def dataset(reader: Memory) -> WindowDataset:
    samples = make_samples({"a": 25.0, "b": 31.0})
    return WindowDataset(samples, plan_windows(samples, 10, 5), reader, ["eeg", "fnirs", "vector"], seconds_of)


def test_rows_and_targets_of_a_window_belong_to_its_time(dataset: WindowDataset) -> None:
    batch = dataset.__getitems__(list(range(len(dataset))))
    starts = torch.tensor([key.start_s for key in batch.keys], dtype=torch.float32)
    assert batch.streams["eeg"].shape == (len(dataset), 2000, 2)
    assert batch.streams["fnirs"].shape == (len(dataset), 476, 2)
    for stream, rate_hz in (("eeg", 200.0), ("fnirs", FNIRS_HZ)):
        expected = starts[:, None] + torch.arange(batch.streams[stream].shape[1]) / rate_hz
        error = (batch.streams[stream][:, :, 0] - expected).abs()[batch.masks[stream]]
        assert error.max() <= 0.5 / rate_hz + 1e-4
    assert torch.equal(batch.target["course"][:, :, 0], starts[:, None] + torch.arange(10))


def test_a_batch_is_the_same_read_at_once_or_row_by_row(dataset: WindowDataset) -> None:
    whole = dataset.__getitems__([3, 0, 5])
    for row, index in enumerate([3, 0, 5]):
        single = dataset[index]
        assert single.keys[0] == whole.keys[row]
        for name, stream in single.streams.items():
            assert torch.equal(stream[0], whole.streams[name][row])
            assert torch.equal(single.masks[name][0], whole.masks[name][row])


def test_a_stream_that_no_clip_has_is_shaped_as_the_caller_knows_it(reader: Memory) -> None:
    samples = make_samples({"a": 25.0, "b": 31.0})
    known = {"gone": StreamInfo(num_channels=3, rate_hz=5.0), "eeg": StreamInfo(num_channels=9, rate_hz=1.0)}
    dataset = WindowDataset(samples, plan_windows(samples, 10, 5), reader, ["eeg", "gone"], None, known=known)
    batch = dataset.__getitems__([0, 1, 2])
    assert batch.streams["gone"].shape == (3, 50, 3) and batch.streams["gone"].dtype == torch.float32
    assert not batch.streams["gone"].any() and not batch.masks["gone"].any()
    assert batch.streams["eeg"].shape == (3, 2000, 2) and batch.masks["eeg"].all()  # what is there says it itself


def test_each_stream_of_a_clip_is_opened_once(dataset: WindowDataset, reader: Memory) -> None:
    reader.num_reads = 0
    for _ in range(2):
        dataset.__getitems__(list(range(len(dataset))))
    assert reader.num_reads == 2 * 3


def test_streams_in_use_are_bounded_in_number(
    dataset: WindowDataset, reader: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_module, "_MAX_OPEN", 2)
    first, second = (dataset.__getitems__(list(range(len(dataset)))) for _ in range(2))
    assert torch.equal(first.streams["eeg"], second.streams["eeg"])
    assert reader.num_reads > 2 * 3


def test_a_pickled_dataset_carries_no_signals_that_were_opened(dataset: WindowDataset, reader: Memory) -> None:
    before = len(pickle.dumps(dataset))
    dataset.__getitems__(list(range(len(dataset))))
    assert len(pickle.dumps(dataset)) <= before + 16


def test_a_stream_that_a_clip_lacks_is_zero_and_masked(dataset: WindowDataset) -> None:
    batch = dataset.__getitems__(list(range(len(dataset))))
    of_a = torch.tensor([key.sample_id == "a" for key in batch.keys])
    assert batch.streams["vector"].shape == (len(dataset), 1, 4)
    assert torch.equal(batch.masks["vector"][:, 0], of_a)
    assert torch.equal(batch.streams["vector"][:, 0, 0], of_a.float())


def test_a_batch_in_which_all_lack_a_stream_keeps_its_shape(dataset: WindowDataset) -> None:
    batch = dataset.__getitems__([len(dataset) - 1])
    assert batch.keys[0].sample_id == "b"
    assert batch.streams["vector"].shape == (1, 1, 4)
    assert not batch.masks["vector"].any()


def test_targets_without_a_time_axis_stay_whole(dataset: WindowDataset) -> None:
    assert dataset.__getitems__([0, 1, 2]).target["mean"].tolist() == [5.0, 5.0, 5.0]


def test_a_window_key_may_stand_for_an_index(dataset: WindowDataset) -> None:
    batch = dataset.__getitems__([WindowKey("b", 7.0, 10.0)])
    assert batch.streams["eeg"][0, 0, 0] == 7.0
    assert batch.target["course"][0, 0, 0] == 7.0


def test_batches_do_not_share_memory_with_the_store(dataset: WindowDataset, reader: Memory) -> None:
    batch = dataset[0]
    batch.streams["eeg"].zero_()
    assert reader.signals["a", "eeg"].data[5, 0] > 0


def test_one_missing_row_is_masked_and_two_are_an_error(reader: Memory) -> None:
    samples = make_samples({"a": 25.0})
    windows = [WindowKey("a", 15.0, 10.0)]
    reader.signals["a", "eeg"] = ramp(25, 200.0, short=1)
    batch = WindowDataset(samples, windows, reader, ["eeg"], None)[0]
    assert batch.masks["eeg"][0].tolist() == [True] * 1999 + [False]
    assert batch.streams["eeg"][0, -1].abs().sum() == 0
    reader.signals["a", "eeg"] = ramp(25, 200.0, short=2)
    with pytest.raises(DataError, match=r"'eeg' of clip 'a' runs from 0 to 24\.99 s and does not cover .* 15 to 25 s"):
        WindowDataset(samples, windows, reader, ["eeg"], None)[0]


def test_a_stream_that_begins_after_its_clip_is_read_by_time_and_must_cover_the_window(reader: Memory) -> None:
    samples = make_samples({"a": 25.0})
    reader.signals["a", "eeg"] = ramp(22, 200.0, start_s=3.0)
    late = WindowDataset(samples, [WindowKey("a", 3.0, 10.0), WindowKey("a", 2.0, 10.0)], reader, ["eeg"], None)
    assert late[0].streams["eeg"][0, 0, 0] == 3.0
    with pytest.raises(DataError, match="does not cover the window 2 to 12 s"):
        late[1]


def test_whole_clips_are_padded_to_the_longest_of_the_batch(reader: Memory) -> None:
    samples = make_samples({"a": 25.0, "b": 31.0})
    batch = WindowDataset(samples, plan_windows(samples, None, None), reader, ["eeg"], seconds_of).__getitems__([0, 1])
    assert batch.streams["eeg"].shape == (2, 31 * 200, 2)
    assert batch.masks["eeg"].sum(1).tolist() == [25 * 200, 31 * 200]
    assert torch.isnan(batch.target["course"][0, 25:]).all()
    assert not torch.isnan(batch.target["course"][1]).any()


def test_clips_without_a_length_are_read_whole_with_their_texts_and_weights(reader: Memory) -> None:
    samples = [
        *make_samples({"a": None}, texts={"a": "first"}, weight=2.0),
        *make_samples({"b": None}, texts={"b": "second"}),
    ]
    batch = WindowDataset(samples, plan_windows(samples, None, None), reader, ["eeg"], None).__getitems__([0, 1])
    assert batch.streams["eeg"].shape[1] == 31 * 200
    assert batch.texts == {"a": ["first", ""], "b": ["", "second"]}
    assert batch.weight is not None
    assert batch.weight.tolist() == [2.0, 1.0]
    assert batch.target == {}


def test_weights_of_one_are_left_out(dataset: WindowDataset) -> None:
    assert dataset[0].weight is None


def test_token_ids_are_whole_numbers_without_a_channel_axis() -> None:
    reader = Memory(
        {
            (name, "text"): Signal(data=np.arange(1, n)[:, None], rate_hz=0.0, ch_names=())
            for name, n in (("a", 4), ("b", 6))
        }
    )
    samples = make_samples({"a": None, "b": None})
    batch = WindowDataset(samples, plan_windows(samples, None, None), reader, ["text"], None).__getitems__([0, 1])
    assert batch.streams["text"].tolist() == [[1, 2, 3, 0, 0], [1, 2, 3, 4, 5]]
    assert batch.masks["text"].sum(1).tolist() == [3, 5]


def test_token_ids_of_two_channels_are_refused() -> None:
    reader = Memory({("a", "text"): Signal(data=np.zeros((3, 2), np.int64), rate_hz=0.0, ch_names=())})
    with pytest.raises(DataError, match="token ids need one channel, got 2"):
        WindowDataset(make_samples({"a": None}), [WindowKey("a", 0.0, 0.0)], reader, ["text"], None)


def test_clips_that_disagree_on_a_stream_are_named(reader: Memory) -> None:
    reader.signals["b", "eeg"] = ramp(31, 250.0)
    samples = make_samples({"a": 25.0, "b": 31.0})
    dataset = WindowDataset(samples, plan_windows(samples, 10, 10), reader, ["eeg"], None)
    with pytest.raises(DataError, match=r"clip 'b' has 2 channels at 250 Hz \(float32\), others have 2 at 200 Hz"):
        dataset[len(dataset) - 1]


def test_a_stream_that_no_clip_has_is_refused_at_once(reader: Memory) -> None:
    samples = make_samples({"a": 25.0})
    with pytest.raises(DataError, match=r"'face': no clip has it; take it out with model\.encoders\.face=null"):
        WindowDataset(samples, plan_windows(samples, 10, 5), reader, ["face"], None)


def test_no_sample_is_refused(reader: Memory) -> None:
    with pytest.raises(DataError, match="no sample to load"):
        WindowDataset([], [], reader, ["eeg"], None)


def test_targets_shorter_than_their_sample_are_named(reader: Memory) -> None:
    samples = make_samples({"a": 25.0})
    dataset = WindowDataset(
        samples, plan_windows(samples, 10, 5), reader, ["eeg"], lambda sample: {"course": np.zeros((24, 2))}
    )
    with pytest.raises(DataError, match=r"'a': target 'course' has 24 seconds, the window needs 15 to 25"):
        dataset[3]


def test_samples_with_other_targets_are_named(reader: Memory) -> None:
    samples = make_samples({"a": 25.0, "b": 31.0})
    with pytest.raises(DataError, match=r"sample 'b' has targets \['b'\], others have \['a'\]"):
        WindowDataset(
            samples, plan_windows(samples, 10, 5), reader, ["eeg"], lambda sample: {sample.sample_id: np.zeros((31, 2))}
        )


def test_a_sample_says_which_stored_stream_plays_a_part() -> None:
    vectors = {
        name: np.full((1, 2), value, np.float32) for name, value in {"face_speaker": 1, "face_listener": 2}.items()
    }
    reader = Memory({("c", name): Signal(data=data, rate_hz=0.0, ch_names=()) for name, data in vectors.items()})
    plays = {"own": "face_speaker", "other": "face_listener", "silent": None}
    samples = [
        Sample(sample_id=name, clip_id="c", groups={}, streams={"face": stored}) for name, stored in plays.items()
    ]
    dataset = WindowDataset(samples, plan_windows(samples, None, None), reader, ["face"], None)
    batch = dataset.__getitems__([0, 1, 2])
    assert batch.streams["face"][:, 0, 0].tolist() == [1.0, 2.0, 0.0]
    assert batch.masks["face"][:, 0].tolist() == [True, True, False]


def test_a_part_that_no_stored_stream_plays_is_refused() -> None:
    samples = [Sample(sample_id="a", clip_id="c", groups={}, streams={"face": None})]
    reader = Memory({("c", "face"): Signal(data=np.ones((1, 2), np.float32), rate_hz=0.0, ch_names=())})
    with pytest.raises(DataError, match="stream 'face': no clip has it"):
        WindowDataset(samples, plan_windows(samples, None, None), reader, ["face"], None)
