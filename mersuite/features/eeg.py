"""EEG: cleaned continuous trials, and spectral features of every second.

Chain of one trial, in this order: filters and resampling in one FFT pass; bad channels found; one channel matrix
(interpolation, average reference, alignment); features of every second in microvolts, minus those of the baseline;
robust scale of the continuous trial. Runs with numpy and scipy alone, because the code submission shares it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from mersuite.clip import Clip, Signal
from mersuite.errors import DataError
from mersuite.features.base import Extractor
from mersuite.media.streams import read_stream
from mersuite.schema import require
from mersuite.signal import channels, montage
from mersuite.signal.bands import clip_to_nyquist
from mersuite.signal.eeg_features import BandFeature, FeaturePlan
from mersuite.signal.linear import LinearChain, design_band, design_notch
from mersuite.signal.windows import num_seconds

BANDS_HZ = {"delta": (1.0, 4.0), "theta": (4.0, 8.0), "alpha": (8.0, 14.0), "beta": (14.0, 31.0), "gamma": (31.0, 50.0)}
MICROVOLTS = {"V": 1e6, "mV": 1e3, "uV": 1.0, "µV": 1.0}
LARGEST_UV = 1e4
"""Deviation within a second that no EEG reaches. Why: microvolts taken for volts give 1e7 and more."""
KEY = "features.eeg"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EegConfig:
    """Knobs of the EEG chain.

    Attributes:
        rate_hz: Rate of the continuous trial and of what features are computed from. Why 200: it holds the bands up to
            50 Hz with room for the anti-aliasing, and pretrained EEG models take it.
        upsample: Raise slower recordings to rate_hz. Off: it adds no information; they keep their own rate.
        low_hz: Lower edge of a zero-phase band-pass (0.5 is a usual value). Off: MER-PS is band-passed to 1-50 Hz on
            disk. Turn it on for recordings with drift.
        high_hz: Upper edge of it (45 is a usual value). Off, for the same reason, and because 45 Hz cuts the upper part
            of the 31-50 Hz band; a value below the top of a band is logged as a warning.
        notch_hz: Mains frequencies to take out, such as 50. Empty: MER-PS is notched on disk.
        bad_channels: Find bad channels and interpolate them with spherical splines. On: one loose electrode would
            otherwise enter every channel through the average reference.
        bad_scope: Judge each trial by itself, or all trials of a person together (by the medians over trials). Why
            trial: an electrode that comes loose for some clips is caught, and a
            trial is treated alike alone and in company.
        bad_z: Robust z of log variance (either side) and correlation with neighbours (low side) from which a channel is
            bad. Why 5: a variance 3.5 times off in an even recording; frontal channels with blinks stay.
        bad_min_correlation: Correlation with neighbours from which a channel is never bad for it.
        bad_max_share: Largest share of scalp channels that may be bad; above it the trial is refused.
        flat_uv: Deviation within a second below which a channel is flat, in microvolts. Why 0.05: a tenth of the noise
            of a good amplifier.
        reference: "average" over scalp channels without M1, M2, CB1, CB2, after interpolation; or "none". Why average:
            the reference on disk is unknown and the same for all after it.
        alignment: "euclidean" whitens with a person's mean covariance over trials (He & Wu 2020): label-free, but
            transductive, and channels are then mixtures. Off.
        scale: Robust scale of the continuous trial by median and MAD over all trials of a person (transductive,
            label-free): "subject" divides by one factor a person, "channel" by one a channel, "none" leaves
            microvolts. Why subject: skull and cap change everyone's amplitude two- or threefold, while one factor
            keeps topography and the change between trials. Features are computed before it.
        clamp: Largest value after scaling, in robust deviations. Why 20: artefacts end there, EEG does not.
        bands: Name to half-open band in Hz.
        band_features: What `eeg_bands` holds, in this order: de (entropy from the periodogram), filtered_de (from the
            variance after a band filter), log_power, relative_log_power. de and log_power tell the same up to a factor
            and an offset.
        taper: Window of the periodogram. Why hann: without one the slow waves of a second leak into all bands.
        hjorth: Also write `eeg_hjorth`: activity, mobility, complexity of every channel. Off: mostly told by the bands.
        asymmetry: Also write `eeg_asymmetry`: first band feature, left minus right of mirrored pairs. Off: it is a
            linear function of eeg_bands.
        baseline: "subtract" takes off the mean features of the clip's baseline recording, "none" does not. Why
            subtract: the level of a band differs more between people and electrodes than between emotions, and the
            baseline measures it without looking at any other clip.
    """

    rate_hz: float = 200.0
    upsample: bool = False
    low_hz: float | None = None
    high_hz: float | None = None
    notch_hz: tuple[float, ...] = ()
    bad_channels: bool = True
    bad_scope: Literal["trial", "subject"] = "trial"
    bad_z: float = 5.0
    bad_min_correlation: float = 0.4
    bad_max_share: float = 0.5
    flat_uv: float = 0.05
    reference: Literal["average", "none"] = "average"
    alignment: Literal["none", "euclidean"] = "none"
    scale: Literal["none", "subject", "channel"] = "subject"
    clamp: float = 20.0
    bands: Mapping[str, tuple[float, float]] = field(default_factory=lambda: dict(BANDS_HZ))
    band_features: tuple[BandFeature, ...] = ("de",)
    taper: Literal["hann", "hamming", "boxcar"] = "hann"
    hjorth: bool = False
    asymmetry: bool = False
    baseline: Literal["subtract", "none"] = "subtract"

    def __post_init__(self) -> None:
        require(self.rate_hz >= 2, f"rate_hz: need 2 Hz or more, got {self.rate_hz}")
        for key in ("low_hz", "high_hz"):
            value = getattr(self, key)
            require(value is None or value > 0, f"{key}: need a frequency above 0, or null, got {value}")
        if self.low_hz is not None and self.high_hz is not None:
            require(self.low_hz < self.high_hz, f"need low_hz < high_hz, got {self.low_hz} and {self.high_hz}")
        for name, (low, high) in self.bands.items():
            require(0 < low < high, f"bands.{name}: need 0 < low < high, got ({low}, {high})")
        require(bool(self.bands) and bool(self.band_features), "bands and band_features: need one entry or more")
        require(0 < self.bad_max_share < 1, f"bad_max_share: need a share between 0 and 1, got {self.bad_max_share}")
        for key in ("bad_z", "clamp"):
            require(getattr(self, key) > 0, f"{key}: need a value above 0, got {getattr(self, key)}")
        require(self.flat_uv >= 0, f"flat_uv: need 0 or more, got {self.flat_uv}")


@dataclass(slots=True, kw_only=True)
class _Trial:
    """One clip at the target rate, in microvolts, (time, channel); what was found in it."""

    clip_id: str
    signal: np.ndarray
    seconds: int
    statistics: channels.ChannelStatistics
    bad: np.ndarray
    baseline: np.ndarray | None
    baseline_seconds: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """What all recordings of a group share."""

    ch_names: tuple[str, ...]
    raw_rate_hz: float
    rate_hz: float
    scalp: np.ndarray
    places: np.ndarray
    plan: FeaturePlan


class EegExtractor(Extractor):
    """Writes `eeg` (continuous), `eeg_bands`, and if asked `eeg_hjorth` and `eeg_asymmetry` (a row a second).

    Features are ordered channel by channel; a name is the channel, a space, and the feature: "FP1 de_delta".
    """

    Config = EegConfig
    version = 1
    inputs = ("eeg", "eeg_baseline?")
    group_by = "subject"
    config: EegConfig

    def __init__(self, config: EegConfig) -> None:
        super().__init__(config)
        self._chains: dict[float, LinearChain] = {}
        top_hz = max(high for _, high in config.bands.values())
        if config.high_hz is not None and config.high_hz < top_hz:
            _log.warning("%s.high_hz=%g cuts the bands, which reach up to %g Hz", KEY, config.high_hz, top_hz)

    def outputs(self) -> tuple[str, ...]:
        """Names of the streams written for each clip."""
        extra = [name for name in ("hjorth", "asymmetry") if getattr(self.config, name)]
        return ("eeg", "eeg_bands", *(f"eeg_{name}" for name in extra))

    def extract(self, clips: Sequence[Clip]) -> Iterator[tuple[str, Mapping[str, Signal]]]:
        """Yields the streams of every clip of one person.

        One trial at a time is read at its full rate; what stays in memory is the person at the target rate in float32.

        Raises:
            DataError: If a recording is unreadable, flat, of an unknown or impossible unit, too short, of other
                channels or another rate than the person's first, has too many bad channels, or lacks a baseline.
        """
        layout: _Layout | None = None
        trials: list[_Trial] = []
        for clip in clips:
            signal = self._read(clip, "eeg")
            layout = self._layout(signal, clip) if layout is None else layout
            trials.append(self._trial(clip, signal, layout))
        if layout is None:
            return
        if self.config.bad_channels:
            self._mark_bad(trials, layout)
        common = self._common_matrix(trials, layout)
        for trial in trials:
            matrix = self._matrix(trial.bad, layout, common)
            trial.signal = trial.signal @ matrix
            if trial.baseline is not None:
                trial.baseline = trial.baseline @ matrix
        centre, scale = self._scale(trials, layout)
        for index, trial in enumerate(trials):
            streams = self._features(trial, layout)
            streams["eeg"] = self._continuous(trial, layout, centre, scale)
            yield trial.clip_id, streams
            trials[index].signal = np.empty((0, 0), np.float32)  # given away: the person's memory shrinks as it goes

    def _read(self, clip: Clip, stream: str) -> Signal:
        signal = read_stream(clip, stream, allow_flat=self.config.bad_channels)
        if signal.unit not in MICROVOLTS:
            raise DataError(
                f"{clip.clip_id}: {stream} has the unit {signal.unit!r}, need one of {', '.join(MICROVOLTS)}; "
                "set the unit of its Media"
            )
        kept = [index for index, kind in enumerate(signal.ch_types) if kind == "eeg"]
        if signal.ch_types and not kept:
            raise DataError(f"{clip.clip_id}: {stream} has no channel of type eeg, only {sorted(set(signal.ch_types))}")
        names = tuple(signal.ch_names[index] for index in kept) if signal.ch_types else signal.ch_names
        data = signal.data if len(names) == len(signal.ch_names) else signal.data[:, kept]
        return Signal(data=data, rate_hz=signal.rate_hz, ch_names=names, unit=signal.unit)

    def _layout(self, signal: Signal, clip: Clip) -> _Layout:
        rate_hz = self._chain(signal.rate_hz, clip).target_hz
        scalp = montage.on_scalp(signal.ch_names)
        needs = self.config.reference == "average" or self.config.bad_channels or self.config.alignment != "none"
        if needs and scalp.sum() < 2:
            raise DataError(
                f"{clip.clip_id}: of the channels {', '.join(signal.ch_names[:4])}, ... {scalp.sum()} have a name of "
                f"the 10-05 system, need 2 or more; rename them, or set {KEY}.reference=none {KEY}.bad_channels=false "
                f"{KEY}.alignment=none"
            )
        if not scalp.all():
            others = [name for name, on in zip(signal.ch_names, scalp, strict=True) if not on]
            _log.info("%s: not on the scalp, kept out of all averages: %s", clip.clip_id, ", ".join(others))
        try:
            bands, cut = clip_to_nyquist(self.config.bands, rate_hz)
        except ValueError as error:
            raise DataError(
                f"{clip.clip_id}: {error} of the recording's {rate_hz:g} Hz; take it out of {KEY}.bands"
            ) from error
        for name in cut:
            _log.warning("%s: the band %s ends at %g Hz, half of %g Hz", clip.clip_id, name, bands[name][1], rate_hz)
        plan = FeaturePlan(
            ch_names=signal.ch_names,
            rate_hz=rate_hz,
            bands=bands,
            kinds=self.config.band_features,
            taper=self.config.taper,
            hjorth=self.config.hjorth,
            asymmetry=self.config.asymmetry,
        )
        return _Layout(
            ch_names=signal.ch_names,
            raw_rate_hz=signal.rate_hz,
            rate_hz=rate_hz,
            scalp=scalp,
            places=montage.positions(signal.ch_names),
            plan=plan,
        )

    def _chain(self, raw_rate_hz: float, clip: Clip) -> LinearChain:
        if raw_rate_hz not in self._chains:
            config = self.config
            filters = []
            try:
                if config.low_hz is not None or config.high_hz is not None:
                    filters.append(design_band(raw_rate_hz, config.low_hz, config.high_hz))
                if config.notch_hz:
                    filters.append(design_notch(raw_rate_hz, config.notch_hz))
            except ValueError as error:
                raise DataError(
                    f"{clip.clip_id}: {error}; set {KEY}.low_hz, {KEY}.high_hz and {KEY}.notch_hz to fit"
                ) from error
            target_hz = config.rate_hz if config.upsample else min(config.rate_hz, raw_rate_hz)
            self._chains[raw_rate_hz] = LinearChain(rate_hz=raw_rate_hz, target_hz=target_hz, filters=filters)
        return self._chains[raw_rate_hz]

    def _trial(self, clip: Clip, signal: Signal, layout: _Layout) -> _Trial:
        data, seconds = self._resampled(clip, "eeg", signal, layout)
        statistics = channels.channel_statistics(data, layout.rate_hz, layout.places, layout.scalp)
        _check_level(clip.clip_id, statistics.deviation_uv, layout.ch_names, self.config)
        baseline, baseline_seconds = None, 0
        bad = np.zeros(len(layout.ch_names), bool)
        if self.config.baseline == "subtract":
            if "eeg_baseline" not in clip.media:
                raise DataError(
                    f"{clip.clip_id}: there is no eeg_baseline, which {KEY}.baseline=subtract needs; "
                    f"set {KEY}.baseline=none"
                )
            recording = self._read(clip, "eeg_baseline")
            baseline, baseline_seconds = self._resampled(clip, "eeg_baseline", recording, layout)
            if self.config.bad_channels:
                calm = channels.channel_statistics(baseline, layout.rate_hz, layout.places, layout.scalp)
                bad = calm.deviation_uv <= self.config.flat_uv
        return _Trial(
            clip_id=clip.clip_id,
            signal=data,
            seconds=seconds,
            statistics=statistics,
            bad=bad,
            baseline=baseline,
            baseline_seconds=baseline_seconds,
        )

    def _resampled(self, clip: Clip, stream: str, signal: Signal, layout: _Layout) -> tuple[np.ndarray, int]:
        """Gives a recording at the target rate in microvolts, and its whole seconds."""
        if signal.ch_names != layout.ch_names or signal.rate_hz != layout.raw_rate_hz:
            raise DataError(
                f"{clip.clip_id}: {stream} has {len(signal.ch_names)} channels at {signal.rate_hz:g} Hz, the group's "
                f"first recording {len(layout.ch_names)} at {layout.raw_rate_hz:g} Hz, or names differ; "
                "put recordings of other devices into a group of their own"
            )
        seconds = num_seconds(len(signal.data), signal.rate_hz)
        if seconds < 1:
            length = len(signal.data) / signal.rate_hz
            raise DataError(f"{clip.clip_id}: {stream} lasts {length:.2f} s, need 1 s or more; leave the clip out")
        chain = self._chain(signal.rate_hz, clip)
        if chain.outlasts(len(signal.data)):
            _log.warning("%s: %s is shorter than half a filter; raise %s.low_hz", clip.clip_id, stream, KEY)
        data = chain.apply(signal.data)
        return data * np.float32(MICROVOLTS[signal.unit]), seconds

    def _mark_bad(self, trials: Sequence[_Trial], layout: _Layout) -> None:
        rule = channels.BadChannelRule(
            max_z=self.config.bad_z, flat_uv=self.config.flat_uv, min_correlation=self.config.bad_min_correlation
        )
        overall = channels.ChannelStatistics(
            np.median([trial.statistics.deviation_uv for trial in trials], axis=0),
            np.median([trial.statistics.correlation for trial in trials], axis=0),
        )
        for trial in trials:
            judged = overall if self.config.bad_scope == "subject" else trial.statistics
            trial.bad |= channels.find_bad_channels(judged, layout.scalp, rule)
            trial.bad |= trial.statistics.deviation_uv <= self.config.flat_uv
            names = [name for name, bad in zip(layout.ch_names, trial.bad, strict=True) if bad]
            share = trial.bad[layout.scalp].mean()
            if share > self.config.bad_max_share:
                raise DataError(
                    f"{trial.clip_id}: {share:.0%} of the scalp channels are bad ({', '.join(names[:6])}, ...), at "
                    f"most {self.config.bad_max_share:.0%} may be; leave the clip out, or set {KEY}.bad_channels=false"
                )
            if names:
                _log.info("%s: interpolated %s", trial.clip_id, ", ".join(names))

    def _common_matrix(self, trials: Sequence[_Trial], layout: _Layout) -> np.ndarray:
        """What follows interpolation and is the same for all trials: reference and alignment."""
        identity = np.eye(len(layout.ch_names))
        reference = channels.average_reference(layout.scalp) if self.config.reference == "average" else identity
        if self.config.alignment == "none":
            return reference
        covariances = []
        for trial in trials:
            matrix = self._matrix(trial.bad, layout, reference).T.astype(np.float64)
            covariances.append(matrix @ np.cov(trial.signal, rowvar=False, bias=True) @ matrix.T)
        return channels.alignment_matrix(np.stack(covariances), layout.scalp) @ reference

    def _matrix(self, bad: np.ndarray, layout: _Layout, common: np.ndarray) -> np.ndarray:
        """The whole channel matrix, transposed for (time, channel) data, float32."""
        return (common @ channels.interpolation_matrix(layout.places, layout.scalp, bad)).T.astype(np.float32)

    def _scale(self, trials: Sequence[_Trial], layout: _Layout) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
        if self.config.scale == "none":
            return None, None
        centre, deviation = channels.median_and_deviation([trial.signal for trial in trials])
        shared = float(np.median(deviation[layout.scalp] if layout.scalp.any() else deviation))
        shared = shared if shared > 0 else 1.0
        if self.config.scale == "subject":
            return centre, np.full_like(deviation, shared)
        return centre, np.where(deviation > 0, deviation, np.float32(shared))

    def _continuous(
        self, trial: _Trial, layout: _Layout, centre: np.ndarray | None, scale: np.ndarray | None
    ) -> Signal:
        data, unit = trial.signal, "uV" if self.config.alignment == "none" else ""
        if centre is not None and scale is not None:
            data, unit = (data - centre) / scale, ""
            np.clip(data, -self.config.clamp, self.config.clamp, out=data)
        types = ("eeg",) * len(layout.ch_names)
        return Signal(data=data, rate_hz=layout.rate_hz, ch_names=layout.ch_names, ch_types=types, unit=unit)

    def _features(self, trial: _Trial, layout: _Layout) -> dict[str, Signal]:
        rows = layout.plan.rows(trial.signal, trial.seconds)
        if trial.baseline is not None:
            calm = layout.plan.rows(trial.baseline, trial.baseline_seconds)
            rows = {name: values - calm[name].mean(axis=0) for name, values in rows.items()}
        names = layout.plan.names()
        return {name: Signal(data=rows[name], rate_hz=1.0, ch_names=names[name]) for name in rows}


def _check_level(clip_id: str, deviation_uv: np.ndarray, ch_names: Sequence[str], config: EegConfig) -> None:
    middle = float(np.median(deviation_uv))
    if deviation_uv.max() <= config.flat_uv:
        raise DataError(
            f"{clip_id}: all {len(ch_names)} channels are flat ({ch_names[0]}: {deviation_uv[0]:.3g} uV within a "
            f"second, need more than {KEY}.flat_uv={config.flat_uv:g}); check the unit, or leave the clip out"
        )
    if middle > LARGEST_UV:
        raise DataError(
            f"{clip_id}: the channels deviate by {middle:.3g} uV within a second ({ch_names[0]}: "
            f"{deviation_uv[0]:.3g}), EEG stays below {LARGEST_UV:g}; check the unit, microvolts were read as volts"
        )
