from __future__ import annotations

import logging
import os
import pickle
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import lmdb
import numpy as np
import pytest

from mersuite.clip import Clip, Media
from mersuite.errors import ConfigError, DataError, StoreError
from mersuite.prepare import FeatureReader, prepare, stream_fingerprints
from mersuite.prepare.fingerprint import source_files
from mersuite.store import FeatureStore

HERE = Path(__file__).parent


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    """The module of test extractors, importable in worker processes, with a log of what was computed."""
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setenv("PROBE_LOG", str(tmp_path / "log"))
    import prepare_probe

    yield prepare_probe


@pytest.fixture
def clips(probe: ModuleType, tmp_path: Path) -> list[Clip]:
    return probe.make_clips(tmp_path / "source")


def computed(tmp_path: Path) -> list[str]:
    log = tmp_path / "log"
    return log.read_text().splitlines() if log.exists() else []


def content(path: Path) -> dict[tuple[str, ...], bytes]:
    with FeatureStore(path, readonly=True) as store:
        assert store.verify() == ()
        return {tuple(key): item.data.tobytes() for key in store.all_keys() if (item := store.get(key)) is not None}


def run(clips: list[Clip], extractors: dict, store: Path, num_workers: int = 1):
    return prepare(clips, extractors, store, num_workers=num_workers, progress=False)


# ---- what is stored


def test_every_clip_and_stream_is_stored_and_reads_as_extracted(probe, clips, tmp_path) -> None:
    coverage = run(clips, probe.extractors(), tmp_path / "store")
    reader = FeatureReader.open(tmp_path / "store", clips, probe.extractors())
    assert coverage.num_computed == 24
    assert reader.streams == ("alone", "centred", "mean")
    for clip in clips:
        assert np.array_equal(reader.get(clip.clip_id, "alone").data, probe.read(clip))
    means = np.concatenate([reader.get(clip.clip_id, "centred").data for clip in clips[:4]]).mean(0)
    assert np.abs(means).max() < 1e-6


def test_two_workers_and_a_given_executor_store_what_one_worker_stores(probe, clips, tmp_path) -> None:
    run(clips, probe.extractors(), tmp_path / "one")
    run(clips, probe.extractors(), tmp_path / "two", num_workers=2)
    with ThreadPoolExecutor(2) as pool:
        prepare(clips, probe.extractors(), tmp_path / "pool", num_workers=2, executor=pool, progress=False)
    assert content(tmp_path / "one") == content(tmp_path / "two") == content(tmp_path / "pool")


def test_nothing_is_computed_twice(probe, clips, tmp_path) -> None:
    run(clips[:6], probe.extractors(), tmp_path / "store")
    again = run(clips[:6], probe.extractors(), tmp_path / "store")
    more = run(clips[:8], probe.extractors(), tmp_path / "store")
    assert again.num_computed == 0
    # Subject s1 has two more clips now, so its means are made anew; s0 and single clips are not.
    assert more.num_computed == 2 + 4
    assert sorted(set(computed(tmp_path))) == sorted(
        [f"{name} {clip.clip_id}" for name in ("alone", "together") for clip in clips[:8]]
    )
    assert len(computed(tmp_path)) == 12 + 6


def test_worker_processes_run_one_thread_and_leave_the_environment_as_it_was(
    probe, clips, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    extractors = {"threads": probe.Threads(probe.ProbeConfig())}
    run(clips[:2], extractors, tmp_path / "store", num_workers=2)
    reader = FeatureReader.open(tmp_path / "store", clips[:2], extractors)
    assert reader.get(clips[0].clip_id, "threads").data.tolist() == [[1.0, 1.0]]
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert "MKL_NUM_THREADS" not in os.environ


def test_the_progress_bar_goes_to_stderr(probe, clips, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    prepare(clips, probe.extractors(), tmp_path / "store", num_workers=1, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "prepare together" in err
    assert "12/12" in err


# ---- fingerprints


def keys(clips, extractors, tmp_path) -> dict:
    return stream_fingerprints(clips, extractors, tmp_path / "none")


def test_fingerprints_do_not_depend_on_where_files_lie(probe, clips, tmp_path) -> None:
    shutil.copytree(tmp_path / "source", tmp_path / "elsewhere")
    moved = probe.make_clips(tmp_path / "elsewhere")
    assert keys(clips, probe.extractors(), tmp_path) == keys(moved, probe.extractors(), tmp_path)


def test_a_changed_knob_changes_that_extractors_fingerprints_only(probe, clips, tmp_path) -> None:
    before = keys(clips, probe.extractors(), tmp_path)
    changed = {**probe.extractors(), "alone": probe.Alone(probe.ProbeConfig(scale=2.0))}
    after = keys(clips, changed, tmp_path)
    assert {stream for (clip, stream), key in after.items() if key != before[clip, stream]} == {"alone"}


def test_a_raised_version_changes_the_fingerprint(probe, clips, tmp_path, monkeypatch) -> None:
    before = keys(clips, probe.extractors(), tmp_path)
    monkeypatch.setattr(probe.Alone, "version", 2)
    after = keys(clips, probe.extractors(), tmp_path)
    assert {stream for (clip, stream), key in after.items() if key != before[clip, stream]} == {"alone"}


def test_a_changed_source_changes_its_own_clip_and_its_group(probe, clips, tmp_path) -> None:
    before = keys(clips, probe.extractors(), tmp_path)
    path = clips[5].media["eeg"].path
    path.write_bytes(b"\7" * path.stat().st_size)
    after = keys(clips, probe.extractors(), tmp_path)
    changed = {item for item in after if after[item] != before[item]}
    group = {(clip.clip_id, stream) for clip in clips[4:8] for stream in ("centred", "mean")}
    assert changed == {("s1/v1", "alone")} | group


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("key", "video_2"),
        ("start_s", 5.0),
        ("duration_s", 9.0),
        ("rate_hz", 1000.0),
        ("ch_names", ("FP1",)),
        ("ch_types", ("eeg",)),
        ("unit", "uV"),
    ],
)
def test_every_field_of_a_medium_enters_the_fingerprint(probe, clips, tmp_path, name, value) -> None:
    other = probe.make_clips(tmp_path / "source", **{name: value})
    alone = {"alone": probe.extractors()["alone"]}
    assert not set(keys(clips, alone, tmp_path).values()) & set(keys(other, alone, tmp_path).values())


def test_optional_streams_and_texts_enter_the_fingerprint_where_they_are(probe, clips, tmp_path) -> None:
    alone = {"alone": probe.extractors()["alone"]}
    found = [
        keys([replace(clips[0], media={**clips[0].media, **extra})], alone, tmp_path)["s0/v0", "alone"].fingerprint
        for extra in ({}, {"note": "awake"}, {"note": "asleep"}, {"unread": "x"})
    ]
    assert len(set(found)) == 3
    assert found[0] == found[3]


def test_companions_of_a_recording_and_files_of_a_folder_enter_the_fingerprint(probe, clips, tmp_path) -> None:
    alone = {"alone": probe.extractors()["alone"]}
    header, data = tmp_path / "rec.vhdr", tmp_path / "rec.eeg"
    folder = tmp_path / "nirx"
    folder.mkdir()
    for path in (header, data, folder / "a.wl1"):
        path.write_text("one")
    for place, changing in ((header, data), (folder, folder / "a.wl1")):
        clip = replace(clips[0], media={"eeg": Media(path=place)})
        changing.write_text("one")
        before = keys([clip], alone, tmp_path)
        changing.write_text("two")
        assert keys([clip], alone, tmp_path) != before
    assert [name for name, _ in source_files(header)] == ["", ".eeg"]


def test_a_changed_source_is_never_answered_with_old_features(probe, clips, tmp_path) -> None:
    run(clips, probe.extractors(), tmp_path / "store")
    path = clips[0].media["eeg"].path
    path.write_bytes(b"\3" * path.stat().st_size)
    with pytest.raises(StoreError, match=r"was made by another configuration or from other files \(9 of 36 entries"):
        FeatureReader.open(tmp_path / "store", clips, probe.extractors())
    run(clips, probe.extractors(), tmp_path / "store")
    reader = FeatureReader.open(tmp_path / "store", clips, probe.extractors())
    assert np.array_equal(reader.get("s0/v0", "alone").data, probe.read(clips[0]))


def test_contents_of_unchanged_files_are_read_once(probe, clips, tmp_path, monkeypatch) -> None:
    import mersuite.prepare.fingerprint as module

    for clip in clips:
        os.utime(clip.media["eeg"].path, (1e9, 1e9))
    run(clips, probe.extractors(), tmp_path / "store")
    hashed = []
    real = module._hash_file
    monkeypatch.setattr(module, "_hash_file", lambda path: hashed.append(path) or real(path))
    run(clips, probe.extractors(), tmp_path / "store")
    assert hashed == []
    os.utime(clips[3].media["eeg"].path, (1.1e9, 1.1e9))
    run(clips, probe.extractors(), tmp_path / "store")
    run(clips, probe.extractors(), tmp_path / "store")
    assert hashed == [clips[3].media["eeg"].path]


def test_a_file_that_has_just_changed_is_hashed_again_next_time(probe, clips, tmp_path) -> None:
    run(clips, probe.extractors(), tmp_path / "store")
    path = clips[0].media["eeg"].path
    status = path.stat()
    path.write_bytes(b"\5" * status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert run(clips, probe.extractors(), tmp_path / "store").num_computed == 1 + 4


# ---- what is left out and what fails


def test_clips_without_an_input_are_left_out_and_reported(probe, clips, tmp_path) -> None:
    deaf = replace(clips[2], media={"note": "no signal"})
    coverage = run([*clips[:2], deaf], probe.extractors(), tmp_path / "store")
    assert [item.num_covered for item in coverage.streams] == [2, 2, 2]
    assert coverage.streams[0].left_out == {"no eeg": ("s0/v2",)}
    columns, rows = coverage.table()
    assert rows[0][: len(columns) - 2] == ["alone", "alone", "2 of 3", "1: no eeg"]
    assert coverage.summary()["streams"]["alone"]["left_out"] == {"no eeg": 1}
    reader = FeatureReader.open(tmp_path / "store", [*clips[:2], deaf], probe.extractors())
    assert reader.get("s0/v2", "alone") is None


def test_a_stream_that_the_extractor_did_not_give_is_noted_and_not_asked_for_again(probe, clips, tmp_path) -> None:
    extractors = {"sometimes": probe.Sometimes(probe.ProbeConfig())}
    coverage = run(clips, extractors, tmp_path / "store")
    assert coverage.streams[0].num_covered == 9
    assert coverage.streams[0].left_out == {"the extractor gave none": ("s0/v1", "s1/v1", "s2/v1")}
    assert run(clips, extractors, tmp_path / "store").num_computed == 0
    reader = FeatureReader.open(tmp_path / "store", clips, extractors)
    assert reader.get("s1/v1", "sometimes") is None
    assert reader.example("sometimes") is not None


def test_bytes_in_the_report_are_those_of_the_entries(probe, clips, tmp_path) -> None:
    coverage = run(clips, probe.extractors(), tmp_path / "store")
    data = sum(probe.read(clip).nbytes for clip in clips)
    assert data <= coverage.streams[0].size_bytes <= data + 512 * len(clips)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_unreadable_recording_is_named_and_what_was_finished_stays(probe, clips, tmp_path, num_workers) -> None:
    extractors = {"failing": probe.Failing(probe.ProbeConfig())}
    with pytest.raises(DataError, match=r"s1/v2.*: the recording is flat"):
        run(clips, extractors, tmp_path / "store", num_workers=num_workers)
    kept = {key[1] for key in content(tmp_path / "store")}
    assert {"s0/v0", "s0/v1", "s0/v2", "s0/v3"} <= kept
    assert "s1/v2" not in kept


def test_a_worker_process_that_dies_is_reported_with_the_cure(probe, clips, tmp_path) -> None:
    with pytest.raises(DataError, match=r"features\.dying: a worker process died .*runtime\.prepare_workers=1"):
        run(clips, {"dying": probe.Dying(probe.ProbeConfig())}, tmp_path / "store", num_workers=2)


def test_an_extractor_that_breaks_its_contract_is_the_programs_fault(probe, clips, tmp_path) -> None:
    with pytest.raises(RuntimeError, match=r"Forgetful gave nothing for \['s0/v0'"):
        run(clips, {"a": probe.Forgetful(probe.ProbeConfig())}, tmp_path / "store")
    with pytest.raises(RuntimeError, match=r"Talkative gave the streams \['other'\]"):
        run(clips, {"a": probe.Talkative(probe.ProbeConfig())}, tmp_path / "store")


def test_two_extractors_may_not_write_one_stream(probe, clips, tmp_path) -> None:
    with pytest.raises(ConfigError, match="'alone' and 'again' both write the stream 'alone'"):
        run(clips, {**probe.extractors(), "again": probe.Alone(probe.ProbeConfig())}, tmp_path / "store")


def test_a_clip_without_the_group_that_an_extractor_goes_by_is_named(probe, clips, tmp_path) -> None:
    lonely = replace(clips[0], groups={"clip": "v0"})
    with pytest.raises(DataError, match=r"'s0/v0' has no group 'subject', which features\.together needs; it has clip"):
        run([lonely], probe.extractors(), tmp_path / "store")


def test_a_missing_source_file_is_named_before_any_work(probe, clips, tmp_path) -> None:
    clips[7].media["eeg"].path.unlink()
    with pytest.raises(DataError, match=r"clip 's1/v3', stream 'eeg': .* cannot be read"):
        run(clips, probe.extractors(), tmp_path / "store")
    assert computed(tmp_path) == []


def test_a_disk_too_small_for_the_rest_stops_early_and_keeps_what_is_done(probe, clips, tmp_path, monkeypatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=15_000))
    with pytest.raises(StoreError, match=r"no space for the rest: about .* what was finished is kept"):
        run(clips, {"alone": probe.extractors()["alone"]}, tmp_path / "store")
    assert 1 <= len(computed(tmp_path)) < len(clips)
    assert len(content(tmp_path / "store")) >= 1


# ---- reading


def test_a_reader_refuses_what_is_not_prepared(probe, clips, tmp_path) -> None:
    with pytest.raises(StoreError, match=r"there is no feature store at .*; run `mersuite prepare`"):
        FeatureReader.open(tmp_path / "store", clips, probe.extractors())
    run(clips[:4], probe.extractors(), tmp_path / "store")
    with pytest.raises(StoreError, match=r"'alone' of clip 's1/v0' is not prepared \(24 of 36 entries are missing\)"):
        FeatureReader.open(tmp_path / "store", clips, probe.extractors())


def test_a_reader_refuses_streams_and_clips_that_it_is_not_for(probe, clips, tmp_path) -> None:
    run(clips[:4], probe.extractors(), tmp_path / "store")
    reader = FeatureReader.open(tmp_path / "store", clips[:4], probe.extractors())
    with pytest.raises(StoreError, match=r"no extractor makes the stream 'face' \(there are: alone, centred, mean\)"):
        reader.get("s0/v0", "face")
    with pytest.raises(StoreError, match="clip 's9/v0' is not among the 4 clips"):
        reader.get("s9/v0", "alone")


def test_a_signature_tells_whether_streams_are_made_of_the_same(probe, clips, tmp_path) -> None:
    run(clips, probe.extractors(), tmp_path / "store")
    reader = FeatureReader.open(tmp_path / "store", clips, probe.extractors())
    again = FeatureReader.open(tmp_path / "store", clips[::-1], probe.extractors())
    names = {clip.clip_id for clip in clips[:2]}
    assert reader.signature(names) == again.signature(names)
    assert reader.signature(names) != reader.signature({clips[0].clip_id})
    path = clips[0].media["eeg"].path
    path.write_bytes(b"\3" * path.stat().st_size)
    run(clips, probe.extractors(), tmp_path / "store")
    changed = FeatureReader.open(tmp_path / "store", clips, probe.extractors())
    assert changed.signature(names) != reader.signature(names)


def test_a_reader_of_nothing_needs_no_store(probe, clips, tmp_path) -> None:
    reader = FeatureReader.open(tmp_path / "store", clips, {})
    assert reader.streams == ()
    assert not (tmp_path / "store").exists()


def test_a_reader_can_be_pickled(probe, clips, tmp_path) -> None:
    run(clips, probe.extractors(), tmp_path / "store")
    reader = FeatureReader.open(tmp_path / "store", clips, probe.extractors())
    copy = pickle.loads(pickle.dumps(reader))
    assert np.array_equal(copy.get("s2/v3", "alone").data, reader.get("s2/v3", "alone").data)


# ---- several processes, and kills


def start(tmp_path: Path, store: Path, workers: int, seconds: float) -> subprocess.Popen:
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); import prepare_probe; prepare_probe.main()"
    words = [str(HERE), str(tmp_path / "source"), str(store), str(workers), str(seconds)]
    environment = {**os.environ, "PROBE_LOG": str(tmp_path / "log"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=Path.cwd(),
    )


def test_of_two_prepares_one_waits_and_then_finds_nothing_to_do(probe, clips, tmp_path) -> None:
    both = [start(tmp_path, tmp_path / "store", 1, 0.1) for _ in range(2)]
    texts = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], texts
    assert sorted(out for out, _ in texts) == ["computed 0\n", "computed 24\n"]
    waited = next(err for out, err in texts if out == "computed 0\n")
    assert "waiting for process" in waited
    assert "nothing is left to do" in waited
    assert sorted(computed(tmp_path)) == sorted(set(computed(tmp_path)))


def test_a_store_whose_making_was_interrupted_is_made_anew(probe, clips, tmp_path) -> None:
    lmdb.open(str(tmp_path / "store")).close()
    assert run(clips, probe.extractors(), tmp_path / "store").num_computed == 24


def stored_clips(store: Path) -> set[str]:
    """Extractor and clip of everything that is committed."""
    try:
        with FeatureStore(store, readonly=True) as reader:
            names = {"alone": "alone", "centred": "together", "mean": "together"}
            return {f"{names[key.stream]} {key.clip_id}" for key in reader.all_keys()}
    except StoreError:
        return set()  # killed before the store was made


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_prepare_killed_at_any_instant_goes_on_where_it_stood(probe, clips, tmp_path, workers) -> None:
    run(clips, probe.extractors(0.02), tmp_path / "whole")
    store, log = tmp_path / "killed", tmp_path / "log"
    chance = random.Random(workers)
    num_kills, status = 0, -9
    while status != 0:
        assert num_kills < 40, "prepare makes no progress between kills"
        before = stored_clips(store)
        log.write_text("")
        process = start(tmp_path, store, workers, 0.02)
        # By turns while it starts, and after some clips were computed, at any instant of computing or writing.
        num_lines = chance.randint(1, 12) if num_kills % 2 else 0
        while process.poll() is None and len(computed(tmp_path)) < num_lines:
            time.sleep(0.005)
        time.sleep(chance.uniform(0.0, 0.05 if num_lines else 0.4))
        process.kill()
        _, text = process.communicate()
        status = process.returncode
        assert status in (0, -9), text
        num_kills += status == -9
        after = stored_clips(store)
        assert before <= after, "something committed was lost"
        assert not before & set(computed(tmp_path)), "something committed was computed again"
    assert num_kills >= 4
    assert content(store) == content(tmp_path / "whole")


def test_workers_of_a_killed_prepare_end_too(probe, clips, tmp_path) -> None:
    process = start(tmp_path, tmp_path / "store", 2, 0.3)
    while not computed(tmp_path):
        assert process.poll() is None
        time.sleep(0.02)
    children = [int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    process.kill()
    process.communicate()
    assert len(children) >= 2
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline, "worker processes outlived their parent"
        time.sleep(0.05)


def test_a_store_that_cannot_remember_hashes_is_still_read(probe, clips, tmp_path, caplog) -> None:
    caplog.set_level(logging.INFO)
    for clip in clips:
        os.utime(clip.media["eeg"].path, (1e9, 1e9))
    run(clips, probe.extractors(), tmp_path / "store")
    os.utime(clips[0].media["eeg"].path, (1.2e9, 1.2e9))
    with FeatureStore(tmp_path / "store", readonly=False):
        assert run(clips, probe.extractors(), tmp_path / "store").num_computed == 0
