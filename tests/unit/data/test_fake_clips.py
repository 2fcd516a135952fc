"""Made-up clips: every file of the layout, the same bytes again, and what is missing is completed."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import shutil
import sys
import wave
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mersuite.data import fake_clip_files, fake_clips, fake_emotions, fake_movies
from mersuite.data.fake_clips import ClipsConfig, FakeClip, FakeClips, draw_clips, write_clips
from mersuite.data.fake_emotions import EMOTIONS
from mersuite.data.fake_features import FEATURE_WIDTHS
from mersuite.errors import ConfigError, DataError
from mersuite.formats.safe_npz import read_label_npz
from mersuite.media.audio import read_audio
from mersuite.media.face_arrays import read_faces
from mersuite.media.video import probe, read_frames

CONFIG = ClipsConfig(
    num_clips=18, num_dialogues=5, rate_hz=10.0, min_clip_s=1.2, max_clip_s=1.6, height=72, width=128, snr=4.0
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("clips") / "demo"
    write_clips(CONFIG, out)
    return out


@pytest.fixture(scope="module")
def drawn() -> FakeClips:
    return draw_clips(CONFIG)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# ---- what is written


def test_every_file_of_the_layout_is_there_and_no_other(folder: Path, drawn: FakeClips) -> None:
    expected = {"clips.json", "bayes.json", *fake_clip_files.table_files(drawn, [])}
    for clip in drawn.clips:
        name = clip.name
        expected |= {f"video/{name}.mp4", f"audio/{name}.wav", f"openface_face/{name}/{name}.npy"}
        expected |= {f"features/{model}/{name}.npy" for model in FEATURE_WIDTHS if "listener" not in model}
        if clip.is_candidate:
            expected |= {f"features/{model}/{name}.npy" for model in FEATURE_WIDTHS if "listener" in model}
            expected.add(f"face_listener/{name}/{name}.npy")
    assert set(digests(folder)) == expected


def test_summary_counts_what_is_there(folder: Path, drawn: FakeClips) -> None:
    summary = write_clips(CONFIG, folder)
    assert (summary["num_train"], summary["num_candidates"], summary["num_dialogues"]) == (12, 6, 5)
    assert summary["num_seconds"] == pytest.approx(sum(clip.num_frames for clip in drawn.clips) / 10)
    assert summary["size_bytes"] == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    scores = json.loads((folder / "bayes.json").read_text())
    assert summary["bayes"]["own_all"] == pytest.approx(scores["own_all"]["waf"], abs=5e-4)


def test_tables_say_what_was_drawn(folder: Path, drawn: FakeClips) -> None:
    train = [(row["name"], row["discrete"]) for row in rows_of(folder / "track1_train.csv")]
    truth = [(row["name"], row["discrete"]) for row in rows_of(folder / "track1_test.csv")]
    assert train == [(clip.name, clip.speaker.emotion) for clip in drawn.train]
    assert truth == [(clip.name, clip.listener.emotion) for clip in drawn.candidates if clip.listener]
    assert rows_of(folder / "track1_track2_candidate.csv") == [{"name": name} for name, _ in truth]
    subtitles = {row["name"]: row for row in rows_of(folder / "subtitle_chieng.csv")}
    assert list(subtitles) == [clip.name for clip in drawn.clips]
    for clip in drawn.clips:
        assert subtitles[clip.name]["chinese"] == clip.sentence.chinese
        assert subtitles[clip.name]["english"] == (clip.sentence.english if clip.has_english else "")


def test_label_file_knows_no_truth_of_candidates(folder: Path, drawn: FakeClips) -> None:
    corpora = read_label_npz(folder / "track1_label_6way.npz")
    assert corpora["train_corpus"] == {clip.name: {"emo": clip.target} for clip in drawn.train}
    assert corpora["test1_corpus"] == {clip.name: {"emo": "neutral"} for clip in drawn.candidates}


def test_readme_says_that_nobody_was_recorded(folder: Path) -> None:
    assert "Nobody was recorded" in (folder / "README.md").read_text()


def test_every_video_decodes_to_the_pictures_it_should_have(folder: Path, drawn: FakeClips) -> None:
    for clip in drawn.clips:
        path = folder / "video" / f"{clip.name}.mp4"
        info, frames = probe(path), read_frames(path)
        assert frames.images.shape == (clip.num_frames, 72, 128, 3)
        assert info.rate_hz == pytest.approx(10)
        np.testing.assert_allclose(frames.times_s, np.arange(clip.num_frames) / 10, atol=1e-6)
    media = fake_clip_files._Media(CONFIG, drawn.clips[-1])
    difference = np.abs(read_frames(path).images.astype(float) - media.scene())
    assert difference.mean() < 4  # grey levels: packed, but the same pictures


def test_sound_is_as_long_as_the_pictures_and_the_same_in_both_files(folder: Path, drawn: FakeClips) -> None:
    for clip in drawn.clips:
        with wave.open(str(folder / "audio" / f"{clip.name}.wav")) as sound:
            assert (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) == (16000, 1, 2)
            plain = np.frombuffer(sound.readframes(sound.getnframes()), "<i2") / 32768
        assert plain.size == clip.num_frames * 1600
        packed = read_audio(folder / "video" / f"{clip.name}.mp4")[: plain.size]
        assert abs(packed.size - plain.size) <= 1024  # one block of the packed sound
        assert np.corrcoef(plain[: packed.size], packed)[0, 1] > 0.9  # in step to the sample


def test_face_arrays_hold_blue_green_red(folder: Path, drawn: FakeClips) -> None:
    assert fake_clip_files.CHANNEL_ORDER == "bgr"
    for clip in drawn.clips:
        path = folder / "openface_face" / clip.name / f"{clip.name}.npy"
        faces = np.load(path)
        assert faces.shape == (clip.num_frames, 112, 112, 3)
        assert faces.dtype == np.uint8
        red, _, blue = read_faces(path, channel_order="bgr")[:, 60:80, 30:80].mean(axis=(0, 1, 2))
        assert red > blue + 20  # skin


def test_features_have_their_widths_and_utt_is_the_mean_of_fra(folder: Path, drawn: FakeClips) -> None:
    for clip in drawn.clips:
        for model, width in FEATURE_WIDTHS.items():
            path = folder / "features" / model / f"{clip.name}.npy"
            if not path.exists():
                continue
            values = np.load(path)
            assert values.dtype == np.float32
            assert values.shape == ((clip.num_frames, width) if model.endswith("FRA") else (width,))
            if model.endswith("FRA"):
                utterance = np.load(folder / "features" / model.replace("FRA", "UTT") / path.name)
                np.testing.assert_allclose(values.mean(axis=0), utterance, rtol=1e-5, atol=1e-6)


# ---- the same again, and completed


def test_the_same_options_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_clips(CONFIG, tmp_path / "other")
    assert digests(tmp_path / "other") == digests(folder)


def test_a_second_call_leaves_whole_files_as_they_are(folder: Path) -> None:
    def stamps() -> dict[Path, int]:
        kept = (path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".json",))
        return {path: path.stat().st_mtime_ns for path in kept}

    before = stamps()
    write_clips(CONFIG, folder)
    assert stamps() == before


def test_missing_files_are_written_again_byte_for_byte(folder: Path, drawn: FakeClips, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    name = drawn.candidates[0].name
    lost = ["bayes.json", "track1_label_6way.npz", f"video/{name}.mp4", f"face_listener/{name}/{name}.npy"]
    lost += [f"features/made-up-video-FRA/{drawn.train[0].name}.npy", f"audio/{drawn.train[3].name}.wav"]
    for path in lost:
        (copy / path).unlink()
    write_clips(CONFIG, copy)
    assert digests(copy) == digests(folder)


def test_an_interrupted_call_leaves_no_half_file_and_is_completed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, number = fake_movies.write_mp4, itertools.count()

    def break_off(stream: Any, *rest: Any) -> None:
        if next(number) >= 5:
            stream.write(b"half")
            raise OSError("the machine stops")
        write(stream, *rest)

    monkeypatch.setattr(fake_movies, "write_mp4", break_off)
    with pytest.raises(OSError, match="the machine stops"):
        write_clips(CONFIG, tmp_path / "demo")
    whole = digests(folder)
    left = digests(tmp_path / "demo")
    assert sum(path.endswith(".mp4") for path in left) == 5
    assert left == {path: whole[path] for path in left}
    monkeypatch.undo()
    write_clips(CONFIG, tmp_path / "demo")
    assert digests(tmp_path / "demo") == whole


def test_scores_of_other_tracks_are_kept(folder: Path) -> None:
    fake_clips.add_scores(folder, {"words_of_another_track": {"f1": 0.5}})
    write_clips(CONFIG, folder)
    scores = json.loads((folder / "bayes.json").read_text())
    assert scores.pop("words_of_another_track") == {"f1": 0.5}
    (folder / "bayes.json").write_text(json.dumps(scores, indent=1) + "\n")


def test_other_options_in_the_same_folder_are_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"clips were made with num_clips=18, asked for num_clips=24; repeat with"):
        write_clips(ClipsConfig(num_clips=24), folder)


def test_a_full_disk_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=1000))
    with pytest.raises(DataError, match=r"need about 0\.0 GB, 0\.0 GB are free; make it smaller"):
        write_clips(CONFIG, tmp_path / "demo")
    assert not (tmp_path / "demo").exists()


def test_without_pyav_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r"writing video needs the package 'av'.*pip install 'mersuite\[video\]'"):
        write_clips(CONFIG, tmp_path / "demo")


# ---- options


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_clips": 17}, "num_clips: need 18 to 99999, got 17"),
        ({"num_dialogues": 2}, "num_dialogues: need 3 or more, got 2"),
        ({"snr": -1.0}, r"snr: need 0 or more, got -1\.0"),
        ({"contagion": 1.5}, r"contagion: need 0 to 1, got 1\.5"),
        ({"dialogue_contagion": -0.1}, r"dialogue_contagion: need 0 to 1, got -0\.1"),
        ({"dialogue_inertia": 2.0}, r"dialogue_inertia: need 0 to 1, got 2\.0"),
        ({"english_missing": 1.1}, r"english_missing: need 0 to 1, got 1\.1"),
        ({"rate_hz": 4.0}, "rate_hz: need 5 to 60, got 4"),
        ({"min_clip_s": 4.0}, r"min_clip_s, max_clip_s: need 1 <= min <= max <= 60, got 4 and 3\.2"),
        ({"height": 97}, "height: need an even number from 64 to 1080, got 97"),
        ({"width": 32}, "width: need an even number from 64 to 1080, got 32"),
        ({"seed": -1}, "seed: need 0 or more, got -1"),
    ],
)
def test_options_out_of_range_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ClipsConfig(**wrong)


# ---- the law


def test_a_third_are_candidates_and_every_class_is_among_the_training_clips() -> None:
    for seed in range(5):
        drawn = draw_clips(ClipsConfig(num_clips=18, seed=seed))
        assert (len(drawn.train), len(drawn.candidates)) == (12, 6)
        assert Counter(clip.target for clip in drawn.train) == dict.fromkeys(EMOTIONS, 2)
    counts = Counter(clip.target for clip in draw_clips(ClipsConfig(num_clips=600)).train)
    for emotion, share in zip(EMOTIONS, fake_emotions.SHARES, strict=True):
        assert abs(counts[emotion] - 400 * share) <= 1


def test_names_are_distinct_and_mix_the_families() -> None:
    names = [clip.name for clip in draw_clips(ClipsConfig(num_clips=300)).clips]
    assert len(set(names)) == 300
    assert {name[:-8] for name in names} == {"sample_", "samplenew_", "samplenew3_"}
    assert all(name[-8:].isdigit() for name in names)


def test_one_in_ten_subtitles_lacks_english() -> None:
    clips = draw_clips(ClipsConfig(num_clips=1500)).clips
    assert sum(not clip.has_english for clip in clips) == pytest.approx(150, abs=4 * np.sqrt(135))
    assert all(clip.has_english for clip in draw_clips(ClipsConfig(english_missing=0.0)).clips)


@pytest.mark.parametrize("contagion", [0.0, 0.5, 1.0])
def test_speaker_feels_as_the_listener_as_often_as_contagion_says(contagion: float) -> None:
    clips = draw_clips(ClipsConfig(num_clips=1800, contagion=contagion)).candidates
    same = np.mean([clip.listener is not None and clip.speaker.emotion == clip.listener.emotion for clip in clips])
    expected = contagion + (1 - contagion) * (np.array(fake_emotions.SHARES) ** 2).sum()
    assert same == pytest.approx(expected, abs=4 * np.sqrt(0.25 / 600))
    assert all(clip.listener and clip.listener.person != clip.speaker.person for clip in clips)


def observed(clip: FakeClip) -> list[Any]:
    parts = [clip.speaker, *([clip.listener] if clip.listener else [])]
    faces = [value for part in parts for value in (part.person, *part.face)]
    return [clip.name, clip.num_frames, clip.sentence, clip.has_english, clip.speaker_is_left, *clip.voice, *faces]


def test_without_snr_nothing_changes_when_the_labels_do(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = ClipsConfig(num_clips=90, snr=0.0)
    first, speaking = draw_clips(silent), draw_clips(ClipsConfig(num_clips=90, snr=1.0))
    draw = fake_emotions.stratified_emotions
    monkeypatch.setattr(fake_emotions, "stratified_emotions", lambda *args: (draw(*args) + 1) % len(EMOTIONS))
    second = draw_clips(silent)
    assert all(one.target != other.target for one, other in zip(first.clips, second.clips, strict=True))
    assert [observed(clip) for clip in first.clips] == [observed(clip) for clip in second.clips]
    changed = draw_clips(ClipsConfig(num_clips=90, snr=1.0))
    assert [observed(clip) for clip in speaking.clips] != [observed(clip) for clip in changed.clips]


def test_another_seed_gives_other_clips() -> None:
    one, other = draw_clips(ClipsConfig(seed=0)), draw_clips(ClipsConfig(seed=1))
    assert {clip.name for clip in one.clips} != {clip.name for clip in other.clips}
    assert [clip.sentence for clip in one.clips] != [clip.sentence for clip in other.clips]


def test_what_is_in_a_file_does_not_depend_on_what_was_written_before(drawn: FakeClips) -> None:
    def content(path: str, files: dict[str, fake_clip_files.Writer]) -> bytes:
        stream = io.BytesIO()
        files[path](stream)
        return stream.getvalue()

    clip = drawn.candidates[0]
    paths = list(fake_clip_files.clip_files(CONFIG, clip))
    files = fake_clip_files.clip_files(CONFIG, clip)
    forward = {path: content(path, files) for path in paths}
    files = fake_clip_files.clip_files(CONFIG, clip)
    assert {path: content(path, files) for path in reversed(paths)} == forward
