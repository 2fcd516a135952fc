"""The files of made-up clips: which there are, and what is in each.

video/<name>.mp4, audio/<name>.wav (16 kHz)         pictures and the same sound beside them
openface_face/<name>/<name>.npy                     the speaker's face, (frame, 112, 112, 3) uint8, blue, green, red
face_listener/<name>/<name>.npy                     the listener's face; candidates only
features/<model>-UTT|-FRA/<name>.npy                see `mersuite.data.fake_features`
subtitle_chieng.csv, track1_train.csv, track1_track2_candidate.csv, track1_label_6way.npz      as the organisers'
track1_test.csv                                     the truth of the candidates, which only made-up data has
dialogue.csv                                        see `mersuite.data.fake_dialogue`
"""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from mersuite.data import fake_dialogue, fake_faces, fake_features, fake_files, fake_movies, fake_voices
from mersuite.data.fake_dialogue import Dialogue
from mersuite.data.fake_faces import Expression
from mersuite.data.fake_voices import VOICE_RATE_HZ, Voice
from mersuite.formats.safe_npz import write_label_npz

if TYPE_CHECKING:
    from mersuite.data.fake_clips import ClipsConfig, FakeClip, FakeClips, Part

Writer = Callable[[IO[bytes]], object]
"""Writes one file to a stream."""
CHANNEL_ORDER = "bgr"
"""Of the face arrays, as OpenCV writes them; video files have no such order."""
PLACEHOLDER = "neutral"
"""What the organisers' label file says of every candidate, whose truth it does not know."""


def write_missing(out: Path, files: Mapping[str, Writer]) -> None:
    """Writes the files that are not there; each gets its name when it is whole.

    Args:
        out: Folder.
        files: Path in the folder to what writes the file.
    """
    for path, write in files.items():
        if not (out / path).is_file():
            with fake_files.whole_file(out / path) as stream:
                write(stream)


def clip_files(config: ClipsConfig, clip: FakeClip) -> dict[str, Writer]:
    """Gives the files of one clip. What they hold is made when the first of them is written."""
    media, name = _Media(config, clip), clip.name
    files: dict[str, Writer] = {
        f"video/{name}.mp4": lambda stream: fake_movies.write_mp4(
            stream, media.scene(), config.rate_hz, media.voice.samples, VOICE_RATE_HZ
        ),
        f"audio/{name}.wav": lambda stream: fake_movies.write_wav(stream, media.voice.samples, VOICE_RATE_HZ),
        f"openface_face/{name}/{name}.npy": lambda stream: np.save(stream, media.crop(clip.speaker)),
        f"features/made-up-audio-UTT/{name}.npy": lambda stream: np.save(
            stream,
            fake_features.audio_feature(clip.voice, clip.speaker.person.person_id, config.seed, media.source("audio")),
        ),
        f"features/made-up-text-UTT/{name}.npy": lambda stream: np.save(
            stream, fake_features.text_feature(clip.sentence, config.seed)
        ),
        **media.video_feature_files("made-up-video", clip.speaker, "speaker features"),
    }
    if (listener := clip.listener) is not None:
        files[f"face_listener/{name}/{name}.npy"] = lambda stream: np.save(stream, media.crop(listener))
        files |= media.video_feature_files("made-up-video-listener", listener, "listener features")
    return files


def table_files(drawn: FakeClips, dialogues: Sequence[Dialogue]) -> dict[str, Writer]:
    """Gives the tables and the README."""
    subtitles = [
        (clip.name, clip.sentence.chinese, clip.sentence.english if clip.has_english else "") for clip in drawn.clips
    ]
    candidates = [(clip.name,) for clip in drawn.candidates]
    label_header = ("name", "discrete")
    corpora = {
        "train_corpus": {clip.name: {"emo": clip.target} for clip in drawn.train},
        "test1_corpus": {clip.name: {"emo": PLACEHOLDER} for clip in drawn.candidates},
    }
    return {
        "subtitle_chieng.csv": _table(("name", "chinese", "english"), subtitles),
        "track1_train.csv": _table(label_header, [(clip.name, clip.target) for clip in drawn.train]),
        "track1_track2_candidate.csv": _table(("name",), candidates),
        "track1_test.csv": _table(label_header, [(clip.name, clip.target) for clip in drawn.candidates]),
        "dialogue.csv": _table(fake_dialogue.DIALOGUE_COLUMNS, fake_dialogue.rows(dialogues)),
        "track1_label_6way.npz": lambda stream: stream.write(_label_file(corpora)),
        "README.md": lambda stream: stream.write(_README.encode()),
    }


def _label_file(corpora: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.npz"
        write_label_npz(path, corpora)
        return path.read_bytes()


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Writer:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return lambda stream: stream.write(text.getvalue().encode())


class _Media:
    """What is to be seen and heard in one clip.

    Each thing has its own source of randomness, so that it does not depend on what was made before.
    """

    _THINGS = ("voice", "speaker", "listener", "scene", "audio", "speaker features", "listener features")

    def __init__(self, config: ClipsConfig, clip: FakeClip) -> None:
        self._config, self._clip = config, clip

    def source(self, thing: str) -> np.random.Generator:
        """The source of randomness of a thing."""
        return np.random.default_rng([self._config.seed, 3, self._clip.index, self._THINGS.index(thing)])

    @cached_property
    def voice(self) -> Voice:
        """The speaker's voice, as long as the pictures."""
        num_samples = round(self._clip.num_frames * VOICE_RATE_HZ / self._config.rate_hz)
        cues = fake_voices.voice_cues(self._clip.voice)
        return fake_voices.make_voice(cues, self._clip.speaker.person.tract, num_samples, self.source("voice"))

    def expression(self, part: Part) -> Expression:
        """What a face does; only the speaker's mouth opens."""
        speaks = part is self._clip.speaker
        num_frames = self._clip.num_frames
        opening = fake_voices.mean_over_frames(self.voice.opening, num_frames) if speaks else None
        source = self.source("speaker" if speaks else "listener")
        return fake_faces.express(part.face, opening, num_frames, self._config.rate_hz, source)

    def crop(self, part: Part) -> np.ndarray:
        """One face alone: (frame, 112, 112, 3) uint8, blue, green, red."""
        return np.ascontiguousarray(fake_faces.draw_crop(part.person.look, self.expression(part))[..., ::-1])

    def scene(self) -> np.ndarray:
        """The pictures of the video: (frame, height, width, 3) uint8, red, green, blue."""
        clip = self._clip
        parts = [clip.speaker] if clip.listener is None else [clip.speaker, clip.listener]
        people = [(part.person.look, self.expression(part)) for part in parts]
        ordered = people if clip.speaker_is_left else people[::-1]
        return fake_faces.draw_scene(ordered, self._config.height, self._config.width, self.source("scene"))

    def video_feature_files(self, model: str, part: Part, thing: str) -> dict[str, Writer]:
        """The two feature files of one face: one row a picture, and the mean over time."""

        def rows() -> np.ndarray:
            person, num_frames = part.person.person_id, self._clip.num_frames
            return fake_features.video_features(part.face, person, num_frames, self._config.seed, self.source(thing))

        name = self._clip.name
        return {
            f"features/{model}-FRA/{name}.npy": lambda stream: np.save(stream, rows()),
            f"features/{model}-UTT/{name}.npy": lambda stream: np.save(stream, rows().mean(axis=0)),
        }


_README = """# Made-up clips in the layout of MER2026

Nobody was recorded for this folder and nobody is shown in it: `mersuite fake` drew the faces, made the voices and put
the sentences together. Emotions show by a known law with the options in clips.json; bayes.json holds what is optimal.
Candidates show two people: the speaker, whose voice, words and face in openface_face they are, and the silent listener,
whose emotion is asked for. Face arrays hold blue, green, red. track1_test.csv is the truth, which real data does not
come with; track1_label_6way.npz says "neutral" of every candidate, as the organisers' file does, and that is no truth.
Never report scores on this data as results.
"""
