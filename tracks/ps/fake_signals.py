"""Made-up EEG and fNIRS that carry a latent (valence, arousal) and nothing else about the trial.

EEG: oscillations on a carrier. Valence is alpha asymmetry: log-amplitude rises by GAIN a unit of latent on the right
and falls on the left. Arousal is beta log-amplitude over fronto-central channels. fNIRS: HbO and HbR follow the latent
through a haemodynamic response. Carriers have one length for all trials and are cut, so that no statistic of a signal
depends on how long its clip is.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.fft
import scipy.signal
from scipy.special import gamma

from tracks.ps.layout import EEG_CH_NAMES, NUM_FNIRS_CHANNELS

GAIN = 0.4
"""Log-amplitude per standard deviation of the latent; the latent is held within +-3 of it."""
FNIRS_RATE_HZ = 1000.0 / 21.0
EEG_STEP_V = 2.0**-25
"""Amplifier step, 29.8 nV. Why a power of two: doubles then end in zeros, which compress fast, as integers would."""
HB_STEP = 2.0**-18
ALPHA_PAIRS = (("F3", "F4"), ("F5", "F6"), ("F7", "F8"), ("FC3", "FC4"), ("C3", "C4"), ("P3", "P4"))
BETA_CHANNELS = ("FZ", "F1", "F2", "FCZ", "FC1", "FC2", "CZ", "C1", "C2")
VALENCE_OPTODES = range(17)
AROUSAL_OPTODES = range(17, 34)
CARRIER_V = 10e-6
_ALPHA_V, _BETA_V = 10e-6, 9e-6
_BAND_HZ = (1.0, 50.0)
_EXTINCTION = np.array([[0.74, 1.10], [0.84, 0.84], [1.06, 0.78]])
"""HbO and HbR per wavelength (780, 805, 830 nm), relative: 805 nm is where both absorb alike."""
_HB_UNIT = 0.05


class Carrier(Protocol):
    """Gives background activity, stationary and independent of everything else."""

    def eeg(self, rng: np.random.Generator, num: int, rate_hz: float) -> np.ndarray:
        """(64, num) float32, volts, about CARRIER_V of standard deviation."""

    def haemoglobin(self, rng: np.random.Generator, num: int) -> np.ndarray:
        """(2, 51, num) float32 at FNIRS_RATE_HZ: HbO and HbR, about 1 unit of standard deviation for HbO."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """What stays the same over all trials of a subject.

    Attributes:
        eeg_gain: (64, 1) factor of each channel.
        alpha_hz: Frequency of the alpha rhythm.
        beta_hz: Frequency of the beta rhythm.
        fnirs_gain: (51,) factor of each channel.
        kept: (51,) bool, the reservations; a channel that is not kept is loud and carries nothing.
    """

    eeg_gain: np.ndarray
    alpha_hz: float
    beta_hz: float
    fnirs_gain: np.ndarray
    kept: np.ndarray


def draw_person(rng: np.random.Generator) -> Person:
    """Draws what makes one subject's signals differ from another's: mild gains, rhythms, bad optodes."""
    return Person(
        eeg_gain=np.exp(0.12 * rng.standard_normal((len(EEG_CH_NAMES), 1))).astype(np.float32),
        alpha_hz=float(rng.uniform(9.5, 11.5)),
        beta_hz=float(rng.uniform(19.0, 24.0)),
        fnirs_gain=np.exp(0.12 * rng.standard_normal(NUM_FNIRS_CHANNELS)),
        kept=rng.random(NUM_FNIRS_CHANNELS) > 0.06,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PinkCarrier:
    """Synthetic background: 1/f noise, correlated between neighbours, cut from stretches of one length.

    Attributes:
        max_s: The longest signal that will be asked for, in seconds.
    """

    max_s: float

    def eeg(self, rng: np.random.Generator, num: int, rate_hz: float) -> np.ndarray:
        """See Carrier."""
        total = scipy.fft.next_fast_len(int((self.max_s + 1) * rate_hz), real=True)
        frequencies = np.fft.rfftfreq(total, 1 / rate_hz)
        band = np.flatnonzero((frequencies >= _BAND_HZ[0]) & (frequencies <= min(_BAND_HZ[1], 0.45 * rate_hz)))
        power = frequencies[band] ** -1.5
        sources = rng.standard_normal((2, len(EEG_CH_NAMES), band.size), dtype=np.float32)
        spectrum = np.zeros((len(EEG_CH_NAMES), total // 2 + 1), np.complex64)
        scale = (CARRIER_V * total / 2 * np.sqrt(power / power.sum())).astype(np.float32)
        spectrum[:, band] = (_spatial_mixing() @ (sources[0] + 1j * sources[1])) * scale
        return scipy.fft.irfft(spectrum, total, axis=1)[:, :num]

    def haemoglobin(self, rng: np.random.Generator, num: int) -> np.ndarray:
        """See Carrier."""
        time_s = np.arange(num) / FNIRS_RATE_HZ
        out = np.empty((2, NUM_FNIRS_CHANNELS, num), np.float32)
        shared = _drift(rng, 1, time_s)[0] * 0.5
        for low, high, size in ((0.08, 0.12, 0.3), (0.2, 0.3, 0.15), (0.9, 1.4, 0.5)):  # Mayer waves, breath, heart
            shared = shared + size * np.sin(2 * np.pi * rng.uniform(low, high) * time_s + rng.uniform(0, 2 * np.pi))
        for index, share in enumerate((1.0, -0.3)):
            own = _drift(rng, NUM_FNIRS_CHANNELS, time_s) * 0.6
            white = rng.standard_normal((NUM_FNIRS_CHANNELS, num), dtype=np.float32) * 0.3
            out[index] = share * shared + abs(share) * (own + white)
        return out


def make_eeg(
    latent: np.ndarray | None,
    length_s: float,
    rate_hz: float,
    person: Person,
    carrier: Carrier,
    rng: np.random.Generator,
) -> np.ndarray:
    """Makes one EEG recording.

    Args:
        latent: (history + second, 2) of unit variance: valence, arousal; None for a baseline, where both are 0.
        length_s: Seconds.
        rate_hz: Sampling rate.
        person: The subject.
        carrier: Where the background comes from.
        rng: Source of randomness.

    Returns:
        (64, time) float64 in volts, multiples of EEG_STEP_V.
    """
    num = int(length_s * rate_hz)
    time_s = np.arange(num) / rate_hz
    valence, arousal = np.zeros((2, num)) if latent is None else _at(latent, length_s, time_s)
    data = carrier.eeg(rng, num, rate_hz) + 0.5e-6 * rng.standard_normal((len(EEG_CH_NAMES), num), dtype=np.float32)
    place = {name: index for index, name in enumerate(EEG_CH_NAMES)}
    right, left, beta = (np.exp(GAIN * level) for level in (valence, -valence, arousal))
    for pair in ALPHA_PAIRS:
        for name, envelope in zip(pair, (left, right), strict=True):
            data[place[name]] += _ALPHA_V * envelope * _oscillation(rng, person.alpha_hz, time_s)
    for name in BETA_CHANNELS:
        data[place[name]] += _BETA_V * beta * _oscillation(rng, person.beta_hz, time_s)
    data += _blinks(rng, time_s)
    data *= person.eeg_gain
    data += 0.3e-6 * np.sin(2 * np.pi * 50.0 * time_s + rng.uniform(0, 2 * np.pi)).astype(np.float32)
    return np.rint(data / EEG_STEP_V).astype(np.float64) * EEG_STEP_V


def make_fnirs(
    latent: np.ndarray | None, length_s: float, person: Person, carrier: Carrier, rng: np.random.Generator
) -> np.ndarray:
    """Makes one fNIRS recording: (6, 51, time) float64 at 1000/21 Hz, arguments as for make_eeg."""
    num = int(length_s * FNIRS_RATE_HZ)
    time_s = np.arange(num) / FNIRS_RATE_HZ
    hb = carrier.haemoglobin(rng, num).astype(np.float64)
    if latent is not None:
        response = _haemodynamic_response()
        before_s = np.arange(-response.size + 1, 0) / FNIRS_RATE_HZ
        levels = _at(latent, length_s, np.concatenate([before_s, time_s]))
        for level, channels in zip(levels, (VALENCE_OPTODES, AROUSAL_OPTODES), strict=True):
            course = scipy.signal.fftconvolve(level, response, mode="valid")
            kept = [channel for channel in channels if person.kept[channel]]
            hb[0, kept] += 1.5 * course
            hb[1, kept] -= 0.5 * course
    hb[:, ~person.kept] += 5.0 * rng.standard_normal((2, int((~person.kept).sum()), num))
    hb *= _HB_UNIT * person.fnirs_gain[:, None]
    absorbance = np.einsum("wk,kct->wct", _EXTINCTION, hb)
    stacked = np.concatenate([hb, hb.sum(axis=0, keepdims=True), absorbance])
    return np.rint(stacked / HB_STEP) * HB_STEP


def _at(latent: np.ndarray, length_s: float, time_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The latent at times since the trial's start, between the middles of its seconds, held within +-3."""
    middles = np.arange(len(latent)) + 0.5 + length_s - len(latent)
    valence, arousal = (np.interp(time_s, middles, np.clip(column, -3, 3)) for column in latent.T)
    return valence, arousal


def _oscillation(rng: np.random.Generator, frequency_hz: float, time_s: np.ndarray) -> np.ndarray:
    """A rhythm of constant amplitude whose phase wanders: within +-0.3 Hz of its frequency."""
    phases = rng.uniform(0, 2 * np.pi, 3)
    wander = 0.7 * np.sin(2 * np.pi * 0.23 * time_s + phases[1]) + 0.3 * np.sin(2 * np.pi * 0.41 * time_s + phases[2])
    return np.sin(2 * np.pi * frequency_hz * time_s + phases[0] + wander).astype(np.float32)


def _blinks(rng: np.random.Generator, time_s: np.ndarray) -> np.ndarray:
    """(64, time): a bump of 45 uV every 5 s on average, strongest at the forehead."""
    weights = {"FP": 1.0, "AF": 0.6, "F": 0.25}
    column = np.array([[weights.get(_row_of(name), 0.0)] for name in EEG_CH_NAMES], np.float32)
    first_s, last_s = -1.0, float(time_s[-1]) + 1.0
    course = np.zeros(time_s.size, np.float32)
    for middle_s in rng.uniform(first_s, last_s, rng.poisson((last_s - first_s) / 5)):
        course += np.exp(-0.5 * ((time_s - middle_s) / 0.08) ** 2).astype(np.float32)
    return 45e-6 * column * course


def _drift(rng: np.random.Generator, num_channels: int, time_s: np.ndarray) -> np.ndarray:
    """(channel, time): a sum of slow waves of 15 to 200 s, unit variance over draws, the same law at every length."""
    out = np.zeros((num_channels, time_s.size), np.float32)
    for period_s in (17.0, 41.0, 97.0, 193.0):
        size = rng.standard_normal((2, num_channels, 1)) / 2
        angle = 2 * np.pi * time_s / period_s
        out += (size[0] * np.sin(angle) + size[1] * np.cos(angle)).astype(np.float32)
    return out


@functools.lru_cache(maxsize=1)
def _haemodynamic_response() -> np.ndarray:
    """Double-gamma response sampled at the fNIRS rate, sum 1; peak near 5 s, undershoot near 15 s.

    Source: Glover (1999), NeuroImage 9(4), 416-429, in the parameters of common fMRI packages (6, 16, ratio 1/6).
    """
    time_s = np.arange(int(20 * FNIRS_RATE_HZ)) / FNIRS_RATE_HZ
    response = time_s**5 * np.exp(-time_s) / gamma(6) - time_s**15 * np.exp(-time_s) / gamma(16) / 6
    return response / response.sum()


@functools.lru_cache(maxsize=1)
def _spatial_mixing() -> np.ndarray:
    """(64, 64) float32 from independent sources to channels, rows of unit length: neighbours share activity."""
    places = np.array([_place_of(name) for name in EEG_CH_NAMES])
    distance = np.linalg.norm(places[:, None] - places, axis=2)
    mixing = np.exp(-0.5 * (distance / 1.2) ** 2)
    return (mixing / np.linalg.norm(mixing, axis=1, keepdims=True)).astype(np.float32)


# fmt: off
_ROWS: Mapping[str, float] = {
    "FP": 0, "AF": 1, "F": 2, "FC": 3, "FT": 3, "C": 4, "T": 4, "M": 4.5, "CP": 5, "TP": 5,
    "P": 6, "PO": 7, "O": 8, "CB": 8,
}
# fmt: on


def _row_of(name: str) -> str:
    return re.sub(r"(\d+|Z)$", "", name)


def _place_of(name: str) -> tuple[float, float]:
    """Flat place of a channel in steps of the 10-10 grid: left to right, front to back."""
    number = name.removeprefix(_row_of(name))
    row = _row_of(name)
    side = 0.0 if number == "Z" else (int(number) + 1) // 2 * (-1.0 if int(number) % 2 else 1.0)
    if row in ("M", "CB"):
        side *= 5.5 if row == "M" else 3.0
    return side, _ROWS[row]
