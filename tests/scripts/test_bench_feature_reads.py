import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_reads_are_compared_on_equal_vectors():
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "scripts/bench_feature_reads.py"), "--json", "--num-clips", "200"]
    done = subprocess.run([*command, "--repeats", "3"], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    ratios = {f"{way}_to_{epoch}" for way in ("bare", "loader") for epoch in ("first", "later")}
    assert ratios <= set(found) and all(value > 0 for value in found.values())
