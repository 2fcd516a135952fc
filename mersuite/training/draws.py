"""Random draws of hyper-parameters, each trained on all folds: which they are, and what became of them.

A run folder holds draws/draw_<n>/finished.json for every finished draw, in the ordinary fold folders below it the
checkpoints of the best one so far, and in the end draws.csv. The best draw's folds become the evaluation's own.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mersuite.clip import Sample
from mersuite.config import RunConfig, with_overrides
from mersuite.data.splits import Fold, natural_key
from mersuite.errors import ConfigError
from mersuite.run_folder import write_json, write_text
from mersuite.training.folds import BEST

FOLDER = "draws"
FINISHED = "finished.json"
TABLE = "draws.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """One draw.

    Attributes:
        index: 0-based.
        values: Name in draws.space to what was drawn.
        config: The configuration with these values, and with a seed of the draw's own.
    """

    index: int
    values: Mapping[str, Any]
    config: RunConfig


def without_val(fold: Fold, samples: Sequence[Sample], by: Sequence[str]) -> Fold:
    """Gives the fold of a protocol that holds no rows back for choices: it validates on its held-out rows.

    Args:
        fold: A fold whose sides share no group.
        samples: All samples.
        by: Groups that held-out rows must not share with training rows: every other row is trained on.
    """
    held_out = set(fold.held_out)
    taken = {(group, item.groups[group]) for item in samples if item.sample_id in held_out for group in by}
    train = [item.sample_id for item in samples if not any((group, item.groups.get(group)) in taken for group in by)]
    return Fold(
        index=fold.index, train=tuple(sorted(train, key=natural_key)), val=fold.held_out, held_out=fold.held_out
    )


def plan_draws(config: RunConfig) -> list[Draw]:
    """Gives the configured draws. A draw depends on the run's seed and on its number, not on how many there are.

    Raises:
        ConfigError: If a key of draws.space is none, or does not take a drawn value.
    """
    keys = {name: _expanded(config, name) for name in config.draws.space}
    draws = []
    for index in range(config.draws.num_draws):
        sequence = np.random.SeedSequence([config.seed, index])
        rng = np.random.default_rng(sequence)
        values = {name: _drawn(config, name, rng) for name in config.draws.space}
        overrides: dict[str, Any] = {key: values[name] for name in values for key in keys[name]}
        try:
            own = with_overrides(config, {**overrides, "seed": int(sequence.generate_state(1)[0])})
        except ConfigError as error:
            raise ConfigError(f"draws.space: draw {index} ({_told(values)}) does not fit: {error}") from error
        draws.append(Draw(index=index, values=values, config=own))
    return draws


def _expanded(config: RunConfig, name: str) -> list[str]:
    """Gives the keys of a drawn value with `*` replaced by every stream of the model."""
    keys = []
    for key in config.draws.space[name].keys:
        if key == "seed" or key.partition(".")[0] in ("draws", "cv", "run", "runtime", "store", "sweep", "evaluate"):
            raise ConfigError(f"draws.space.{name}.keys: {key} cannot be drawn; name keys of model, optim or trainer")
        before, star, after = key.partition("*")
        if not star:
            keys.append(key)
        elif before != "model.encoders.":
            raise ConfigError(
                f"draws.space.{name}.keys: {key}: * stands for streams only, as in model.encoders.*.width"
            )
        else:
            keys += [f"{before}{stream}{after}" for stream in config.model.encoders]
    return keys


def _drawn(config: RunConfig, name: str, rng: np.random.Generator) -> Any:
    item = config.draws.space[name]
    place = rng.random()  # one number a value, so that choices and ranges do not move what is drawn after them
    if item.choices:
        return item.choices[int(place * len(item.choices))]
    low, high = float(item.low or 0.0), float(item.high or 0.0)
    return low + place * (high - low)


def _told(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawResult:
    """What became of a draw; finished.json holds it.

    Attributes:
        draw: Its number.
        values: What was drawn.
        metrics: Over the validation rows of all folds together, each fold at its best epoch.
        folds: One a fold: fold, best_epoch (counted from 0) and value, the monitored metric on its validation rows.
    """

    draw: int
    values: Mapping[str, Any]
    metrics: Mapping[str, float]
    folds: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawFolder:
    """Where the draws of one evaluation are kept.

    Attributes:
        path: Folder of the evaluation.
        monitor: Metric that ranks draws.
        mode: "max" or "min".
    """

    path: Path
    monitor: str
    mode: str

    def fold(self, draw: int, fold: int) -> Path:
        """Folder of one fold of a draw."""
        return self._draw(draw) / f"fold_{fold}"

    def _draw(self, draw: int) -> Path:
        return self.path / FOLDER / f"draw_{draw}"

    def read(self) -> dict[int, DrawResult]:
        """Gives the finished draws by number."""
        found = {}
        for path in sorted((self.path / FOLDER).glob(f"draw_*/{FINISHED}")):
            result = DrawResult(**json.loads(path.read_text(encoding="utf-8")))
            found[result.draw] = result
        return found

    def best(self, results: Mapping[int, DrawResult]) -> int | None:
        """Gives the number of the best draw, the lowest of equal ones; None where there is none."""
        ranked = self.ranked(results.values())
        return ranked[0].draw if ranked else None

    def ranked(self, results: Iterable[DrawResult]) -> list[DrawResult]:
        """Gives draws, the best first."""
        sign = -1.0 if self.mode == "max" else 1.0
        return sorted(results, key=lambda item: (sign * item.metrics[self.monitor], item.draw))

    def finish(self, results: Sequence[DrawResult]) -> None:
        """Notes draws as finished and removes the checkpoints of all draws but the best one.

        Safe to kill: checkpoints of a draw are written before it is noted, and removed after a better one is.
        """
        for result in results:
            write_json(
                self._draw(result.draw) / FINISHED,
                {
                    "draw": result.draw,
                    "values": dict(result.values),
                    "metrics": dict(result.metrics),
                    "folds": [dict(item) for item in result.folds],
                },
            )
        known = self.read()
        best = self.best(known)
        for draw in known:
            if draw != best:
                for folder in self._draw(draw).glob("fold_*"):
                    shutil.rmtree(folder)

    def is_better(self, result: DrawResult, than: Mapping[int, DrawResult]) -> bool:
        """Whether a draw would be the best one."""
        return self.best({**than, result.draw: result}) == result.draw

    def take_best(self, fold_folders: Mapping[int, Path]) -> None:
        """Copies the best draw's checkpoints and curves into the evaluation's own fold folders."""
        best = self.best(self.read())
        for fold, folder in fold_folders.items():
            if best is None or (folder / BEST).is_file():
                continue
            folder.mkdir(parents=True, exist_ok=True)
            for name in ("curve.csv", BEST):
                if not (self.fold(best, fold) / name).is_file():
                    continue  # a system without a network has no curve
                partial = folder / f".{name}.partial"
                shutil.copyfile(self.fold(best, fold) / name, partial)
                partial.replace(folder / name)

    def write_table(self) -> None:
        """Writes draws.csv: draw, what was drawn, fold, best_epoch and the monitored metric of the fold, a fold a row.

        Checkpoints of the best draw lie in the evaluation's own folds by now and are removed here.
        """
        results = self.read()
        names = list(dict.fromkeys(name for result in results.values() for name in result.values))
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["draw", *names, "fold", "best_epoch", self.monitor])
        for draw in sorted(results):
            values = [results[draw].values.get(name, "") for name in names]
            for item in results[draw].folds:
                writer.writerow([draw, *values, item["fold"], item["best_epoch"], repr(item["value"])])
        write_text(self.path / TABLE, out.getvalue())
        for draw in results:
            for folder in self._draw(draw).glob("fold_*"):
                shutil.rmtree(folder)

    def summary(self, num_best: int) -> dict[str, Any]:
        """Gives mean and deviation (of a sample) of the best draws' metrics, and what the best one drew.

        Args:
            num_best: How many of the best count; all where there are fewer.
        """
        ranked = self.ranked(self.read().values())
        chosen = ranked[:num_best]
        names = list(chosen[0].metrics)
        found = {name: np.array([item.metrics[name] for item in chosen]) for name in names}
        return {
            "num_draws": len(ranked),
            "num_best": len(chosen),
            "mean": {name: float(values.mean()) for name, values in found.items()},
            "deviation": {
                name: float(values.std(ddof=1)) if len(values) > 1 else 0.0 for name, values in found.items()
            },
            "best_draw": ranked[0].draw,
            "best_values": dict(ranked[0].values),
        }
