"""Measures the differential entropy of one full-size person against per-window scipy loops, in one run.

64 channels, 1,536 s at 200 Hz, five bands, Hann taper. All arms compute the same definition; results are
compared. Two references:

- by_window_and_channel: one scipy call for each window of each channel, as the loops of public code of this field do.
  The wanted 50x is judged by it (`ratio_window_channel`, `passed`).
- by_window: one scipy call for each window, of all channels at once, as a careful writer would. It spends its time in
  the same FFT as any batched scipy call; 50x of it is out of reach (`ratio_window`, told beside).

    OMP_NUM_THREADS=1 python scripts/bench_differential_entropy.py [--seconds 1536] [--repeats 5] [--json]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import scipy.signal

from mersuite.features.eeg import BANDS_HZ
from mersuite.signal.bands import band_power, differential_entropy
from mersuite.signal.windows import cut_seconds

RATE_HZ = 200.0
NUM_CHANNELS = 64
TAPER = "hann"
EDGES = tuple(BANDS_HZ.values())
LEAST_RATIO = 50.0


def by_matrix(recording: np.ndarray) -> np.ndarray:
    """All windows and channels as products with the few sines and cosines that the bands need."""
    seconds = cut_seconds(recording, RATE_HZ, len(recording) // int(RATE_HZ))
    return differential_entropy(band_power(seconds, RATE_HZ, EDGES, TAPER))


def by_window_and_channel(recording: np.ndarray) -> np.ndarray:
    """One scipy periodogram for each window of each channel."""
    width = int(RATE_HZ)
    found = np.empty((len(recording) // width, recording.shape[1], len(EDGES)))
    for second in range(len(found)):
        for channel in range(found.shape[1]):
            window = recording[second * width : (second + 1) * width, channel]
            freqs, density = scipy.signal.periodogram(window, RATE_HZ, TAPER)
            for band, (low, high) in enumerate(EDGES):
                power = density[(freqs >= low) & (freqs < high)].sum() * (freqs[1] - freqs[0])
                found[second, channel, band] = 0.5 * np.log(2 * np.pi * np.e * power)
    return found


def by_window(recording: np.ndarray) -> np.ndarray:
    """One scipy periodogram for each window, of all channels at once: a loop written with care."""
    width = int(RATE_HZ)
    found = np.empty((len(recording) // width, recording.shape[1], len(EDGES)))
    for second in range(len(found)):
        window = recording[second * width : (second + 1) * width]
        freqs, density = scipy.signal.periodogram(window, RATE_HZ, TAPER, axis=0)
        for band, (low, high) in enumerate(EDGES):
            power = density[(freqs >= low) & (freqs < high)].sum(axis=0) * (freqs[1] - freqs[0])
            found[second, :, band] = 0.5 * np.log(2 * np.pi * np.e * power)
    return found


def timed(
    function: Callable[[np.ndarray], np.ndarray], recording: np.ndarray, repeats: int
) -> tuple[float, np.ndarray]:
    """Gives the shortest of some runs in seconds, and the result."""
    best, result = np.inf, np.empty(0)
    for _ in range(repeats):
        start = time.perf_counter()
        result = function(recording)
        best = min(best, time.perf_counter() - start)
    return best, result


def main() -> None:
    """Runs the arms and prints the table or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=1536)
    parser.add_argument("--repeats", type=int, default=5, help="runs of the fast arm; the loops run once")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    generator = np.random.default_rng(0)
    white = generator.standard_normal((args.seconds * int(RATE_HZ), NUM_CHANNELS), dtype=np.float32)
    recording = scipy.signal.lfilter([1.0], [1.0, -0.95], white, axis=0).astype(np.float32) * 5
    by_matrix(recording)
    own_s, own = timed(by_matrix, recording, args.repeats)
    window_s, by_windows = timed(by_window, recording, 1)
    channel_s, by_channels = timed(by_window_and_channel, recording, 1)
    num_flops = 2 * 49 * RATE_HZ * NUM_CHANNELS * args.seconds  # folded: half of 98 rows times 200 samples
    result = {
        "seconds": args.seconds,
        "own_s": own_s,
        "loop_window_channel_s": channel_s,
        "loop_window_s": window_s,
        "ratio_window_channel": channel_s / own_s,
        "ratio_window": window_s / own_s,
        "gflops_per_s": num_flops / own_s / 1e9,
        "max_difference": float(max(np.abs(own - by_channels).max(), np.abs(own - by_windows).max())),
        "least_ratio": LEAST_RATIO,
        "passed": channel_s / own_s >= LEAST_RATIO,
    }
    if args.json:
        print(json.dumps(result))
        return
    print(f"differential entropy, {NUM_CHANNELS} channels x {args.seconds} windows of 1 s at {RATE_HZ:g} Hz, {TAPER}")
    print(f"  matrix products (float32)              {own_s:9.3f} s   {result['gflops_per_s']:.0f} GFLOP/s")
    print(f"  scipy loop over windows and channels   {channel_s:9.3f} s   {result['ratio_window_channel']:.0f}x")
    print(f"  scipy loop over windows                {window_s:9.3f} s   {result['ratio_window']:.1f}x")
    print(f"  largest difference {result['max_difference']:.1e} nat; ", end="")
    print(f"wanted {LEAST_RATIO:g}x or more of the loop over windows and channels")


if __name__ == "__main__":
    main()
