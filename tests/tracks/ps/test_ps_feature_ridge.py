"""The ridge on feature streams: rows, missing streams, and what is chosen on validation rows."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pytest

from mersuite.clip import Sample, Signal
from mersuite.errors import DataError
from mersuite.track import ReadFeatures
from tracks.ps.feature_ridge import FeatureRidge

LAGS = (0, 1, 2, 3)


def sample_of(name: str, seconds: int) -> Sample:
    return Sample(sample_id=name, clip_id=name, groups={"subject": name}, duration_s=float(seconds))


def reader_of(streams: Mapping[str, Mapping[str, np.ndarray]], rate_hz: float = 1.0) -> ReadFeatures:
    """stream -> clip id -> (second, feature)."""

    def read(clip_id: str, stream: str) -> Signal | None:
        data = streams[stream].get(clip_id)
        names = () if data is None else tuple(f"f{index}" for index in range(data.shape[1]))
        return None if data is None else Signal(data=data.astype(np.float32), rate_hz=rate_hz, ch_names=names)

    return read


def made(rng: np.random.Generator, lag_s: int, num_noise: int = 40):
    """Residuals that follow stream `good` by lag_s; stream `noise` has many columns of nothing."""
    streams: dict[str, dict[str, np.ndarray]] = {"good": {}, "noise": {}}
    pairs = []
    for index in range(12):
        sample = sample_of(f"p{index}", 25)
        good = rng.normal(size=(25, 3))
        streams["good"][sample.clip_id] = good
        streams["noise"][sample.clip_id] = rng.normal(size=(25, num_noise))
        residual = np.zeros((25, 2))
        residual[lag_s:] = good[: 25 - lag_s, :2] * [20.0, -10.0]
        pairs.append((sample, residual + rng.normal(size=(25, 2))))
    return pairs[:8], pairs[8:10], pairs[10:], streams


@pytest.mark.parametrize("lag_s", [0, 1, 3])
def test_lag_and_streams_are_found_on_validation_rows(rng: np.random.Generator, lag_s: int) -> None:
    train, val, out, streams = made(rng, lag_s)
    ridge = FeatureRidge(("good", "noise"))
    ridge.fit(train, val, reader_of(streams), LAGS)
    assert (ridge.lag_s, ridge.chosen) == (lag_s, ("good",))
    assert not ridge.ridge.weights[3:].any()
    for sample, residual in out:
        found = ridge.predict(sample, reader_of(streams))
        assert np.abs(found[: 25 - lag_s] - residual[lag_s:]).mean() < 1.5


def test_held_out_rows_do_not_enter(rng: np.random.Generator) -> None:
    train, val, out, streams = made(rng, 1)
    first, second = FeatureRidge(("good", "noise")), FeatureRidge(("good", "noise"))
    first.fit(train, val, reader_of(streams), LAGS)
    for sample, _ in out:
        streams["good"][sample.clip_id] *= 1000.0
    second.fit(train, val, reader_of(streams), LAGS)
    np.testing.assert_array_equal(first.ridge.weights, second.ridge.weights)


def test_rows_are_cut_or_repeated_to_the_sample(rng: np.random.Generator) -> None:
    ridge = FeatureRidge(("a", "b"))
    ridge.widths = {"a": 2, "b": 2}
    for num_rows in (4, 6, 9):
        data = rng.normal(size=(num_rows, 2)).astype(np.float32)
        found = ridge.rows(sample_of("p", 6), reader_of({"a": {"p": data}, "b": {"p": data}}))
        wanted = np.stack([data[min(second, num_rows - 1)] for second in range(6)])
        np.testing.assert_array_equal(found, np.concatenate([wanted, wanted], axis=1))


def test_stream_that_a_clip_lacks_adds_nothing(rng: np.random.Generator) -> None:
    train, val, out, streams = made(rng, 0, num_noise=2)
    ridge = FeatureRidge(("good", "noise"))
    ridge.fit(train, val, reader_of(streams), (0,))
    sample = out[0][0]
    del streams["good"][sample.clip_id]
    found = ridge.predict(sample, reader_of(streams))
    means = ridge.ridge.means.copy()
    means[3:] = 0.0
    noise = np.nan_to_num(ridge.rows(sample, reader_of(streams))) @ ridge.ridge.weights
    np.testing.assert_allclose(found, noise + means @ ridge.ridge.weights + ridge.ridge.intercept, atol=1e-4)


def test_stream_of_no_clip_or_of_another_rate_is_refused(rng: np.random.Generator) -> None:
    train, val, _, streams = made(rng, 0)
    with pytest.raises(DataError, match=r"stream 'nix' is missing from every training clip; .*ps\.ridge_streams"):
        FeatureRidge(("nix",)).fit(train, val, reader_of({"nix": {}}), LAGS)
    with pytest.raises(DataError, match=r"stream 'good' runs at 2 Hz, .*need features at 1 Hz"):
        FeatureRidge(("good",)).fit(train, val, reader_of(streams, rate_hz=2.0), LAGS)


def test_other_features_than_in_training_are_refused_after_loading_too(rng: np.random.Generator) -> None:
    train, val, out, streams = made(rng, 0, num_noise=2)
    fitted, ridge = FeatureRidge(("good", "noise")), FeatureRidge(())
    fitted.fit(train, val, reader_of(streams), (0,))
    arrays, values = fitted.state()
    ridge.load_state(arrays, json.loads(json.dumps(values)))
    sample = out[0][0]

    def turned(clip_id: str, stream: str) -> Signal | None:
        signal = reader_of(streams)(clip_id, stream)
        assert signal is not None
        return Signal(data=signal.data, rate_hz=1.0, ch_names=signal.ch_names[::-1])

    with pytest.raises(DataError, match=r"stream 'good' of p10 has 'f2' where it was trained on 'f0'; bring the chan"):
        ridge.predict(sample, turned)
    streams["good"][sample.clip_id] = np.zeros((25, 5))
    with pytest.raises(DataError, match=r"stream 'good' of p10 has 5 features, it was trained on 3; use recordings of"):
        ridge.predict(sample, reader_of(streams))


def test_stream_that_only_validation_people_have_is_refused(rng: np.random.Generator) -> None:
    train, val, _, streams = made(rng, 0)
    for sample, _ in train:
        del streams["noise"][sample.clip_id]
    with pytest.raises(DataError, match="stream 'noise' is missing from every training clip"):
        FeatureRidge(("good", "noise")).fit(train, val, reader_of(streams), LAGS)


@pytest.mark.filterwarnings("error")
def test_stream_that_only_clips_shorter_than_the_lag_have_gets_no_weight(rng: np.random.Generator) -> None:
    train, val, out, streams = made(rng, 0, num_noise=2)
    for sample, _ in train:
        del streams["noise"][sample.clip_id]
    short = sample_of("short", 2)
    streams["good"]["short"], streams["noise"]["short"] = rng.normal(size=(2, 3)), rng.normal(size=(2, 2))
    ridge = FeatureRidge(("good", "noise"))
    ridge.fit([*train, (short, np.zeros((2, 2)))], val, reader_of(streams), (3,))
    assert not ridge.ridge.weights[3:].any()
    assert np.isfinite(ridge.predict(out[0][0], reader_of(streams))).all()


def test_state_gives_the_same_answers(rng: np.random.Generator) -> None:
    train, val, out, streams = made(rng, 2)
    ridge = FeatureRidge(("good", "noise"))
    ridge.fit(train, val, reader_of(streams), LAGS)
    arrays, values = ridge.state()
    again = FeatureRidge(())
    again.load_state(arrays, json.loads(json.dumps(values)))
    for sample, _ in out:
        np.testing.assert_array_equal(
            again.predict(sample, reader_of(streams)), ridge.predict(sample, reader_of(streams))
        )
