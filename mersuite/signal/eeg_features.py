"""The features of every second of one EEG recording, with their names.

Axes: T samples, S seconds, C channels, B bands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mersuite.signal import bands as spectral
from mersuite.signal.montage import mirror_pairs
from mersuite.signal.windows import cut_seconds

BandFeature = Literal["de", "filtered_de", "log_power", "relative_log_power"]
HJORTH = ("activity", "mobility", "complexity")


@dataclass(frozen=True, slots=True, kw_only=True)
class FeaturePlan:
    """What is computed of every second.

    Attributes:
        ch_names: One name a channel.
        rate_hz: Sampling rate of the recording.
        bands: Name to half-open band in Hz, below the Nyquist frequency.
        kinds: What is told of each band, in this order.
        taper: Window of the periodogram.
        hjorth: Also Hjorth's parameters.
        asymmetry: Also left minus right of mirrored channels, of the first kind.
    """

    ch_names: Sequence[str]
    rate_hz: float
    bands: Mapping[str, tuple[float, float]]
    kinds: Sequence[BandFeature]
    taper: str
    hjorth: bool = False
    asymmetry: bool = False

    def rows(self, recording: np.ndarray, seconds: int) -> dict[str, np.ndarray]:
        """Gives stream -> (S, features) float32, channel by channel: (T, C) float32, microvolts."""
        windows = cut_seconds(recording, self.rate_hz, seconds)
        edges = list(self.bands.values())
        told = [self._kind(kind, recording, windows, edges) for kind in self.kinds]
        found = {"eeg_bands": np.concatenate(told, axis=-1)}
        if self.hjorth:
            found["eeg_hjorth"] = spectral.hjorth(windows)
        if self.asymmetry:
            found["eeg_asymmetry"] = spectral.asymmetry(told[0], mirror_pairs(self.ch_names))
        return {name: values.reshape(seconds, -1).astype(np.float32, copy=False) for name, values in found.items()}

    def names(self) -> dict[str, tuple[str, ...]]:
        """Gives stream -> one name a feature: channel or pair, a space, and what is told of it."""
        sites = [name.replace(" ", "_") for name in self.ch_names]
        pairs = [f"{sites[left]}-{sites[right]}" for left, right in mirror_pairs(self.ch_names)]
        of_bands = [f"{kind}_{band}" for kind in self.kinds for band in self.bands]
        return {
            "eeg_bands": _crossed(sites, of_bands),
            "eeg_hjorth": _crossed(sites, HJORTH),
            "eeg_asymmetry": _crossed(pairs, of_bands[: len(self.bands)]),
        }

    def _kind(
        self, kind: BandFeature, recording: np.ndarray, windows: np.ndarray, edges: Sequence[spectral.Edges]
    ) -> np.ndarray:
        if kind == "filtered_de":
            power = spectral.filtered_power(recording, self.rate_hz, edges, len(windows))
            return spectral.differential_entropy(power)
        power = spectral.band_power(windows, self.rate_hz, edges, self.taper)
        if kind == "de":
            return spectral.differential_entropy(power)
        return spectral.log_power(power) if kind == "log_power" else spectral.relative_log_power(power)


def _crossed(sites: Sequence[str], kinds: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{site} {kind}" for site in sites for kind in kinds)
