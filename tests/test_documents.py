"""Documents say what is there: links resolve, make targets exist, no file names a place on somebody's machine."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest

from mersuite.config import RunConfig

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("tracks/*/README.md")])
FOLDERS = ("mersuite", "tracks", "tests", "scripts", "configs", "docs", ".ci")
SUFFIXES = {".py", ".md", ".yaml", ".toml", ".sbatch", ""}
TEXTS = [
    *(
        path
        for name in FOLDERS
        for path in sorted((ROOT / name).rglob("*"))
        if path.is_file() and path.suffix in SUFFIXES
    ),
    *sorted(ROOT.glob("*.md")),
    *(ROOT / name for name in ("pyproject.toml", "Makefile", "constraints.txt")),
]


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_relative_links_lead_to_files(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in local if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_named_make_targets_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = re.findall(r"(?:^(?: {4})?|`)make ([a-z][a-z-]*)", document.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert set(named) <= targets


def test_files_name_no_place_on_a_machine() -> None:
    place = re.compile(r"(?<![\w.~$})/])/(?:home|root|work|Users|mnt|opt)/\w")
    found = [
        f"{_name(path)}:{number}"
        for path in TEXTS
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if place.search(line)
    ]
    assert found == []


def test_changelog_has_an_unreleased_section_on_top() -> None:
    sections = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sections[0] == "[Unreleased]"


def test_constraints_start_with_torch_and_name_no_index() -> None:
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    assert lines[0].startswith("torch==")
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", line)] == []


def _existing(rows: list[list[str]]) -> list[list[str]]:
    package = ROOT / "mersuite"
    kept = [
        sorted(name for name in row if (package / name).is_dir() or (package / f"{name}.py").is_file()) for row in rows
    ]
    return [row for row in kept if row]


def test_contributing_shows_the_import_rows_that_are_enforced() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = [item for item in project["tool"]["importlinter"]["contracts"] if item["id"] == "layers"]
    enforced = [re.findall(r"\w+", row) for row in contract["layers"]]
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^    __main__ > .*?(?=\n\n)", text, flags=re.MULTILINE | re.DOTALL)
    assert _existing([re.findall(r"\w+", row) for row in block.split(">")]) == _existing(enforced)


@pytest.mark.parametrize("template", sorted((ROOT / "scripts" / "slurm").glob("*.sbatch")), ids=_name)
def test_slurm_templates_set_keys_that_exist(template: Path) -> None:
    sections = {name: hint for name, hint in get_type_hints(RunConfig).items() if is_dataclass(hint)}
    known = {f"{name}.{item.name}" for name, section in sections.items() for item in fields(section)}
    used = set(re.findall(r"(?<![\w/])([a-z]+\.[a-z_]+)=", template.read_text(encoding="utf-8")))
    assert used, "the template sets no key"
    assert used <= known
