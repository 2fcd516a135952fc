"""What a network may be run on: the same streams, rates and channels as it was trained on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mersuite import api, registry
from mersuite.clip import Sample, Signal
from mersuite.errors import DataError
from mersuite.inference import Checkpoint, check_fits, describe_streams
from mersuite.models.base import BuildContext, StreamInfo
from tracks.ps.runtime import SubjectFeatures

NAMES = ("FP1 alpha", "FP2 alpha", "OZ alpha")


def signal(names: tuple[str, ...] = NAMES, rate_hz: float = 1.0) -> Signal:
    return Signal(data=np.zeros((4, len(names)), np.float32), rate_hz=rate_hz, ch_names=names)


def samples(*names: str) -> list[Sample]:
    return [Sample(sample_id=name, clip_id=name, groups={}, duration_s=4.0) for name in names]


def checkpoint(info: StreamInfo) -> Checkpoint:
    track, config = registry.load("ps"), api.config("ps")
    context = BuildContext(streams={"x": info}, window_s=4.0, token_rate_hz=1.0)
    fitted = track.fitted(config)
    return Checkpoint(
        track=track, config=config, evaluation="signal", fold=0, fitted=fitted, network=None, context=context
    )


def test_stream_is_described_by_any_clip_that_has_it() -> None:
    reader = SubjectFeatures({("b", "x"): signal()})
    expected = StreamInfo(num_channels=3, rate_hz=1.0, ch_names=NAMES)
    assert describe_streams(reader, samples("a", "b"), ["x"]) == {"x": expected}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (signal(NAMES[:2]), "b has 2 channels at 1 Hz, but a has 3 at 1 Hz"),
        (signal(rate_hz=2.0), "b has 3 channels at 2 Hz, but a has 3 at 1 Hz"),
        (signal(NAMES[::-1]), "b has 'OZ alpha' where a has 'FP1 alpha'; .* same channels in the same order"),
    ],
)
def test_clips_that_disagree_are_refused(other: Signal, message: str) -> None:
    reader = SubjectFeatures({("a", "x"): signal(), ("b", "x"): other})
    with pytest.raises(DataError, match=message):
        describe_streams(reader, samples("a", "b"), ["x"])


def test_stream_that_no_clip_has_is_refused_with_its_cure() -> None:
    with pytest.raises(DataError, match=r"stream 'x': no clip has it.*model\.encoders\.x=null"):
        describe_streams(SubjectFeatures({}), samples("a"), ["x"])


def test_names_may_differ_in_case() -> None:
    lower = tuple(name.lower() for name in NAMES)
    reader = SubjectFeatures({("a", "x"): signal(), ("b", "x"): signal(lower)})
    assert describe_streams(reader, samples("a", "b"), ["x"])["x"].ch_names == NAMES
    check_fits(checkpoint(StreamInfo(num_channels=3, rate_hz=1.0, ch_names=lower)), reader, samples("a"))


def test_stream_that_no_clip_has_is_named_and_the_rest_still_compared() -> None:
    there = StreamInfo(num_channels=3, rate_hz=1.0, ch_names=NAMES)
    gone = StreamInfo(num_channels=2, rate_hz=5.0)
    system = checkpoint(there)
    both = replace(system, context=BuildContext(streams={"x": there, "gone": gone}))
    reader = SubjectFeatures({("a", "x"): signal()})
    assert check_fits(system, reader, samples("a", "b")) == ()
    assert check_fits(both, reader, samples("a", "b")) == ("gone",)
    with pytest.raises(DataError, match=r"does not fit the data: .* has 3 channels"):
        check_fits(both, SubjectFeatures({("a", "x"): signal(), ("a", "gone"): signal()}), samples("a"))


def test_data_with_no_stream_of_the_network_are_refused() -> None:
    with pytest.raises(DataError, match=r"does not fit the data: no clip has x, which is all .*`mersuite check`"):
        check_fits(checkpoint(StreamInfo(num_channels=3, rate_hz=1.0)), SubjectFeatures({}), samples("a"))


@pytest.mark.parametrize(
    ("trained_on", "message"),
    [
        (StreamInfo(num_channels=4, rate_hz=1.0), "has 3 channels at 1 Hz, the network was trained on 4 at 1 Hz"),
        (StreamInfo(num_channels=3, rate_hz=5.0), "has 3 channels at 1 Hz, the network was trained on 3 at 5 Hz"),
        (
            StreamInfo(num_channels=3, rate_hz=1.0, ch_names=NAMES[::-1]),
            "has 'FP1 alpha' where the network was trained on 'OZ alpha'",
        ),
    ],
)
def test_checkpoint_of_other_channels_is_refused(trained_on: StreamInfo, message: str) -> None:
    reader = SubjectFeatures({("a", "x"): signal()})
    with pytest.raises(DataError, match=message):
        check_fits(checkpoint(trained_on), reader, samples("a"))
