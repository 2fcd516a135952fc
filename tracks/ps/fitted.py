"""What ps learns without gradient steps: offset, prior, label lag, ridge, smoothing and shrinkage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mersuite.clip import Output, Sample, WindowKey
from mersuite.track import Fitted, ReadFeatures
from tracks.ps.feature_ridge import FeatureRidge
from tracks.ps.head import TARGET
from tracks.ps.options import LAG_CANDIDATES_S, SMOOTHING_CANDIDATES_S, PsConfig
from tracks.ps.prior import STATISTICS, StimulusPrior, moving_average

CENTRE = 128.0
SHRINK_CANDIDATES = (1.0, 0.9, 0.75, 0.6, 0.45, 0.3, 0.15, 0.0)


class PsFitted(Fitted):
    """Offset plus correction, in raw label points.

    Every choice (prior smoothing, lag, penalty, correction smoothing, shrinkage) is made on validation rows.

    Args:
        options: The system.
        streams: Feature streams at 1 Hz for ridge and the automatic lag.
    """

    def __init__(self, options: PsConfig, streams: Sequence[str]) -> None:
        self.options = options
        self.prior = StimulusPrior()
        self.ridge = FeatureRidge(options.ridge_streams or streams)
        self.prior_smoothing_s = 1
        self.prior_refined = False
        self.lag_s = 0
        self.smoothing_s = np.full(2, 1 if options.smoothing_s == "auto" else options.smoothing_s, dtype=np.int64)
        self.shrink = np.ones(2, dtype=np.float32)
        self._train_ids: frozenset[str] = frozenset()
        self._linear: dict[str, np.ndarray] = {}

    # ---- learning
    def fit(self, train: Sequence[Sample], val: Sequence[Sample], features: ReadFeatures) -> None:
        """Learns the prior from training rows; smoothing, lag and ridge penalty go by validation rows."""
        self.prior.fit(train)
        self._train_ids = frozenset(sample.sample_id for sample in train)
        if self.options.offset_kind == "prior":
            self._choose_prior(val, {})
        wanted = self.options.target_lag_s
        correction = self.options.correction_kind
        self.lag_s = 0 if wanted == "auto" or correction == "none" else int(wanted)
        if self.uses_ridge or (correction == "network" and wanted == "auto" and self.ridge.streams):
            known, judge = ([(item, self._corrected(self._residual(item))) for item in side] for side in (train, val))
            self.ridge.fit(known, judge, features, LAG_CANDIDATES_S if wanted == "auto" else (self.lag_s,))
            self.lag_s = self.ridge.lag_s
        if self.uses_ridge:
            self._linear = {item.sample_id: self.ridge.predict(item, features) for item in (*train, *val)}

    @property
    def uses_ridge(self) -> bool:
        """Whether a ridge regression is part of the correction: all of it, or what the network starts from."""
        kind = self.options.correction_kind
        return kind == "ridge" or (kind == "network" and self.options.ridge_base and bool(self.ridge.streams))

    def _choose_prior(
        self,
        val: Sequence[Sample],
        corrections: Mapping[str, np.ndarray],
        train: Sequence[tuple[Sample, np.ndarray]] | None = None,
    ) -> None:
        """Sets the prior's statistic and smoothing, and whether it is refined, by validation MAE.

        Args:
            val: Validation samples.
            corrections: What is added to the prior for each of them; absent means nothing.
            train: Corrections of the training samples, for a refined prior; None for the plain one.
        """
        smoothings = (
            SMOOTHING_CANDIDATES_S if self.options.prior_smoothing_s == "auto" else (self.options.prior_smoothing_s,)
        )
        statistics = tuple(STATISTICS) if self.options.prior_statistic == "auto" else (self.options.prior_statistic,)
        known = [item for item in val if self.prior.knows(item)]
        choices: list[tuple[float, int, int, str, dict[str, np.ndarray]]] = []
        plain = self.prior.explained
        for is_refined in (False, True) if train is not None else (False,):
            self.prior.explained = plain
            if is_refined and train is not None:
                self.prior.explain(train)
            for order, statistic in enumerate(statistics):
                self.prior.statistic = statistic
                for width in smoothings:
                    error = self._prior_error(known, corrections, width)
                    choices.append((error, order, width, statistic, self.prior.explained))
        _, _, self.prior_smoothing_s, self.prior.statistic, self.prior.explained = min(
            choices, key=lambda item: item[:3]
        )

    def _prior_error(self, val: Sequence[Sample], corrections: Mapping[str, np.ndarray], width: int) -> float:
        gaps = [
            np.abs(
                self.prior.curve(item, len(item.target[TARGET]), leave_out_own=False, smoothing_s=width)
                + corrections.get(item.sample_id, 0.0)
                - item.target[TARGET]
            )
            for item in val
        ]
        return float(np.concatenate(gaps).mean()) if gaps else 0.0

    def _corrected(self, residual: np.ndarray) -> np.ndarray:
        """Leaves only the dimensions that a correction may touch; the others are zero."""
        return residual * np.array([1.0, 0.0], dtype=residual.dtype) if self.options.valence_only else residual

    def _residual(self, sample: Sample) -> np.ndarray:
        return sample.target[TARGET] - self.offset(sample, len(sample.target[TARGET]))

    def target(self, sample: Sample) -> Mapping[str, np.ndarray]:
        """What offset and ridge leave of the labels, moved ahead by the lag: (second, 2); NaN where unknown."""
        residual = self._residual(sample)
        moved = np.full_like(residual, np.nan)
        moved[: max(len(residual) - self.lag_s, 0)] = residual[self.lag_s :]
        if self.uses_ridge and self.options.correction_kind == "network":
            moved -= self._linear[sample.sample_id][: len(moved)]
        return {TARGET: moved}

    @property
    def calibrates_on_train(self) -> bool:
        """Whether calibrate reads the network's outputs for training rows."""
        return self.options.offset_kind == "prior" and self.options.refine_prior

    def calibrate(self, val: Sequence[tuple[Sample, Output]], train: Sequence[tuple[Sample, Output]] = ()) -> None:
        """Chooses smoothing and shrinkage of the correction by validation MAE; refines the prior where that helps."""
        if self.options.correction_kind == "none" or not val:
            return
        error = self._calibrate_correction(val)
        if not train or not self.calibrates_on_train:
            return
        plain = (self.prior.statistic, self.prior.explained, self.prior_smoothing_s)
        corrections = {sample.sample_id: self._delayed(output.values[TARGET]) for sample, output in val}
        explained = [(sample, self._delayed(output.values[TARGET])) for sample, output in train]
        self._choose_prior([sample for sample, _ in val], corrections, explained)
        if self._calibrate_correction(val) >= error:  # a correction that is shrunk again may have misled the choice
            self.prior.statistic, self.prior.explained, self.prior_smoothing_s = plain
            self._calibrate_correction(val)

    def _calibrate_correction(self, val: Sequence[tuple[Sample, Output]]) -> float:
        """Sets smoothing and shrinkage dimension by dimension, and gives the validation MAE that they reach."""
        pairs = [(self._residual(sample), self._delayed(output.values[TARGET])) for sample, output in val]
        wanted = self.options.smoothing_s
        widths = SMOOTHING_CANDIDATES_S if wanted == "auto" else (wanted,)
        shrinks = SHRINK_CANDIDATES if self.options.shrink else (1.0,)
        best = np.full(2, np.inf)
        for width in widths:
            smooth = np.concatenate([moving_average(correction, width) for _, correction in pairs])
            wanted_rows = np.concatenate([residual for residual, _ in pairs])
            for factor in shrinks:
                errors = np.abs(wanted_rows - factor * smooth).mean(0)
                for dimension in np.flatnonzero(errors < best - 1e-9):
                    best[dimension] = errors[dimension]
                    self.smoothing_s[dimension], self.shrink[dimension] = width, factor
        return float(best.mean())

    def refit(self, val: Sequence[tuple[Sample, Output | None]]) -> None:
        """Lets the validation people join the prior, now that smoothing, statistic and refinement are chosen."""
        if self.options.offset_kind == "prior" and self.options.refit_prior:
            self._train_ids |= {sample.sample_id for sample, _ in val}  # their own answers leave their own labels out
            self.prior.add(
                [(sample, None if output is None else self._delayed(output.values[TARGET])) for sample, output in val]
            )

    # ---- answering
    def offset(self, sample: Sample, num_seconds: int) -> np.ndarray:
        """The part of an answer that no signal of the sample enters: (second, 2) float32, raw label scale."""
        kind = self.options.offset_kind
        if kind == "prior":
            own = sample.sample_id in self._train_ids
            return self.prior.curve(sample, num_seconds, leave_out_own=own, smoothing_s=self.prior_smoothing_s)
        value = np.full(2, CENTRE, dtype=np.float32) if kind == "constant" else self.prior.median
        return np.tile(value, (num_seconds, 1))

    def apply(self, sample: Sample, output: Output | None) -> Output:
        """Gives (second, 2) float32 answers on the raw label scale: offset plus the calibrated correction."""
        num_seconds = round(sample.duration_s or 0.0)
        answer = self.offset(sample, num_seconds).astype(np.float32)
        if output is not None:
            delayed = self._delayed(output.values[TARGET])
            for dimension in range(2):
                smooth = moving_average(delayed[:, dimension : dimension + 1], int(self.smoothing_s[dimension]))
                answer[:, dimension] += self.shrink[dimension] * smooth[:num_seconds, 0]
        key = WindowKey(sample.sample_id, 0.0, float(num_seconds))
        return Output(key=key, values={TARGET: answer})

    def raw_output(self, sample: Sample, features: ReadFeatures, network: Output | None = None) -> Output | None:
        """The whole correction of a sample before calibration: ridge, network or both; None for systems without one."""
        if not self.uses_ridge:
            return network
        values = self.ridge.predict(sample, features)
        if network is not None:
            values = values + network.values[TARGET]
        return Output(key=WindowKey(sample.sample_id, 0.0, float(len(values))), values={TARGET: values})

    def _delayed(self, correction: np.ndarray) -> np.ndarray:
        """Puts what was seen at second t to second t + lag; the first seconds repeat the first value."""
        if self.lag_s == 0 or not len(correction):
            return correction
        index = np.maximum(np.arange(len(correction)) - self.lag_s, 0)
        return correction[index]

    # ---- keeping
    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and JSON values of everything fitted; no person's labels are kept, only averages over people."""
        arrays: dict[str, np.ndarray] = {
            "median": self.prior.median,
            "smoothing_s": self.smoothing_s,
            "shrink": self.shrink,
        }
        ridge_arrays, ridge_values = self.ridge.state()
        arrays |= {f"ridge/{name}": array for name, array in ridge_arrays.items()}
        if self.options.offset_kind == "prior":
            for clip, table in self.prior.curves.items():
                kept = table - self.prior.explained.get(clip, np.float32(0.0))
                arrays[f"prior/{clip}"] = STATISTICS[self.prior.statistic](kept).astype(np.float32)
        values: dict[str, Any] = {
            "prior_smoothing_s": self.prior_smoothing_s,
            "prior_statistic": self.prior.statistic,
            "prior_refined": self.prior_refined or bool(self.prior.explained),
            "lag_s": self.lag_s,
            "ridge": ridge_values,
        }
        return arrays, values

    def load_state(self, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> None:
        """Restores what state gave."""
        self.prior.median = np.asarray(arrays["median"], dtype=np.float32)
        curves = {name.removeprefix("prior/"): table for name, table in arrays.items() if name.startswith("prior/")}
        self.prior.curves = {clip: np.asarray(table)[None] for clip, table in curves.items()}
        self.prior.subjects = {clip: [""] for clip in curves}
        ridge = {name.removeprefix("ridge/"): array for name, array in arrays.items() if name.startswith("ridge/")}
        self.ridge.load_state(ridge, values["ridge"])
        self.smoothing_s = np.asarray(arrays["smoothing_s"])
        self.shrink = np.asarray(arrays["shrink"])
        self.prior_smoothing_s = int(values["prior_smoothing_s"])
        self.prior.statistic = str(values["prior_statistic"])
        self.prior_refined = bool(values["prior_refined"])
        self.lag_s = int(values["lag_s"])
        self._train_ids = frozenset()
        self._linear = {}
