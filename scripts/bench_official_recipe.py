"""Times the organisers' protocol of MER-Cross: draws and folds trained together, against a bare PyTorch loop.

Data are made up: three features of 1,024 a clip whose means depend on the emotion, so that the best possible WAF is
known. Three ways to train one draw of hyper-parameters on one fold for one epoch:

- bare: a loop written after the protocol: a DataLoader over a Dataset item by item with a collate function, the
  attention model in plain PyTorch, Adam, validation, and all candidates scored in every epoch, as the organisers do;
- alone: what `mersuite fit` does for systems that cannot be trained together: one fold after the other, no candidates;
- together: what `mersuite fit config=recipe/cross_official.yaml` does: all folds of several draws as one model.

Each round times all three, in turns; figures are medians over the rounds. One epoch costs what every epoch costs, so a
few are timed. What does not grow with epochs (reading rows, building networks, writing checkpoints, and the candidates
scored once by the best draw's folds) is timed apart, and counted in the ratio for 100 epochs.

    python scripts/bench_official_recipe.py [--epochs 3] [--rounds 3] [--draws 5] [--threads 1] [--json]
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mersuite import api, registry
from mersuite.clip import Sample, Signal
from mersuite.config import RunConfig
from mersuite.formats.mer2026 import EMOTIONS
from mersuite.inference import answer_with, load_checkpoint
from mersuite.metrics.waf import label_metrics
from mersuite.training.draw_training import train_draws
from mersuite.training.draws import plan_draws
from mersuite.training.folds import BEST, FoldRun, train_fold
from mersuite.training.progress import RunProgress
from mersuite.training.run import choose_evaluations, plan_folds

STREAMS = ("face", "prosody", "text")
SHARES = (0.30, 0.18, 0.20, 0.13, 0.13, 0.06)
EFFECT = 1.8
"""Length of the mean vector of an emotion in each stream, in deviations of one feature."""
BATCH_SIZE, WEIGHT_DECAY, ALL_EPOCHS, LEAST_RATIO = 32, 1e-5, 100, 3.0


def clock() -> float:
    """Computing time of this process where it has one thread, else the time of day; why: as in bench_training.py."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


class MadeClips:
    """Made-up clips in memory; the first ones have labels, the others are candidates."""

    def __init__(self, num_clips: int, num_candidates: int, width: int) -> None:
        rng = np.random.default_rng(0)
        total = num_clips + num_candidates
        self.names = [f"sample_{index:08d}" for index in range(total)]
        self._places = {name: index for index, name in enumerate(self.names)}
        self.labels = rng.choice(len(EMOTIONS), size=total, p=SHARES)
        self.rows: dict[str, np.ndarray] = {}
        scores = np.zeros((total, len(EMOTIONS))) + np.log(SHARES)
        for stream in STREAMS:
            means = rng.standard_normal((len(EMOTIONS), width))
            means = EFFECT * means / np.linalg.norm(means, axis=1, keepdims=True)
            rows = (rng.standard_normal((total, width)) + means[self.labels]).astype(np.float32)
            scores += rows @ means.T - 0.5 * (means**2).sum(1)
            self.rows[stream] = rows
        answers, truths = scores[:num_clips].argmax(1), self.labels[:num_clips]
        self.best_waf = waf(answers, truths)
        self.train = [self._sample(index) for index in range(num_clips)]
        self.candidates = [replace(self._sample(index), target={}) for index in range(num_clips, total)]

    def _sample(self, index: int) -> Sample:
        name = self.names[index]
        target = {"emotion": np.asarray(EMOTIONS[self.labels[index]])}
        return Sample(sample_id=name, clip_id=name, groups={"clip": name}, target=target)

    def place(self, name: str) -> int:
        """Row of a clip."""
        return self._places[name]

    def get(self, clip_id: str, stream: str) -> Signal | None:
        """Gives a clip's vector."""
        place = self._places[clip_id]
        return Signal(data=self.rows[stream][place : place + 1], rate_hz=0.0, ch_names=())

    def example(self, stream: str) -> Signal | None:
        """Gives the vector of some clip."""
        return self.get(self.names[0], stream)

    def signature(self, clip_ids: Collection[str]) -> str:
        """The clips are always the same."""
        return f"made up: {len(clip_ids)}"


def waf(answers: Sequence[int] | np.ndarray, truths: Sequence[int] | np.ndarray) -> float:
    """WAF of class indices."""
    names = [EMOTIONS[index] for index in answers], [EMOTIONS[index] for index in truths]
    return label_metrics(*names)["waf"]


# ---- the bare loop


class BareItems(torch.utils.data.Dataset):
    """One clip an item: its vectors and its class."""

    def __init__(self, clips: MadeClips, places: Sequence[int]) -> None:
        self._clips, self._places = clips, list(places)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        place = self._places[index]
        vectors = {stream: self._clips.rows[stream][place] for stream in STREAMS}
        return {**vectors, "class": int(self._clips.labels[place]), "name": self._clips.names[place]}

    @staticmethod
    def collate(items: Sequence[dict[str, Any]]) -> tuple[list[torch.Tensor], torch.Tensor, list[str]]:
        """Joins items into tensors."""
        vectors = [torch.from_numpy(np.stack([item[stream] for item in items])) for stream in STREAMS]
        return vectors, torch.tensor([item["class"] for item in items]), [item["name"] for item in items]


def layers(num_inputs: int, hidden: int, dropout: float) -> nn.Sequential:
    """Dropout and three layers."""
    found: list[nn.Module] = [nn.Dropout(dropout)]
    for size in (num_inputs, hidden, hidden):
        found += [nn.Linear(size, hidden), nn.ReLU()]
    return nn.Sequential(*found)


class BareAttention(nn.Module):
    """The organisers' attention model as the spec describes it."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(layers(width, hidden, dropout) for _ in STREAMS)
        self.attention = layers(len(STREAMS) * hidden, hidden, dropout)
        self.weights = nn.Linear(hidden, len(STREAMS))
        self.output = nn.Linear(hidden, len(EMOTIONS))

    def forward(self, vectors: Sequence[torch.Tensor]) -> torch.Tensor:
        """Gives logits."""
        encoded = [encoder(rows) for encoder, rows in zip(self.encoders, vectors, strict=True)]
        weights = self.weights(self.attention(torch.cat(encoded, dim=1))).unsqueeze(2)
        fused = torch.matmul(torch.stack(encoded, dim=2), weights).squeeze(2)
        return self.output(fused)


def bare_answers(model: nn.Module, loader: torch.utils.data.DataLoader) -> tuple[np.ndarray, np.ndarray]:
    """Logits and truths of all rows."""
    model.eval()
    logits, truths = [], []
    with torch.no_grad():
        for vectors, target, _ in loader:
            logits.append(model(vectors).numpy())
            truths.append(target.numpy())
    return np.concatenate(logits), np.concatenate(truths)


def train_bare(clips: MadeClips, run: FoldRun, values: dict[str, Any], num_epochs: int) -> tuple[float, float]:
    """Seconds of an epoch, and the WAF of the best one."""
    torch.manual_seed(run.fold.index)
    parts = {
        "train": [clips.place(name) for name in run.fold.train],
        "val": [clips.place(name) for name in run.fold.val],
        "candidates": [clips.place(sample.sample_id) for sample in clips.candidates],
    }
    loaders = {
        name: torch.utils.data.DataLoader(
            BareItems(clips, places), batch_size=BATCH_SIZE, shuffle=name == "train", collate_fn=BareItems.collate
        )
        for name, places in parts.items()
    }
    width = clips.rows[STREAMS[0]].shape[1]
    model = BareAttention(width, values["hidden"], values["dropout"])
    optimizer = torch.optim.Adam(model.parameters(), lr=values["lr"], weight_decay=WEIGHT_DECAY)
    loss_of = nn.CrossEntropyLoss()
    start, best, kept = clock(), -1.0, None
    for _ in range(num_epochs):
        model.train()
        for vectors, target, _ in loaders["train"]:
            optimizer.zero_grad()
            loss = loss_of(model(vectors), target)
            loss.backward()
            optimizer.step()
        logits, truths = bare_answers(model, loaders["val"])
        candidates, _ = bare_answers(model, loaders["candidates"])
        value = waf(logits.argmax(1), truths)
        if value > best:
            best, kept = value, candidates
    if kept is None:
        raise SystemExit("no epoch was run")
    return (clock() - start) / num_epochs, best


# ---- mersuite


class EpochClock(RunProgress):
    """Notes when each epoch ended instead of showing it."""

    def __init__(self) -> None:
        super().__init__(1, enabled=False)
        self.times: list[float] = []

    def show(self, description: str, done: int | None, note: str) -> None:
        """Notes the time."""
        self.times.append(clock())


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """What training together took.

    Attributes:
        epoch_s: One epoch of one fold of one draw.
        fixed_s: What does not grow with epochs, for one fold of one draw, the candidates' share in it.
        wafs: WAF of each fold of the first draw.
    """

    epoch_s: float
    fixed_s: float
    wafs: list[float]


def make_config(hidden: int, num_epochs: int, num_draws: int) -> RunConfig:
    """The shipped recipe on the made-up streams."""
    words = [
        "features={}",
        "model.encoders.logmel=null",
        *(f"model.encoders.{stream}.input_norm=false" for stream in STREAMS),
        "cross.own={}",
        "cross.other={}",
        f"trainer.max_epochs={num_epochs}",
        f"draws.num_draws={num_draws}",
        f"draws.space.hidden.choices=[{hidden}]",
        "runtime.accelerator=cpu",
        "runtime.progress=false",
    ]
    return api.config("cross", files=["recipe/cross_official.yaml"], overrides=words)


def make_runs(clips: MadeClips, config: RunConfig, folder: Path) -> list[FoldRun]:
    """The folds of the official evaluation."""
    track = registry.load("cross")
    evaluation = choose_evaluations(track, config)[0]
    return [
        FoldRun(
            track=track,
            config=config,
            evaluation=evaluation.name,
            samples={sample.sample_id: sample for sample in clips.train},
            reader=clips,  # type: ignore[arg-type]
            fold=fold,
            folder=folder / f"fold_{fold.index}",
        )
        for fold in plan_folds(config, evaluation, clips.train)
    ]


def train_all_together(clips: MadeClips, config: RunConfig, folder: Path) -> Together:
    """Trains all draws and folds, then scores the candidates once with the best draw's folds."""
    progress = EpochClock()
    runs = [replace(run, progress=progress) for run in make_runs(clips, config, folder)]
    start = clock()
    train_draws(runs, folder)
    for run in runs:
        answer_with(load_checkpoint(run.folder / BEST), clips.candidates, run.reader)
    total_s = clock() - start
    num_models = len(runs) * config.draws.num_draws
    num_epochs = config.trainer.max_epochs
    chunks = [progress.times[at : at + num_epochs] for at in range(0, len(progress.times), num_epochs)]
    epoch_s = sum((times[-1] - times[0]) / (num_epochs - 1) for times in chunks)
    with (folder / "draws.csv").open(newline="", encoding="utf-8") as stream:
        wafs = [float(row["waf"]) for row in csv.DictReader(stream) if row["draw"] == "0"]
    fixed_s = total_s - num_epochs * epoch_s
    return Together(epoch_s=epoch_s / num_models, fixed_s=max(0.0, fixed_s) / num_models, wafs=wafs)


def train_one_alone(clips: MadeClips, config: RunConfig, folder: Path, fold: int) -> float:
    """Seconds of an epoch of the first draw on one fold, by the ordinary path."""
    run = make_runs(clips, config, folder)[fold]
    run = replace(run, config=plan_draws(config)[0].config, folder=folder / "alone")
    start = clock()
    train_fold(run)
    return (clock() - start) / config.trainer.max_epochs


def measure(clips: MadeClips, hidden: int, args: argparse.Namespace) -> dict[str, Any]:
    """Times all three ways for one width of the hidden layers."""
    config = make_config(hidden, args.epochs, args.draws)
    values = dict(plan_draws(config)[0].values)
    rounds = []
    for index in range(args.rounds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            together = train_all_together(clips, config, folder / "together")
            runs = make_runs(clips, config, folder)
            folds = [(index * args.bare_folds + at) % len(runs) for at in range(args.bare_folds)]
            bare = [train_bare(clips, runs[fold], values, args.epochs) for fold in folds]
            alone_s = train_one_alone(clips, config, folder, folds[0])
        bare_s = statistics.mean(seconds for seconds, _ in bare)
        rounds.append(
            {
                "bare_epoch_s": bare_s,
                "alone_epoch_s": alone_s,
                "together_epoch_s": together.epoch_s,
                "together_fixed_s": together.fixed_s,
                "ratio": bare_s / together.epoch_s,
                "ratio_100_epochs": bare_s * ALL_EPOCHS / (together.epoch_s * ALL_EPOCHS + together.fixed_s),
                "sweep_ratio": alone_s / together.epoch_s,
                "bare_waf": statistics.mean(value for _, value in bare),
                "together_waf": statistics.mean(together.wafs[fold] for fold in folds),
            }
        )
    median = {name: statistics.median(item[name] for item in rounds) for name in rounds[0]}
    return {"hidden": hidden, **{name: float(value) for name, value in median.items()}, "rounds": rounds}


def main() -> None:
    """Measures and prints the table or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3, help="epochs that are timed, 2 or more")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--draws", type=int, default=5, help="draws that are trained together, on 5 folds each")
    parser.add_argument("--bare-folds", type=int, default=2, help="folds of the bare loop in each round")
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--clips", type=int, default=9395)
    parser.add_argument("--candidates", type=int, default=20000)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.epochs < 2:
        parser.error("--epochs: need 2 or more, because the first one tells what does not grow with them")

    logging.getLogger("mersuite").setLevel(logging.ERROR)
    torch.set_num_threads(args.threads)
    clips = MadeClips(args.clips, args.candidates, args.width)
    rows = [measure(clips, hidden, args) for hidden in args.hidden]
    bare_s, together_s = sum(row["bare_epoch_s"] for row in rows), sum(row["together_epoch_s"] for row in rows)
    if args.json:
        told = {"cases": rows, "ratio": bare_s / together_s, "best_waf": clips.best_waf, "least_ratio": LEAST_RATIO}
        print(json.dumps(told))
        return
    print(
        f"{args.clips:,} clips, {args.candidates:,} candidates, 3 x {args.width:,}; {args.draws} draws x 5 folds, "
        f"{args.epochs} epochs, {args.threads} thread(s), medians of {args.rounds} rounds; one fold of one draw:"
    )
    for row in rows:
        print(
            f"  hidden {row['hidden']:3}: an epoch takes bare {row['bare_epoch_s']:.3f} s, alone "
            f"{row['alone_epoch_s']:.3f} s, together {row['together_epoch_s']:.3f} s; bare / together "
            f"{row['ratio']:.2f}x, {row['ratio_100_epochs']:.2f}x for {ALL_EPOCHS} epochs and all around them; alone / "
            f"together {row['sweep_ratio']:.2f}x; WAF bare {row['bare_waf']:.4f}, together {row['together_waf']:.4f}"
        )
    print(f"  all widths: {bare_s / together_s:.2f}x; wanted: at least {LEAST_RATIO:g}x")
    print(f"  best possible WAF: {clips.best_waf:.4f}")


if __name__ == "__main__":
    main()
