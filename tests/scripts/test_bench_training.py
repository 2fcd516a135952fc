import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_training_bench_compares_equal_training_and_meets_its_bound():
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "scripts/bench_training.py"), "--json", "--rounds", "2", "--scale", "0.5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    cases = {row["case"]: row for row in json.loads(done.stdout)["cases"]}
    assert all(row["max_weight_difference"] < 1e-6 for row in cases.values())
    assert cases["raw"]["counts"] and cases["raw"]["ratio"] < 1.25, "beside other work; alone it is 1.0"
    assert not cases["default"]["counts"] and cases["default"]["cost_ms_per_step"] < 10
