"""From raw files to a checked submission by the command line, as the README shows it, and what it refuses.

Two passes over the same commands and claims: a short one in this process, with smaller sizes appended, and a slow one
word for word, each command a process of its own.
"""

from __future__ import annotations

import csv
import json
import re
import sys
import zipfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from commands import ROOT, Shown, run_here, run_list

SHOW = (
    """
mersuite fake track=ps out=demo_ps num_subjects=6 snr=1.0 seed=0
mersuite check track=ps data.root=demo_ps
mersuite prepare track=ps data.root=demo_ps store.path=store_ps
mersuite fit track=ps data.root=demo_ps store.path=store_ps run.dir=runs/ps cv.by=subject cv.folds=3 \
    trainer.max_epochs=5
mersuite predict ckpt=runs/ps data.root=demo_ps store.path=store_ps split=test out=ps.jsonl
mersuite export track=ps pred=ps.jsonl out=predictions.csv
mersuite export track=ps ckpt=runs/ps kind=code out=submission.zip
mersuite score track=ps pred=predictions.csv target=demo_ps/targets.csv json=true
mersuite sweep track=ps data.root=demo_ps store.path=store_ps sweep.num_trials=4 sweep.storage=sqlite:///sweep.db
mersuite report run=runs/ps out=report.html
""".replace("    ", "")
    .strip()
    .splitlines()
)
SMALLER = {
    "fake": ("num_clips=4", "max_clip_s=14", "rate_hz=200"),
    "prepare": ("runtime.prepare_workers=1",),
    "fit": ("trainer.max_epochs=1", "runtime.accelerator=cpu"),
    "predict": ("runtime.accelerator=cpu",),
    "sweep": ("trainer.max_epochs=1", "cv.folds=2", "runtime.accelerator=cpu"),
}
"""Verb -> words appended in the short pass."""
SYSTEMS = {"constant", "median", "signal", "prior", "fused", "unseen_clips"}
SCORES = {"mae", "mae_valence", "mae_arousal", "mse", "ccc_valence", "ccc_arousal", "num_rows"}


@pytest.fixture(scope="module", params=["short", pytest.param("in full", marks=pytest.mark.slow)])
def shown(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """Runs the whole list once."""
    return run_list(SHOW, tmp_path_factory.mktemp("show"), SMALLER if request.param == "short" else None)


def table(path: Path) -> tuple[list[str], list[list[str]]]:
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file))
    return header, rows


def test_readme_shows_this_list_word_for_word():
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert "\n".join(SHOW) + "\n" in blocks


def test_every_command_ends_well_and_quietly(shown: Shown):
    for command, done in shown.done.items():
        assert done.out.strip(), command
        assert done.err == "", command  # progress is for terminals, and nothing went wrong


def test_predictions_answer_exactly_the_ids_that_were_asked_for(shown: Shown):
    header, rows = table(shown.folder / "predictions.csv")
    asked = [row[0] for row in table(shown.folder / "demo_ps" / "sample_ids.csv")[1]]
    assert header == ["sample_id", "valence", "arousal"]
    assert [row[0] for row in rows] == asked
    assert all(re.fullmatch(r"\d+", cell) and 1 <= int(cell) <= 255 for row in rows for cell in row[1:])


def test_metrics_hold_every_system_that_must_be_reported(shown: Shown):
    metrics = json.loads((shown.folder / "runs" / "ps" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics.keys() >= SYSTEMS
    for name in SYSTEMS:
        item = metrics[name]
        assert item["mae"] == pytest.approx((item["mae_valence"] + item["mae_arousal"]) / 2)
        assert 0 < item["mae"] < 255


def test_score_prints_one_json_object_that_is_the_mae_of_the_file(shown: Shown):
    (done,) = [done for command, done in shown.done.items() if " score " in command]
    (line,) = done.out.splitlines()
    score = json.loads(line)
    assert score.keys() >= SCORES
    preds = {row[0]: row[1:] for row in table(shown.folder / "predictions.csv")[1]}
    truth = table(shown.folder / "demo_ps" / "targets.csv")[1]
    gaps = [abs(int(a) - int(b)) for name, *cells in truth for a, b in zip(preds[name], cells, strict=True)]
    assert score["mae"] == pytest.approx(sum(gaps) / len(gaps))
    assert score["num_rows"] == len(truth) and isinstance(score["num_rows"], int)


def test_submission_has_model_py_at_its_root(shown: Shown):
    with zipfile.ZipFile(shown.folder / "submission.zip") as archive:
        names = archive.namelist()
        assert "model.py" in names and archive.testzip() is None
        assert "def predict(input_dir, output_dir):" in archive.read("model.py").decode()
    assert not [
        name for name in names if name.startswith("/") or ".." in name or not name.startswith(("code/", "model", "w"))
    ]


def test_submission_says_whether_the_prior_is_in_it(shown: Shown):
    exports = [done.out for command, done in shown.done.items() if " export " in command]
    assert len(exports) == 2 and all("prior" in out for out in exports)


def test_report_needs_nothing_from_outside(shown: Shown):
    page = (shown.folder / "report.html").read_text(encoding="utf-8")
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//|url\(\s*["']?https?:|@import""", page)
    assert all(name in page for name in SYSTEMS)


def test_sweep_writes_a_configuration_that_fit_takes(shown: Shown):
    (done,) = [done for command, done in shown.done.items() if " sweep " in command]
    best = re.findall(r"config=(\S+\.yaml)", done.out)[0]
    assert (shown.folder / best).is_file() and (shown.folder / "sweep.db").is_file()
    taken = run_here(["config", "track=ps", f"config={best}", "json=true"], shown.folder)
    assert taken.status == 0 and json.loads(taken.out)["fold_overrides"]


def test_check_finds_no_fault(shown: Shown):
    (done,) = [done for command, done in shown.done.items() if " check " in command]
    assert "no faults" in done.out and "FAULT" not in done.out


def test_preparing_again_computes_nothing(shown: Shown):
    done = run_here(["prepare", "track=ps", "data.root=demo_ps", "store.path=store_ps", "json=true"], shown.folder)
    assert done.status == 0 and json.loads(done.out)["num_computed"] == 0


def test_predicting_again_gives_the_same_file(shown: Shown):
    words = ["predict", "ckpt=runs/ps", "data.root=demo_ps", "store.path=store_ps", "out=again.jsonl"]
    assert run_here([*words, "runtime.accelerator=cpu"], shown.folder).status == 0
    assert run_here(["export", "track=ps", "pred=again.jsonl", "out=again.csv"], shown.folder).status == 0
    assert (shown.folder / "again.csv").read_bytes() == (shown.folder / "predictions.csv").read_bytes()


# ---- mistakes


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("mersuite check track=ps data.root=nowhere", r"data\.root: nowhere does not exist"),
        ("mersuite check track=ps", r"data\.root: no data given; add data\.root=DIR"),
        ("mersuite check track=pz data.root=demo_ps", r"there is no track 'pz'; .*'?ps"),
        ("mersuite fit track=ps trainer.max_epoch=5", r"max_epoch: unknown key; did you mean .*max_epochs"),
        ("mersuite fit track=ps data.root=demo_ps store.path=store_ps run.dir=runs/ps", r"runs/ps.*run\.resume=true"),
        ("mersuite fit track=ps trainer.max_epochs=many", r"trainer\.max_epochs: need a whole number"),
        ("mersuite fit track=ps data.root=demo_ps store.path=new.store run.dir=new.run cv.folds=50", r"cv\.folds.*50"),
        ("mersuite sweep track=ps data.root=demo_ps store.path=new.store cv.folds=50", r"cv\.folds.*50"),
        ("mersuite fake track=ps out=demo_ps seed=1", r"out=demo_ps: was made with .*; ?repeat|another folder"),
        ("mersuite export track=ps pred=ps.jsonl out=predictions.csv", r"out: predictions\.csv exists.*overwrite=true"),
        ("mersuite export track=ps ckpt=runs/ps kind=code out=submission.zip", r"submission\.zip exists.*overwrite"),
        ("mersuite export track=ps pred=ps.jsonl kind=table out=new.csv", r"kind: .* csv, got 'table'"),
        ("mersuite export track=ps ckpt=runs/ps kind=csv out=new.zip", r"kind: .*got 'csv'"),
        ("mersuite export track=ps out=new.csv", r"need either pred=FILE\.jsonl or ckpt=RUN"),
        ("mersuite predict ckpt=report.html data.root=demo_ps out=new.jsonl", r"report\.html cannot be read as a ch"),
        ("mersuite predict ckpt=demo_ps data.root=demo_ps out=new.jsonl", r"demo_ps.*run\.json"),
        ("mersuite predict ckpt=runs/ps data.root=demo_ps split=tset out=new.jsonl", r"split='tset': did you mean 't"),
        ("mersuite predict ckpt=runs/ps data.root=demo_ps out=new.csv", r"out: .*\.jsonl, got new\.csv"),
        ("mersuite prepare track=ps data.root=demo_ps store.path=report.html", r"store\.path: report\.html is a file"),
        ("mersuite score track=ps pred=absent.csv target=demo_ps/targets.csv", r"absent\.csv: no such file"),
        ("mersuite report run=demo_ps out=new.html", r"demo_ps"),
        ("mersuite report run=runs/ps out=new.html clips=nobody", r"no trial 'nobody'"),
        ("mersuite compare run=runs/ps,runs/none", r"runs/none"),
        ("mersuite sweep track=ps data.root=demo_ps sweep.space=none.yaml", r"sweep\.space: none\.yaml does not exist"),
    ],
)  # fmt: skip
def test_mistake_is_told_in_one_line(shown: Shown, command: str, message: str):
    assert re.search(message, shown.refused(command))
    assert not list(shown.folder.glob("new.*"))


def test_predictions_of_unknown_ids_are_refused(shown: Shown):
    lines = (shown.folder / "predictions.csv").read_text(encoding="utf-8").splitlines()
    (shown.folder / "other.csv").write_text("\n".join([*lines, "predict9_V01_T000,1,1"]) + "\n", encoding="utf-8")
    said = shown.refused("mersuite score track=ps pred=other.csv target=demo_ps/targets.csv")
    assert "predict9_V01_T000" in said
    (shown.folder / "fewer.csv").write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
    said = shown.refused("mersuite score track=ps pred=fewer.csv target=demo_ps/targets.csv")
    assert f"1 of {len(lines) - 1} rows have no prediction" in said


def test_asked_ids_of_unknown_people_are_refused(shown: Shown):
    root = shown.folder / "other_ids"
    root.mkdir(exist_ok=True)
    if not (root / "data").exists():
        (root / "data").symlink_to(shown.folder / "demo_ps" / "data")
    (root / "sample_ids.csv").write_text("sample_id\npredict1_V01_T000\npredict9_V01_T000\n", encoding="utf-8")
    said = shown.refused("mersuite predict ckpt=runs/ps data.root=other_ids out=new.jsonl")
    assert "sample_ids.csv lists 'predict9', an unknown subject" in said
