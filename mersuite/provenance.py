"""What made a result: package versions, commit, command."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mersuite import __version__

_PACKAGES = ("torch", "pytorch-lightning", "numpy", "scipy", "mne", "transformers", "lmdb")


@cache
def versions() -> dict[str, str]:
    """Gives the versions of Python, mersuite and the packages that decide numbers; absent ones are left out."""
    found = {"mersuite": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def git_commit() -> str:
    """Gives the commit of the checkout that mersuite runs from, with "+changes" for a dirty one; "" outside of git."""
    folder = Path(__file__).resolve().parent
    try:
        _git(folder, "ls-files", "--error-unmatch", Path(__file__).name)  # fails in a venv inside of another checkout
        commit = _git(folder, "rev-parse", "HEAD")
        return f"{commit}+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    return done.stdout.strip()


def command() -> list[str]:
    """Gives the words of the running command, the program by its name alone, passwords in URLs hidden."""
    return [Path(sys.argv[0]).name, *map(without_password, sys.argv[1:])]


def without_password(text: str) -> str:
    """Hides the password of a URL.

    >>> without_password("sweep.storage=postgresql://me:secret@host/db")
    'sweep.storage=postgresql://me:***@host/db'
    """
    return re.sub(r"(://[^/@\s:]*):[^/@\s]+@", r"\1:***@", text)
