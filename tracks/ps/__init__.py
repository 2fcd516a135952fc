"""Valence and arousal each second from EEG and fNIRS (MER-PS)."""

from tracks.ps.track import PsTrack as Track

__all__ = ["Track"]
