"""What others published on MER-Cross, to set a run beside. Sources: README.md of the track."""

from __future__ import annotations

from mersuite.panels import PublishedFigure

_PARTICIPANTS = "participants' public notes"
PUBLISHED = (
    PublishedFigure(
        system="best public result",
        protocol="574 scored listener clips",
        metrics={"waf": 0.658},
        source=_PARTICIPANTS,
    ),
    PublishedFigure(
        system="baselines trained on own clips, from",
        protocol="574 scored listener clips",
        metrics={"waf": 0.50},
        source=_PARTICIPANTS,
    ),
    PublishedFigure(
        system="the same, to",
        protocol="574 scored listener clips",
        metrics={"waf": 0.66},
        source=_PARTICIPANTS,
    ),
    PublishedFigure(
        system="the same in their own folds, from",
        protocol="9,395 own clips, 5 folds",
        metrics={"waf": 0.77},
        source=_PARTICIPANTS,
    ),
    PublishedFigure(
        system="the same in their own folds, to",
        protocol="9,395 own clips, 5 folds",
        metrics={"waf": 0.87},
        source=_PARTICIPANTS,
    ),
    PublishedFigure(
        system="large models, zero-shot (about)",
        protocol="574 scored listener clips",
        metrics={"waf": 0.42},
        source=_PARTICIPANTS,
    ),
)
