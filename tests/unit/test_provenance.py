from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mersuite import __version__, provenance


def test_versions_leave_absent_packages_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(provenance, "_PACKAGES", ("numpy", "no-such-package"))
    provenance.versions.cache_clear()
    found = provenance.versions()
    provenance.versions.cache_clear()
    assert found["mersuite"] == __version__ and "numpy" in found and "no-such-package" not in found


@pytest.mark.parametrize("tracked", [True, False])
def test_commit_is_that_of_the_checkout_which_tracks_mersuite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracked: bool
):
    file = tmp_path / "provenance.py"
    file.write_text("")
    (tmp_path / "other.txt").write_text("")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "provenance.py" if tracked else "other.txt"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True)
    monkeypatch.setattr(provenance, "__file__", str(file))
    commits = []
    for text in ("", "changed"):
        file.write_text(text)
        provenance.git_commit.cache_clear()
        commits.append(provenance.git_commit())
    provenance.git_commit.cache_clear()
    if tracked:
        assert len(commits[0]) == 40 and commits[1] == f"{commits[0]}+changes"
    else:
        assert commits == ["", ""]


def test_commit_is_empty_without_git(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    provenance.git_commit.cache_clear()
    assert provenance.git_commit() == ""
    provenance.git_commit.cache_clear()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("sweep.storage=mysql://a:b:c@h:3/d?x=1", "sweep.storage=mysql://a:***@h:3/d?x=1"),
        ("sqlite:///runs/a@b.db", "sqlite:///runs/a@b.db"),
        ("postgresql://host:5432/db", "postgresql://host:5432/db"),
        ("C:\\data", "C:\\data"),
    ],
)
def test_password_of_a_url_is_hidden(text: str, shown: str):
    assert provenance.without_password(text) == shown
