"""Errors a user can cure; the command line shows them without a traceback and exits with status 2."""

import difflib
from collections.abc import Iterable


class MersuiteError(Exception):
    """A mistake in what the user gave. The message says what was seen, what was expected and what cures it."""


class ConfigError(MersuiteError):
    """A configuration key or value that does not fit."""


class DataError(MersuiteError):
    """A data file that is missing, malformed or contradicts another one."""


class StoreError(MersuiteError):
    """A feature store that is missing, damaged, full or was made by another configuration."""


class SubmissionError(MersuiteError):
    """Predictions that do not form a valid submission."""


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """Gives a hint that names the nearest option, or lists all of them when none is near.

    >>> did_you_mean("concatt", ["concat", "gated"])
    "did you mean 'concat'?"
    >>> did_you_mean("zzz", ["concat", "gated"])
    'choose one of: concat, gated'
    """
    names = sorted(str(option) for option in options)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"choose one of: {', '.join(names)}" if names else "there is nothing to choose from"
