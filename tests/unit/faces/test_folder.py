import csv
import json
import os
import shutil
from concurrent.futures import BrokenExecutor, Executor, Future
from pathlib import Path

import numpy as np
import pytest

from mersuite.clip import Clip, Media
from mersuite.errors import ConfigError, DataError
from mersuite.faces import folder
from mersuite.faces.config import FacesConfig
from mersuite.faces.folder import COLUMNS, FacesReport, cut_faces
from mersuite.media.face_arrays import read_faces
from tests.unit.faces.composited import pair_frames, speech, write_clip

RATE_HZ = 12.5
CONFIG = FacesConfig(rate_hz=RATE_HZ, min_confidence=0.5)


class Here(Executor):
    """Runs calls at once and counts them."""

    def __init__(self, most: int = 100) -> None:
        self.num_calls, self.most = 0, most

    def submit(self, fn, /, *args, **kwargs) -> Future:
        future: Future = Future()
        self.num_calls += 1
        if self.num_calls > self.most:
            future.set_exception(BrokenExecutor("gone"))
            return future
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001
            future.set_exception(error)
        return future


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips: two people, one person, nobody and no sound."""
    root = tmp_path_factory.mktemp("source")
    talk = speech(np.random.default_rng(1), 2.4, RATE_HZ)
    still, away = 0 * talk.opening, np.full(len(talk.opening), np.nan)
    for name, openings, sound in (
        ("pair", (talk.opening, still), talk.sound),
        ("alone", (still, away), talk.sound),
        ("empty", (away, away), None),
    ):
        images = pair_frames(openings, seed=1, rate_hz=RATE_HZ)
        write_clip(root / f"{name}.mp4", images, RATE_HZ, sound)
    return root


def clip(root: Path, name: str) -> Clip:
    return Clip(clip_id=name, dataset="t", media={"video": Media(path=root / f"{name}.mp4")}, groups={})


def run(root: Path, out: Path, *names: str, config: FacesConfig = CONFIG, executor: Executor | None = None, **options):
    clips = [clip(root, name) for name in names or ("pair", "alone", "empty")]
    return cut_faces(clips, out, config, executor=executor or Here(), max_in_flight=2, progress=False, **options)


def table(report: FacesReport) -> dict[str, dict[str, str]]:
    with report.table.open(newline="") as stream:
        return {row["name"]: row for row in csv.DictReader(stream)}


def test_faces_are_written_in_the_organisers_layout_with_a_table(source: Path, tmp_path: Path):
    report = run(source, tmp_path / "out")
    made = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert made == [
        "face_listener/alone/alone.npy",
        "face_listener/pair/pair.npy",
        "face_speaker/pair/pair.npy",
        "faces.csv",
        "faces.jsonl",
        "writer.lock",
    ]
    faces = np.load(tmp_path / "out/face_speaker/pair/pair.npy")
    assert (faces.shape, faces.dtype) == ((30, 112, 112, 3), np.uint8)
    rows = table(report)
    assert list(rows) == ["alone", "empty", "pair"]
    assert tuple(rows["pair"]) == COLUMNS
    pair = rows["pair"]
    assert (pair["num_people"], pair["uncertain"], pair["seen_speaker"]) == ("2", "false", "1.0")
    assert float(pair["agreement_speaker"]) > float(pair["agreement_listener"])
    assert (rows["alone"]["speaker"], rows["alone"]["listener"], rows["alone"]["uncertain"]) == ("", "0", "true")
    assert rows["empty"]["reason"] == "no face was found"


def test_report_counts_uncertain_clips_and_those_with_fewer_than_two_people(source: Path, tmp_path: Path):
    report = run(source, tmp_path)
    assert (report.num_clips, report.num_done, report.num_kept) == (3, 3, 0)
    assert (report.num_two, report.num_fewer, report.num_uncertain, report.broken) == (1, 2, 2, ())


def test_channel_order_is_that_of_the_configuration(source: Path, tmp_path: Path):
    for order in ("bgr", "rgb"):
        run(source, tmp_path / order, "pair", config=FacesConfig(rate_hz=RATE_HZ, channel_order=order))
    paths = {order: tmp_path / order / "face_speaker/pair/pair.npy" for order in ("bgr", "rgb")}
    np.testing.assert_array_equal(np.load(paths["bgr"])[..., ::-1], np.load(paths["rgb"]))
    mean = read_faces(paths["bgr"], channel_order="bgr").mean((0, 1, 2))
    assert mean[0] > mean[2]  # skin is redder than blue


def test_finished_clips_are_not_done_again(source: Path, tmp_path: Path):
    first = run(source, tmp_path)
    again = Here()
    report = run(source, tmp_path, executor=again)
    assert (again.num_calls, report.num_kept, report.num_done) == (0, 3, 0)
    assert (report.num_two, report.num_uncertain) == (first.num_two, first.num_uncertain)


def test_clips_are_done_again_where_a_file_is_gone_or_the_source_changed(source: Path, tmp_path: Path):
    root = shutil.copytree(source, tmp_path / "source")
    out = tmp_path / "out"
    run(root, out)
    (out / "face_speaker/pair/pair.npy").unlink()
    os.utime(root / "alone.mp4", (1, 1))
    assert run(root, out).num_done == 2


def test_a_picture_that_is_asked_for_later_is_made(source: Path, tmp_path: Path):
    run(source, tmp_path, "empty", "alone")
    report = run(source, tmp_path, "empty", debug=True)
    assert (report.num_done, [path.name for path in (tmp_path / "debug").iterdir()]) == (1, ["empty.png"])
    assert run(source, tmp_path, "empty", debug=True).num_kept == 1


def test_a_killed_run_goes_on_where_it_was(source: Path, tmp_path: Path):
    with pytest.raises(DataError, match=r"a worker process died .*fewer workers; what was finished is kept"):
        run(source, tmp_path, executor=Here(most=1))
    with (tmp_path / "faces.jsonl").open("a") as journal:
        journal.write('{"sources": [["half a li')
    report = run(source, tmp_path)
    assert (report.num_kept, report.num_done) == (1, 2)
    assert sorted(table(report)) == ["alone", "empty", "pair"]
    lines = (tmp_path / "faces.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["row"]["name"] for line in lines[1:]) == ["alone", "empty", "pair"]


def test_further_clips_are_added_to_the_table(source: Path, tmp_path: Path):
    run(source, tmp_path, "pair")
    report = run(source, tmp_path, "alone")
    assert (report.num_clips, sorted(table(report))) == (1, ["alone", "pair"])


def test_a_face_that_is_no_longer_there_is_taken_away(source: Path, tmp_path: Path):
    root = shutil.copytree(source, tmp_path / "source")
    run(root, tmp_path / "out", "pair")
    shutil.copy(root / "empty.mp4", root / "pair.mp4")
    run(root, tmp_path / "out", "pair")
    assert list((tmp_path / "out").rglob("*.npy")) == []


def test_a_folder_of_other_options_is_refused(source: Path, tmp_path: Path):
    run(source, tmp_path, "empty")
    with pytest.raises(DataError, match=r"were cut with margin=0\.15, asked for margin=0\.3; give the same options"):
        run(source, tmp_path, "empty", config=FacesConfig(rate_hz=RATE_HZ, min_confidence=0.5, margin=0.3))
    skipping = FacesConfig(rate_hz=RATE_HZ, min_confidence=0.5, skip_broken=True)
    assert run(source, tmp_path, "empty", config=skipping).num_kept == 1


def test_a_folder_of_another_version_is_refused(source: Path, tmp_path: Path):
    (tmp_path / "faces.jsonl").write_text('{"faces": 0}\n')
    with pytest.raises(DataError, match=r"faces\.jsonl: was written by another version"):
        run(source, tmp_path, "empty")


def test_broken_video_stops_the_run_or_is_counted_and_listed(source: Path, tmp_path: Path):
    root = shutil.copytree(source, tmp_path / "source")
    (root / "bad.mp4").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"bad: .*bad\.mp4.*; skip_broken=true leaves such clips out"):
        run(root, tmp_path / "out", "empty", "bad")
    config = FacesConfig(rate_hz=RATE_HZ, min_confidence=0.5, skip_broken=True)
    report = run(root, tmp_path / "out", "empty", "bad", config=config)
    assert (report.num_kept, report.num_done, report.broken[0][0]) == (1, 0, "bad")
    assert table(report)["bad"]["reason"].startswith("broken: bad: ")


def test_clip_that_broke_since_is_taken_out_of_the_table_with_its_faces(source: Path, tmp_path: Path):
    root = shutil.copytree(source, tmp_path / "source")
    out = tmp_path / "out"
    config = FacesConfig(rate_hz=RATE_HZ, min_confidence=0.5, skip_broken=True)
    run(root, out, "pair", "empty", config=config, debug=True)
    (root / "pair.mp4").write_bytes(b"nothing")
    report = run(root, out, "pair", "empty", config=config, debug=True)
    assert (report.num_two, report.num_fewer, len(report.broken)) == (0, 1, 1)
    names = [line.split(",")[0] for line in report.table.read_text().splitlines()[1:]]
    assert names == ["empty", "pair"]
    assert table(report)["pair"]["reason"].startswith("broken: ")
    assert sorted(path.name for path in out.rglob("*.*") if path.suffix in (".npy", ".png")) == ["empty.png"]
    assert list(table(run(root, out, "empty", config=config))) == ["empty"]


def test_a_picture_of_an_earlier_decision_is_taken_away(source: Path, tmp_path: Path):
    root = shutil.copytree(source, tmp_path / "source")
    out = tmp_path / "out"
    run(root, out, "pair", debug=True)
    shutil.copy(root / "empty.mp4", root / "pair.mp4")
    run(root, out, "pair")
    assert list((out / "debug").iterdir()) == []
    assert run(root, out, "pair", debug=True).num_done == 1


def test_csv_of_openface_that_was_made_again_is_read_again(source: Path, tmp_path: Path):
    config = FacesConfig(detector="openface", openface_root=tmp_path / "csv")
    (tmp_path / "csv").mkdir()
    names = [f"{axis}_{index}" for axis in "xy" for index in range(68)]
    text = ",".join(["frame", "timestamp", *names]) + "\n" + ",".join(["0"] * 138) + "\n"
    (tmp_path / "csv/empty.csv").write_text(text)
    assert run(source, tmp_path / "out", "empty", config=config).num_done == 1
    assert run(source, tmp_path / "out", "empty", config=config).num_kept == 1
    os.utime(tmp_path / "csv/empty.csv", (1, 1))
    assert run(source, tmp_path / "out", "empty", config=config).num_done == 1


def test_faces_that_somebody_else_put_there_are_not_touched(source: Path, tmp_path: Path):
    given = tmp_path / "face_listener/pair/pair.npy"
    given.parent.mkdir(parents=True)
    given.write_bytes(b"mine")
    with pytest.raises(DataError, match=r"holds face_listener/, which `mersuite faces` did not write.*empty folder"):
        run(source, tmp_path, "pair", "alone")
    assert given.read_bytes() == b"mine"


def test_out_that_is_a_file_is_refused(source: Path, tmp_path: Path):
    (tmp_path / "out").write_text("")
    with pytest.raises(DataError, match=r"out=.*out: is a file, need a folder"):
        run(source, tmp_path / "out", "empty")


def test_a_second_run_into_the_same_folder_is_refused_while_the_first_works(source: Path, tmp_path: Path):
    class Meanwhile(Here):
        def submit(self, fn, /, *args, **kwargs) -> Future:
            with pytest.raises(DataError, match=r"another run of `mersuite faces` writes there .*; wait for"):
                run(source, tmp_path, "alone")
            return super().submit(fn, *args, **kwargs)

    executor = Meanwhile()
    assert run(source, tmp_path, "empty", executor=executor).num_done == executor.num_calls == 1
    assert run(source, tmp_path, "empty").num_kept == 1


def test_what_a_killed_run_left_half_written_is_taken_away(source: Path, tmp_path: Path):
    places = [tmp_path / "face_speaker/pair", tmp_path / "debug", tmp_path]
    run(source, tmp_path, "empty")
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
        (place / ".pair.npy.1.part").write_bytes(b"half")
    run(source, tmp_path, "pair")
    assert list(tmp_path.rglob("*.part")) == []


def test_missing_matplotlib_is_told_before_any_work(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    executor = Here()
    with pytest.raises(ConfigError, match=r"debug pictures need Matplotlib"):
        run(source, tmp_path, "pair", executor=executor, debug=True)
    assert executor.num_calls == 0


def test_what_can_be_told_at_once_is_refused_before_any_work(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    executor = Here()
    with pytest.raises(DataError, match=r"1 of 2 clips have no video file: gone; leave them out"):
        run(source, tmp_path, "pair", "gone", executor=executor)
    with pytest.raises(DataError, match=r"clip 'pair' is listed twice"):
        run(source, tmp_path, "pair", "pair", executor=executor)
    with pytest.raises(DataError, match=r"clip '\.\./pair': cannot be the name of a file"):
        run(source, tmp_path, "../pair", executor=executor)
    missing = FacesConfig(detector="yunet", yunet_path=tmp_path / "none.onnx")
    with pytest.raises(ConfigError, match=r"yunet_path: no such file"):
        run(source, tmp_path, "pair", config=missing, executor=executor)
    usage = shutil.disk_usage(tmp_path)._replace(free=10**6)
    monkeypatch.setattr(folder.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match=r"1 clips need about 0\.0 GB, 0\.0 GB are free; give another disk"):
        run(source, tmp_path, "pair", executor=executor)
    assert executor.num_calls == 0


def test_nothing_half_written_stays_after_a_failure(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def torn(stream, array):
        stream.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(folder.np, "save", torn)
    with pytest.raises(OSError, match="disk full"):
        run(source, tmp_path, "pair")
    assert [path for path in (tmp_path / "face_speaker").rglob("*") if path.is_file()] == []


@pytest.mark.slow
def test_worker_processes_give_the_same_files(source: Path, tmp_path: Path):
    from mersuite.prepare.work import local_pool

    run(source, tmp_path / "one")
    with local_pool(2) as pool:
        run(source, tmp_path / "two", executor=pool)
    assert (tmp_path / "one/faces.csv").read_text() == (tmp_path / "two/faces.csv").read_text()
    for path in (tmp_path / "one").rglob("*.npy"):
        other = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert path.read_bytes() == other.read_bytes()
