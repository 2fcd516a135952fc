"""Who speaks: agreement of each mouth's motion with the sound, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d, maximum_filter1d

from mersuite.faces.config import FacesConfig
from mersuite.faces.sound import Voice

_SMOOTH_S = 0.05
_MIN_SHIFTS = 8
_STILL = 0.25
"""A mouth that moves by less than this share of the liveliest one is taken for still: its agreement shrinks."""
_NOISE = 0.012
"""Standard deviation of a mouth's motion that noise and compression reach without any, in units of contrast; jitter of
landmarks stays below it, too, in shares of the box's side."""
_CLEAR_LEAD = 0.25
"""A lead over the next person of less than this share of the best agreement limits the confidence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Who speaks, and how sure that is.

    Attributes:
        speaker: Index of the person who speaks; None where nobody is there, or the only one there seems to listen.
        listener: Index of the person who listens; None where there is none.
        agreements: One a person: the largest correlation of mouth and voice within max_lag_s, -1..1; NaN where nothing
            can be measured.
        confidence: 0..1; see `decide`.
        uncertain: The confidence is below min_confidence.
        reason: In words.
    """

    speaker: int | None
    listener: int | None
    agreements: tuple[float, ...]
    confidence: float
    uncertain: bool
    reason: str


def decide(motions: Sequence[np.ndarray], voice: Voice | None, times_s: np.ndarray, config: FacesConfig) -> Decision:
    """Tells speaker and listener apart: the person whose mouth agrees better with the voice speaks.

    The confidence is at most one minus each of two chances, measured with the voice shifted in a circle by all lags
    of at least min_shift_s: that the best of the people agrees as well with a shifted voice, and that the margin
    between the two best is as large in either direction. Where mouths and voice have nothing to do with each
    other every shift is as likely as none, so a confidence above c comes up in at most a share 1 - c of such clips. It
    is at most four times the margin as a share of the best agreement, too: mouths that move alike cannot be told apart.
    With one person the first chance alone counts, and below min_confidence the person is taken for the listener.

    Source: circular-shift surrogates as in Theiler et al., "Testing for nonlinearity in time series", Physica D 1992.

    Args:
        motions: One a person, (frame,) float64, NaN where it is not known; the larger faces first.
        voice: None where the clip has no sound.
        times_s: (frame,) float64, seconds.
        config: Its max_lag_s, min_shift_s, min_confidence.
    """
    if not motions:
        return Decision(
            speaker=None, listener=None, agreements=(), confidence=0.0, uncertain=True, reason="no face was found"
        )
    if voice is None or voice.is_silent:
        return _blind(motions, "the clip has no sound" if voice is None else "no voice in the sound")
    step_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else np.inf
    shifts = _far_shifts(len(times_s), step_s, config.min_shift_s)
    if len(shifts) < _MIN_SHIFTS:
        return _blind(motions, f"too short to tell ({len(times_s)} frames)")
    if not all(np.isfinite(motion).sum() >= _MIN_SHIFTS for motion in motions):
        return _blind(motions, "a face is seen in too few frames")
    if max(float(np.nanstd(motion)) for motion in motions) < _NOISE:
        return _blind(motions, "no mouth moves")
    curves = _agreements(motions, voice.drive, step_s, config.max_lag_s)
    agreements = curves[:, 0]
    order = np.argsort(-agreements, kind="stable")
    best = _chance(curves.max(0), shifts, (len(shifts) * step_s) / (2 * config.max_lag_s + step_s))
    if len(motions) == 1:
        return _alone(float(agreements[0]), 1 - best, config.min_confidence)
    leads = _leads(curves)
    margin = _rank(leads, shifts)
    share = leads[0] / max(agreements[order[0]], 1e-9)
    confidence = float(np.clip(min(1 - best, 1 - margin, share / _CLEAR_LEAD), 0, 1))
    speaker = int(order[0])
    return Decision(
        speaker=speaker,
        listener=next(index for index in range(len(motions)) if index != speaker),
        agreements=tuple(agreements.tolist()),
        confidence=confidence,
        uncertain=confidence < config.min_confidence,
        reason=_reason(1 - best, confidence, config.min_confidence),
    )


def _far_shifts(num_frames: int, step_s: float, min_shift_s: float) -> np.ndarray:
    shifts = np.arange(num_frames)
    return shifts[np.minimum(shifts, num_frames - shifts) * step_s >= min_shift_s]


def _agreements(motions: Sequence[np.ndarray], drive: np.ndarray, step_s: float, max_lag_s: float) -> np.ndarray:
    """For each person and circular shift of the voice the largest correlation within max_lag_s of it, (person, frame).

    Why not correlation alone: a still mouth has one too, with whatever the picture's compression does in step with the
    other's mouth. So the deviation that it is divided by is never less than a share of the liveliest mouth's. That of
    the voice is taken where the mouth is known, and is never less than over the whole clip: else a face that is seen
    only in a pause would agree with next to nothing.
    """
    sound = gaussian_filter1d(drive, _SMOOTH_S / step_s, mode="nearest")
    sound = sound - sound.mean()
    known = np.isfinite(np.array(motions))
    mouths = np.array([_prepared(motion, step_s) for motion in motions])
    spreads = np.sqrt((mouths**2).sum(1) / known.sum(1))
    spreads = np.hypot(spreads, _STILL * spreads.max()) / np.hypot(1, _STILL * (len(motions) > 1))
    energies = np.maximum(_circular(known.astype(float), sound**2), known.mean(1, keepdims=True) * np.sum(sound**2))
    scales = (spreads * np.sqrt(known.sum(1)))[:, None] * np.sqrt(energies)
    correlations = _circular(mouths, sound) / np.maximum(scales, 1e-12)
    num_lags = int(max_lag_s / step_s + 1e-6)
    return maximum_filter1d(correlations, 2 * num_lags + 1, axis=1, mode="wrap")


def _circular(rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sums of products of each row with the values that lie k frames later, for each k, (row, frame)."""
    return np.fft.irfft(np.conj(np.fft.rfft(rows)) * np.fft.rfft(values), len(values))


def _prepared(motion: np.ndarray, step_s: float) -> np.ndarray:
    """Smoothed, with mean 0 where it is known, and 0 elsewhere; single jumps (a blink, a cut) are cut off."""
    known = np.isfinite(motion)
    low, high = np.quantile(motion[known], (0.02, 0.98))
    filled = np.clip(np.where(known, motion, motion[known].mean()), low, high)
    mouth = gaussian_filter1d(filled, _SMOOTH_S / step_s, mode="nearest")
    return np.where(known, mouth - mouth[known].mean(), 0.0)


def _rank(curve: np.ndarray, shifts: np.ndarray) -> float:
    """How often a shifted voice gives at least what the voice as it is gives; the latter counts once, too."""
    return float(np.mean(np.append(curve[shifts] >= curve[0], True)))


def _chance(curve: np.ndarray, shifts: np.ndarray, num_independent: float) -> float:
    """The chance of the value at shift 0 if it were as those of the shifts.

    Why not the rank alone: agreements of neighbouring shifts are alike, so a short clip holds only a handful of
    independent ones, and that the first of eight is the largest is no rare thing. The tail of Student's t for one more
    draw, with as many draws as are independent, is not fooled by that; the larger of both counts.
    """
    from scipy.stats import t

    num_draws = max(2.0, num_independent)
    spread = float(np.std(curve[shifts])) * np.sqrt(num_draws / (num_draws - 1)) * np.sqrt(1 + 1 / num_draws)
    above = (curve[0] - float(np.mean(curve[shifts]))) / max(spread, 1e-9)
    return max(_rank(curve, shifts), float(t.sf(above, num_draws - 1)))


def _leads(curves: np.ndarray) -> np.ndarray:
    """How much the best person leads the next, for each shift, (frame,)."""
    ordered = np.sort(curves, axis=0)
    return ordered[-1] - ordered[-2]


def _blind(motions: Sequence[np.ndarray], reason: str) -> Decision:
    """Nothing can be compared: who moves the mouth most is said to speak, with confidence 0."""
    means = [float(np.nanmean(motion)) if np.isfinite(motion).any() else -np.inf for motion in motions]
    agreements = (float("nan"),) * len(motions)
    if len(motions) == 1:
        text = f"{reason}; one face, taken for the listener"
        return Decision(speaker=None, listener=0, agreements=agreements, confidence=0.0, uncertain=True, reason=text)
    speaker = int(np.argmax(means))
    listener = next(index for index in range(len(motions)) if index != speaker)
    text = f"{reason}; who moves the mouth most is taken for the speaker"
    return Decision(
        speaker=speaker, listener=listener, agreements=agreements, confidence=0.0, uncertain=True, reason=text
    )


def _alone(agreement: float, confidence: float, min_confidence: float) -> Decision:
    speaks = confidence >= min_confidence
    text = "one face only: its mouth agrees with the voice, so it speaks"
    if not speaks:
        text = "one face only, and its mouth does not clearly agree with the voice: taken for the listener"
    return Decision(
        speaker=0 if speaks else None,
        listener=None if speaks else 0,
        agreements=(agreement,),
        confidence=confidence,
        uncertain=not speaks,
        reason=text,
    )


def _reason(best: float, confidence: float, min_confidence: float) -> str:
    if confidence >= min_confidence:
        return "one mouth agrees with the voice, and clearly better than the others"
    if best < min_confidence:
        return "no mouth clearly agrees with the voice better than with a shifted one"
    return "no mouth clearly agrees with the voice better than the others"
