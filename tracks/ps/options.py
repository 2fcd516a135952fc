"""The configuration of the ps track: keys under `ps.`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from mersuite.losses import LossConfig
from mersuite.schema import require_all

System = Literal["constant", "median", "ridge", "signal", "prior", "fused"]
SMOOTHING_CANDIDATES_S = (1, 3, 5, 7, 11, 15, 21)
LAG_CANDIDATES_S = (0, 1, 2, 3, 4, 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class PsConfig:
    """What the ps track adds to the shared configuration.

    Every system is an offset (constant 128, training median, or stimulus prior) plus a correction (none, ridge or
    network).

    Attributes:
        system: constant | median | ridge | signal (median + network) | prior | fused (prior + network).
        prior: The one switch for the stimulus prior; off makes `fused` correct the training median and `prior` be it.
        valence_only: Correct valence alone; arousal stays at the offset. Off by default; helped some participants, see
            README.md of the track.
        target_lag_s: Whole seconds by which labels follow signals; "auto" chooses 0..5 s on validation rows with a
            ridge regression, and is 0 for a network without feature streams. Why: raters lag by 1-5 s, and the lag
            must not be read off held-out rows.
        smoothing_s: Odd width of a moving average over the correction; "auto" chooses it on validation rows.
        prior_smoothing_s: The same for the prior's curves.
        prior_statistic: How people's labels are averaged: median, midmean (mean of the middle half) or mean; "auto"
            chooses on validation rows.
        refine_prior: After training, let the prior be chosen anew from labels less what the network explains of them,
            where that is better on validation rows. The system `prior` is never refined: it has no network.
        refit_prior: Once every choice is made, let the labels of the validation people join the prior.
        shrink: Scale each dimension's correction by a factor in 0..1 chosen on validation rows. Why: a correction that
            does not help unseen people is then taken back instead of adding noise.
        loss: Training loss; L1 by default because the metric is MAE. Its huber_delta is in label points.
        head_scale: Label points that a network output of 1 stands for.
        head_dropout: Dropout on the fused tokens before the last layer.
        ridge_base: Let the network correct what a ridge regression on the feature streams leaves. Why: with some twenty
            people and hundreds of features, the linear part is found better in closed form than by gradient steps.
        ridge_streams: Feature streams at 1 Hz that the ridge baseline and the automatic lag read; () takes all
            feature streams of the model.
    """

    system: System = "fused"
    prior: bool = True
    valence_only: bool = False
    target_lag_s: int | Literal["auto"] = "auto"
    smoothing_s: int | Literal["auto"] = "auto"
    prior_smoothing_s: int | Literal["auto"] = "auto"
    prior_statistic: Literal["median", "midmean", "mean", "auto"] = "auto"
    refine_prior: bool = True
    refit_prior: bool = True
    ridge_base: bool = True
    shrink: bool = True
    loss: LossConfig = field(default_factory=LossConfig)
    head_scale: float = 32.0
    head_dropout: float = 0.1
    ridge_streams: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        lag, scale, dropout = self.target_lag_s, self.head_scale, self.head_dropout
        require_all(
            *(_is_odd_width(key, getattr(self, key)) for key in ("smoothing_s", "prior_smoothing_s")),
            (lag == "auto" or 0 <= lag <= 30, f"target_lag_s: need 0 to 30 s or auto, got {lag}"),
            (0 < scale < math.inf, f"head_scale: need a value above 0, got {scale}"),
            (0 <= dropout < 1, f"head_dropout: need 0 <= rate < 1, got {dropout}"),
        )

    @property
    def offset_kind(self) -> Literal["constant", "median", "prior"]:
        """What the correction is added to."""
        if self.system == "constant":
            return "constant"
        return "prior" if self.system in ("prior", "fused") and self.prior else "median"

    @property
    def correction_kind(self) -> Literal["none", "ridge", "network"]:
        """What corrects the offset."""
        if self.system in ("signal", "fused"):
            return "network"
        return "ridge" if self.system == "ridge" else "none"


def _is_odd_width(key: str, value: int | str) -> tuple[bool, str]:
    fits = value == "auto" or (isinstance(value, int) and value >= 1 and value % 2 == 1)
    return fits, f"{key}: need an odd number of seconds or auto, got {value}"
