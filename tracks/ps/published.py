"""Published results on MER-PS, with the protocol of each. Lower is better; protocols differ."""

from __future__ import annotations

from mersuite.panels import PublishedFigure

_FOLDS = "24 training people, 6 folds by person"
_KIT = "trained on test_1 to test_20, scored on test_21 to test_24"
_LEADERBOARD = "4 leaderboard people"
_PARTICIPANTS = "public participant repositories"
_ORGANISERS = "the organisers' kit, as participants quote it"


def _figure(system: str, protocol: str, source: str, *values: float) -> PublishedFigure:
    names = ("mae", "mae_valence", "mae_arousal")
    return PublishedFigure(
        system=system, protocol=protocol, metrics=dict(zip(names, values, strict=False)), source=source
    )


PUBLISHED: tuple[PublishedFigure, ...] = (
    _figure("constant 128", _FOLDS, _PARTICIPANTS, 47.57, 52.20, 42.93),
    _figure("best of about 200 signal-only systems", _FOLDS, _PARTICIPANTS, 46.47, 50.00, 42.93),
    _figure("label prior", _FOLDS, _PARTICIPANTS, 28.75, 26.97, 30.52),
    _figure("best fusion of prior and signals", _FOLDS, _PARTICIPANTS, 28.69, 26.90, 30.48),
    _figure("organisers' kit, 21,783 parameters", _KIT, _ORGANISERS, 47.01, 49.23, 44.79),
    _figure("constant", _LEADERBOARD, _PARTICIPANTS, 44.33),
    _figure("signal only", _LEADERBOARD, _PARTICIPANTS, 42.75),
    _figure("clip only", _LEADERBOARD, _PARTICIPANTS, 33.36),
    _figure("label prior", _LEADERBOARD, _PARTICIPANTS, 28.04),
    _figure("best fusion of prior and signals", _LEADERBOARD, _PARTICIPANTS, 27.72),
)
