"""A small folder in the organisers' layout with pre-extracted features only, and a configuration that reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mersuite import api
from mersuite.config import RunConfig, with_overrides

LABELS = ("neutral", "angry", "happy", "sad", "worried", "surprise")
WIDTHS = {"voice-UTT": 5, "face-UTT": 4, "face-listener-UTT": 4}
CONFIG: Mapping[str, Any] = {
    "features.voice": None,
    "features.face_speaker": None,
    "features.face_listener": None,
    "features.text": None,
    "features.v": {"name": "npy", "folder": "voice-UTT", "missing": "mask"},
    "features.f": {"name": "npy", "folder": "face-UTT", "missing": "mask"},
    "features.l": {"name": "npy", "folder": "face-listener-UTT", "missing": "mask"},
    "model.encoders": {
        "face": {"name": "mlp", "width": 8},
        "voice": {"name": "mlp", "width": 8},
        "prosody": None,
        "logmel": None,
        "text": None,
    },
    "cross.own": {"face": ["face-UTT"], "voice": ["voice-UTT"]},
    "cross.other": {"face": ["face-listener-UTT", "face-UTT"], "voice": []},
    "runtime.accelerator": "cpu",
    "runtime.progress": False,
    "runtime.prepare_workers": 1,
}


def train_name(index: int) -> str:
    return f"sample_{index:08d}"


def candidate_name(index: int) -> str:
    return f"samplenew_{index:08d}"


def write_folder(root: Path, num_train: int = 24, num_candidates: int = 6, seed: int = 0) -> Path:
    """Labels in turn; face and voice vectors that tell them; every second candidate has a listener's face."""
    generator = np.random.default_rng(seed)
    places = {width: generator.normal(size=(len(LABELS), width)) * 3 for width in set(WIDTHS.values())}
    train = {train_name(i): LABELS[i % len(LABELS)] for i in range(num_train)}
    candidates = {candidate_name(i): LABELS[i % len(LABELS)] for i in range(num_candidates)}
    for folder, width in WIDTHS.items():
        is_listener = folder == "face-listener-UTT"
        names = list(candidates)[::2] if is_listener else [*train, *candidates]
        for name in names:
            label = {**train, **candidates}[name]
            vector = places[width][LABELS.index(label)] + generator.normal(size=width)
            path = root / "features" / folder / f"{name}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, vector.astype(np.float32))
    write_csv(root / "track1_train.csv", ("name", "discrete"), list(train.items()))
    write_csv(root / "track1_track2_candidate.csv", ("name",), [(name,) for name in candidates])
    write_csv(root / "track1_test.csv", ("name", "discrete"), list(candidates.items()))
    return root


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join(cells) for cells in (header, *rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def config_of(root: Path | None, **overrides: Any) -> RunConfig:
    """The configuration; in names of overrides two underscores stand for a dot."""
    keys = {name.replace("__", "."): value for name, value in overrides.items()}
    places = {} if root is None else {"data.root": str(root), "store.path": str(root.parent / "store")}
    return with_overrides(api.config("cross"), {**CONFIG, **places, **keys})
