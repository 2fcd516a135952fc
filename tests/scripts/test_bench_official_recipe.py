import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_bench_of_the_official_recipe_compares_equal_learning():
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    sizes = ["--clips", "1500", "--candidates", "3000", "--width", "256", "--hidden", "64"]
    amount = ["--epochs", "4", "--rounds", "1", "--draws", "2", "--bare-folds", "2"]
    command = [sys.executable, str(ROOT / "scripts/bench_official_recipe.py"), "--json", *sizes, *amount]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    (case,) = told["cases"]
    assert abs(case["bare_waf"] - case["together_waf"]) < 0.06
    assert 0.5 < case["together_waf"] <= told["best_waf"] + 0.03
    assert case["ratio"] > 2 and case["sweep_ratio"] > 2, "beside other work"
