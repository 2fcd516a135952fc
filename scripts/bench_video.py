"""Time to sample 16 frames of a film clip, against decoding every frame and picking them.

    python scripts/bench_video.py [--json] [--repeats 7] [--seconds 10]

Two clips are made: 25 frames a second, 640 x 360, H.264 with B-frames, a key frame every 12 frames or every 250, moving
texture with a little noise. Three arms take turns, one thread each, after a first reading of all:

    sample    mersuite's `sample_frames`: decodes only what the 16 frames need, makes 16 pictures
    decode    mersuite's `read_frames`: decodes every frame and makes a picture of each, then picks
    usual     the loop of most programs: PyAV's `container.decode` and `to_ndarray` for every frame, then picks

The frames of all arms must be equal to the bit (those of `usual` nearly: it takes another filter for colours).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import av
import numpy as np
from scipy.ndimage import gaussian_filter

from mersuite.media.sampling import uniform_indices
from mersuite.media.video import read_frames, sample_frames

CASES = {"key_12": 12, "key_250": 250}
RATE_HZ, WIDTH, HEIGHT, NUM_FRAMES = 25, 640, 360, 16


def main() -> None:
    """Runs both cases and prints a table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=7, help="runs of each arm")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the clips")
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, key_distance in CASES.items():
            path = Path(folder) / f"{name}.mp4"
            write_clip(path, round(options.seconds * RATE_HZ), key_distance)
            results[name] = measure(path, options.repeats)
    if options.json:
        print(json.dumps(results))
        return
    for name, item in results.items():
        print(
            f"{name}: {item['num_frames']} frames, {item['mib']:.1f} MiB: sample {item['sample_s'] * 1e3:.0f} ms, "
            f"decode all and pick {item['decode_s'] * 1e3:.0f} ms (ratio {item['ratio']:.2f}), "
            f"usual loop {item['usual_s'] * 1e3:.0f} ms (ratio {item['ratio_usual']:.2f})"
        )


def write_clip(path: Path, num_frames: int, key_distance: int) -> None:
    """Writes a clip with a fixed distance of key frames: a window that wanders over a texture, and a moving box."""
    rng = np.random.default_rng(0)
    layers = [gaussian_filter(rng.normal(size=(2 * HEIGHT, 2 * WIDTH)), size) * size for size in (3, 6, 12)]
    texture = np.clip(128 + 150 * np.stack(layers, axis=-1), 0, 255)
    options = {"g": str(key_distance), "keyint_min": str(key_distance), "sc_threshold": "0"}
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=Fraction(RATE_HZ), options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.thread_count = 1
        for index in range(num_frames):
            x = round(WIDTH / 2 * (1 + np.sin(index / 40)))
            y = round(HEIGHT / 2 * (1 + np.cos(index / 30)))
            image = texture[y : y + HEIGHT, x : x + WIDTH] + rng.normal(0, 1.5, (HEIGHT, WIDTH, 1))
            left = 3 * index % (WIDTH - 100)
            image[100:200, left : left + 100] = 255 - image[100:200, left : left + 100]
            frame = av.VideoFrame.from_ndarray(np.clip(image, 0, 255).astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def measure(path: Path, repeats: int) -> dict[str, float]:
    """Times the arms in turn and compares their frames."""
    arms: dict[str, Callable[[Path], np.ndarray]] = {"sample": sample, "decode": decode_all, "usual": usual_loop}
    frames = {name: arm(path) for name, arm in arms.items()}  # all of the file is in memory from here on
    if not np.array_equal(frames["sample"], frames["decode"]):
        raise RuntimeError("sampled frames differ from those of a full decode")
    difference = np.abs(frames["sample"].astype(int) - frames["usual"]).mean()
    if difference > 2.0:
        raise RuntimeError(f"sampled frames differ from the usual loop's by {difference:.1f} grey levels")
    times: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(repeats):
        for name, arm in arms.items():
            start = time.perf_counter()
            arm(path)
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "num_frames": len(read_frames(path, height=36).times_s),
        "mib": path.stat().st_size / 2**20,
        "max_difference": float(np.abs(frames["sample"].astype(int) - frames["decode"]).max()),
        **{f"{name}_s": value for name, value in medians.items()},
        "ratio": medians["decode"] / medians["sample"],
        "ratio_usual": medians["usual"] / medians["sample"],
    }


def sample(path: Path) -> np.ndarray:
    """Ours."""
    return sample_frames(path, NUM_FRAMES).images


def decode_all(path: Path) -> np.ndarray:
    """Every frame with our own reader."""
    images = read_frames(path).images
    return images[uniform_indices(NUM_FRAMES, len(images))]


def usual_loop(path: Path) -> np.ndarray:
    """Every frame the usual way, on one thread."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        images = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    return np.stack([images[index] for index in uniform_indices(NUM_FRAMES, len(images))])


if __name__ == "__main__":
    sys.exit(main())
