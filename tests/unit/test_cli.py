from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mersuite import __version__, cli, verbs
from mersuite.cli import Verb, flag, json_form, main, split_words
from mersuite.errors import ConfigError, DataError
from mersuite.shown import table as table_of

ROOT = Path(cli.__file__).resolve().parent.parent


def run(*words: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from mersuite.cli import main; main()"
    env = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-c", code, *words], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )


@pytest.fixture
def toy_verb(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a verb `toy` on the command line that does what it is given."""

    def put(do: Callable[[dict, list, str], object], **fields: object) -> None:
        options = {"help": "a toy", "keys": {"out*": "where", "mode": "how"}, **fields}
        monkeypatch.setitem(verbs.VERBS, "toy", Verb(run=do, **options))

    return put


def refused(capsys: pytest.CaptureFixture, *words: str) -> str:
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and "Traceback" not in shown.err and shown.err.startswith("mersuite: ")
    return shown.err


# ---- help


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"], ["help"]])
def test_overview_lists_every_verb(capsys: pytest.CaptureFixture, words: list[str]):
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown and verb.help in shown for name, verb in verbs.VERBS.items())


@pytest.mark.parametrize("name", sorted(verbs.VERBS))
def test_help_of_a_verb_lists_its_keys(capsys: pytest.CaptureFixture, name: str):
    assert main([name, "out=x", "--help"]) == 0
    shown = capsys.readouterr().out
    assert verbs.VERBS[name].help in shown and "json" in shown
    assert all(key in shown for key in verbs.VERBS[name].keys)


def test_help_lists_actions(capsys: pytest.CaptureFixture, toy_verb: Callable):
    toy_verb(lambda own, words, action: ({}, ""), actions=("export", "view"))
    assert main(["toy", "-h"]) == 0
    assert "usage: mersuite toy [export|view] key=value ..." in capsys.readouterr().out


def test_version_is_shown(capsys: pytest.CaptureFixture):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mersuite {__version__}\n"


# ---- words


def test_words_are_divided_between_verb_and_configuration(toy_verb: Callable, capsys: pytest.CaptureFixture):
    seen = []
    toy_verb(lambda own, words, action: (seen.append((own, words, action)), ""), takes_config=True, actions=("go",))
    assert main(["toy", "go", "out=a=b", "optim.lr=1", "mode=", "seed=2"]) == 0
    assert seen == [({"out": "a=b", "mode": ""}, ["optim.lr=1", "seed=2"], "go")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tracsk"], "there is no verb 'tracsk'; did you mean 'tracks'?"),
        (["--track=ps"], "there is no verb '--track=ps'; "),
        (["fit", "ps"], "mersuite: fit: unexpected word 'ps'; it takes key=value words only"),
        (["toy", "exprt"], "mersuite: toy: unexpected word 'exprt'; did you mean 'export'?"),
        (["toy", "out=a", "b"], "mersuite: toy: 'b': need key=value, without dashes; try `mersuite toy --help`"),
        (["toy", "=a"], "mersuite: toy: '=a': need key=value"),
        (["toy", "--out=a"], "mersuite: toy: '--out=a': need key=value, without dashes"),
        (["toy", "out=a", "out=b"], "mersuite: toy: out is given twice: 'a' and 'b'"),
        (["toy", "out=a", "mod=b"], "mersuite: toy: unknown key 'mod'; did you mean 'mode'?"),
        (["toy", "mode=a"], "mersuite: toy: out=... is needed; try `mersuite toy --help`"),
        (["toy", "out="], "mersuite: toy: out=... is needed"),
        (["toy", "out=a", "json=yes"], "json: need true or false, got 'yes'"),
        (["fit"], "mersuite: fit: track=... is needed"),
        (["predict", "split=all"], "mersuite: predict: ckpt=... out=... is needed"),
        (["fit", "track=pss"], "track: there is no track 'pss'; did you mean 'ps'?"),
        (["fit", "track=ps", "pretrain=yes"], "pretrain: need true or false, got 'yes'"),
        (["config", "track=ps", "optim.lrr=1"], "optim.lrr: unknown key; did you mean 'lr'?"),
        (["config", "track=ps", "config=nope"], "config=nope: no such file here or among the shipped ones"),
        (["export", "track=ps", "out=a"], "mersuite: export: need either pred=FILE.jsonl or ckpt=RUN"),
        (["export", "track=ps", "out=a", "pred=b", "ckpt=c"], "mersuite: export: need either pred=FILE.jsonl or ckpt"),
        (["export", "track=ps", "out=a", "pred=b", "overwrite=1"], "overwrite: need true or false, got '1'"),
    ],
)
def test_mistake_is_one_message_and_status_2(
    capsys: pytest.CaptureFixture, toy_verb: Callable, words: list[str], message: str
):
    toy_verb(lambda own, words, action: ({}, ""), actions=("export",))
    assert message in refused(capsys, *words)


def test_split_words_and_flag_give_what_was_said():
    verb = Verb(run=lambda own, words, action: ({}, ""), help="", keys={"a*": "", "b": ""}, takes_config=True)
    assert split_words("x", verb, ["b=2", "c.d=3", "a=1"]) == ({"a": "1", "b": "2"}, ["c.d=3"])
    assert flag({"b": "true"}, "b") is True and flag({"b": "false"}, "b") is False and flag({}, "b") is False


# ---- exit status


def test_error_of_the_user_is_status_2(capsys: pytest.CaptureFixture, toy_verb: Callable):
    def fail(own: dict, words: list, action: str):
        raise DataError("EEG_videos.mat: no variable video_3")

    toy_verb(fail)
    assert refused(capsys, "toy", "out=x", "json=true") == "mersuite: EEG_videos.mat: no variable video_3\n"


@pytest.mark.parametrize(("module", "extra"), [("av.container", "video"), ("cv2", "faces"), ("h5py", "eeg")])
def test_a_package_of_an_extra_that_is_not_there_is_named_with_the_extra(
    capsys: pytest.CaptureFixture, toy_verb: Callable, module: str, extra: str
):
    def fail(own: dict, words: list, action: str):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    toy_verb(fail)
    package = module.partition(".")[0]
    assert f"needs the package {package}, which is not installed: pip install 'mersuite[{extra}]'" in refused(
        capsys, "toy", "out=x"
    )


def test_extras_of_the_command_line_are_those_of_the_project():
    project = tomllib.loads((Path(cli.__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(cli._EXTRAS.values()) <= set(project["project"]["optional-dependencies"])


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "no space left on the disk; make room and repeat the command"),
        (errno.EDQUOT, "the disk quota is used up; make room"),
        (errno.EACCES, "not allowed to read or write"),
        (errno.EPERM, "not allowed to read or write"),
        (errno.EROFS, "the file system is read-only; choose another place"),
    ],
)
def test_error_of_the_disk_is_status_2(capsys: pytest.CaptureFixture, toy_verb: Callable, number: int, message: str):
    def fail(own: dict, words: list, action: str):
        raise OSError(number, os.strerror(number), "store/data.mdb")

    toy_verb(fail)
    shown = refused(capsys, "toy", "out=x")
    assert message in shown and "store/data.mdb" in shown


@pytest.mark.parametrize("error", [ValueError("ours"), OSError(errno.ENOENT, "gone"), KeyError("x")])
def test_error_of_the_program_goes_through(toy_verb: Callable, error: Exception):
    def fail(own: dict, words: list, action: str):
        raise error

    toy_verb(fail)
    with pytest.raises(type(error)):
        main(["toy", "out=x"])


def test_interrupt_is_status_130(capsys: pytest.CaptureFixture, toy_verb: Callable):
    def stop(own: dict, words: list, action: str):
        raise KeyboardInterrupt

    toy_verb(stop)
    assert main(["toy", "out=x"]) == 130
    assert "stopped; what was finished is kept" in capsys.readouterr().err


def test_program_ends_with_these_statuses():
    assert run("tracks").returncode == 0
    wrong = run("tracks", "x=1")
    assert wrong.returncode == 2 and wrong.stdout == "" and "unknown key 'x'" in wrong.stderr
    code = "import mersuite.verbs as v, mersuite.cli as c; v.VERBS['tracks'] = None; c.main(['tracks'])"
    broken = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert broken.returncode == 1 and "Traceback" in broken.stderr


def test_closed_pipe_is_no_error():
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from mersuite.cli import main; main()"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


# ---- output


def test_json_is_one_object_and_nothing_else(tmp_path: Path):
    for words in (["tracks"], ["config", "track=ps"], ["fake", "track=ps", f"out={tmp_path / 'd'}", "num_clips=1"]):
        done = run(*words, "json=true")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("\n") == 1 and isinstance(json.loads(done.stdout), dict)


def test_what_others_print_stays_out_of_the_json():
    code = (
        "import os, sys, subprocess, mersuite.verbs as v, mersuite.cli as c\n"
        "def toy(own, words, action):\n"
        "    print('python'); os.write(1, b'c code\\n'); subprocess.run(['echo', 'child'])\n"
        "    sys.__stdout__.write('original\\n')\n"
        "    return {'a': float('nan')}, ''\n"
        "v.VERBS['toy'] = c.Verb(run=toy, help='', keys={})\n"
        "c.main(['toy', 'json=true'])"
    )
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"a": None}
    assert all(text in done.stderr for text in ("python", "c code", "child", "original"))


def test_only_the_first_of_several_processes_prints(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    for words in (["tracks"], ["tracks", "json=true"]):
        assert main(words) == 0
        assert capsys.readouterr().out == ""


def test_json_form_has_only_what_json_has():
    found = json_form(
        {
            1: np.float32(0.5),
            "int": np.int64(3),
            "array": np.array([1.0, np.nan]),
            "path": Path("a"),
            "nan": float("nan"),
            "inf": [float("inf"), (-float("inf"), 1.5)],
            "plain": [True, None, "x", 2],
        }
    )
    wanted = {"1": 0.5, "int": 3, "array": [1.0, None], "path": "a", "nan": None, "inf": [None, [None, 1.5]]}
    assert found == {**wanted, "plain": [True, None, "x", 2]}
    assert type(found["1"]) is float and type(found["int"]) is int


def test_brackets_and_colons_in_tables_and_lines_are_shown_as_they_are(
    capsys: pytest.CaptureFixture, toy_verb: Callable
):
    table = table_of("t [b]", ["path", "value"], [["runs/[red]/x[/]", ":warning:"], ["y", 0.123456]])
    toy_verb(lambda own, words, action: ({}, [table, "line [bold]a[/bold] :smile:"]))
    assert main(["toy", "out=x"]) == 0
    shown = capsys.readouterr().out
    for text in ("t [b]", "runs/[red]/x[/]", ":warning:", "line [bold]a[/bold] :smile:", "0.1235"):
        assert text in shown


# ---- verbs


def test_config_shows_yaml_that_is_a_configuration(capsys: pytest.CaptureFixture, tmp_path: Path):
    path = tmp_path / "given.yaml"
    path.write_text("cv: {folds: 3}\nps: {system: signal}")
    words = ["config", "track=ps", f"config={path}", "optim.name=sgd", "ps.prior=off"]
    assert main(words) == 0
    again = tmp_path / "shown.yaml"
    again.write_text(capsys.readouterr().out)
    results = []
    for config_words in (words, ["config", "track=ps", f"config={again}"]):
        assert main([*config_words, "json=true"]) == 0
        results.append(json.loads(capsys.readouterr().out))
    assert results[0] == results[1]
    assert (results[0]["cv"]["folds"], results[0]["ps"]["prior"], results[0]["optim"]["name"]) == (3, False, "sgd")


def test_several_configuration_files_are_layers_in_their_order(capsys: pytest.CaptureFixture, tmp_path: Path):
    for name, seed in (("a", 1), ("b", 2)):
        (tmp_path / f"{name}.yaml").write_text(f"seed: {seed}")
    both = f"{tmp_path / 'a.yaml'},{tmp_path / 'b.yaml'}"
    for words in ([f"config={both}"], [f"config={tmp_path / 'a.yaml'}", f"config={tmp_path / 'b.yaml'}"]):
        assert main(["config", "track=ps", *words, "json=true"]) == 0
        assert json.loads(capsys.readouterr().out)["seed"] == 2


def test_check_counts_faults(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    row = {"name": "n", "found": "f", "expected": "e", "hint": "h"}
    rows = [SimpleNamespace(**row, ok=ok) for ok in (True, None, False)]
    monkeypatch.setattr("mersuite.api.check", lambda config: rows)
    assert main(["check", "track=ps"]) == 0
    shown = capsys.readouterr().out
    assert all(mark in shown for mark in ("ok", "note", "FAULT", "1 faults"))
    assert main(["check", "track=ps", "json=true"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False and [item["ok"] for item in found["rows"]] == [True, None, False]


@pytest.mark.parametrize("key", ["json", "pretrain"])
def test_flag_refuses_other_words(key: str):
    with pytest.raises(ConfigError, match=f"{key}: need true or false, got 'True'"):
        flag({key: "True"}, key)
