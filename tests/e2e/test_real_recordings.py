"""The real recordings of $MERSUITE_TEST_DATA: through a manifest with simulated ratings, and carrying fake data."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from recorded_files import write_ratings
from test_show_list import SHOW, SMALLER, SYSTEMS, run_here

from mersuite import api, catalog, registry
from mersuite.prepare import FeatureReader

RECIPE = "recipe/ps_own_recordings.yaml"
CLIP_S = 24
NUM_CLIPS = 8


@pytest.fixture(scope="module")
def manifest(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stretches of one EEG and one fNIRS recording, of unrelated people, as clips of four people who do not exist.

    Ratings are random walks. Every name and every score says that they are simulated.
    """
    folder = tmp_path_factory.mktemp("real")
    for path in (test_data / "recordings").iterdir():
        shutil.copy(path, folder)
    rng, rows = np.random.default_rng(0), []
    for clip in range(NUM_CLIPS):
        write_ratings(rng, folder / f"simulated_{clip}.csv", CLIP_S)
        rows.append(
            {
                "clip_id": f"simulated_{clip}",
                "subject": f"simulated_person_{clip // 2}",
                "eeg": "eeglab_data.set",
                "fnirs": "fnirs_18ch_intensity.snirf",
                "start_s": 10 + (CLIP_S + 1) * clip,
                "duration_s": CLIP_S,
                "target": f"simulated_{clip}.csv",
                "target_source": "simulated",
            }
        )
    path = folder / "manifest.csv"
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def words_of(manifest: Path, *more: str) -> list[str]:
    places = [f"data.manifest={manifest}", f"store.path={manifest.parent / 'store'}", "runtime.prepare_workers=1"]
    return [*places, "runtime.accelerator=cpu", "runtime.progress=false", *more]


def test_check_finds_channels_rates_and_no_fault(manifest: Path):
    rows = {row.name: row for row in api.check(api.config("ps", overrides=words_of(manifest)))}
    assert all(row.ok is not False for row in rows.values())
    assert rows["eeg"].found.startswith("32 eeg, 128 Hz, 30 of 32 names in the standard 10-05 montage")
    assert rows["fnirs"].found.startswith("18 fnirs_cw_amplitude, 20.03 Hz, light intensity")
    assert rows["ratings come from"].found == "simulated (8)"


def test_prepare_gives_plausible_features_of_every_clip(manifest: Path):
    config = api.config("ps", files=[RECIPE], overrides=words_of(manifest))
    coverage = api.prepare(config).summary()["streams"]
    assert {name: item["num_covered"] for name, item in coverage.items()} == dict.fromkeys(
        ("eeg", "eeg_bands", "fnirs", "fnirs_stats"), NUM_CLIPS
    )
    extractors = {name: catalog.find("extractor", part.name)(part.config) for name, part in config.features.items()}
    clips = registry.load("ps").read(config, "train").clips
    reader = FeatureReader.open(config.store_path, clips, extractors)
    bands, stats = reader.get("simulated_0", "eeg_bands"), reader.get("simulated_0", "fnirs_stats")
    assert bands is not None
    assert stats is not None
    assert bands.data.shape == (CLIP_S, 32 * 5)
    assert stats.data.shape == (CLIP_S, 9 * 2 * 3)
    assert np.isfinite(bands.data).all()
    assert np.isfinite(stats.data).all()
    # Differential entropy in microvolts: delta above gamma, and of the size of a person's EEG.
    by_band = bands.data.reshape(CLIP_S, 32, 5).mean((0, 1))
    assert by_band[0] > by_band[4]
    assert -1 < by_band[4] < by_band[0] < 7
    assert 0 < np.abs(stats.data).max() < 100  # micromolar


def test_fit_with_simulated_ratings_says_that_they_are(manifest: Path, tmp_path: Path):
    words = words_of(manifest, f"run.dir={tmp_path / 'run'}", "trainer.max_epochs=1")
    api.fit(api.config("ps", files=[RECIPE], overrides=words))
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert set(metrics) == {"signal", "constant", "median", "ridge"}
    assert all(item["protocol"].endswith("targets: simulated (8)") for item in metrics.values())
    assert metrics["signal"]["num_rows"] == NUM_CLIPS * CLIP_S


@pytest.mark.slow
def test_whole_list_runs_on_data_carried_by_the_recordings(test_data: Path, tmp_path: Path):
    for command in SHOW:
        _, verb, *words = shlex.split(command)
        more = [f"signals={test_data / 'recordings'}"] if verb == "fake" else []
        done = run_here([verb, *words, *more, *SMALLER.get(verb, ())], tmp_path)
        assert done.status == 0, f"{command}\n{done.err}"
    assert json.loads((tmp_path / "runs/ps/metrics.json").read_text()).keys() >= SYSTEMS
    assert (tmp_path / "submission.zip").stat().st_size > 0
    assert (tmp_path / "report.html").stat().st_size > 0
