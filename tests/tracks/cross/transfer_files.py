"""Made-up clips as vectors alone, which takes no video, and a configuration that reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mersuite import api
from mersuite.config import RunConfig, with_overrides
from mersuite.data.fake_clip_files import clip_files, table_files, write_missing
from mersuite.data.fake_clips import ClipsConfig, draw_clips
from mersuite.features.npy import PREFIX

FOLDERS = {
    "f": "made-up-video-UTT",
    "l": "made-up-video-listener-UTT",
    "v": "made-up-audio-UTT",
    "t": "made-up-text-UTT",
}
LISTENER = FOLDERS["l"]
CONFIG: Mapping[str, Any] = {
    **{f"features.{name}": None for name in ("voice", "face_speaker", "face_listener", "text")},
    **{f"features.{name}": {"name": "npy", "folder": folder, "missing": "mask"} for name, folder in FOLDERS.items()},
    "model.encoders": {
        "face": {"name": "mlp", "width": 32},
        "voice": {"name": "mlp", "width": 32},
        "words": {"name": "mlp", "width": 32},
        "prosody": None,
        "logmel": None,
        "text": None,
    },
    "model.fusion": {"name": "attention"},
    "cross.own": {"face": [FOLDERS["f"]], "voice": [FOLDERS["v"]], "words": [FOLDERS["t"]]},
    "cross.other": {"face": [LISTENER, FOLDERS["f"]], "voice": [], "words": []},
    "cv.folds": 2,
    "runtime.accelerator": "cpu",
    "runtime.progress": False,
    "runtime.prepare_workers": 1,
    "runtime.threads": 1,
}


def write_vectors(
    root: Path, *, num_clips: int, seed: int = 0, distort: Callable[[np.ndarray], np.ndarray] | None = None
) -> Path:
    """Writes the tables and the vectors of made-up clips.

    Args:
        root: Folder.
        num_clips: All clips; a third of them are candidates.
        seed: Of everything.
        distort: Changes the vectors of listeners' faces, as another camera would.
    """
    config = ClipsConfig(num_clips=num_clips, num_dialogues=3, seed=seed)
    drawn = draw_clips(config)
    wanted = tuple(f"{PREFIX}{folder}/" for folder in FOLDERS.values())
    for clip in drawn.clips:
        write_missing(
            root, {path: write for path, write in clip_files(config, clip).items() if path.startswith(wanted)}
        )
    write_missing(root, {path: write for path, write in table_files(drawn, []).items() if path.endswith(".csv")})
    if distort is not None:
        for path in (root / PREFIX / LISTENER).glob("*.npy"):
            np.save(path, distort(np.load(path)).astype(np.float32))
    return root


def config_of(root: Path, **overrides: Any) -> RunConfig:
    """The configuration; in names of overrides two underscores stand for a dot."""
    keys = {name.replace("__", "."): value for name, value in overrides.items()}
    places = {"data.root": str(root), "store.path": str(root.parent / "store")}
    return with_overrides(api.config("cross"), {**CONFIG, **places, **keys})


def candidates_waf(root: Path, run: Path, evaluation: str | None = None) -> dict[str, float]:
    """Scores a finished run's answers to the candidates against their truth, which nothing else reads."""
    out = run / f"{evaluation or 'main'}.jsonl"
    places = [f"data.root={root}", f"store.path={root.parent / 'store'}"]
    places += ["runtime.progress=false", "runtime.prepare_workers=1", "runtime.threads=1"]
    api.predict(run, out=out, evaluation=evaluation, overrides=places)
    return api.score("cross", pred=out, target=root / "track1_test.csv", options={})
