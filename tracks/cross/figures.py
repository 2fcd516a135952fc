"""What the report shows for tracks of one label a clip: who is taken for whom, and how well each label is found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mersuite.clip import Prediction
from mersuite.errors import DataError, did_you_mean
from mersuite.metrics.waf import confusion_counts, f1_of
from mersuite.panels import Bars, Confusion, Section
from tracks.cross.head import TARGET
from tracks.cross.options import LABELS

MAX_SQUARES = 3
MAX_BESIDE = 3
READ_SQUARES = "A row is a truth: its shade says how the clips of that label were answered, the diagonal is right."
READ_BARS = (
    "F1 of each label on held-out rows; marks: other systems. WAF is their mean, weighted by the truth's shares."
)


def cross_sections(rows: Mapping[str, Sequence[Prediction]], clips: Sequence[str]) -> list[Section]:
    """Gives confusion matrices and the F1 of each label.

    Args:
        rows: Evaluation name to its out-of-fold rows with targets, the main one first.
        clips: Clips that were asked for; they must be among the rows, and are said in the title.

    Raises:
        DataError: If a named clip is not among the rows.
    """
    main = next(iter(rows))
    answers = {item.sample_id: item for item in rows[main]}
    for name in clips:
        if name not in answers:
            raise DataError(
                f"clips: no clip {name!r} among the {len(answers)} held-out ones; {did_you_mean(name, answers)}"
            )
    found = {str(item.answer) for items in rows.values() for item in items}
    found |= {_truth(item) for items in rows.values() for item in items}
    labels = LABELS if found <= set(LABELS) else tuple(sorted(found))
    counts = {
        name: confusion_counts([str(item.answer) for item in items], [_truth(item) for item in items], labels)
        for name, items in rows.items()
    }
    told = "".join(f"; {name}: {_truth(answers[name])} answered as {answers[name].answer}" for name in clips)
    squares = Confusion(
        title=f"{len(answers):,} held-out clips{told}",
        labels=labels,
        counts={name: counts[name] for name in list(counts)[:MAX_SQUARES]},
    )
    bars = Bars(
        title="F1 of each label",
        axis="F1",
        names=labels,
        values={name: f1_of(counts[name]) for name in list(counts)[: MAX_BESIDE + 1]},
    )
    return [
        Section(title="What is taken for what", text=READ_SQUARES, panels=(squares,)),
        Section(title="How well each label is found", text=READ_BARS, panels=(bars,)),
    ]


def _truth(row: Prediction) -> str:
    return str(row.target[TARGET])
