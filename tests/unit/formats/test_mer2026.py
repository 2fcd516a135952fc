"""Folders of the organisers: what is found, and what is refused. Files are empty but for the csv files."""

from __future__ import annotations

from pathlib import Path

import pytest

from mersuite.clip import Media
from mersuite.errors import DataError
from mersuite.formats import mer2026
from mersuite.formats.safe_npz import write_label_npz

NAMES = ("sample_00000000", "samplenew_00006611", "samplenew3_00000058")


def touch(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "mer"
    for name in NAMES:
        touch(place / "video" / f"{name}.mp4")
        touch(place / "audio" / f"{name}.wav")
        touch(place / "openface_face" / name / f"{name}.npy")
        touch(place / "features" / "hubert-UTT" / f"{name}.npy")
    touch(place / "face_listener" / NAMES[2] / f"{NAMES[2]}.npy")
    rows = "".join(
        f"{name},你好 {i},{'' if i else 'hello, you'}\n".replace("hello, you", '"hello, you"')
        for i, name in enumerate(NAMES)
    )
    touch(place / mer2026.SUBTITLES, f"name,chinese,english\n{rows}")
    touch(place / "track1_train.csv", f"name,discrete\n{NAMES[0]},happy\n{NAMES[1]},sad\n")
    touch(place / "track1_track2_candidate.csv", f"name\n{NAMES[2]}\n")
    return place


def streams(root: Path, **places: Path) -> dict[str, set[str]]:
    folder = mer2026.open_folder(root, **places)
    return {name: set(media) for name, media in mer2026.media_of(folder, NAMES).items()}


def test_every_stream_of_a_clip_is_found(root: Path) -> None:
    found = streams(root)
    shared = {"video", "voice.speaker", "face.speaker", "text.speaker.zh", "features/hubert-UTT"}
    assert found[NAMES[0]] == shared | {"text.speaker.en"}
    assert found[NAMES[1]] == shared
    assert found[NAMES[2]] == shared | {"face.listener"}


def test_subtitles_keep_their_text_and_leave_out_empty_languages(root: Path) -> None:
    media = mer2026.media_of(mer2026.open_folder(root), NAMES)
    assert media[NAMES[0]]["text.speaker.en"] == "hello, you"
    assert media[NAMES[1]]["text.speaker.zh"] == "你好 1"


def test_the_organisers_inner_folder_is_entered(root: Path, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    root.rename(outer / "mer2026-dataset")
    assert "video" in streams(outer)[NAMES[0]]


def test_faces_and_features_may_lie_elsewhere(root: Path, tmp_path: Path) -> None:
    cut = touch(tmp_path / "faces" / "face_speaker" / NAMES[0] / f"{NAMES[0]}.npy")
    touch(tmp_path / "features" / "clip-FRA" / f"{NAMES[1]}.npy")
    folder = mer2026.open_folder(root, features=tmp_path / "features", faces=tmp_path / "faces")
    media = mer2026.media_of(folder, NAMES)
    face = media[NAMES[0]]["face.speaker"]
    assert isinstance(face, Media) and face.path == cut
    assert "face.speaker" in media[NAMES[1]] and "face.listener" not in media[NAMES[2]]
    assert [name for name in NAMES if "features/clip-FRA" in media[name]] == [NAMES[1]]


def test_of_two_files_of_one_name_the_organisers_own_ending_counts(root: Path) -> None:
    touch(root / "video" / f"{NAMES[0]}.avi")
    video = mer2026.media_of(mer2026.open_folder(root), NAMES)[NAMES[0]]["video"]
    assert isinstance(video, Media) and video.path.suffix == ".mp4"


def test_clips_without_any_medium_are_named(root: Path) -> None:
    clips, lost = mer2026.read_clips(mer2026.open_folder(root), (*NAMES, "sample_9"), {NAMES[0]: {"dialogue": "d1"}})
    assert [clip.clip_id for clip in clips] == list(NAMES) and lost == ["sample_9"]
    assert clips[0].groups == {"clip": NAMES[0], "dialogue": "d1"}


def test_labels_come_from_csv_and_from_npz_alike(root: Path) -> None:
    labels = mer2026.read_labels(root / "track1_train.csv", ("happy", "sad"))
    corpus = {name: {"emo": label, "val": -10.0} for name, label in labels.items()}
    write_label_npz(root / "track1_label_6way.npz", {"train_corpus": corpus, "test1_corpus": {}})
    assert mer2026.read_labels(root / "track1_label_6way.npz", ("happy", "sad")) == labels


def test_candidates_keep_their_order(tmp_path: Path) -> None:
    path = touch(tmp_path / "c.csv", "name\nb\na\n\nc\n")
    assert mer2026.read_names(path) == ("b", "a", "c")


def test_groups_of_clips_are_read_and_empty_cells_left_out(tmp_path: Path) -> None:
    path = touch(tmp_path / "g.csv", "name,dialogue,film\na,d1,f1\nb,,f2\n")
    assert mer2026.read_group_columns(path) == {"a": {"dialogue": "d1", "film": "f1"}, "b": {"film": "f2"}}


def test_archives_that_wait_are_named(root: Path) -> None:
    touch(root / "audio.zip")
    touch(root / "video" / "video_2.7z.001")
    assert [path.name for path in mer2026.archives(mer2026.open_folder(root))] == ["audio.zip", "video_2.7z.001"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,discrete\na,happy\na,sad\n", r"line 3: a is listed on line 2 already; need every name once"),
        ("name,discrete\na,joyful\n", r"line 2: a has the label 'joyful'; expected one of happy, sad"),
        ("name,discrete\na,x\nb,y\nc,z\n", r"a has the label 'x' \(and 2 more such rows\)"),
        ("name,discrete\n,happy\n", r"line 2: the name is empty"),
        ("clip,emotion\na,happy\n", r"no column name, discrete; the columns are clip, emotion"),
        ("name,discrete\n", r"no line below the header"),
        ("name,discrete\na,\n", r"a has the label ''"),
    ],
)
def test_faulty_label_files_are_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        mer2026.read_labels(touch(tmp_path / "t.csv", content), ("happy", "sad"))


def test_npz_without_training_rows_is_refused(tmp_path: Path) -> None:
    write_label_npz(tmp_path / "l.npz", {"test1_corpus": {"a": {"emo": "sad"}}})
    with pytest.raises(DataError, match="no train_corpus; it holds test1_corpus"):
        mer2026.read_labels(tmp_path / "l.npz", ())


def test_two_files_that_could_be_meant_are_refused(root: Path) -> None:
    touch(root / "track1_train_a.csv")
    with pytest.raises(DataError, match=r"track1_train\.csv, track1_train_a\.csv could all be meant"):
        mer2026.find_csv(mer2026.open_folder(root), ("track1_train*.csv",))


def test_clips_that_nowhere_have_a_medium_are_refused_with_the_archives(tmp_path: Path) -> None:
    touch(tmp_path / "video.zip")
    with pytest.raises(DataError, match=r"none of the 1 clips has a file in video/.*; extract video\.zip first"):
        mer2026.read_clips(mer2026.open_folder(tmp_path), ("a",), {})


@pytest.mark.parametrize("key", ["features", "faces"])
def test_a_named_folder_that_is_none_is_refused(root: Path, key: str) -> None:
    with pytest.raises(DataError, match=rf"data\.{key}: .*absent is no folder"):
        mer2026.open_folder(root, **{key: root / "absent"})


def test_groups_file_without_a_group_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="need a column name and one column a group, the columns are name"):
        mer2026.read_group_columns(touch(tmp_path / "g.csv", "name\na\n"))
