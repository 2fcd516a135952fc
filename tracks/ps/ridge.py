"""Ridge regression from feature rows to label residuals: the linear baseline, and the judge of the label lag."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mersuite.errors import DataError

ALPHAS = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)


class Ridge:
    """Ridge regression with standardised inputs; the penalty is chosen on validation rows by mean absolute error.

    A NaN input counts as the feature's training mean, which adds nothing; a feature that is NaN in every training row
    gets no weight.

    Attributes:
        means: (feature,) float64, training means of the inputs.
        weights: (feature, dimension) float64, for raw inputs.
        intercept: (dimension,) float64.
        alpha: The chosen penalty, in units of the mean variance of a standardised feature.
    """

    def __init__(self) -> None:
        self.means = np.zeros(0)
        self.weights = np.zeros((0, 0))
        self.intercept = np.zeros(0)
        self.alpha = float("nan")

    def fit(self, train: tuple[np.ndarray, np.ndarray], val: tuple[np.ndarray, np.ndarray]) -> float:
        """Fits on (rows, features), (rows, dimensions) and gives the validation MAE of the best penalty.

        Raises:
            DataError: If there are no training or no validation rows.
        """
        if not len(train[0]) or not len(val[0]):
            raise DataError(
                f"ridge: there are {len(train[0])} training and {len(val[0])} validation rows, need both; "
                "clips must be longer than the label lag (set ps.target_lag_s), and each side needs a group"
            )
        inputs, targets = train[0].astype(np.float64), train[1].astype(np.float64)
        mean = np.nansum(inputs, axis=0) / np.maximum((~np.isnan(inputs)).sum(axis=0), 1)  # 0 where nobody has it
        self.means = mean
        inputs, seen = self._filled(inputs), self._filled(val[0])
        std = inputs.std(0)
        std = np.where(std > 1e-12, std, 1.0)
        standard = (inputs - mean) / std
        target_mean = targets.mean(0)
        values, vectors = np.linalg.eigh(standard.T @ standard / len(standard))
        projected = vectors.T @ (standard.T @ (targets - target_mean) / len(standard))
        best = np.inf
        for alpha in ALPHAS:
            weights = (vectors @ (projected / (np.maximum(values, 0.0) + alpha)[:, None])) / std[:, None]
            intercept = target_mean - mean @ weights
            error = float(np.abs(seen @ weights + intercept - val[1]).mean())
            if error < best:
                best, self.alpha, self.weights, self.intercept = error, alpha, weights, intercept
        return best

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """(rows, features) -> (rows, dimensions) float32."""
        return (self._filled(inputs) @ self.weights + self.intercept).astype(np.float32)

    def _filled(self, inputs: np.ndarray) -> np.ndarray:
        missing = np.isnan(inputs)
        return np.where(missing, self.means, inputs) if missing.any() else inputs


def lagged_rows(
    inputs: Sequence[np.ndarray], targets: Sequence[np.ndarray], lag_s: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs features at second t with targets at second t + lag over many samples.

    Args:
        inputs: One (second, feature) a sample.
        targets: One (second, dimension) a sample, of the same lengths.
        lag_s: Whole seconds by which targets follow features.
    """
    kept = [(x[: len(x) - lag_s], y[lag_s:]) for x, y in zip(inputs, targets, strict=True) if len(x) > lag_s]
    if not kept:
        return np.zeros((0, 0)), np.zeros((0, 0))
    return np.concatenate([x for x, _ in kept]), np.concatenate([y for _, y in kept])
