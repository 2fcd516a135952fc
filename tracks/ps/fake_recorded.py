"""Real recordings as carrier of the made-up effect: random stretches of them, turned in phase, at plausible size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import scipy.fft

from mersuite.clip import Media
from mersuite.errors import DataError
from mersuite.media.physio import open_raw
from tracks.ps.fake_signals import CARRIER_V, FNIRS_RATE_HZ, Carrier
from tracks.ps.layout import EEG_CH_NAMES, NUM_FNIRS_CHANNELS

if TYPE_CHECKING:
    import mne

SUFFIXES = (".set", ".edf", ".bdf", ".gdf", ".vhdr", ".fif", ".snirf", ".cnt", ".mff", ".nxe", ".egi", ".hdr", ".xdf")
_MIN_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCarrier:
    """Background taken from recordings; a modality that no recording has comes from the synthetic carrier.

    Attributes:
        eeg_pool: Recordings as analytic signals (64, time) complex64, volts, at `rate_hz`.
        hb_pool: Recordings as analytic signals (2, 51, time) complex64, unit size, at 1000/21 Hz.
        rate_hz: Rate of the EEG pool.
        synthetic: Stands in for what is missing.
    """

    eeg_pool: tuple[np.ndarray, ...]
    hb_pool: tuple[np.ndarray, ...]
    rate_hz: float
    synthetic: Carrier

    def eeg(self, rng: np.random.Generator, num: int, rate_hz: float) -> np.ndarray:
        """See fake_signals.Carrier."""
        if not self.eeg_pool:
            return self.synthetic.eeg(rng, num, rate_hz)
        return _stretch(self.eeg_pool[rng.integers(len(self.eeg_pool))], num, rng)

    def haemoglobin(self, rng: np.random.Generator, num: int) -> np.ndarray:
        """See fake_signals.Carrier."""
        if not self.hb_pool:
            return self.synthetic.haemoglobin(rng, num)
        return _stretch(self.hb_pool[rng.integers(len(self.hb_pool))], num, rng)


def read_carrier(folder: Path, rate_hz: float, synthetic: Carrier) -> RecordedCarrier:
    """Reads all recordings of a folder, resampled and mapped to the 64 and 51 channels of MER-PS.

    EEG is band-passed to 1-50 Hz and each channel scaled to the same size; channels that the recording lacks are
    filled with shifted copies of those it has. Light intensity goes through MNE's optical density and Beer-Lambert.

    Raises:
        DataError: If the folder holds no recording that MNE opens with EEG or fNIRS channels and 10 s or more.
    """
    folder = Path(folder)
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not paths:
        raise DataError(
            f"signals={folder}: no recording; expected a folder with files such as {', '.join(SUFFIXES[:7])}"
        )
    eeg_pool, hb_pool = [], []
    for path in paths:
        raw = open_raw(Media(path=path), preload=True)
        if raw.times[-1] < _MIN_S:
            raise DataError(f"signals={folder}: {path.name} has {raw.times[-1]:.1f} s, need {_MIN_S:g} s or more")
        types = set(raw.get_channel_types())
        if "eeg" in types:
            eeg = raw.copy().pick("eeg")
            eeg_pool.append(_eeg_source(eeg.get_data(), float(eeg.info["sfreq"]), eeg.ch_names, rate_hz))
        if types & {"fnirs_cw_amplitude", "fnirs_od", "hbo"}:
            hb_pool.append(_hb_source(raw))
    if not eeg_pool and not hb_pool:
        names = ", ".join(path.name for path in paths)
        raise DataError(f"signals={folder}: no EEG or fNIRS channel in {names}")
    return RecordedCarrier(eeg_pool=tuple(eeg_pool), hb_pool=tuple(hb_pool), rate_hz=rate_hz, synthetic=synthetic)


def _eeg_source(data: np.ndarray, from_hz: float, names: list[str], rate_hz: float) -> np.ndarray:
    analytic = _analytic(data, from_hz, rate_hz, (1.0, min(50.0, 0.45 * from_hz, 0.45 * rate_hz)))
    analytic *= CARRIER_V / analytic.real.std(axis=1, keepdims=True)
    own = {name.strip(".").upper(): index for index, name in enumerate(names)}
    spare = [index for name, index in own.items() if name not in EEG_CH_NAMES] or list(own.values())
    out = np.empty((len(EEG_CH_NAMES), analytic.shape[1]), np.complex64)
    for place, name in enumerate(EEG_CH_NAMES):
        # Why shifted: an exact copy would make two channels equal, which no amplifier gives.
        source = analytic[own[name]] if name in own else np.roll(analytic[spare[place % len(spare)]], (place + 1) * 997)
        out[place] = source
    return out


def _hb_source(raw: mne.io.BaseRaw) -> np.ndarray:
    import mne

    types = set(raw.get_channel_types())
    if "fnirs_cw_amplitude" in types:
        raw = mne.preprocessing.nirs.optical_density(raw, verbose="ERROR")
        types = {"fnirs_od"}
    if "fnirs_od" in types:
        raw = mne.preprocessing.nirs.beer_lambert_law(raw, ppf=6.0)
    from_hz = float(raw.info["sfreq"])
    top_hz = min(2.0, 0.45 * from_hz)
    kinds = [_analytic(raw.get_data(kind), from_hz, FNIRS_RATE_HZ, (0.005, top_hz)) for kind in ("hbo", "hbr")]
    size = float(np.median(kinds[0].real.std(axis=1)))
    channels = np.arange(NUM_FNIRS_CHANNELS)
    tiled = [kind[channels % len(kind)] / size for kind in kinds]
    shifts = (channels // len(kinds[0])) * 997
    return np.stack(
        [np.stack([np.roll(row, shift) for row, shift in zip(kind, shifts, strict=True)]) for kind in tiled]
    )


def _analytic(data: np.ndarray, from_hz: float, rate_hz: float, band_hz: tuple[float, float]) -> np.ndarray:
    """Band-passed, resampled analytic signals (channel, time) complex64, in one pass through the spectrum."""
    num = data.shape[1]
    total = int(num * rate_hz / from_hz)
    spectrum = scipy.fft.rfft(data, axis=1)
    frequencies = np.fft.rfftfreq(num, 1 / from_hz)
    keep = np.flatnonzero((frequencies >= band_hz[0]) & (frequencies <= band_hz[1]))
    full = np.zeros((len(data), total), np.complex64)
    full[:, keep] = 2.0 * (total / num) * spectrum[:, keep]
    analytic = scipy.fft.ifft(full, axis=1)
    if not np.isfinite(analytic).all() or not (analytic.real.std(axis=1) > 0).all():
        raise DataError("signals: a recording holds NaN or a flat channel; take it out of the folder")
    return analytic


def _stretch(source: np.ndarray, num: int, rng: np.random.Generator) -> np.ndarray:
    """A stretch from a random place, wrapped around the end and turned by one random phase for all channels."""
    start = int(rng.integers(source.shape[-1]))
    picked = np.take(source, np.arange(start, start + num), axis=-1, mode="wrap")
    return (picked * np.complex64(np.exp(1j * rng.uniform(0, 2 * np.pi)))).real
