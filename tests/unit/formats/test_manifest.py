from pathlib import Path

import numpy as np
import pytest

from mersuite.clip import Media
from mersuite.errors import DataError
from mersuite.formats.manifest import read_manifest, read_target_csv

STREAMS = ("eeg", "eeg_baseline", "fnirs", "text.a")
NAMES = ("valence", "arousal")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.set", "b.set", "n.snirf", "m.mat", "t.csv"):
        (tmp_path / name).write_text("x")
    return tmp_path


def manifest(folder: Path, *lines: str) -> Path:
    path = folder / "manifest.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_rows_hold_media_groups_and_truth(folder: Path):
    path = manifest(
        folder,
        "clip_id,subject,clip,group.site,eeg,fnirs,start_s,duration_s,target,target.valence,split,text.a",
        "r1,p1,film,lab,a.set,n.snirf,1.5,30,t.csv,,train,good morning",
        "",
        "r2,p2,,,b.set,,,,,7.5,test,",
    )
    first, second = read_manifest(path, STREAMS)
    assert first.groups == {"subject": "p1", "clip": "film", "site": "lab"}
    assert first.media["eeg"] == Media(path=folder / "a.set", start_s=1.5, duration_s=30.0)
    assert first.media["fnirs"] == Media(path=folder / "n.snirf", start_s=1.5, duration_s=30.0)
    assert first.media["text.a"] == "good morning"
    assert (first.target_path, first.targets, first.split, first.line) == (folder / "t.csv", {}, "train", 2)
    assert second.groups == {"subject": "p2"}
    assert set(second.media) == {"eeg"}
    assert (second.target_path, second.targets, second.split, second.line) == (None, {"valence": 7.5}, "test", 4)


def test_group_column_means_subject_and_split_defaults_to_train(folder: Path):
    (row,) = read_manifest(manifest(folder, "clip_id,group,eeg", "r1,p1,a.set"), STREAMS)
    assert row.groups == {"subject": "p1"}
    assert row.split == "train"


def test_streams_take_fields_of_their_own(folder: Path):
    path = manifest(
        folder,
        "clip_id,subject,eeg,eeg.key,eeg.rate_hz,eeg.unit,eeg_baseline,eeg_baseline.duration_s,fnirs,fnirs.start_s,start_s",
        "r1,p1,m.mat,x,250,V,a.set,5,n.snirf,2,60",
    )
    media = read_manifest(path, STREAMS)[0].media
    assert media["eeg"] == Media(path=folder / "m.mat", key="x", rate_hz=250.0, unit="V", start_s=60.0)
    assert media["fnirs"] == Media(path=folder / "n.snirf", start_s=2.0)
    assert media["eeg_baseline"] == Media(path=folder / "a.set", duration_s=5.0), "start_s must not apply to a baseline"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("clip_id,subject,eeg", "r1,p1,a.set", "r1,p2,b.set"), r"line 3: clip_id 'r1' is already on line 2"),
        (("clip_id,subject,eeg", ",p1,a.set"), "line 2: clip_id is empty"),
        (("clip_id,subject,eeg", "r1,p1,gone.set"), r"line 2: eeg: .*gone\.set does not exist"),
        (("clip_id,subject,eeg,target", "r1,p1,a.set,no.csv"), r"line 2: target: .*no\.csv does not exist"),
        (("clip_id,subject,egg", "r1,p1,a.set"), "no stream column"),
        (
            ("clip_id,subject,eeg,durations_s", "r1,p1,a.set,3"),
            "unknown column 'durations_s'; did you mean 'duration_s'",
        ),
        (("clip_id,subject,eeg,eeg.rate", "r1,p1,a.set,3"), "unknown column 'eeg.rate'; did you mean 'eeg.rate_hz'"),
        (("clip_id,subject,eeg,group.", "r1,p1,a.set,3"), "unknown column 'group.'"),
        (("clip_id,subject,eeg,start_s", "r1,p1,a.set,soon"), "line 2: start_s must be a finite number, got 'soon'"),
        (("clip_id,subject,eeg,start_s", "r1,p1,a.set,nan"), "line 2: start_s must be a finite number"),
        (("clip_id,subject,eeg,start_s", "r1,p1,a.set,-1"), "line 2: eeg needs start_s of 0 or more"),
        (("clip_id,subject,eeg,duration_s", "r1,p1,a.set,0"), "duration_s above 0"),
        (("clip_id,subject,eeg,eeg.rate_hz", "r1,p1,a.set,0"), r"eeg\.rate_hz must be above 0"),
        (
            ("clip_id,subject,eeg,target.valence", "r1,p1,a.set,high"),
            r"line 2: target\.valence must be a finite number",
        ),
        (("clip_id,subject,eeg,split", "r1,p1,a.set,tain"), "line 2: split is 'tain'; did you mean 'train'"),
        (("clip_id,subject,eeg", "r1,p1,"), "line 2: no stream is filled in"),
        (("clip_id,subject,eeg", "r1,p1"), "line 2: 2 cells, the header has 3"),
        (("clip_id,subject,eeg,eeg", "r1,p1,a.set,a.set"), "column 'eeg' is there 2 times"),
        (("clip_id,subject,group,eeg", "r1,p1,p1,a.set"), "'subject' and 'group' mean the same"),
        (("subject,eeg", "p1,a.set"), "no column 'clip_id'"),
        (("clip_id,subject,eeg",), "no recording"),
    ],
)
def test_faulty_manifest_is_refused_with_its_line(folder: Path, lines: tuple[str, ...], message: str):
    with pytest.raises(DataError, match=message):
        read_manifest(manifest(folder, *lines), STREAMS)


def test_missing_manifest_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="no such file"):
        read_manifest(tmp_path / "none.csv", STREAMS)


@pytest.mark.parametrize(
    "text",
    ["second,valence,arousal\n0,10,20\n1,30,40\n", "arousal,valence\n20,10\n40,30\n", "10,20\n30,40\n"],
)
def test_target_csv_is_read_with_and_without_header(tmp_path: Path, text: str):
    (tmp_path / "t.csv").write_text(text)
    target = read_target_csv(tmp_path / "t.csv", NAMES)
    np.testing.assert_array_equal(target, np.array([[10, 20], [30, 40]], np.float32))
    assert target.dtype == np.float32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no line"),
        ("valence,arousal\n", "no line below the header"),
        ("valence,dominance\n1,2\n", "no column arousal; the columns are valence, dominance"),
        ("1,2,3\n", "3 columns without a header, need 2"),
        ("valence,arousal\n1,2\n3,x\n", "line 3: need 2 finite numbers, got 3, x"),
        ("valence,arousal\n1\n", "line 2: need 2 finite numbers"),
        ("1,2\nnan,2\n", "line 2: need 2 finite numbers"),
        ("second,valence,arousal\n0,1,2\n2,1,2\n", "line 3: second is 2, expected 1"),
    ],
)
def test_faulty_target_csv_is_refused(tmp_path: Path, text: str, message: str):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_target_csv(tmp_path / "t.csv", NAMES)


def test_missing_target_csv_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="no such file"):
        read_target_csv(tmp_path / "t.csv", NAMES)
