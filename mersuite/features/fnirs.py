"""fNIRS: cleaned continuous haemoglobin, and statistics of the seconds up to each second.

Chain of one trial, in this order: light to haemoglobin where the file holds light; motion repair; bad channels filled;
filters and resampling in one FFT pass; slope removed if asked; the baseline's mean taken off; statistics; robust scale
of the continuous trial. For files that hold haemoglobin it runs with numpy and scipy alone, because the code submission
shares it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mersuite.clip import Clip, Signal
from mersuite.errors import DataError
from mersuite.features.base import Extractor
from mersuite.media.physio import open_raw, read_reservations, refuse_nan, where
from mersuite.media.streams import read_stream, stream_media
from mersuite.schema import require
from mersuite.signal import channels, haemodynamics
from mersuite.signal.linear import LinearChain, design_band
from mersuite.signal.windows import num_seconds

MICROMOLAR = {"M": 1e6, "mM": 1e3, "uM": 1.0, "µM": 1.0}
LIGHT_TYPES = frozenset(("fnirs_cw_amplitude", "fnirs_od"))
STATISTICS = ("mean", "slope", "std")
KEY = "features.fnirs"

Chromophore = Literal["hbo", "hbr", "hbt"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FnirsConfig:
    """Knobs of the fNIRS chain.

    Attributes:
        rate_hz: Rate of the continuous trial and of what statistics are computed from; slower recordings keep their
            own. Why 5: the response lives below 0.2 Hz; 5 Hz still shows a heart beat where no low-pass is set.
        types: Which of hbo, hbr, hbt are kept. hbt is their sum and tells nothing new, so it is off.
        motion_repair: TDDR. On: it has no parameter, and leaves recordings without steps and spikes nearly as they are.
        low_hz: Lower edge of a zero-phase filter (0.01 is the usual value). Off: a clip of 60 to 170 s holds one or two
            cycles of 0.01 Hz, so such a filter answers with its own edges; use `detrend` instead.
        high_hz: Upper edge, 0.2 by default: heart beat and most of the breathing lie above, the response below; null
            turns it off.
        high_transition_hz: Width of the step from pass to stop above high_hz. Why 0.2: half the default filter is then
            8 s long, and heart beats are out.
        detrend: "linear" takes off each trial's slope and keeps its level at the start. Off: a slope over a minute may
            be the response, and the baseline already takes off the drift up to the clip.
        use_reservations: Leave out the channels that fNIRS_reservations.csv rules out, where that file is there;
            whatever they hold, NaN and flat lines too, stops nothing.
        masked: What stands in their place, so that everyone has the same width: the "mean" of the good channels of
            the same type, or "zero". Why mean: it is a likely value, where zero is one that no good channel has.
        context_s: Seconds up to the end of each second that statistics are taken of. Why 10: the response lags by 4 to
            6 s and needs as long to rise. The rows before the first whole context
            mirror those after it, so that no row, and no equality of rows, tells the time.
        scale: Robust scale of the continuous trial by one factor a person ("subject"; transductive, label-free), or
            "none". Why subject: path length and skin change everyone's amplitude; one factor keeps channels and types
            comparable. Statistics are computed before it.
        clamp: Largest value after scaling, in robust deviations.
        baseline: "subtract" takes each channel's mean over the clip's baseline recording off the trial. Why: the level
            of haemoglobin is arbitrary, and the response is a change from rest. "none" takes off the trial's own mean.
        min_coupling: Scalp coupling index below which both wavelengths of a pair are bad; for recordings of light.
        path_factor: Partial path length factor of the Beer-Lambert law; 6 is MNE's value; for recordings of light.
    """

    rate_hz: float = 5.0
    types: tuple[Chromophore, ...] = ("hbo", "hbr")
    motion_repair: bool = True
    low_hz: float | None = None
    high_hz: float | None = 0.2
    high_transition_hz: float = 0.2
    detrend: Literal["none", "linear"] = "none"
    use_reservations: bool = True
    masked: Literal["mean", "zero"] = "mean"
    context_s: float = 10.0
    scale: Literal["none", "subject"] = "subject"
    clamp: float = 20.0
    baseline: Literal["subtract", "none"] = "subtract"
    min_coupling: float = 0.5
    path_factor: float = 6.0

    def __post_init__(self) -> None:
        require(self.rate_hz >= 1, f"rate_hz: need 1 Hz or more, got {self.rate_hz}")
        require(bool(self.types), "types: need one of hbo, hbr, hbt or more")
        for key in ("low_hz", "high_hz"):
            value = getattr(self, key)
            require(value is None or value > 0, f"{key}: need a frequency above 0, or null, got {value}")
        if self.low_hz is not None and self.high_hz is not None:
            require(self.low_hz < self.high_hz, f"need low_hz < high_hz, got {self.low_hz} and {self.high_hz}")
        require(self.context_s >= 1, f"context_s: need 1 s or more, got {self.context_s}")
        for key in ("high_transition_hz", "clamp", "path_factor"):
            require(getattr(self, key) > 0, f"{key}: need a value above 0, got {getattr(self, key)}")
        require(0 <= self.min_coupling <= 1, f"min_coupling: need a value from 0 to 1, got {self.min_coupling}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recording:
    """Haemoglobin of the kept types: data (channel, type, time) float64; good (channel,) bool."""

    data: np.ndarray
    rate_hz: float
    sites: tuple[str, ...]
    good: np.ndarray
    unit: str
    repaired: bool


@dataclass(slots=True, kw_only=True)
class _Trial:
    clip_id: str
    signal: np.ndarray
    seconds: int
    rate_hz: float
    unit: str


class FnirsExtractor(Extractor):
    """Writes `fnirs` (continuous) and `fnirs_stats` (a row a second).

    Both are ordered channel by channel; names are "ch-1 hbo" and "ch-1 hbo_mean". In micromolar where the file's
    unit is known; a file of unknown unit, as all of MER-PS are, stays as it is. Nothing here depends on the unit:
    motion repair and filters scale with the values, `scale` divides the unit out of `fnirs`, and `fnirs_stats` is
    standardised by whatever reads it (`models.layers.RunningNorm`, the ridge of the track).
    """

    Config = FnirsConfig
    version = 4
    inputs = ("fnirs", "fnirs_baseline?", "fnirs_reservations?")
    group_by = "subject"
    config: FnirsConfig

    def __init__(self, config: FnirsConfig) -> None:
        super().__init__(config)
        self._chains: dict[float, LinearChain] = {}

    def outputs(self) -> tuple[str, ...]:
        """Names of the streams written for each clip."""
        return ("fnirs", "fnirs_stats")

    def extract(self, clips: Sequence[Clip]) -> Iterator[tuple[str, Mapping[str, Signal]]]:
        """Yields the streams of every clip of one person.

        Raises:
            DataError: If a recording is unreadable, too short, of other channels than the person's first, has no good
                channel or NaN in a channel that is not ruled out, lacks a kind of haemoglobin, or lacks a baseline.
        """
        trials: list[_Trial] = []
        sites: tuple[str, ...] = ()
        for clip in clips:
            recording = self._read(clip, "fnirs")
            if sites and recording.sites != sites:
                raise DataError(
                    f"{clip.clip_id}: fnirs has the channels {', '.join(recording.sites[:3])}, ... "
                    f"({len(recording.sites)}), the group's first {', '.join(sites[:3])}, ... ({len(sites)}); put "
                    " recordings of other layouts into a group of their own"
                )
            sites = recording.sites
            trials.append(self._trial(clip, recording))
        scale = self._scale(trials)
        names = tuple(f"{site} {kind}" for site in sites for kind in self.config.types)
        for trial in trials:
            statistics = haemodynamics.context_statistics(
                trial.signal, trial.rate_hz, trial.seconds, self.config.context_s
            )
            yield (
                trial.clip_id,
                {
                    "fnirs": self._continuous(trial, scale, names),
                    "fnirs_stats": Signal(
                        data=statistics.reshape(trial.seconds, -1),
                        rate_hz=1.0,
                        ch_names=tuple(f"{name}_{kind}" for name in names for kind in STATISTICS),
                    ),
                },
            )

    def _read(self, clip: Clip, stream: str) -> _Recording:
        signal = read_stream(clip, stream, allow_flat=True, allow_nan=True)
        good = np.ones(len(signal.ch_names), bool)
        has_blood = bool({"hbo", "hbr"} & set(signal.ch_types))
        unit, repaired = "M" if has_blood and signal.unit == "V" else signal.unit, False  # volts are those of EEG in it
        data, names, rate_hz = signal.data, signal.ch_names, signal.rate_hz
        if LIGHT_TYPES & set(signal.ch_types) and "hbo" not in signal.ch_types:
            _refuse_nan(clip, stream, signal, range(len(names)))
            blood = self._from_light(clip, stream)
            data, names, rate_hz, good = blood.data, blood.ch_names, blood.rate_hz, blood.good
            unit, repaired = "M", True
        values, sites, usable, broken = self._pick(clip, stream, data, names, good)
        kept = self._reserved(clip, len(sites))
        if broken[kept].any():
            faulty = {site for site, bad in zip(sites, broken & kept, strict=True) if bad}
            _refuse_nan(clip, stream, signal, [i for i, name in enumerate(names) if name.rsplit(" ", 1)[0] in faulty])
        usable &= kept
        if not usable.any():
            raise DataError(
                f"{clip.clip_id}: {stream} has no good channel of {len(sites)}; leave the clip out, or set "
                f"{KEY}.use_reservations=false or a lower {KEY}.min_coupling"
            )
        values *= MICROMOLAR.get(unit, 1.0)
        return _Recording(
            data=values,
            rate_hz=rate_hz,
            sites=sites,
            good=usable,
            unit="uM" if unit in MICROMOLAR else unit,
            repaired=repaired and self.config.motion_repair,
        )

    def _from_light(self, clip: Clip, stream: str) -> haemodynamics.Haemoglobin:
        raw = open_raw(stream_media(clip, stream), preload=True)
        try:
            return haemodynamics.from_light(
                raw,
                repair=self.config.motion_repair,
                min_coupling=self.config.min_coupling,
                path_factor=self.config.path_factor,
            )
        except (ValueError, RuntimeError) as error:
            raise DataError(
                f"{clip.clip_id}: {stream}: light cannot be turned into haemoglobin ({error}); "
                "give a file with wavelengths and optode positions, or with haemoglobin"
            ) from error

    def _pick(
        self, clip: Clip, stream: str, data: np.ndarray, names: Sequence[str], good: np.ndarray
    ) -> tuple[np.ndarray, tuple[str, ...], np.ndarray, np.ndarray]:
        """Gives (channel, type, time) of the kept types, the channels' names, which are good, and which hold NaN."""
        place = {tuple(name.rsplit(" ", 1)): index for index, name in enumerate(names)}
        sites = tuple(
            dict.fromkeys(name.rsplit(" ", 1)[0] for name in names if name.rsplit(" ", 1)[-1] in ("hbo", "hbr"))
        )
        if not sites:
            raise DataError(
                f"{clip.clip_id}: {stream} has no haemoglobin: its channels are {', '.join(names[:4])}, ...; "
                'names must end in " hbo" and " hbr"'
            )
        values = np.zeros((len(sites), len(self.config.types), len(data)))
        usable, broken = np.ones(len(sites), bool), np.zeros(len(sites), bool)
        for column, kind in enumerate(self.config.types):
            summed = kind == "hbt" and not any((site, kind) in place for site in sites)
            for part in ("hbo", "hbr") if summed else (kind,):
                lacking = [site for site in sites if (site, part) not in place]
                if lacking:
                    raise DataError(
                        f"{clip.clip_id}: {stream} has no {part} of {lacking[0]}; take {kind} out of {KEY}.types"
                    )
                columns = [place[site, part] for site in sites]
                rows = np.ascontiguousarray(data[:, columns].T)
                low, high = rows.min(axis=1), rows.max(axis=1)
                usable &= good[columns] & (low < high)
                broken |= ~(np.isfinite(low) & np.isfinite(high))
                values[:, column] += rows
        return values, sites, usable, broken

    def _reserved(self, clip: Clip, num_sites: int) -> np.ndarray:
        if not self.config.use_reservations or "fnirs_reservations" not in clip.media:
            return np.ones(num_sites, bool)
        media = stream_media(clip, "fnirs_reservations")
        kept = read_reservations(media.path, media.key or "")
        if len(kept) != num_sites:
            raise DataError(
                f"{media.path}: {len(kept)} channels are listed, the recording of {clip.clip_id} has {num_sites}; "
                f"give the file of this data set, or set {KEY}.use_reservations=false"
            )
        return kept

    def _trial(self, clip: Clip, recording: _Recording) -> _Trial:
        config = self.config
        num_samples = recording.data.shape[-1]
        seconds = num_seconds(num_samples, recording.rate_hz)
        if seconds < 1:
            length = num_samples / recording.rate_hz
            raise DataError(f"{clip.clip_id}: fnirs lasts {length:.2f} s, need 1 s or more; leave the clip out")
        calm = None
        good = recording.good
        if config.baseline == "subtract":
            if "fnirs_baseline" not in clip.media:
                raise DataError(
                    f"{clip.clip_id}: there is no fnirs_baseline, which {KEY}.baseline=subtract needs; "
                    f"set {KEY}.baseline=none"
                )
            calm = self._read(clip, "fnirs_baseline")
            if calm.sites != recording.sites:
                raise DataError(
                    f"{clip.clip_id}: fnirs and fnirs_baseline differ in channels; give files of one device"
                )
            good = good & calm.good
        if not good.any():
            raise DataError(f"{clip.clip_id}: no fNIRS channel is good in both trial and baseline; leave the clip out")
        if not good.all():
            _log.info("%s: filled %d of %d fNIRS channels", clip.clip_id, (~good).sum(), len(good))
        chain = self._chain(recording.rate_hz, clip)
        if chain.outlasts(num_samples):
            _log.warning("%s: fnirs is shorter than half a filter; set %s.detrend, not low_hz", clip.clip_id, KEY)
        values = self._clean(recording, good)
        values -= values.mean(axis=0) if calm is None else self._clean(calm, good).mean(axis=0)
        signal = chain.apply(values)
        if config.detrend == "linear":
            signal = haemodynamics.remove_slope(signal).astype(np.float32)
        return _Trial(
            clip_id=clip.clip_id, signal=signal, seconds=seconds, rate_hz=chain.target_hz, unit=recording.unit
        )

    def _clean(self, recording: _Recording, good: np.ndarray) -> np.ndarray:
        """Repairs the good channels and fills the others: (time, channel and type) float64, with time side by side."""
        num_sites, num_types, num_samples = recording.data.shape
        kept = recording.data[good].reshape(-1, num_samples).T
        if self.config.motion_repair and not recording.repaired:
            kept = haemodynamics.repair_motion(kept, recording.rate_hz)
        if good.all():
            return kept
        values = np.zeros(recording.data.shape)
        values[good] = kept.T.reshape(-1, num_types, num_samples)
        if self.config.masked == "mean":
            values = haemodynamics.fill_masked(values, good)
        return values.reshape(num_sites * num_types, num_samples).T

    def _chain(self, rate_hz: float, clip: Clip) -> LinearChain:
        if rate_hz not in self._chains:
            config = self.config
            filters = []
            if config.low_hz is not None or config.high_hz is not None:
                try:
                    taps = design_band(
                        rate_hz, config.low_hz, config.high_hz, high_transition_hz=config.high_transition_hz
                    )
                except ValueError as error:
                    raise DataError(f"{clip.clip_id}: {error}; set {KEY}.low_hz and {KEY}.high_hz to fit") from error
                filters.append(taps)
            target_hz = min(config.rate_hz, rate_hz)
            self._chains[rate_hz] = LinearChain(rate_hz=rate_hz, target_hz=target_hz, filters=filters, pad="even")
        return self._chains[rate_hz]

    def _scale(self, trials: Sequence[_Trial]) -> float | None:
        if self.config.scale == "none" or not trials:
            return None
        _, deviation = channels.median_and_deviation([trial.signal for trial in trials])
        middle = float(np.median(deviation[deviation > 0])) if (deviation > 0).any() else 1.0
        return middle

    def _continuous(self, trial: _Trial, scale: float | None, names: tuple[str, ...]) -> Signal:
        data, unit = trial.signal, trial.unit
        if scale is not None:
            data, unit = np.clip(data / np.float32(scale), -self.config.clamp, self.config.clamp), ""
        return Signal(data=data, rate_hz=trial.rate_hz, ch_names=names, unit=unit)


def _refuse_nan(clip: Clip, stream: str, signal: Signal, judged: Sequence[int]) -> None:
    name = f"{clip.clip_id}: {stream}: {where(stream_media(clip, stream))}"
    refuse_nan(signal, name, judged, f"rule the channel out in fNIRS_reservations.csv ({KEY}.use_reservations=true)")
