"""What a model may see of a dialogue, as one text: one turn a line, the oldest first, each a JSON object.

    {"who": "partner", "name": "Bo", "words": "Oh no.", "emotion": "sad"}
    {"who": "own", "asked": true, "name": "Ana"}

`who` is own for turns of the person who is asked about and partner for those of anybody else. What may not be seen is
not there: neither the words of a turn that is still to come, nor emotions that are not given away.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from mersuite.errors import DataError

OWN, PARTNER = "own", "partner"
_KEYS = {"who", "asked", "name", "words", "emotion"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenTurn:
    """One turn, as far as it may be seen.

    Attributes:
        who: own or partner.
        is_asked: Whether this turn's emotion is asked for.
        name: Who speaks; "" where that is hidden.
        words: What is said; "" where that is hidden.
        emotion: What the speaker feels; "" where that is hidden or not known.
    """

    who: str
    is_asked: bool = False
    name: str = ""
    words: str = ""
    emotion: str = ""


def write_seen(turns: Sequence[SeenTurn]) -> str:
    r"""Gives the text of some turns.

    >>> write_seen([SeenTurn(who="partner", words="Hi."), SeenTurn(who="own", is_asked=True)])
    '{"who": "partner", "words": "Hi."}\n{"who": "own", "asked": true}'
    """
    lines = []
    for turn in turns:
        told = {"name": turn.name, "words": turn.words, "emotion": turn.emotion}
        asked = {"asked": True} if turn.is_asked else {}
        fields = {"who": turn.who, **asked, **{key: item for key, item in told.items() if item}}
        lines.append(json.dumps(fields, ensure_ascii=False))
    return "\n".join(lines)


def read_seen(text: str) -> list[SeenTurn]:
    """Gives the turns of a text.

    Raises:
        DataError: If a line is no such object, or not exactly the last one is asked.
    """
    # not splitlines(): that would also split at separators that may stand inside what somebody says
    turns = [_read_line(number, line) for number, line in enumerate(text.split("\n"), start=1)]
    if [turn.is_asked for turn in turns] != [False] * (len(turns) - 1) + [True]:
        raise DataError(f"a text of turns needs `asked` in its last line and in no other, got {text[:80]!r}")
    return turns


def _read_line(number: int, line: str) -> SeenTurn:
    try:
        fields = json.loads(line)
    except ValueError:
        fields = None
    if not isinstance(fields, dict) or not fields.keys() <= _KEYS or fields.get("who") not in (OWN, PARTNER):
        raise DataError(
            f'line {number} of a text of turns: need {{"who": "{OWN}" or "{PARTNER}"}} with any of '
            f"{', '.join(sorted(_KEYS - {'who'}))}, got {line[:80]!r}"
        )
    texts = {key: str(fields.get(key, "")) for key in ("who", "name", "words", "emotion")}
    return SeenTurn(is_asked=bool(fields.get("asked", False)), **texts)
