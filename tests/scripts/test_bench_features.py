import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> dict[str, dict[str, float]]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "scripts" / "bench_features.py"), "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_bench_compares_equal_features_of_text_sound_and_pictures():
    result = run("--clips", "3", "--repeats", "1", "--width", "32", "--layers", "4")
    for kind in ("text", "sound", "picture"):
        assert result[kind]["max_difference"] < 2e-4
        assert result[kind]["ratio"] > 0


@pytest.mark.slow
def test_batches_are_twice_as_fast_for_text_and_pictures_and_no_slower_for_sound():
    result = run("--clips", "48", "--repeats", "5", "--width", "64")
    assert result["text"]["ratio"] > 2
    assert result["picture"]["ratio"] > 2
    assert result["sound"]["ratio"] > 0.8
