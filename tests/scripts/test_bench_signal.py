import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(script: str, *arguments: str) -> dict[str, float]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "scripts" / script), "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_entropy_bench_compares_equal_results_and_is_fast():
    result = run("bench_differential_entropy.py", "--seconds", "60")
    assert result["max_difference"] < 1e-5
    assert result["ratio_window_channel"] > 50


@pytest.mark.slow
def test_preprocess_bench_compares_equal_results_in_little_memory():
    result = run("bench_preprocess.py", "--scale", "0.1")
    assert result["eeg_bands_median_difference"] < 1e-5
    assert result["eeg_median_difference"] < 0.02
    assert result["own_peak_gib"] < 3
    assert result["ratio_compute"] > 5
