"""Measures preparing one full-size person against the same through MNE and per-window scipy features, in one run.

64 x 1000 Hz and 306 x 47.6 Hz over 15 trials (1,536 s) and their baselines, in compressed MATLAB files. Each arm runs
in a process of its own, trial by trial; reading the files (scipy's loadmat, the same for both) is timed apart, imports
are not counted. Times are processor seconds, because other work on the machine moves wall time.

Both arms: band-pass 0.5-70 Hz, notch 50 Hz, 200 Hz, one bad channel interpolated, average reference, robust scale,
differential entropy minus that of the baseline; TDDR, low-pass 0.2 Hz, 5 Hz, mean, slope and deviation of the last
10 s. The MNE arm is given the bad channel; this package's arm searches for it. The MNE arm computes the entropy twice,
by the two loops of bench_differential_entropy.py, and each ratio counts one of them:

- one scipy call for each window of each channel (`ratio_compute`);
- one scipy call for each window, of all channels at once, as a careful writer would (`ratio_compute_careful`).

The wanted ratio is judged by the smaller one.

    OMP_NUM_THREADS=1 python scripts/bench_preprocess.py [--scale 1.0] [--data DIR] [--json]
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from bench_differential_entropy import by_window, by_window_and_channel

from mersuite.clip import Clip, Media, Signal
from tracks.ps.layout import EEG_CH_NAMES, FNIRS_CH_NAMES, FNIRS_CH_TYPES, STREAM_FILES

TRIALS_S = (135, 137, 90, 79, 135, 93, 122, 107, 70, 60, 61, 63, 111, 103, 170)
BASELINE_S = 5.0
EEG_HZ, FNIRS_HZ = 1000.0, 1000 / 21
BAD = "CZ"
LEAST_RATIO, MOST_GIB = 10.0, 3.0
ARM_IMPORTS = {
    "own": ("mersuite.features.eeg", "mersuite.features.fnirs"),
    "mne": ("mne", "mne.preprocessing.nirs", "scipy.signal"),
}


def pink(generator: np.random.Generator, num_channels: int, num_samples: int, rate_hz: float) -> np.ndarray:
    """Noise with falling power up to 50 Hz, a part of it common to all channels: (channel, time), deviation 1."""
    freqs = np.fft.rfftfreq(num_samples, 1 / rate_hz)
    shape = np.where(freqs < 50, 1 / np.sqrt(np.maximum(freqs, 1)), 0)
    shape[0] = 0
    white = generator.standard_normal((num_channels, num_samples)) + 0.7 * generator.standard_normal(num_samples)
    data = np.fft.irfft(np.fft.rfft(white) * shape, n=num_samples)
    return data / data.std()


def write_person(folder: Path, scale: float) -> None:
    """Writes the four files of one person; trials last `scale` times the published seconds."""
    from mersuite.data.fake_files import write_mat

    generator = np.random.default_rng(0)

    def eeg(seconds: tuple[float, ...]) -> Iterator[tuple[str, np.ndarray]]:
        for video, length in enumerate(seconds, 1):
            data = 20e-6 * pink(generator, 64, round(length * EEG_HZ), EEG_HZ)
            data[EEG_CH_NAMES.index(BAD)] *= 40
            yield f"video_{video}", data

    def fnirs(seconds: tuple[float, ...]) -> Iterator[tuple[str, np.ndarray]]:
        for video, length in enumerate(seconds, 1):
            data = 1e-6 * pink(generator, 306, round(length * FNIRS_HZ), FNIRS_HZ)
            yield f"video_{video}", data.reshape(6, 51, -1)

    trials = tuple(max(10.0, round(length * scale)) for length in TRIALS_S)
    calm = (BASELINE_S,) * len(trials)
    write_mat(folder / "EEG_videos.mat", eeg(trials))
    write_mat(folder / "EEG_baselines.mat", eeg(calm))
    write_mat(folder / "fNIRS_videos.mat", fnirs(trials))
    write_mat(folder / "fNIRS_baselines.mat", fnirs(calm))


def clips_of(folder: Path) -> list[Clip]:
    """Gives the person's clips, as the reader of the track would."""
    clips = []
    for video in range(1, len(TRIALS_S) + 1):
        media = {}
        for stream, file in STREAM_FILES.items():
            is_eeg = stream.startswith("eeg")
            media[stream] = Media(
                path=folder / file,
                key=f"video_{video}",
                rate_hz=EEG_HZ if is_eeg else FNIRS_HZ,
                ch_names=EEG_CH_NAMES if is_eeg else FNIRS_CH_NAMES,
                ch_types=("eeg",) * 64 if is_eeg else FNIRS_CH_TYPES,
                unit="V" if is_eeg else "M",
            )
        clips.append(Clip(clip_id=f"person/{video:02d}", dataset="bench", media=media, groups={"subject": "person"}))
    return clips


class LoadClock:
    """Adds up the time spent in reading files, and in features that are computed twice."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.feature_seconds: dict[str, float] = {}

    def features(
        self, name: str, loop: Callable[[np.ndarray], np.ndarray], *recordings: np.ndarray
    ) -> list[np.ndarray]:
        """Applies one of two interchangeable loops, and notes how long it took."""
        start = time.process_time()
        found = [loop(recording) for recording in recordings]
        self.feature_seconds[name] = self.feature_seconds.get(name, 0.0) + time.process_time() - start
        return found

    def read(self, media: Media, *, allow_flat: bool = False, allow_nan: bool = False) -> Signal:
        """Reads one recording as `read_signal` does, and notes how long it took."""
        from mersuite.media.physio import read_signal

        start = time.process_time()
        signal = read_signal(media, allow_flat=allow_flat, allow_nan=allow_nan)
        self.seconds += time.process_time() - start
        return signal


def own_arm(folder: Path, clock: LoadClock) -> dict[str, list[np.ndarray]]:
    """This package's extractors."""
    from mersuite.features.eeg import EegConfig, EegExtractor
    from mersuite.features.fnirs import FnirsConfig, FnirsExtractor
    from mersuite.media import streams

    streams.read_signal = clock.read
    found: dict[str, list[np.ndarray]] = {}
    eeg = EegExtractor(EegConfig(low_hz=0.5, high_hz=70.0, notch_hz=(50.0,)))
    for extractor in (eeg, FnirsExtractor(FnirsConfig())):
        for _, signals in extractor.extract(clips_of(folder)):
            for name, signal in signals.items():
                found.setdefault(name, []).append(signal.data)
    return found


def mne_arm(folder: Path, clock: LoadClock) -> dict[str, list[np.ndarray]]:
    """The same through MNE's Raw and per-window scipy and numpy features."""
    import mne

    mne.set_log_level("ERROR")
    names = mne.channels.get_builtin_montages()
    montage = mne.channels.make_standard_montage("colin27_1005" if "colin27_1005" in names else "standard_1005")
    eeg: list[np.ndarray] = []
    bands: list[np.ndarray] = []
    blood: list[np.ndarray] = []
    statistics: list[np.ndarray] = []
    for clip in clips_of(folder):
        trial, calm = (_mne_eeg(clock.read(clip.media[stream]), montage) for stream in ("eeg", "eeg_baseline"))
        eeg.append(trial)
        clock.features("careful", by_window, trial, calm)
        with_loops = clock.features("loops", by_window_and_channel, trial, calm)
        bands.append((with_loops[0] - with_loops[1].mean(axis=0)).reshape(len(with_loops[0]), -1))
        signal = _mne_fnirs(clock.read(clip.media["fnirs"]), clock.read(clip.media["fnirs_baseline"]))
        blood.append(signal)
        statistics.append(_numpy_statistics(signal, trial.shape[0] // 200))
    everything = np.concatenate(eeg)
    centre = np.median(everything, axis=0)
    scale = np.median(1.4826 * np.median(np.abs(everything - centre), axis=0))
    scaled = [np.clip((trial - centre) / scale, -20, 20).astype(np.float32) for trial in eeg]
    return {"eeg": scaled, "eeg_bands": bands, "fnirs": blood, "fnirs_stats": statistics}


def _mne_eeg(signal: Signal, montage: object) -> np.ndarray:
    import mne

    raw = mne.io.RawArray(signal.data.T.astype(np.float64), mne.create_info(list(EEG_CH_NAMES), EEG_HZ, "eeg"))
    raw.set_channel_types(dict.fromkeys(("M1", "M2", "CB1", "CB2"), "misc"), on_unit_change="ignore")
    raw.set_montage(montage, match_case=False, on_missing="ignore")
    raw.filter(0.5, 70.0, picks="all").notch_filter(50.0, picks="all").resample(200.0, npad=1000)
    raw.info["bads"] = [BAD]
    raw.interpolate_bads().set_eeg_reference("average")
    return raw.get_data(picks="eeg").T * 1e6


def _mne_fnirs(signal: Signal, calm: Signal) -> np.ndarray:
    import mne

    level = _mne_repaired(calm).get_data().mean(axis=1)
    raw = _mne_repaired(signal)
    raw.filter(None, 0.2, h_trans_bandwidth=0.2).resample(5.0, npad=200)
    if not isinstance(raw, mne.io.RawArray):
        raise TypeError(type(raw))
    return (raw.get_data() - level[:, None]).T * 1e6


def _mne_repaired(signal: Signal) -> object:
    import mne

    names = [f"S{site}_D1 {kind}" for kind in ("hbo", "hbr") for site in range(1, 52)]
    info = mne.create_info(names, FNIRS_HZ, ["hbo"] * 51 + ["hbr"] * 51)
    raw = mne.io.RawArray(signal.data[:, :102].T.astype(np.float64), info)
    return mne.preprocessing.nirs.temporal_derivative_distribution_repair(raw)


def _numpy_statistics(recording: np.ndarray, seconds: int) -> np.ndarray:
    rows = []
    for second in range(seconds):
        window = recording[max(0, 5 * (second + 1 - 10)) : 5 * (second + 1)]
        slope = np.polyfit(np.arange(len(window)) / 5, window, 1)[0]
        rows.append(np.stack((window.mean(axis=0), slope, window.std(axis=0)), axis=-1))
    return np.stack(rows).reshape(seconds, -1)


def run_arm(name: str, folder: Path, out: Path) -> None:
    """Runs one arm, keeps its streams and writes its times; what the process entry --arm does."""
    clock = LoadClock()
    for module in ARM_IMPORTS[name]:
        importlib.import_module(module)
    start = time.process_time()
    streams = (own_arm if name == "own" else mne_arm)(folder, clock)
    total = time.process_time() - start
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    np.savez(out / f"{name}.npz", **{stream: np.concatenate(parts) for stream, parts in streams.items()})
    compute = total - clock.seconds
    times = {
        "load_s": clock.seconds,
        "compute_s": compute - clock.feature_seconds.get("careful", 0.0),
        "compute_careful_s": compute - clock.feature_seconds.get("loops", 0.0),
        "peak_gib": peak_kib / 2**20,
    }
    (out / f"{name}.json").write_text(json.dumps(times))


def compare(out: Path) -> dict[str, float]:
    """Gives how far the arms' streams differ away from the trials' edges, in deviations of the scalp channels."""
    scalp = [index for index, name in enumerate(EEG_CH_NAMES) if name not in ("M1", "M2", "CB1", "CB2")]
    with np.load(out / "own.npz") as own, np.load(out / "mne.npz") as theirs:
        gap = own["eeg"][:, scalp] - theirs["eeg"]
        bands = own["eeg_bands"].reshape(len(own["eeg_bands"]), 64, 5)[:, scalp].reshape(len(gap) // 200, -1)
        return {
            "eeg_median_difference": float(np.median(np.abs(gap))),
            "eeg_bands_median_difference": float(np.median(np.abs(bands - theirs["eeg_bands"]))),
        }


def main() -> None:
    """Writes the person, runs both arms and prints the table or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="trials last so many times the published seconds")
    parser.add_argument("--data", type=Path, help="folder to keep the person's files in, or to find them in")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--arm", nargs=3, metavar=("NAME", "FOLDER", "OUT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.arm:
        run_arm(args.arm[0], Path(args.arm[1]), Path(args.arm[2]))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.data or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "fNIRS_baselines.mat").exists():
            write_person(folder, args.scale)
        arms = {}
        for name in ("own", "mne"):
            subprocess.run([sys.executable, __file__, "--arm", name, str(folder), scratch], check=True)
            arms[name] = json.loads((Path(scratch) / f"{name}.json").read_text())
        size_mib = sum(path.stat().st_size for path in folder.glob("*.mat")) / 2**20
        ratio, careful = (arms["mne"][key] / arms["own"]["compute_s"] for key in ("compute_s", "compute_careful_s"))
        result = {
            "files_mib": size_mib,
            **{f"{name}_{key}": value for name, times in arms.items() for key, value in times.items()},
            "ratio_compute": ratio,
            "ratio_compute_careful": careful,
            **compare(Path(scratch)),
            "passed": min(ratio, careful) >= LEAST_RATIO and arms["own"]["peak_gib"] < MOST_GIB,
        }
    if args.json:
        print(json.dumps(result))
        return
    print(f"one person, {size_mib:.0f} MiB of compressed files      loading   computing   peak memory")
    own, theirs = arms["own"], arms["mne"]
    rows = (
        ("this package", own["load_s"], own["compute_s"], own["peak_gib"]),
        ("MNE, scipy by window and channel", theirs["load_s"], theirs["compute_s"], theirs["peak_gib"]),
        ("MNE, scipy by window", theirs["load_s"], theirs["compute_careful_s"], theirs["peak_gib"]),
    )
    for label, load, compute, peak in rows:
        print(f"  {label:34}{load:11.2f} s{compute:10.2f} s{peak:10.2f} GiB")
    print(
        f"  computing {ratio:.1f}x faster than with the loop by window and channel, {careful:.1f}x than with the ",
        end="",
    )
    print(f"loop by window; wanted {LEAST_RATIO:g}x of both")
    print(f"  median difference: eeg {result['eeg_median_difference']:.1e} deviations, ", end="")
    print(f"eeg_bands {result['eeg_bands_median_difference']:.1e} nat")


if __name__ == "__main__":
    main()
