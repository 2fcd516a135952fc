"""cross from clips to a checked answer.zip by the command line, as the README shows it, and what it refuses.

Two passes over the same commands and claims, as in test_show_list.py.
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
mersuite fake track=cross out=demo_mer num_clips=60 seed=0
mersuite check track=cross data.root=demo_mer
mersuite prepare track=cross data.root=demo_mer store.path=store_mer
mersuite fit track=cross data.root=demo_mer store.path=store_mer run.dir=runs/cross cv.folds=3 trainer.max_epochs=5
mersuite predict ckpt=runs/cross data.root=demo_mer store.path=store_mer split=test out=cross.jsonl
mersuite export track=cross pred=cross.jsonl out=answer.zip
mersuite score track=cross pred=answer.zip target=demo_mer/track1_test.csv json=true
mersuite sweep track=cross data.root=demo_mer store.path=store_mer sweep.num_trials=4
mersuite report run=runs/cross out=cross.html
mersuite fit track=cross config=recipe/cross_official.yaml data.root=demo_mer store.path=store_mer \
    run.dir=runs/cross_official trainer.max_epochs=3
mersuite fit track=cross config=recipe/cross_dialogue.yaml data.manifest=demo_mer/dialogue.csv run.dir=runs/dialogue
""".replace("    ", "")
    .strip()
    .splitlines()
)
QUICK = ("runtime.accelerator=cpu",)
SMALLER = {
    "fake": ("max_clip_s=1.8", "rate_hz=8", "num_dialogues=8"),
    "prepare": ("runtime.prepare_workers=1",),
    "fit": ("trainer.max_epochs=1", "cv.folds=2", *QUICK),
    "predict": QUICK,
    "sweep": ("trainer.max_epochs=1", "cv.folds=2", "sweep.num_trials=1", *QUICK),
}
"""Verb -> words appended in the short pass."""
SYSTEMS = {"listener", "own", "majority", "only_face", "only_prosody", "only_logmel", "only_text"}


@pytest.fixture(scope="module", params=["short", pytest.param("in full", marks=pytest.mark.slow)])
def shown(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """Runs the whole list once."""
    return run_list(SHOW, tmp_path_factory.mktemp("show"), SMALLER if request.param == "short" else None)


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def said(shown: Shown, word: str) -> str:
    """What the first command that holds a word printed."""
    return next(done.out for command, done in shown.done.items() if word in command)


def test_readme_shows_this_list_word_for_word():
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert "\n".join(SHOW) + "\n" in blocks


def test_every_command_ends_well_and_quietly(shown: Shown):
    for command, done in shown.done.items():
        assert done.out.strip(), command
        assert done.err == "", command


def test_answer_holds_every_candidate_once_in_order(shown: Shown):
    with zipfile.ZipFile(shown.folder / "answer.zip") as archive:
        assert archive.namelist() == ["answer.csv"]
        lines = archive.read("answer.csv").decode().splitlines()
    candidates = [row[0] for row in rows_of(shown.folder / "demo_mer" / "track1_track2_candidate.csv")[1:]]
    assert lines[0] == "name,discrete" and [line.split(",")[0] for line in lines[1:]] == candidates


def test_score_is_one_json_object_that_agrees_with_scikit_learn(shown: Shown):
    from sklearn.metrics import f1_score

    score = json.loads(said(shown, " score "))
    with zipfile.ZipFile(shown.folder / "answer.zip") as archive:
        answers = dict(line.split(",") for line in archive.read("answer.csv").decode().splitlines()[1:])
    truth = dict(rows_of(shown.folder / "demo_mer" / "track1_test.csv")[1:])
    expected = f1_score(list(truth.values()), [answers[name] for name in truth], average="weighted", zero_division=0)
    assert score["waf"] == pytest.approx(expected, abs=1e-9)
    assert score["num_rows"] == len(truth) and 0 <= score["acc"] <= 1


def test_metrics_hold_every_system(shown: Shown):
    metrics = json.loads((shown.folder / "runs" / "cross" / "metrics.json").read_text(encoding="utf-8"))
    assert set(metrics) >= SYSTEMS
    assert all(0 <= metrics[name]["waf"] <= 1 and metrics[name]["num_rows"] == 40 for name in SYSTEMS)


def test_report_shows_confusions_and_needs_nothing_from_outside(shown: Shown):
    page = (shown.folder / "cross.html").read_text(encoding="utf-8")
    assert "What is taken for what" in page and "How well each label is found" in page
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//|url\(\s*["']?https?:|@import""", page)
    assert all(name in page for name in SYSTEMS)


def test_official_protocol_says_that_it_selects_on_the_rows_it_reports(shown: Shown):
    assert re.search(r"(?i)chosen on the rows|selects? on the rows|selected on the rows", said(shown, "cross_official"))


def test_official_run_answers_the_candidates(shown: Shown):
    words = "predict ckpt=runs/cross_official data.root=demo_mer store.path=store_mer out=official.jsonl"
    assert run_here([*words.split(), *QUICK], shown.folder).status == 0
    done = run_here("export track=cross pred=official.jsonl out=official.zip".split(), shown.folder)
    assert done.status == 0 and "20 rows in answer.csv" in done.out


def test_dialogue_run_reports_the_copying_baselines(shown: Shown):
    metrics = json.loads((shown.folder / "runs" / "dialogue" / "metrics.json").read_text(encoding="utf-8"))
    assert {"majority", "copy_partner", "copy_own"} <= set(metrics)


def test_check_finds_no_fault(shown: Shown):
    assert "no faults" in said(shown, " check ") and "FAULT" not in said(shown, " check ")


def test_preparing_again_computes_nothing(shown: Shown):
    done = run_here("prepare track=cross data.root=demo_mer store.path=store_mer json=true".split(), shown.folder)
    assert done.status == 0 and json.loads(done.out)["num_computed"] == 0


def test_predicting_again_gives_the_same_answers(shown: Shown):
    words = "predict ckpt=runs/cross data.root=demo_mer store.path=store_mer out=again.jsonl".split()
    assert run_here([*words, *QUICK], shown.folder).status == 0
    assert run_here("export track=cross pred=again.jsonl out=again.zip".split(), shown.folder).status == 0
    assert (shown.folder / "again.zip").read_bytes() == (shown.folder / "answer.zip").read_bytes()


# ---- mistakes


def test_a_broken_video_is_named_by_check_and_by_faces(shown: Shown):
    root = shown.folder / "broken_mer"
    if not root.exists():
        root.mkdir()
        for path in (shown.folder / "demo_mer").iterdir():
            (root / path.name).symlink_to(path)
        (root / "video").unlink()
        (root / "video").mkdir()
        for path in (shown.folder / "demo_mer" / "video").iterdir():
            (root / "video" / path.name).symlink_to(path)
        name = rows_of(root / "track1_track2_candidate.csv")[1][0]
        (root / "video" / f"{name}.mp4").unlink()
        (root / "video" / f"{name}.mp4").write_bytes(b"no film at all")
    name = rows_of(root / "track1_track2_candidate.csv")[1][0]
    done = run_here("check track=cross data.root=broken_mer json=true".split(), shown.folder)
    faults = [row for row in json.loads(done.out)["rows"] if row["ok"] is False]
    assert len(faults) == 1 and f"{name}.mp4" in faults[0]["found"]
    said = shown.refused("mersuite faces track=cross data.root=broken_mer out=new_faces runtime.prepare_workers=1")
    assert f"{name}.mp4" in said


DATA = "track=cross data.root=demo_mer store.path=store_mer"
MISTAKES = {
    "score track=cross pred=absent.zip target=demo_mer/track1_test.csv": r"absent\.zip: no such file",
    "export track=cross pred=cross.jsonl out=answer.zip": r"answer\.zip exists; .*overwrite=true",
    f"fit {DATA} run.dir=runs/new cross.system=listner": r"cross\.system: got 'listner'; did you mean 'listener'",
    f"fit {DATA} run.dir=runs/new model.fusion=atention": r"no fusion 'atention'; did you mean 'attention'",
    f"fit {DATA} run.dir=runs/new model.encoders.face=null evaluate=listener": r"listener cannot be had: .*hides every",
    f"fit {DATA} run.dir=runs/new cross.own.face=face_speeker": r"writes the stream 'face_speeker'; did you mean",
    f"prepare {DATA} features.x.name=npy features.x.folder=made-up-audio-UT": r"made-up-audio-UT\b.*made-up-audio-UTT",
    f"prepare {DATA} features.x.name=speech features.x.model=nowhere/at/all": r"nowhere/at/all",
    "check track=cross data.root=nowhere": r"data\.root: nowhere does not exist",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_mistake_is_told_in_one_line(shown: Shown, command: str):
    assert re.search(MISTAKES[command], shown.refused(f"mersuite {command}"))
    assert not (shown.folder / "runs" / "new").exists()


@pytest.mark.parametrize("column", ["discrete", "name"])
def test_tables_that_do_not_fit_the_candidates_are_refused(shown: Shown, column: str):
    with zipfile.ZipFile(shown.folder / "answer.zip") as archive:
        lines = archive.read("answer.csv").decode().splitlines()
    name, label = lines[1].split(",")
    lines[1] = f"{name},joyful" if column == "discrete" else f"nobody,{label}"
    (shown.folder / "other.csv").write_text("\n".join(lines) + "\n")
    said = shown.refused("mersuite score track=cross pred=other.csv target=demo_mer/track1_test.csv")
    expected = f"{name} has the label 'joyful'" if column == "discrete" else f"have no prediction: {name}"
    assert expected in said
