"""Ridge regression on the feature streams of trials: label lag, streams and penalty are chosen on validation rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from mersuite.clip import Sample, Signal, first_difference
from mersuite.errors import DataError
from mersuite.track import ReadFeatures
from tracks.ps.ridge import Ridge, lagged_rows

MOST_STREAMS = 4
"""Up to so many streams, every choice of them is tried; beyond, each alone and all together."""

Pair = tuple[Sample, np.ndarray]
"""A sample and what is to be explained of its labels, (second, dimension)."""


class FeatureRidge:
    """A linear map from feature rows at second t to label residuals at second t + lag.

    Attributes:
        streams: Feature streams at 1 Hz, side by side.
        widths: Features of each stream.
        ch_names: Their names, in order.
        lag_s: The chosen lag in whole seconds.
        chosen: Streams that the chosen map reads.
        ridge: The map; weights of streams that were not chosen are zero.
    """

    def __init__(self, streams: Sequence[str]) -> None:
        self.streams = tuple(streams)
        self.widths: dict[str, int] = {}
        self.ch_names: dict[str, tuple[str, ...]] = {}
        self.lag_s = 0
        self.chosen: tuple[str, ...] = ()
        self.ridge = Ridge()

    def fit(self, train: Sequence[Pair], val: Sequence[Pair], features: ReadFeatures, lags_s: Sequence[int]) -> None:
        """Fits on training pairs for every lag and choice of streams, and keeps what is best on validation pairs.

        Raises:
            DataError: If there is no stream, no training clip has one, one does not run at 1 Hz or differs between
                clips, or a side has no rows.
        """
        self._find_widths([sample for sample, _ in train], features)
        rows = {sample.sample_id: self.rows(sample, features) for sample, _ in (*train, *val)}
        longest = max(lags_s)
        best = np.inf
        for lag_s in lags_s:
            ridge = self._fitted(train, val, rows, lag_s, self.streams)
            # every lag is judged on the same seconds: those that the longest one reaches
            error = _judge(ridge, val, rows, lag_s, longest)
            if error < best - 1e-9:
                best, self.ridge, self.lag_s, self.chosen = error, ridge, lag_s, self.streams
        for streams in self._choices():
            ridge = self._fitted(train, val, rows, self.lag_s, streams)
            error = _judge(ridge, val, rows, self.lag_s, longest)
            if error < best - 1e-9:
                best, self.ridge, self.chosen = error, ridge, streams

    def predict(self, sample: Sample, features: ReadFeatures) -> np.ndarray:
        """Gives (second, dimension) float32: what the features at each second say, without the lag."""
        return self.ridge.predict(self.rows(sample, features))

    def rows(self, sample: Sample, features: ReadFeatures) -> np.ndarray:
        """Feature streams side by side: (second, feature) float32, cut or repeated at the end to the sample's seconds.

        A stream that the clip lacks is NaN.

        Raises:
            DataError: If a stream does not run at 1 Hz, or has other features than in training.
        """
        num_seconds = round(sample.duration_s or 0.0)
        parts = []
        for stream in self.streams:
            signal = features(sample.clip_id, stream)
            if signal is None:
                parts.append(np.full((num_seconds, self.widths[stream]), np.nan, dtype=np.float32))
                continue
            if signal.rate_hz != 1.0:
                raise DataError(
                    f"{sample.clip_id}: stream {stream!r} runs at {signal.rate_hz:g} Hz, ridge and the automatic lag "
                    "need features at 1 Hz; choose others with ps.ridge_streams, or set ps.target_lag_s and "
                    "ps.ridge_base=false"
                )
            self._check_features(sample, stream, signal)
            index = np.minimum(np.arange(num_seconds), len(signal.data) - 1)
            parts.append(signal.data[index])
        return np.concatenate(parts, axis=1)

    def _check_features(self, sample: Sample, stream: str, signal: Signal) -> None:
        if signal.data.shape[1] != self.widths[stream]:
            raise DataError(
                f"the ridge does not fit the data: stream {stream!r} of {sample.clip_id} has {signal.data.shape[1]} "
                f"features, it was trained on {self.widths[stream]}; use recordings of the same montage, or train on "
                "these"
            )
        if differ := first_difference(self.ch_names.get(stream, ()), signal.ch_names):
            raise DataError(
                f"the ridge does not fit the data: stream {stream!r} of {sample.clip_id} has {differ[1]!r} where it "
                f"was trained on {differ[0]!r}; bring the channels into the same order, or train on these"
            )

    def _find_widths(self, samples: Sequence[Sample], features: ReadFeatures) -> None:
        if not self.streams:
            raise DataError(
                "ridge: the model reads no feature stream; name one with ps.ridge_streams, or leave ridge out with "
                "evaluate=fused,constant,median,signal,prior,unseen_clips"
            )
        self.widths, self.ch_names = {}, {}
        for stream in self.streams:
            found = next((signal for item in samples if (signal := features(item.clip_id, stream)) is not None), None)
            if found is None:
                raise DataError(
                    f"ridge: stream {stream!r} is missing from every training clip; choose others with "
                    f"ps.ridge_streams, or take it out with model.encoders.{stream}=null"
                )
            self.widths[stream], self.ch_names[stream] = found.data.shape[1], found.ch_names

    def _choices(self) -> Iterator[tuple[str, ...]]:
        sizes = range(1, len(self.streams)) if len(self.streams) <= MOST_STREAMS else (1,)
        for size in sizes:
            yield from combinations(self.streams, size)

    def _fitted(
        self,
        train: Sequence[Pair],
        val: Sequence[Pair],
        rows: Mapping[str, np.ndarray],
        lag_s: int,
        streams: Sequence[str],
    ) -> Ridge:
        """Fits on the columns of some streams; the other columns get no weight."""
        columns = np.concatenate([np.full(self.widths[name], name in streams) for name in self.streams])

        def side(pairs: Sequence[Pair]) -> tuple[np.ndarray, np.ndarray]:
            inputs = [rows[sample.sample_id][:, columns] for sample, _ in pairs]
            return lagged_rows(inputs, [residual for _, residual in pairs], lag_s)

        ridge = Ridge()
        ridge.fit(side(train), side(val))
        weights = np.zeros((len(columns), ridge.weights.shape[1]))
        means = np.zeros(len(columns))
        weights[columns], means[columns] = ridge.weights, ridge.means
        ridge.weights, ridge.means = weights, means
        return ridge

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and JSON values from which load_state restores it."""
        ridge = self.ridge
        arrays = {"weights": ridge.weights, "intercept": ridge.intercept, "means": ridge.means}
        alpha = None if np.isnan(ridge.alpha) else ridge.alpha
        values = {
            "streams": list(self.streams),
            "widths": self.widths,
            "ch_names": {name: list(names) for name, names in self.ch_names.items()},
            "lag_s": self.lag_s,
            "chosen": list(self.chosen),
            "alpha": alpha,
        }
        return arrays, values

    def load_state(self, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> None:
        """Restores what state gave."""
        self.ridge.weights, self.ridge.intercept = np.asarray(arrays["weights"]), np.asarray(arrays["intercept"])
        self.ridge.means = np.asarray(arrays["means"])
        self.ridge.alpha = float("nan") if values["alpha"] is None else float(values["alpha"])
        self.streams, self.chosen = tuple(values["streams"]), tuple(values["chosen"])
        self.widths = {str(name): int(width) for name, width in values["widths"].items()}
        self.ch_names = {str(name): tuple(names) for name, names in values.get("ch_names", {}).items()}
        self.lag_s = int(values["lag_s"])


def _judge(ridge: Ridge, val: Sequence[Pair], rows: Mapping[str, np.ndarray], lag_s: int, longest: int) -> float:
    """MAE on the seconds from the longest lag on."""
    gaps = [
        np.abs(ridge.predict(rows[sample.sample_id][longest - lag_s : len(residual) - lag_s]) - residual[longest:])
        for sample, residual in val
        if len(residual) > longest
    ]
    return float(np.concatenate(gaps).mean()) if gaps else 0.0
