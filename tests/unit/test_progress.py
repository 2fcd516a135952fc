from __future__ import annotations

import sys

import pytest

from mersuite.progress import progress_bars


def test_nothing_is_shown_where_nobody_watches(capsys: pytest.CaptureFixture):
    with progress_bars({"files": 2}) as advance:
        advance("files", 2)
    assert capsys.readouterr() == ("", "")


def test_bars_are_shown_on_a_terminal_and_only_on_stderr(capsys: pytest.CaptureFixture, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress_bars({"files": 2, "clips": 3}) as advance:
        advance("files", 1)
        advance("clips", 3)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert all(text in shown.err for text in ("files", "1/2", "clips", "3/3"))


@pytest.mark.parametrize("switch", [{"enabled": False}, {"totals": {}}])
def test_bars_can_be_turned_off(capsys: pytest.CaptureFixture, monkeypatch, switch: dict):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress_bars(**{"totals": {"files": 2}, **switch}) as advance:
        advance("files", 1)
    assert capsys.readouterr() == ("", "")


def test_a_failure_inside_passes_through():
    with pytest.raises(KeyError), progress_bars({"files": 2}):
        raise KeyError
