"""All that is found out about the faces of one clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mersuite.clip import Clip, Media
from mersuite.errors import MersuiteError
from mersuite.faces.config import FacesConfig
from mersuite.faces.crops import read_crops
from mersuite.faces.mouths import mouth_motion, opening_motion
from mersuite.faces.roles import Decision, decide
from mersuite.faces.scan import Scan, scan
from mersuite.faces.sound import Voice, voice_of
from mersuite.faces.tracks import Track, choose, link
from mersuite.media.audio import has_audio, read_audio
from mersuite.media.streams import stream_media

VIDEO = "video"
VOICE = "voice.speaker"
_SOUND_HZ = 16000
_KNOWN_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceAnalysis:
    """The people of a clip, and who of them speaks.

    Attributes:
        found: What was seen when.
        num_tracks: Tracks in all scenes, before people were chosen.
        people: One track a person, the larger faces first.
        crops: (person, frame, side, side, 3) uint8, RGB.
        motions: One a person, (frame,) float64; NaN where it is not known.
        voice: None where the clip has no sound.
        decision: Who speaks.
    """

    found: Scan
    num_tracks: int
    people: Sequence[Track]
    crops: np.ndarray
    motions: Sequence[np.ndarray]
    voice: Voice | None
    decision: Decision


def analyse(clip: Clip, config: FacesConfig) -> FaceAnalysis:
    """Finds, follows and cuts out the faces of a clip and tells who speaks.

    The sound is the stream voice.speaker where the clip has it, else that of the video.

    Raises:
        DataError: If video or sound cannot be read; the message begins with the clip's id.
        ConfigError: If the detector cannot be made.
    """
    video = stream_media(clip, VIDEO)
    try:
        found = scan(video, clip.clip_id, config)
        tracks = link(found.detections, found.times_s, found.scenes, config)
        people = choose(tracks, config.num_people)
        crops = read_crops(video, found, people, config)
        motions = _motions(people, crops, config)
        sound = _sound(clip, video)
    except MersuiteError as error:
        raise type(error)(f"{clip.clip_id}: {str(error).removeprefix(f'{clip.clip_id}: ')}") from error
    voice = None if sound is None else voice_of(sound, _SOUND_HZ, found.times_s)
    return FaceAnalysis(
        found=found,
        num_tracks=len(tracks),
        people=people,
        crops=crops,
        motions=motions,
        voice=voice,
        decision=_decision(found, motions, voice, config),
    )


def _decision(found: Scan, motions: Sequence[np.ndarray], voice: Voice | None, config: FacesConfig) -> Decision:
    decision = decide(motions, voice, found.times_s, config)
    if not motions and any(found.detections.values()):
        return replace(decision, reason=f"no face was seen for min_track_s={config.min_track_s:g} s")
    return decision


def _motions(people: Sequence[Track], crops: np.ndarray, config: FacesConfig) -> list[np.ndarray]:
    """By the opening of mouths where landmarks tell it in most frames of everybody, else by the pictures.

    Why everybody: the two are in different units, and people are compared.
    """
    openings = [np.where(track.seen, track.opening, np.nan) for track in people]
    shares = [np.isfinite(opening).sum() / track.seen.sum() for opening, track in zip(openings, people, strict=True)]
    if min(shares, default=0.0) >= _KNOWN_SHARE:
        return [opening_motion(opening) for opening in openings]
    return [mouth_motion(faces, track.seen, margin=config.margin) for track, faces in zip(people, crops, strict=True)]


def _sound(clip: Clip, video: Media) -> np.ndarray | None:
    voice = clip.media.get(VOICE)
    source = voice if isinstance(voice, Media) else video
    if source is video and not has_audio(video.path):
        return None
    return read_audio(source.path, rate_hz=_SOUND_HZ, start_s=source.start_s, duration_s=source.duration_s)
