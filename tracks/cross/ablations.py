"""What the options of role transfer are worth: the configured system with one of them switched off."""

from __future__ import annotations

from typing import Any

from mersuite.config import RunConfig
from mersuite.track import Evaluation
from tracks.cross.options import CrossConfig
from tracks.cross.roles import hidden_of_listener

SEES_NOTHING: dict[str, Any] = {"cross.align": "none", "cross.pseudo_labels": None}
"""Overrides of systems that never see a candidate in training."""


def seen_in_training(options: CrossConfig) -> str:
    """Says, for a protocol, what a system learns from candidates; "" where it sees none."""
    aligned = [] if options.align == "none" else [f"features aligned by {options.align}"]
    guessed = [] if options.pseudo_labels is None else ["labels guessed"]
    told = [*aligned, *guessed]
    return f"transductive: candidates were seen in training without labels ({', '.join(told)})" if told else ""


def asked_together(options: CrossConfig) -> str:
    """Says, for a protocol, what answers take from all rows that are asked together; "" where each stands alone."""
    shares = ["label shares are estimated"] if options.prior == "estimate" else []
    statistics = ["listeners' inputs are standardised"] if options.restandardise else []
    told = [*shares, *statistics]
    return f"transductive: {' and '.join(told)} from all rows asked together, without labels" if told else ""


def with_seen(protocol: str, options: CrossConfig) -> str:
    """Adds to a protocol what is seen of candidates in training, and of all asked rows in answering."""
    return "; ".join(filter(None, (protocol, seen_in_training(options), asked_together(options))))


def overrides_off(options: CrossConfig) -> dict[str, Any]:
    """Gives the overrides that switch off what sees candidates, as far as it is on."""
    return SEES_NOTHING if seen_in_training(options) else {}


def ablations(config: RunConfig, main: Evaluation) -> list[Evaluation]:
    """Gives the main system without each option of role transfer that is on, on the same held-out rows.

    Args:
        config: The run's configuration.
        main: The evaluation of the configured system.
    """
    options: CrossConfig = config.options
    silences = options.system == "listener" and options.silence > 0 and hidden_of_listener(config) != ()
    switches: list[tuple[str, bool, dict[str, Any], str]] = [
        ("align", options.align != "none", {"cross.align": "none"}, "features are not aligned"),
        ("pseudo_labels", options.pseudo_labels is not None, {"cross.pseudo_labels": None}, "no label is guessed"),
        ("silence", silences, {"cross.silence": 0.0}, "voice and words are never hidden in training"),
        ("prior", options.prior != "train", {"cross.prior": "train"}, "labels are as frequent as in training"),
    ]
    return [
        Evaluation(
            name=f"without_{name}",
            overrides={**main.overrides, **overrides},
            protocol=f"as {main.name}, but {what}",
            unfit=main.unfit,
        )
        for name, is_on, overrides, what in switches
        if is_on
    ]
