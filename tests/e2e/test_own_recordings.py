"""Own recordings through a manifest: formats, montages, what is missing, and every line of the document."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from recorded_files import (
    make_eeg,
    shown_manifest,
    write_eeg,
    write_ratings,
    write_shown,
    write_snirf,
)

from mersuite import api, cli
from mersuite.clip import Media
from mersuite.errors import ConfigError, DataError, MersuiteError
from mersuite.media.physio import read_signal

ROOT = Path(cli.__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "own_recordings.md"
RECIPE = "recipe/ps_own_recordings.yaml"
QUICK = ("runtime.accelerator=cpu", "runtime.progress=false", "runtime.prepare_workers=1", "trainer.max_epochs=1")


def shown_lines() -> list[list[str]]:
    return [shlex.split(line)[1:] for line in re.findall(r"^mersuite .*$", DOCUMENT.read_text(), flags=re.MULTILINE)]


def run_line(words: Sequence[str], folder: Path) -> str:
    """Runs the command line in this process; a failure shows what it wrote."""
    quick = ["trainer.max_epochs=1", *QUICK[:3]] if words[0] == "fit" else []
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main([*words, *quick])
    assert status == 0, err.getvalue()
    return out.getvalue()


def write_manifest(folder: Path, rows: Sequence[Mapping[str, object]], name: str = "manifest.csv") -> Path:
    path = folder / name
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(dict.fromkeys(key for row in rows for key in row)), restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def make_rows(folder: Path, num_subjects: int = 3, num_clips: int = 2, **more: object) -> list[dict[str, object]]:
    """Rows of EEG in FIF and light in SNIRF, two clips of 12 s from each file of 30 s, with simulated ratings."""
    rng, rows = np.random.default_rng(0), []
    for person in range(num_subjects):
        write_eeg(make_eeg(rng), folder / f"p{person}_raw.fif")
        write_snirf(rng, folder / f"p{person}.snirf")
        for clip in range(num_clips):
            write_ratings(rng, folder / f"simulated_{person}_{clip}.csv", 12)
            row = {"clip_id": f"p{person}_{clip}", "subject": f"p{person}", "eeg": f"p{person}_raw.fif"}
            row |= {"fnirs": f"p{person}.snirf", "start_s": 1 + 14 * clip, "duration_s": 12}
            rows.append({**row, "target": f"simulated_{person}_{clip}.csv", "target_source": "simulated", **more})
    return rows


def without(rows: Sequence[Mapping[str, object]], *columns: str) -> list[dict[str, object]]:
    return [{key: value for key, value in row.items() if key not in columns} for row in rows]


def fit(manifest: Path, run: Path, *words: str) -> dict[str, dict]:
    places = (f"data.manifest={manifest}", f"store.path={manifest.parent / 'store'}", f"run.dir={run}")
    result = api.fit(api.config("ps", files=[RECIPE], overrides=[*places, *QUICK, *words]))
    return {"metrics": dict(result.metrics), "lines": result.lines()}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with recordings of three people, read by many tests and written by none but into its store."""
    return tmp_path_factory.mktemp("own")


@pytest.fixture(scope="module")
def rows(own: Path) -> list[dict[str, object]]:
    return make_rows(own)


# ---- the document


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder in which the first block of lines of the document has run, and what each printed."""
    folder = tmp_path_factory.mktemp("shown")
    write_shown(shown_manifest(DOCUMENT), folder / "own")
    return folder, [run_line(words, folder) for words in shown_lines()[:7]]


def test_lines_of_the_document_lead_from_files_to_a_score(walked: tuple[Path, list[str]]):
    folder, printed = walked
    assert [words[0] for words in shown_lines()[:7]] == "check prepare fit predict export score report".split()
    assert "no faults" in printed[0]
    metrics = json.loads((folder / "runs/own/metrics.json").read_text())
    assert next(iter(metrics)) == "signal"
    assert {"signal", "fused", "constant", "median", "ridge", "prior"} == set(metrics)
    assert all(item["protocol"].endswith("targets: slider (6)") for item in metrics.values())
    assert (folder / "own_predictions.csv").read_text().splitlines()[1].startswith("dora_1_T000,")
    assert "<html" in (folder / "own.html").read_text()


def test_clip_without_ratings_is_predicted_and_not_counted(walked: tuple[Path, list[str]]):
    folder, _ = walked
    rows = (folder / "own_predictions.csv").read_text().splitlines()
    score = api.score("ps", pred=folder / "own.jsonl", target=folder / "own/manifest.csv", options={})
    assert len(rows) == 1 + 24
    assert score["num_rows"] == 12


def test_other_lines_of_the_document_work(walked: tuple[Path, list[str]]):
    folder, _ = walked
    printed = [run_line(words, folder) for words in shown_lines()[7:]]
    assert len(printed) == 4
    assert "encoder weights: runs/own_pretrained/encoders.safetensors" in printed[2]
    assert "of 3 of 3 held-out subjects: transductive" in " ".join(printed[3].split())
    with contextlib.chdir(folder):
        places = ["data.manifest=own/manifest.csv", "store.path=own_store", "runtime.progress=false"]
        predicted = api.predict(Path("runs/own_transfer"), out=Path("transfer.jsonl"), overrides=places)
    said = "encoders pretrained, without labels, also on recordings of 1 of 1 predicted subjects: transductive"
    assert predicted["traits"]["pretrained"] == said


def test_recipe_of_the_document_changes_only_what_it_says():
    plain, own = api.config("ps"), api.config("ps", files=[RECIPE])
    assert own.features["eeg"].config.baseline == own.features["fnirs"].config.baseline == "none"
    assert own.options.system == "signal"
    assert own.model == plain.model
    assert own.data == plain.data


# ---- formats and montages


@pytest.mark.parametrize("name", ["a_raw.fif", "a.edf", "a.vhdr"])
def test_formats_give_the_same_recording(tmp_path: Path, rng: np.random.Generator, name: str):
    raw = make_eeg(rng)
    write_eeg(raw, tmp_path / name)
    signal = read_signal(Media(path=tmp_path / name, start_s=2.0, duration_s=5.0))
    wanted = raw.get_data()[:, 256:896].T
    assert signal.ch_names == tuple(raw.ch_names)
    assert signal.rate_hz == 128.0
    np.testing.assert_allclose(signal.data, wanted, atol=2e-8)  # EDF keeps 16 bits


def test_electrodes_of_unknown_names_are_refused_with_a_cure_that_cures(tmp_path: Path, rng: np.random.Generator):
    write_eeg(make_eeg(rng, tuple(f"E{i}" for i in range(1, 9))), tmp_path / "net_raw.fif")
    row = {"clip_id": "a", "subject": "a", "eeg": "net_raw.fif", "duration_s": 12}
    manifest = write_manifest(tmp_path, [row])
    words = [f"data.manifest={manifest}", f"store.path={tmp_path / 'store'}", *QUICK]
    with pytest.raises(DataError, match="have a name of the 10-05 system, need 2 or more") as caught:
        api.prepare(api.config("ps", files=[RECIPE], overrides=words))
    cure = re.findall(r"features\.eeg\.\w+=\w+", str(caught.value))
    assert len(cure) == 3
    coverage = api.prepare(api.config("ps", files=[RECIPE], overrides=[*words, *cure]))
    assert coverage.summary()["streams"]["eeg_bands"]["num_covered"] == 1


def test_slow_eeg_is_taken_once_mains_are(tmp_path: Path, rng: np.random.Generator):
    write_eeg(make_eeg(rng, rate_hz=90.0), tmp_path / "slow_raw.fif")
    manifest = write_manifest(tmp_path, [{"clip_id": "a", "subject": "a", "eeg": "slow_raw.fif"}])
    words = [f"data.manifest={manifest}", f"store.path={tmp_path / 'store'}", *QUICK]
    with pytest.raises(DataError, match=r"features\.eeg\.notch_hz to fit"):
        api.prepare(api.config("ps", files=[RECIPE], overrides=words))
    api.prepare(api.config("ps", files=[RECIPE], overrides=[*words, "features.eeg.notch_hz=[]"]))


# ---- what is missing


def test_recording_without_baseline_names_the_key_and_the_recipe_sets_it(own: Path, rows: list[dict[str, object]]):
    manifest = write_manifest(own, rows, "baseline.csv")
    words = [f"data.manifest={manifest}", f"store.path={own / 'store'}", *QUICK]
    with pytest.raises(DataError, match=r"there is no \w+_baseline, which features\.\w+\.baseline=subtract needs; set"):
        api.prepare(api.config("ps", overrides=words))
    api.prepare(api.config("ps", files=[RECIPE], overrides=words))


@pytest.mark.parametrize(
    ("missing", "stream"), [("fnirs", "fnirs_stats"), ("eeg", "eeg_bands")], ids=["EEG alone", "fNIRS alone"]
)
def test_one_kind_of_recording_is_enough(
    own: Path, rows: list[dict[str, object]], tmp_path: Path, missing: str, stream: str
):
    manifest = write_manifest(own, without(rows, missing), f"no_{missing}.csv")
    with pytest.raises(DataError, match=rf"stream '{stream}': no clip has it; .*model\.encoders\.{stream}=null"):
        fit(manifest, tmp_path / "run")
    assert not (tmp_path / "run").exists()  # so that the cure may go there
    found = fit(manifest, tmp_path / "run", f"model.encoders.{stream}=null")
    assert {"signal", "constant", "median", "ridge"} == set(found["metrics"])
    assert found["metrics"]["signal"]["num_rows"] == 72


def test_clips_that_lack_one_stream_are_used_with_the_other(own: Path, rows: list[dict[str, object]], tmp_path: Path):
    mixed = [{**row, "fnirs": "" if index % 3 == 1 else row["fnirs"]} for index, row in enumerate(rows)]
    found = fit(write_manifest(own, mixed, "mixed.csv"), tmp_path / "run")
    assert found["metrics"]["signal"]["num_rows"] == found["metrics"]["ridge"]["num_rows"] == 72


def test_without_shared_stimuli_what_needs_them_is_left_out_and_said(
    own: Path, rows: list[dict[str, object]], tmp_path: Path
):
    manifest = write_manifest(own, rows, "alone.csv")
    found = fit(manifest, tmp_path / "run", "ps.system=fused")
    assert list(found["metrics"]) == ["signal", "constant", "median", "ridge"]
    assert "fused was left out: no two subjects have a clip in common" in found["lines"]
    assert "the main system is therefore signal" in found["lines"]
    with pytest.raises(ConfigError, match="evaluate: prior cannot be had: no two subjects have a clip in common"):
        fit(manifest, tmp_path / "other", "evaluate=prior")


def test_simulated_ratings_are_called_so_beside_every_score(own: Path, rows: list[dict[str, object]], tmp_path: Path):
    fit(write_manifest(own, rows, "simulated.csv"), tmp_path / "run", "evaluate=median")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert {name: item["protocol"].partition("; ")[2] for name, item in metrics.items()} == {
        "signal": "targets: simulated (6)",
        "median": "targets: simulated (6)",
    }
    checked = api.check(api.config("ps", overrides=[f"data.manifest={own / 'simulated.csv'}"]))
    assert [row.found for row in checked if row.name == "ratings come from"] == ["simulated (6)"]


# ---- few people, short clips


def test_clips_of_one_person_are_split_by_clip(own: Path, rows: list[dict[str, object]], tmp_path: Path):
    alone = [{**row, "subject": "anna"} for row in rows]
    manifest = write_manifest(own, alone, "anna.csv")
    with pytest.raises(ConfigError, match="3 folds by subject need as many of them, the data have 1"):
        fit(manifest, tmp_path / "run")
    found = fit(manifest, tmp_path / "run", "cv.by=clip")
    assert found["metrics"]["signal"]["num_rows"] == 72


def test_window_longer_than_a_clip_is_refused_before_any_work(own: Path, rows: list[dict[str, object]], tmp_path: Path):
    manifest = write_manifest(own, rows, "windows.csv")
    with pytest.raises(DataError, match=r"lasts 12 s, shorter than data\.window_s=20; choose a shorter window"):
        fit(manifest, tmp_path / "run", "data.window_s=20", f"store.path={tmp_path / 'store'}")
    assert not (tmp_path / "store").exists()
    assert not (tmp_path / "run").exists()


def test_manifest_without_any_rating_is_no_target(own: Path, rows: list[dict[str, object]], walked: tuple):
    bare = write_manifest(own, without(rows, "target"), "bare.csv")
    with pytest.raises(MersuiteError, match="rows have no prediction"):
        api.score("ps", pred=walked[0] / "own.jsonl", target=bare, options={})
    table = walked[0] / "own" / "unrated.csv"
    table.write_text(
        "\n".join(re.sub(r"ratings/dora_1\.csv", "", line) for line in shown_manifest(DOCUMENT).split("\n"))
    )
    kept = "\n".join(line for line in table.read_text().split("\n") if not re.match(r"anna|bert|cleo", line))
    table.write_text(kept)
    with pytest.raises(MersuiteError, match="none of the 24 rows has a known target; fill in the ratings"):
        api.score("ps", pred=walked[0] / "own.jsonl", target=table, options={})
