"""The listener's emotion in a dyad, one of six, from faces, voice and words (MER-Cross)."""

from tracks.cross.track import CrossTrack as Track

__all__ = ["Track"]
