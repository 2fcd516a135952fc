"""A finished run of ps as `fit` leaves it, from made-up numbers."""

import json

import numpy as np
import pytest
import yaml

from mersuite.clip import Prediction
from mersuite.metrics.bootstrap import bootstrap_intervals
from mersuite.predictions import PredictionHeader, write_predictions
from tracks.ps.layout import EEG_CH_NAMES
from tracks.ps.scores import metrics_of_answers

SYSTEMS = {
    "fused": "prior + network",
    "constant": "always 128",
    "median": "training median of each dimension",
    "signal": "training median + network on signals alone",
    "prior": "training median label of the same clip and second",
    "unseen_clips": "prior + network, neither subject nor clip ever seen",
}


def _smooth(rng, num_rows, scale):
    steps = rng.normal(0, 1, (num_rows + 24, 2))
    kernel = np.hanning(25) / np.hanning(25).sum()
    return scale * 3.5 * np.stack([np.convolve(steps[:, dim], kernel, "valid") for dim in range(2)], axis=1)


def _answers(num_subjects, num_clips, seconds):
    rng = np.random.default_rng(0)
    shared = [128 + rng.normal(0, 30, 2) + _smooth(rng, seconds + 7 * clip, 30) for clip in range(num_clips)]
    for subject in range(1, num_subjects + 1):
        own_scale = rng.uniform(8, 30)
        for clip, common in enumerate(shared, start=1):
            own = rng.normal(0, 0.5 * own_scale, 2) + _smooth(rng, len(common), own_scale)
            truth = np.clip(np.rint(common + own), 1, 255)
            preds = {
                "fused": common + 0.35 * own,
                "constant": np.full_like(common, 128.0),
                "median": np.full_like(common, 125.0),
                "signal": 125 + 0.3 * own,
                "prior": common,
                "unseen_clips": 125 + 0.25 * own,
            }
            yield subject, clip, truth, {name: np.clip(np.rint(each), 1, 255) for name, each in preds.items()}


def write_run(folder, *, num_subjects=4, num_clips=3, seconds=40, epochs=6):
    """Writes a run folder and gives its path."""
    tables = {name: [] for name in SYSTEMS}
    for subject, clip, truth, preds in _answers(num_subjects, num_clips, seconds):
        for name, answer in preds.items():
            tables[name].append(
                Prediction(
                    sample_id=f"test_{subject}/video_{clip:02d}",
                    groups={"subject": f"test_{subject}", "clip": f"video_{clip:02d}"},
                    outputs={"valence_arousal": answer},
                    answer=answer.astype(int).tolist(),
                    target={"valence_arousal": truth.astype(np.float32)},
                )
            )
    folder.mkdir(parents=True)
    for name, rows in tables.items():
        header = PredictionHeader(
            track="ps", run=str(folder), evaluation=name, split="oof", traits={"system": name, "prior": name == "fused"}
        )
        write_predictions(folder / ("" if name == "fused" else name) / "oof.jsonl", header, rows)
    _write_facts(folder, tables)
    _write_curves(folder, epochs)
    rng = np.random.default_rng(1)
    values = {"eeg_bands": {name: float(rng.gamma(2.0)) for name in EEG_CH_NAMES}}
    values["fnirs_stats"] = {f"ch-{i}": float(rng.gamma(2.0)) for i in range(1, 52)}
    (folder / "importance.json").write_text(json.dumps(values))
    return folder


def _scores(rows):
    answers = [np.asarray(row.answer) for row in rows]
    return metrics_of_answers(answers, [row.target["valence_arousal"] for row in rows])


def _write_facts(folder, tables):
    metrics, evaluations = {}, {}
    for name, rows in tables.items():
        groups = [row.groups["subject"] for row in rows]
        found = bootstrap_intervals(lambda index, rows=rows: _scores([rows[i] for i in index]), groups, seed=0)
        by = {}
        for key in ("subject", "clip"):
            names = sorted({row.groups[key] for row in rows})
            by[key] = {member: _scores([row for row in rows if row.groups[key] == member]) for member in names}
        interval = {metric: [each.low, each.high] for metric, each in found.items()}
        metrics[name] = {**_scores(rows), "protocol": SYSTEMS[name], "interval": interval, "groups": by}
        split_by = ["subject", "clip"] if name == "unseen_clips" else ["subject"]
        folds = [
            {"index": k, "train": [], "val": [], "held_out": [], "checkpoint": f"fold_{k}/best.ckpt"} for k in range(3)
        ]
        evaluations[name] = {"main": name == "fused", "protocol": SYSTEMS[name], "split_by": split_by, "folds": folds}
    info = {
        "track": "ps",
        "seed": 0,
        "evaluations": evaluations,
        "versions": {"mersuite": "0.1.0", "torch": "2.13"},
        "git_commit": "0123abc",
        "command": ["mersuite", "fit", "track=ps"],
    }
    (folder / "run.json").write_text(json.dumps(info))
    (folder / "metrics.json").write_text(json.dumps(metrics))
    config = {
        "track": "ps",
        "seed": 0,
        "data": {"root": "/secret/place", "window_s": 10},
        "run": {"dir": "/secret/run"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def _write_curves(folder, epochs):
    rng = np.random.default_rng(2)
    lines = ["evaluation,fold,epoch,step,metric,value"]
    for place, name in enumerate(("fused", "signal", "unseen_clips")):
        for fold in range(3):
            for epoch in range(epochs - fold):
                loss = 0.4 + 0.6 * np.exp(-epoch / 3) + rng.normal(0, 0.01) + 0.1 * place
                lines.append(f"{name},{fold},{epoch},{epoch * 9},train/loss,{loss:.4f}")
                lines.append(f"{name},{fold},{epoch},{epoch * 9},val/mae,{24 + 10 * loss:.4f}")
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "ps_demo")
