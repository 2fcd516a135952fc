"""Measures a training epoch of mersuite against the same network in a bare PyTorch loop, both in one run, interleaved.

Both arms take the same batches from the same loader and do the same arithmetic: forward, the track's loss, backward,
clipping, optimiser and schedule. Mersuite's arm is what `mersuite fit` runs: its module, its Trainer, its callbacks.
An epoch is timed from before its first batch is loaded to after its last step; validation and checkpoints are no part
of it. "default" is the shipped ps model, whose steps take about a millisecond or two: there Lightning's cost a step is
the figure to look at. "raw" is EEGNet on EEG at 200 Hz, with steps of 20 ms and more: there the ratio counts.

    OMP_NUM_THREADS=1 python scripts/bench_training.py [--rounds 8] [--scale 1.0] [--json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch

from mersuite import api, registry
from mersuite.clip import Sample, Signal
from mersuite.config import RunConfig
from mersuite.data.datamodule import ShuffledWindows, WindowDataModule, train_loader
from mersuite.inference import build_network
from mersuite.models.base import BuildContext, StreamInfo
from mersuite.models.network import Network
from mersuite.training.module import SupervisedModule
from mersuite.training.optim import build_optimizer, schedule_factor
from mersuite.training.trainer import build_trainer

NUM_SECONDS = 100
NUM_EPOCHS = 2
LARGEST_RATIO = 1.10
LEAST_STEP_S = 0.020
STREAMS = {"eeg_bands": (1.0, 320), "fnirs_stats": (1.0, 306), "eeg": (200.0, 64)}
CASES: dict[str, tuple[str, ...]] = {
    "default": (),
    "raw": ("model.encoders.eeg_bands=null", "model.encoders.eeg=eegnet", "trainer.batch_size=8"),
}
NUM_TRIALS = {"default": 120, "raw": 4}


def clock() -> float:
    """Computing time of this process where it has one thread, else the time of day.

    Why: nothing waits for disk or network here, and other work on the same cores then counts in neither arm.
    """
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


class Streams:
    """Made-up streams in memory, the same for every clip, so that reading costs both arms next to nothing."""

    def __init__(self, names: Sequence[str]) -> None:
        rng = np.random.default_rng(0)
        self._signals = {}
        for name in names:
            rate_hz, num_channels = STREAMS[name]
            data = rng.standard_normal((round(NUM_SECONDS * rate_hz), num_channels), dtype=np.float32)
            ch_names = tuple(f"C{index}" for index in range(num_channels))
            self._signals[name] = Signal(data=data, rate_hz=rate_hz, ch_names=ch_names)

    def get(self, clip_id: str, stream: str) -> Signal | None:
        """Gives the stream of any clip."""
        return self._signals[stream]

    def example(self, stream: str) -> Signal | None:
        """Gives the stream of any clip."""
        return self._signals[stream]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What both arms train.

    Attributes:
        config: The configuration.
        samples: Training samples.
        streams: What they read.
    """

    config: RunConfig
    samples: list[Sample]
    streams: Streams

    def network(self) -> Network:
        """A fresh network, the same each time."""
        torch.manual_seed(0)
        track = registry.load("ps")
        streams = {}
        for name in self.config.model.encoders:
            rate_hz, num_channels = STREAMS[name]
            names = tuple(f"C{index}" for index in range(num_channels))
            streams[name] = StreamInfo(num_channels=num_channels, rate_hz=rate_hz, ch_names=names)
        window_s = self.config.data.window_s
        context = BuildContext(streams=streams, window_s=window_s, token_rate_hz=track.token_rate_hz)
        network = build_network(track, self.config, context, track.fitted(self.config))
        if network is None:
            raise SystemExit("the configured system has no network")
        return network.train()

    def target_of(self, sample: Sample) -> dict[str, np.ndarray]:
        """What is trained towards: noise."""
        return dict(sample.target)


def make_case(name: str, scale: float) -> Case:
    """Makes a case with that share of its full number of trials."""
    words = ["runtime.accelerator=cpu", "runtime.progress=false", "trainer.patience=null", *CASES[name]]
    config = api.config("ps", overrides=words)
    rng = np.random.default_rng(1)
    samples = [
        Sample(
            sample_id=f"test_{index}/video_01",
            clip_id=f"test_{index}/video_01",
            groups={"subject": f"test_{index}", "clip": "video_01"},
            duration_s=float(NUM_SECONDS),
            target={"valence_arousal": rng.normal(scale=30, size=(NUM_SECONDS, 2)).astype(np.float32)},
        )
        for index in range(max(2, round(NUM_TRIALS[name] * scale)))
    ]
    return Case(config=config, samples=samples, streams=Streams(list(config.model.encoders)))


class EpochTimer(pl.Callback):
    """Notes how long the batches of each epoch take."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._start = 0.0

    def on_train_epoch_start(self, *_: Any) -> None:
        """Starts the watch."""
        self._start = clock()

    def on_validation_start(self, *_: Any) -> None:
        """Stops it: validation follows the last step."""
        self.seconds.append(clock() - self._start)


def train_by_mersuite(case: Case, num_epochs: int) -> tuple[list[float], Network]:
    """Seconds of each epoch, and the network, by the module, data module and Trainer that `mersuite fit` uses."""
    config = replace(case.config, trainer=replace(case.config.trainer, max_epochs=num_epochs))
    track = registry.load("ps")
    module = SupervisedModule(case.network(), track, config, track.fitted(config), lambda outputs: {"mae": 0.0})
    data = WindowDataModule(
        config,
        train=case.samples,
        val=case.samples[:1],
        reader=case.streams,
        target_of=case.target_of,
        seed=0,
    )
    timer = EpochTimer()
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(config, Path(folder), seed=0, monitor="val/mae", mode="min", extra_callbacks=[timer])
        trainer.fit(module, datamodule=data)
    return timer.seconds, module.network


def train_bare(case: Case, num_epochs: int) -> tuple[list[float], Network]:
    """Seconds of each epoch, and the network, by a loop without anything around it."""
    config, track = case.config, registry.load("ps")
    fitted = track.fitted(config)
    network = case.network()
    loader = train_loader(config, case.samples, case.streams, case.target_of, seed=0, rank=0, world_size=1)
    optimizer = build_optimizer(network, config.optim)
    factor = schedule_factor(config.optim, num_epochs * len(loader))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    sampler = cast(ShuffledWindows, loader.sampler)
    seconds = []
    for epoch in range(num_epochs):
        start = clock()
        torch.manual_seed(int(np.random.SeedSequence([0, epoch, 0]).generate_state(1)[0]))  # as SeedEachEpoch does
        sampler.set_epoch(epoch)
        total = torch.zeros(())
        for batch in loader:
            optimizer.zero_grad()
            output, fused = network(batch)
            loss = torch.stack(list(track.loss(config, output, fused, batch, fitted).values())).sum()
            loss.backward()
            if config.trainer.gradient_clip is not None:
                torch.nn.utils.clip_grad_norm_(network.parameters(), config.trainer.gradient_clip)
            optimizer.step()
            schedule.step()
            total += loss.detach()
        total.item()
        seconds.append(clock() - start)
    return seconds, network


def measure(name: str, rounds: int, scale: float) -> dict[str, Any]:
    """Times both arms in turns, two epochs each; figures are of the shortest epoch of each arm.

    Both arms start from the same weights with the same seeds, so they must also end with the same weights.
    """
    case = make_case(name, scale)
    loader = train_loader(case.config, case.samples, case.streams, case.target_of, seed=0, rank=0, world_size=1)
    num_steps = len(loader)
    bare: list[float] = []
    own: list[float] = []
    gap = 0.0
    for _ in range(rounds):
        bare_s, bare_network = train_bare(case, NUM_EPOCHS)
        own_s, own_network = train_by_mersuite(case, NUM_EPOCHS)
        bare, own = [*bare, *bare_s], [*own, *own_s]
        pairs = zip(bare_network.parameters(), own_network.parameters(), strict=True)
        gap = max(gap, *(float((one - other).detach().abs().max()) for one, other in pairs))
    # Why the shortest: whatever else a machine does can only make an epoch longer.
    step_s, own_step_s = min(bare) / num_steps, min(own) / num_steps
    ratio = own_step_s / step_s
    return {
        "case": name,
        "parameters": sum(item.numel() for item in case.network().parameters()),
        "batch_size": case.config.trainer.batch_size,
        "steps": num_steps,
        "bare_ms_per_step": 1e3 * step_s,
        "mersuite_ms_per_step": 1e3 * own_step_s,
        "cost_ms_per_step": 1e3 * (own_step_s - step_s),
        "ratio": ratio,
        "max_weight_difference": gap,
        "counts": step_s >= LEAST_STEP_S,
        "passed": step_s < LEAST_STEP_S or ratio <= LARGEST_RATIO,
    }


def main() -> None:
    """Runs the cases and prints the table or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full number of trials")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    rows = [measure(name, args.rounds, args.scale) for name in CASES]
    if args.json:
        print(json.dumps({"cases": rows, "largest_ratio": LARGEST_RATIO, "passed": all(row["passed"] for row in rows)}))
        return
    print(f"one training epoch, {torch.get_num_threads()} thread(s), shortest of {NUM_EPOCHS * args.rounds} epochs")
    for row in rows:
        print(
            f"  {row['case']:8} {row['parameters']:7,} parameters, {row['steps']:3} steps of {row['batch_size']:2}: "
            f"bare {row['bare_ms_per_step']:7.2f} ms, mersuite {row['mersuite_ms_per_step']:7.2f} ms a step; "
            f"{row['ratio']:.3f}x, {row['cost_ms_per_step']:+.2f} ms a step"
        )
    gap = max(row["max_weight_difference"] for row in rows)
    print(f"  largest difference between the weights that both arms end with: {gap:.1e}")
    print(f"  wanted: at most {LARGEST_RATIO:.2f}x where a step takes {1e3 * LEAST_STEP_S:g} ms or more")


if __name__ == "__main__":
    main()
