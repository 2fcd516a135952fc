"""Every command that a document shows is one that the command line takes, without running it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from mersuite import api, cli, registry
from mersuite.cli import split_words
from mersuite.config_places import at_places
from mersuite.errors import ConfigError
from mersuite.schema import build
from mersuite.track import ScoreRequest
from mersuite.verbs import VERBS

ROOT = Path(cli.__file__).resolve().parent.parent
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("tracks/*/README.md"), *ROOT.glob("scripts/slurm/*")]
)
_COMMAND = re.compile(r"^#?(?:\t| {4,})?(?:\S*/|srun (?:--\S+ )*)?mersuite ([a-z]+ .*|tracks)$", flags=re.MULTILINE)
_SHELL = {r'"\$@"': "track=ps data.root=a", r"\$\(\(.*?\)\)|\$SLURM_\w+": "2"}
"""What a shell puts in place of its variables."""


def commands_of(text: str) -> list[str]:
    """Lines that are a mersuite command, in a block or a Makefile; continued lines are joined, remarks cut."""
    joined = re.sub(r"\s*\\\n\s*", " ", text)
    for pattern, word in _SHELL.items():
        joined = re.sub(pattern, word, joined)
    found = [match.partition("  #")[0].strip() for match in _COMMAND.findall(joined)]
    return [f"mersuite {command}" for command in found if "=" in command or " " not in command]


COMMANDS = [
    pytest.param(command, id=f"{path.name}:{command}"[:100])
    for path in [*DOCUMENTS, ROOT / "Makefile"]
    for command in commands_of(path.read_text(encoding="utf-8"))
]


class ParsedError(Exception):
    """What a stand-in raises in place of the work, once all words have been understood."""


def check_understood(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """Runs a command up to the call of the api that does the work; raises ConfigError where a word does not fit."""

    def config_only(*_: Any, **__: Any) -> None:
        raise ParsedError

    def fake(track: str, out: Path, *, overrides: list[str]) -> None:
        build(registry.load(track).FakeConfig, api.parse_overrides(overrides))
        raise ParsedError

    def predict(ckpt: Path, *, overrides: list[str], **_: Any) -> None:
        at_places(api.config("ps"), overrides)
        raise ParsedError

    def score(track: str, *, options: dict[str, str], **_: Any) -> None:
        row = {"predict1_V01_T000": (128.0, 128.0)}
        registry.load(track).score(row, row, ScoreRequest(options=options))
        raise ParsedError

    own = {"fake": fake, "predict": predict, "score": score}
    for name in (
        "check",
        "prepare",
        "faces",
        "fit",
        "pretrain",
        "sweep",
        "report",
        "export",
        "ensemble",
        "compare",
        *own,
    ):
        monkeypatch.setattr(api, name, own.get(name, config_only))
    _, verb, *words = shlex.split(command)
    mine, rest = split_words(verb, VERBS[verb], words)
    with pytest.raises(ParsedError):
        VERBS[verb].run(mine, rest, "")
        raise ParsedError  # verbs that only show something have done so


def test_documents_show_commands():
    assert len(COMMANDS) >= 20
    assert commands_of("    mersuite fit track=ps \\\n        run.dir=a  # remark\n") == [
        "mersuite fit track=ps run.dir=a"
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_shown_command_is_understood(monkeypatch: pytest.MonkeyPatch, command: str):
    check_understood(monkeypatch, command)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("mersuite fit track=ps trainer.max_epoch=5", "trainer.max_epoch: unknown key"),
        ("mersuite fake track=ps out=a num_subject=6", "num_subject: unknown key"),
        ("mersuite predict ckpt=a out=b.jsonl trainer.max_epochs=3", "trainer.max_epochs: predict takes"),
        ("mersuite score track=ps pred=a target=b jsn=true", "unknown key 'jsn'"),
        ("mersuite export track=ps pred=a", "out=... is needed"),
        ("mersuite report run=a out=b.html clip=c", "unknown key 'clip'"),
    ],
)
def test_command_that_does_not_fit_would_be_noticed(monkeypatch: pytest.MonkeyPatch, command: str, message: str):
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_understood(monkeypatch, command)


def test_readme_lists_exactly_the_verbs_that_are_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"^\| verb \|.*?\n((?:\|.*\n)+)", text, flags=re.MULTILINE)
    assert re.findall(r"^\| `(\w+)`", table, flags=re.MULTILINE) == list(VERBS)


def test_readme_lists_exactly_the_tracks_that_are_here():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| (\w+) \|$", text, flags=re.MULTILINE)
    assert {name for name, state in rows if state == "here"} == set(registry.tracks())


def test_readme_describes_every_evaluation_of_ps():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"^\| system \|.*?\n((?:\|.*\n)+)", text, flags=re.MULTILINE)
    shown = set(re.findall(r"^\| `(\w+)`", table, flags=re.MULTILINE))
    assert shown == {item.name for item in registry.load("ps").evaluations(api.config("ps"))}
