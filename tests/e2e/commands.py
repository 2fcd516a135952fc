"""Commands of the command line as tests run them, in this process or apart, and what they said."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mersuite import cli

ROOT = Path(cli.__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A command that has ended."""

    status: int
    out: str
    err: str


def run_apart(words: list[str], folder: Path) -> Done:
    """Runs `python -m mersuite` in a folder."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "mersuite", *words]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    return Done(status=done.returncode, out=done.stdout, err=done.stderr)


def run_here(words: list[str], folder: Path) -> Done:
    """Runs the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main(words)
    return Done(status=status, out=out.getvalue(), err=err.getvalue())


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The folder after all commands, and what each of them said."""

    folder: Path
    done: dict[str, Done]

    def refused(self, command: str) -> str:
        """Runs a command that must be refused, and gives its one line."""
        done = run_here(shlex.split(command)[1:], self.folder)
        assert done.status == 2, done.out
        assert done.out == "" and "Traceback" not in done.err
        assert done.err.startswith("mersuite: ") and done.err.count("\n") == 1
        return done.err


def run_list(commands: Sequence[str], folder: Path, smaller: Mapping[str, tuple[str, ...]] | None) -> Shown:
    """Runs commands one after the other, each of which must end well.

    Args:
        commands: Each as a person types it.
        folder: Where.
        smaller: Verb to words that are appended, in this process; None runs each command apart, word for word.
    """
    done = {}
    for command in commands:
        _, verb, *words = shlex.split(command)
        if smaller is None:
            done[command] = run_apart([verb, *words], folder)
        else:
            done[command] = run_here([verb, *words, *smaller.get(verb, ())], folder)
        assert done[command].status == 0, f"{command}\n{done[command].err}"
    return Shown(folder=folder, done=done)
