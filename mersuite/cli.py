"""The command line: `mersuite VERB [ACTION] key=value ...`. It parses and prints; mersuite.api does the work."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mersuite import __version__
from mersuite.errors import ConfigError, MersuiteError, did_you_mean

_CURABLE = {
    errno.ENOSPC: "no space left on the disk; make room and repeat the command",
    errno.EDQUOT: "the disk quota is used up; make room and repeat the command",
    errno.EACCES: "not allowed to read or write",
    errno.EPERM: "not allowed to read or write",
    errno.EROFS: "the file system is read-only; choose another place",
}


_EXTRAS = {
    "av": "video",
    "cv2": "faces",
    "transformers": "llm",
    "tokenizers": "llm",
    "peft": "llm",
    "PIL": "llm",
    "h5py": "eeg",
    "edfio": "eeg",
    "matplotlib": "report",
    "dask": "cluster",
    "distributed": "cluster",
}
"""Optional package to the extra that installs it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """One verb of the command line.

    Attributes:
        run: (words by key, action) -> (JSON object, lines or tables for people).
        help: One line.
        keys: Keys of the verb itself with a line of help each; "*" after a key marks it as needed.
        takes_config: Whether it takes other keys, too: usually configuration keys of the track.
        more: What the other keys are.
        details: Gives lines on them for a track, shown by `mersuite VERB track=NAME --help`.
        actions: Words that may follow the verb.
    """

    run: Callable[[dict[str, str], list[str], str], tuple[Mapping[str, Any], Any]]
    help: str
    keys: Mapping[str, str]
    takes_config: bool = False
    more: str = "any configuration key; `mersuite config track=NAME` prints all with their values"
    details: Callable[[str], list[str]] | None = None
    actions: tuple[str, ...] = ()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit status: 0 done, 2 the user's mistake, 1 our fault (with a traceback)."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _run(words)
        sys.stdout.flush()  # a closed pipe shows itself here and not when Python ends
    except MersuiteError as error:
        sys.stdout.flush()
        sys.stderr.write(f"mersuite: {error}\n")
        status = 2
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise
        sys.stdout.flush()
        sys.stderr.write(
            f"mersuite: this needs the package {package}, which is not installed: "
            f"pip install 'mersuite[{_EXTRAS[package]}]'\n"
        )
        status = 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except OSError as error:
        if error.errno not in _CURABLE:
            raise
        sys.stdout.flush()
        sys.stderr.write(f"mersuite: {_CURABLE[error.errno]}: {error.filename or error}\n")
        status = 2
    except KeyboardInterrupt:
        sys.stderr.write("mersuite: stopped; what was finished is kept\n")
        status = 130
    if argv is None:
        sys.exit(status)
    return status


def _run(words: list[str]) -> int:
    from mersuite.run_folder import is_first_process
    from mersuite.verbs import VERBS

    if not words or words[0] in ("-h", "--help", "help"):
        sys.stdout.write(_overview(VERBS))
        return 0
    if words[0] in ("-V", "--version"):
        sys.stdout.write(f"mersuite {__version__}\n")
        return 0
    name, rest = words[0], words[1:]
    if name not in VERBS:
        raise ConfigError(f"there is no verb {name!r}; {did_you_mean(name, VERBS)}")
    verb = VERBS[name]
    if any(word in ("-h", "--help") for word in rest):
        track = next((word.partition("=")[2] for word in rest if word.startswith("track=")), "")
        sys.stdout.write(_verb_help(name, verb, track))
        return 0
    action = ""
    if rest and "=" not in rest[0]:
        action = rest.pop(0)
        if action not in verb.actions:
            options = did_you_mean(action, verb.actions) if verb.actions else "it takes key=value words only"
            raise ConfigError(f"{name}: unexpected word {action!r}; {options}")
    own, config_words = split_words(name, verb, rest)
    as_json = flag(own, "json")
    with _stdout_kept_free() if as_json else contextlib.nullcontext():
        result, shown = verb.run(own, config_words, action)
    if not is_first_process():
        return 0
    if as_json:
        sys.stdout.write(json.dumps(json_form(result), allow_nan=False) + "\n")
    else:
        _show(shown)
    return 0


def flag(own: Mapping[str, str], key: str) -> bool:
    """Reads a verb's key that is true or false; without the key it is false.

    Raises:
        ConfigError: If it is anything else.
    """
    value = own.get(key, "false")
    if value not in ("true", "false"):
        raise ConfigError(f"{key}: need true or false, got {value!r}")
    return value == "true"


def json_form(value: Any) -> Any:
    """Turns a result into what JSON has: NumPy scalars and arrays to numbers and lists, paths to texts, NaN to null."""
    if isinstance(value, Mapping):
        return {str(key): json_form(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_form(item) for item in value]
    if hasattr(value, "tolist"):
        return json_form(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


@contextlib.contextmanager
def _stdout_kept_free() -> Iterator[None]:
    """Sends to stderr what libraries and worker processes write to stdout, which then holds the JSON object alone."""
    stdout = sys.stdout
    stdout.flush()
    try:
        number = stdout.fileno() if stdout is sys.__stdout__ and stdout is not None else None
    except (OSError, ValueError):  # no file behind it, as in a notebook
        number = None
    kept = None if number is None else os.dup(number)
    try:
        if number is not None:
            os.dup2(2, number)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        stdout.flush()
        if number is not None and kept is not None:
            os.dup2(kept, number)
            os.close(kept)


def split_words(name: str, verb: Verb, words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Divides key=value words into those of the verb and those of the configuration.

    Raises:
        ConfigError: If a word is no key=value, a needed key is missing, or an unknown key was given.
    """
    known = {key.rstrip("*"): key.endswith("*") for key in verb.keys}
    own: dict[str, str] = {}
    rest: list[str] = []
    for word in words:
        key, sign, value = word.partition("=")
        if not sign or not key or key.startswith("-"):
            raise ConfigError(f"{name}: {word!r}: need key=value, without dashes; try `mersuite {name} --help`")
        if key in known or key == "json":
            if key in own:
                raise ConfigError(f"{name}: {key} is given twice: {own[key]!r} and {value!r}")
            own[key] = value
        elif verb.takes_config:
            rest.append(word)
        else:
            raise ConfigError(f"{name}: unknown key {key!r}; {did_you_mean(key, [*known, 'json'])}")
    missing = [key for key, needed in known.items() if needed and not own.get(key)]
    if missing:
        words_needed = " ".join(f"{key}=..." for key in missing)
        raise ConfigError(f"{name}: {words_needed} is needed; try `mersuite {name} --help`")
    return own, rest


def _show(shown: Any) -> None:
    from rich.console import Console

    # no markup: a path such as runs/[seed]/a is not a style
    console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    for item in shown if isinstance(shown, (list, tuple)) else [shown]:
        console.print(item)


def _overview(verbs: Mapping[str, Verb]) -> str:
    width = max(map(len, verbs))
    lines = ["usage: mersuite VERB [ACTION] key=value ...", ""]
    lines += [f"  {name:<{width}}  {verb.help}" for name, verb in verbs.items()]
    lines += ["", "`mersuite VERB --help` lists its keys; json=true prints one JSON object instead of a table.", ""]
    return "\n".join(lines)


def _verb_help(name: str, verb: Verb, track: str) -> str:
    actions = f" [{'|'.join(verb.actions)}]" if verb.actions else ""
    lines = [f"usage: mersuite {name}{actions} key=value ...", "", f"  {verb.help}", ""]
    width = max((len(key) for key in verb.keys), default=4)
    lines += [f"  {key:<{width}}  {text}" for key, text in {**verb.keys, "json": "true: one JSON object"}.items()]
    if verb.takes_config:
        lines.append(f"  and {verb.more}")
        lines += verb.details(track) if verb.details and track else []
    lines += ["  (* is needed)", ""]
    return "\n".join(lines)
