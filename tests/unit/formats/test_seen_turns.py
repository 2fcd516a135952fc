from __future__ import annotations

import pytest

from mersuite.errors import DataError
from mersuite.formats.seen_turns import SeenTurn, read_seen, write_seen

ASKED = SeenTurn(who="own", is_asked=True)


@pytest.mark.parametrize("words", ["Oh.", 'say "no"\nor', "a\x85b\u2028c\x92", "嗯，好的"], ids=ascii)
def test_turns_come_back_as_they_were_written(words: str):
    turns = [SeenTurn(who="partner", name="Bo", words=words, emotion="sad"), SeenTurn(who="own", words=words), ASKED]
    assert read_seen(write_seen(turns)) == turns


def test_what_is_hidden_is_not_in_the_text():
    assert write_seen([ASKED]) == '{"who": "own", "asked": true}'


@pytest.mark.parametrize(
    "line", ["", "Hello.", "[]", '{"asked": true}', '{"who": "me"}', '{"who": "own", "target": "sad"}'], ids=repr
)
def test_text_that_is_no_turns_is_refused(line: str):
    with pytest.raises(DataError, match="line 1 of a text of turns: need"):
        read_seen(line)


@pytest.mark.parametrize("turns", [[SeenTurn(who="own")], [ASKED, ASKED], [ASKED, SeenTurn(who="partner")]])
def test_exactly_the_last_turn_must_be_asked(turns: list[SeenTurn]):
    with pytest.raises(DataError, match="needs `asked` in its last line and in no other"):
        read_seen(write_seen(turns))
