from __future__ import annotations

import numpy as np
import pytest

from mersuite.clip import Prediction
from mersuite.errors import DataError
from mersuite.panels import Bars, Confusion
from mersuite.report.labels import bars_by_name_chart, confusion_chart
from tracks.cross.figures import cross_sections
from tracks.cross.options import LABELS


def rows(pairs: list[tuple[str, str]]) -> list[Prediction]:
    return [
        Prediction(sample_id=f"c{i}", groups={}, outputs={}, answer=answer, target={"emotion": np.asarray(truth)})
        for i, (truth, answer) in enumerate(pairs)
    ]


ROWS = {
    "listener": rows([("happy", "happy"), ("happy", "sad"), ("sad", "sad")]),
    "majority": rows([("happy", "happy"), ("happy", "happy"), ("sad", "happy")]),
}


def test_confusions_count_truths_by_answers_and_keep_the_order_of_labels():
    squares, bars = (section.panels[0] for section in cross_sections(ROWS, ()))
    assert isinstance(squares, Confusion) and isinstance(bars, Bars)
    assert squares.labels == bars.names == LABELS
    happy, sad = LABELS.index("happy"), LABELS.index("sad")
    assert squares.counts["listener"][happy, sad] == 1 and squares.counts["listener"].sum() == 3
    assert bars.values["listener"][sad] == pytest.approx(2 / 3)
    assert bars.values["majority"][happy] == pytest.approx(0.8)


def test_other_labels_are_sorted():
    squares = cross_sections({"a": rows([("joy", "anger")])}, ())[0].panels[0]
    assert isinstance(squares, Confusion) and squares.labels == ("anger", "joy")


def test_a_named_clip_is_told_or_refused():
    assert "c1: happy answered as sad" in cross_sections(ROWS, ("c1",))[0].panels[0].title
    with pytest.raises(DataError, match="no clip 'c9' among the 3 held-out ones"):
        cross_sections(ROWS, ("c9",))


def test_panels_are_drawn_with_their_names_and_counts():
    squares, bars = (section.panels[0] for section in cross_sections(ROWS, ()))
    drawn = confusion_chart(squares, "s") + bars_by_name_chart(bars, "b")
    assert all(name in drawn for name in (*LABELS, "listener", "majority", "truth", "answer", "F1"))
    assert drawn.count("<svg") == 2
