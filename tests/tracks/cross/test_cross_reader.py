from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cross_files import LABELS, candidate_name, config_of, train_name, write_csv, write_folder

from mersuite.errors import ConfigError, DataError
from tracks.cross.fitted import label_of
from tracks.cross.reader import read_cross


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "mer")


def test_training_clips_carry_their_label_and_are_their_own_speakers(root: Path) -> None:
    data = read_cross(config_of(root), "train")
    assert [label_of(sample) for sample in data.samples] == [LABELS[i % 6] for i in range(24)]
    assert {sample.groups["role"] for sample in data.samples} == {"own"}
    assert data.samples[0].groups["clip"] == train_name(0) == data.samples[0].sample_id
    assert data.samples[0].streams == {"face": "face-UTT", "voice": "voice-UTT"}
    assert data.notes[0].startswith("training: 24 clips of track1_train.csv; neutral 4, angry 4")


def test_candidates_are_listeners_without_a_voice_of_their_own(root: Path) -> None:
    data = read_cross(config_of(root), "test")
    assert data.row_ids == tuple(candidate_name(i) for i in range(6))
    assert [sample.streams["face"] for sample in data.samples] == ["face-listener-UTT", "face-UTT"] * 3
    assert {sample.streams["voice"] for sample in data.samples} == {None}
    assert not any(sample.target for sample in data.samples)
    assert data.notes[1].startswith(
        "listeners' face: face-listener-UTT 3, face-UTT 3; where no face-listener-UTT is there"
    )


def test_the_truth_of_candidates_is_never_read(root: Path) -> None:
    before = read_cross(config_of(root), "test")
    (root / "track1_test.csv").unlink()
    assert read_cross(config_of(root), "test") == before


def test_all_joins_both_splits_and_a_submission_holds_the_candidates_alone(root: Path) -> None:
    data = read_cross(config_of(root), "all")
    assert len(data.samples) == 30 and data.row_ids == tuple(candidate_name(i) for i in range(6))


def test_streams_that_are_not_named_are_read_under_their_own_name(root: Path) -> None:
    gone = dict.fromkeys(("face", "voice", "prosody", "logmel", "text"))
    config = config_of(root, model__encoders={**gone, "face-UTT": {"name": "mlp"}})
    assert read_cross(config, "train").samples[0].streams == {}
    assert read_cross(config, "train").samples[0].stored("face-UTT") == "face-UTT"


def test_groups_of_a_file_join_the_clips(root: Path, tmp_path: Path) -> None:
    rows = [(train_name(i), f"d{i // 4}") for i in range(24)] + [(candidate_name(0), "d1")]
    path = write_csv(tmp_path / "groups.csv", ("name", "dialogue"), rows)
    data = read_cross(config_of(root, data__groups=str(path)), "train")
    assert data.samples[5].groups == {"clip": train_name(5), "dialogue": "d1", "role": "own"}
    candidates = read_cross(config_of(root, data__groups=str(path)), "test").samples
    assert candidates[0].groups == {"clip": candidate_name(0), "dialogue": "d1", "role": "other"}
    assert candidates[1].groups == {"clip": candidate_name(1), "role": "other"}


def test_training_clips_without_a_file_are_refused_or_left_out_and_counted(root: Path) -> None:
    for folder in ("voice-UTT", "face-UTT"):
        (root / "features" / folder / f"{train_name(2)}.npy").unlink()
    with pytest.raises(
        DataError, match=rf"1 of 24 clips \(4\.2 %\) have no medium: {train_name(2)}; .*skip_missing=true"
    ):
        read_cross(config_of(root), "train")
    data = read_cross(config_of(root, data__skip_missing=True), "train")
    assert len(data.samples) == 23
    assert "1 of 24 training clips have no medium and were left out" in data.notes


def test_candidates_without_a_file_are_refused_whatever_is_skipped(root: Path) -> None:
    for folder in ("voice-UTT", "face-UTT"):
        (root / "features" / folder / f"{candidate_name(1)}.npy").unlink()
    with pytest.raises(DataError, match=rf"1 of 6 candidates have no medium: {candidate_name(1)}; a submission needs"):
        read_cross(config_of(root, data__skip_missing=True), "test")


def test_a_clip_in_both_lists_is_refused(root: Path) -> None:
    names = [(train_name(0),), *[(candidate_name(i),) for i in range(6)]]
    write_csv(root / "track1_track2_candidate.csv", ("name",), names)
    with pytest.raises(DataError, match=f"1 clips are both training clips and candidates: {train_name(0)}"):
        read_cross(config_of(root), "all")


@pytest.mark.parametrize(
    ("split", "gone", "message"),
    [
        ("train", "track1_train.csv", r"no track1_train\.csv \(name,discrete\) and no track1_label_6way\.npz"),
        ("test", "track1_track2_candidate.csv", r"no track1_track2_candidate\.csv \(name\)"),
    ],
)
def test_a_missing_list_is_named(root: Path, split: str, gone: str, message: str) -> None:
    (root / gone).unlink()
    with pytest.raises(DataError, match=message):
        read_cross(config_of(root), split)


@pytest.mark.parametrize("side", ["own", "other"])
def test_a_stream_that_nothing_writes_is_refused(root: Path, side: str) -> None:
    config = config_of(root, **{f"cross__{side}": {"face": ["face-UT"]}})
    with pytest.raises(ConfigError, match=rf"cross\.{side}\.face: no extractor .* 'face-UT'; did you mean 'face-UTT'"):
        read_cross(config, "train")


def manifest(tmp_path: Path, header: str, *lines: str) -> Any:
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", np.ones(4, np.float32))
    path = tmp_path / "own.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return config_of(None, data__manifest=str(path))


COLUMNS = "clip_id,features/face-UTT,split,group.role,group.dialogue,target.emotion"


def test_own_clips_come_through_a_manifest(tmp_path: Path) -> None:
    config = manifest(tmp_path, COLUMNS, "x,a.npy,train,,d1,sad", "y,b.npy,test,other,d2,happy", "z,b.npy,test,other,,")
    train, test = read_cross(config, "train"), read_cross(config, "test")
    assert [label_of(sample) for sample in train.samples] == ["sad"]
    assert train.samples[0].groups == {"clip": "x", "dialogue": "d1", "role": "own"}
    assert [sample.groups["role"] for sample in test.samples] == ["other", "other"]
    assert [bool(sample.target) for sample in test.samples] == [True, False]
    assert test.notes[0] == "own clips (test): 2, 1 labelled; happy 1"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x,a.npy,train,speaker,d,sad", r"line 2: group\.role is 'speaker'; need own"),
        ("x,a.npy,train,own,d,joy", r"line 2: target\.emotion is 'joy'; expected one of neutral.*cross\.labels=\[\]"),
        ("x,c.npy,train,own,d,sad", r"line 2: features/face-UTT: .*c\.npy does not exist"),
        ("x,a.npy,dev,own,d,sad", r"line 2: split is 'dev'"),
    ],
)
def test_faulty_rows_of_a_manifest_are_refused(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_cross(manifest(tmp_path, COLUMNS, line), "train")


def test_labels_of_ones_own_are_taken_where_the_configuration_says_so(tmp_path: Path) -> None:
    config = manifest(tmp_path, COLUMNS, "x,a.npy,train,own,d,joy")
    config = config_of(None, data__manifest=str(config.data.manifest), cross__labels=[])
    assert label_of(read_cross(config, "train").samples[0]) == "joy"


def test_a_manifest_without_rows_of_a_split_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no row of split 'test'; fill it in in the column 'split'"):
        read_cross(manifest(tmp_path, COLUMNS, "x,a.npy,train,own,d,sad"), "test")
