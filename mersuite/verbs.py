"""The verbs of the command line: words in, api call, JSON object and tables out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mersuite.cli import Verb, flag
from mersuite.errors import ConfigError
from mersuite.shown import flat, options_of, table, turned

if TYPE_CHECKING:
    from mersuite.config import RunConfig

Shown = tuple[Mapping[str, Any], Any]


def _config(own: Mapping[str, str], words: Sequence[str]) -> RunConfig:
    from mersuite import api

    files, overrides = [], []
    for word in words:
        if word.startswith("config="):
            files += [name for name in word.removeprefix("config=").split(",") if name]
        else:
            overrides.append(word)
    return api.config(own["track"], files=files, overrides=overrides)


def _tracks(own: dict[str, str], words: list[str], action: str) -> Shown:
    from mersuite import api

    found = api.tracks()
    return found, table("tracks", ["track", "what it answers"], list(found.items()))


def _show_config(own: dict[str, str], words: list[str], action: str) -> Shown:
    import yaml

    from mersuite.config import to_plain

    values = to_plain(_config(own, words))
    return values, yaml.safe_dump(values, sort_keys=False, allow_unicode=True).rstrip()


def _fake(own: dict[str, str], words: list[str], action: str) -> Shown:
    from mersuite import api

    summary = api.fake(own["track"], Path(own["out"]), overrides=words)
    return summary, table(f"fake data in {own['out']}", ["what", "value"], flat(summary))


def _check(own: dict[str, str], words: list[str], action: str) -> Shown:
    from mersuite import api

    rows = api.check(_config(own, words))
    marks = {True: "ok", False: "FAULT", None: "note"}
    faults = [row for row in rows if row.ok is False]
    result = {
        "ok": not faults,
        "rows": [
            {"name": row.name, "found": row.found, "expected": row.expected, "ok": row.ok, "hint": row.hint}
            for row in rows
        ],
    }
    rows_shown = table(
        "check",
        ["what", "", "found", "expected", "cure"],
        [(r.name, marks[r.ok], r.found, r.expected, r.hint) for r in rows],
    )
    last = f"{len(faults)} faults" if faults else "no faults"
    return result, [rows_shown, last]


def _prepare(own: dict[str, str], words: list[str], action: str) -> Shown:
    from mersuite import api

    coverage = api.prepare(_config(own, words))
    columns, rows = coverage.table()
    return coverage.summary(), table("prepared", columns, rows)


def _faces(own: dict[str, str], words: list[str], action: str) -> Shown:
    from mersuite import api

    prefix = "faces."
    report = api.faces(
        _config(own, [word for word in words if not word.startswith(prefix)]),
        out=Path(own["out"]),
        split=own.get("split", "test"),
        debug=flag(own, "debug"),
        overrides=[word.removeprefix(prefix) for word in words if word.startswith(prefix)],
    )
    counts = {key: getattr(report, key) for key in ("num_clips", "num_two", "num_fewer", "num_uncertain", "num_done")}
    result = {**counts, "num_broken": len(report.broken), "broken": dict(report.broken), "table": str(report.table)}
    rows = [
        ("clips", report.num_clips),
        ("two people or more", report.num_two),
        ("fewer", report.num_fewer),
        ("uncertain who speaks", report.num_uncertain),
        ("done now", report.num_done),
        *([("unreadable", len(report.broken))] if report.broken else []),
    ]
    told = [f"{name}: {reason}" for name, reason in report.broken[:5]]
    last = f"a row a clip: {report.table}; use the faces with data.faces={own['out']}"
    return result, [table(f"faces in {own['out']}", ["what", "clips"], rows), *told, last]


def _faces_options(track: str) -> list[str]:
    from mersuite.faces.config import FacesConfig

    return options_of(FacesConfig(), "faces.")


def _store(own: dict[str, str], words: list[str], action: str) -> Shown:
    from mersuite import api

    if action == "prune":
        if "path" in own or "track" not in own:
            raise ConfigError("mersuite store prune: need track=NAME data.root=DIR store.path=DIR, and no path=")
        result = api.store_prune(_config(own, words))
        return result, f"{result['num_deleted']} superseded entries deleted, {result['num_entries']} left"
    if not action or "path" not in own or words or "track" in own:
        raise ConfigError("mersuite store: need info path=DIR, verify path=DIR, or prune track=NAME data.root=DIR")
    if action == "info":
        result = api.store_info(Path(own["path"]))
        rows = [[*list(item.values())[:-1], f"{item['size_bytes'] / 2**20:.1f}"] for item in result["streams"]]
        columns = ["data set", "stream", "clips", "entries", "MiB"]
        return result, table(f"{result['path']}: {result['size_bytes'] / 2**20:.1f} MiB", columns, rows)
    result = api.store_verify(Path(own["path"]), remove=flag(own, "remove"))
    if result["ok"]:
        return result, f"{result['num_entries']} entries, all whole"
    last = f"{result['num_removed']} removed; `mersuite prepare` makes them again"
    if not result["num_removed"]:
        last = f"{len(result['damaged'])} damaged; remove=true deletes them, and `mersuite prepare` makes them again"
    return result, [
        table("damaged", ["entry", "problem"], [(i["clip_id"], i["problem"]) for i in result["damaged"]]),
        last,
    ]


def _fit(own: dict[str, str], words: list[str], action: str) -> Shown:
    from mersuite import api

    config = _config(own, words)
    if flag(own, "pretrain"):
        trained = api.pretrain(config)
        return trained, _pretrained_lines(trained)
    result = api.fit(config)
    return result.summary(), [table(f"run {result.folder}", *result.table()), *result.lines()]


def _pretrained_lines(trained: Mapping[str, Any]) -> list[str]:
    group, people = trained["group"], [*trained["train"], *trained["val"]]
    left_out = f"; left out: {', '.join(trained['left_out'])}" if trained["left_out"] else ""
    return [
        *trained["notes"],
        f"pretrained on {trained['num_recordings']} recordings of {len(people)} {group}s "
        f"({', '.join(people)}){left_out}",
        f"validation loss {trained['val_loss']:.4f} after {trained['epochs']} epochs, of other {group}s than those "
        "trained on; 1 is what knowing nothing gives",
        f"scores on any of these {group}s are transductive from now on; fit says so beside them",
        f"encoder weights: {trained['weights']}; use them with model.pretrained={trained['weights']}",
    ]


def _predict(own: dict[str, str], words: list[str], action: str) -> Shown:
    from mersuite import api

    result = api.predict(
        Path(own["ckpt"]),
        out=Path(own["out"]),
        split=own.get("split", "test"),
        evaluation=own.get("evaluation"),
        overrides=words,
    )
    last = f"{result['num_samples']} predictions of {result['num_models']} models in {own['out']}"
    return result, [*result["read"], *result["notes"], last]


def _export(own: dict[str, str], words: list[str], action: str) -> Shown:
    from mersuite import api

    if ("pred" in own) == ("ckpt" in own):
        raise ConfigError("export: need either pred=FILE.jsonl or ckpt=RUN")
    result = api.export(
        own["track"],
        out=Path(own["out"]),
        pred=Path(own["pred"]) if "pred" in own else None,
        ckpt=Path(own["ckpt"]) if "ckpt" in own else None,
        kind=own.get("kind", ""),
        ids=Path(own["ids"]) if "ids" in own else None,
        overwrite=flag(own, "overwrite"),
    )
    return result, result["message"]


def _score(own: dict[str, str], words: list[str], action: str) -> Shown:
    from mersuite import api

    options = dict(word.split("=", 1) for word in words)
    metrics = api.score(own["track"], pred=Path(own["pred"]), target=Path(own["target"]), options=options)
    return metrics, table("score", ["metric", "value"], list(metrics.items()))


def _paths(text: str) -> list[Path]:
    return [Path(item) for item in text.split(",") if item]


def _ensemble(own: dict[str, str], words: list[str], action: str) -> Shown:
    from mersuite import api

    oof = _paths(own["oof"]) if "oof" in own else None
    if not own.get("top", "1").isdecimal():
        raise ConfigError(f"top: need a whole number of members, got {own['top']!r}")
    top = int(own["top"]) if "top" in own else None
    result = api.ensemble(_paths(own["pred"]), out=Path(own["out"]), oof=oof, track=own.get("track"), top=top)
    rows = [(item["file"], item["weight"]) for item in result["members"]]
    return result, [table(f"ensemble in {own['out']}", ["member", "weight"], rows), str(result["how"])]


def _compare(own: dict[str, str], words: list[str], action: str) -> Shown:
    from mersuite import api

    result = api.compare(own["run"].split(","), by=own.get("by"), evaluation=own.get("evaluation"))
    return result.summary(), [table("compare", *result.table()), result.latex()]


def _sweep(own: dict[str, str], words: list[str], action: str) -> Shown:
    from mersuite import api

    result = api.sweep(_config(own, words))
    trials = table("best trials", *turned(*result.table()))
    return result.summary(), [
        trials,
        f"best configuration: {result.best_config} (use it with fit config={result.best_config})",
    ]


def _report(own: dict[str, str], words: list[str], action: str) -> Shown:
    from mersuite import api

    result = api.report(Path(own["run"]), out=Path(own["out"]), clips=tuple(own.get("clips", "").split(",")))
    return result, f"report: {result['report']}"


def _fake_options(track: str) -> list[str]:
    from mersuite import registry
    from mersuite.schema import build

    return options_of(build(registry.load(track).FakeConfig, {}))


TRACK = {"track*": "name of the track, see `mersuite tracks`"}
CONFIG = {**TRACK}
DATA = "data.root=DIR or data.manifest=FILE.csv"
REST = "all keys: `mersuite config track=NAME`"
VERBS: dict[str, Verb] = {
    "tracks": Verb(run=_tracks, help="list the tracks", keys={}),
    "config": Verb(run=_show_config, help="print the merged configuration", keys=CONFIG, takes_config=True),
    "fake": Verb(
        run=_fake,
        help="write small data in the organisers' layout, with a known effect",
        keys={**TRACK, "out*": "folder to write"},
        takes_config=True,
        more="options of the made-up data; `mersuite fake track=NAME --help` lists them with their defaults",
        details=_fake_options,
    ),
    "check": Verb(
        run=_check,
        help="look at a data folder: what is there, missing or odd",
        keys=CONFIG,
        takes_config=True,
        more=f"{DATA}; {REST}",
    ),
    "prepare": Verb(
        run=_prepare,
        help="raw files to stored features; safe to kill and repeat",
        keys=CONFIG,
        takes_config=True,
        more=f"{DATA}, store.path=DIR; {REST}",
    ),
    "faces": Verb(
        run=_faces,
        help="find the people in clips, say who speaks, cut out the faces of speaker and listener",
        keys={
            **TRACK,
            "out*": "folder to write; readers find it as data.faces=DIR",
            "split": "test (default), train or all",
            "debug": "true: draw each decision",
        },
        takes_config=True,
        more=f"{DATA}, faces.*: `mersuite faces track=NAME --help` lists them; {REST}",
        details=_faces_options,
    ),
    "store": Verb(
        run=_store,
        help="look after a store: info and verify path=DIR; prune track=NAME data.root=DIR",
        keys={
            "path": "store folder, for info and verify",
            "remove": "true: verify deletes damaged entries",
            "track": "for prune, with data.root= and store.path= as for prepare",
        },
        takes_config=True,
        actions=("info", "verify", "prune"),
    ),
    "fit": Verb(
        run=_fit,
        help="train and evaluate; prepares what is missing; run.resume=true goes on",
        keys={**CONFIG, "pretrain": "true: self-supervised pretraining of the encoders instead"},
        takes_config=True,
        more=f"{DATA}, run.dir=DIR, store.path=DIR, cv.by=subject, config=FILE; {REST}",
    ),
    "predict": Verb(
        run=_predict,
        help="predictions of a run (all folds averaged) or of one checkpoint file",
        more="data.root=DIR or data.manifest=FILE.csv, store.path=DIR, runtime.*; all else is the checkpoint's",
        keys={
            "ckpt*": "run folder or checkpoint file",
            "out*": "FILE.jsonl",
            "split": "test (default), train or all",
            "evaluation": "which of the run's systems; default the main one",
        },
        takes_config=True,
    ),
    "export": Verb(
        run=_export,
        help="write the challenge's format and re-read it",
        keys={
            **TRACK,
            "out*": "file to write",
            "pred": "FILE.jsonl of predict or ensemble",
            "ckpt": "run folder, for kind=code",
            "kind": "which of the track's formats",
            "ids": "with pred: the organisers' list of rows; by default that of the data that were predicted",
            "overwrite": "true: replace an existing file",
        },
    ),
    "score": Verb(
        run=_score,
        help="the metric, with the code that training logs",
        keys={**TRACK, "pred*": "predictions", "target*": "truth"},
        takes_config=True,
        more="options of the track's metric, where it has any",
    ),
    "ensemble": Verb(
        run=_ensemble,
        help="average prediction files with weights fitted out-of-fold",
        keys={
            "pred*": "A.jsonl,B.jsonl",
            "out*": "FILE.jsonl",
            "oof": "out-of-fold files, in order",
            "top": "keep so many members, the best on out-of-fold rows",
            "track": "checked if given",
        },
    ),
    "compare": Verb(
        run=_compare,
        help="paired bootstrap between runs, mean and deviation over seeds, LaTeX table",
        keys={"run*": "A,B; A1+A2,B1+B2 for seeds", "by": "group to resample", "evaluation": "which system"},
    ),
    "sweep": Verb(
        run=_sweep,
        help="hyper-parameter search with Optuna",
        keys=CONFIG,
        takes_config=True,
        more=f"{DATA}, sweep.num_trials=N, sweep.storage=URL, run.dir=DIR; {REST}",
    ),
    "report": Verb(
        run=_report,
        help="one self-contained html page of a run",
        keys={"run*": "run folder", "out*": "FILE.html", "clips": "samples to draw, instead of best, median and worst"},
    ),
}
