import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_video_bench_compares_equal_frames():
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "scripts" / "bench_video.py"), "--json", "--repeats", "1", "--seconds", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result.keys() == {"key_12", "key_250"}
    for item in result.values():
        assert item["num_frames"] == 50
        assert item["max_difference"] == 0
        assert item["ratio"] > 0
