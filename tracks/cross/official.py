"""The organisers' protocol, which chooses by the rows it reports, and ours beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mersuite.config import RunConfig
from mersuite.track import ClassLoss, Evaluation
from tracks.cross.fitted import CrossFitted
from tracks.cross.head import TARGET
from tracks.cross.options import CrossConfig

OFFICIAL = "official"
"""Name of the evaluation, and value of cross.protocol that makes it the main one."""


def with_official(config: RunConfig, others: Sequence[Evaluation]) -> list[Evaluation]:
    """Puts the configured system under the organisers' protocol first where cross.protocol asks for it.

    Args:
        config: Its system and its draws.
        others: Evaluations that choose on validation rows and report others.
    """
    options: CrossConfig = config.options
    if options.protocol != OFFICIAL:
        return list(others)
    num_draws = config.draws.num_draws
    chosen = "the epoch" if num_draws == 1 else f"epoch and best of {num_draws} draws of hyper-parameters"
    chosen += "" if options.pseudo_labels is None else " (and the confidence from which guessed labels are believed)"
    protocol = (
        f"the organisers' protocol, system {options.system}: {chosen} chosen by WAF on the very rows that are reported "
        f"(it selects on them, so its score is too high); theirs are random folds without a seed, these are seeded, by "
        f"{' and '.join(config.cv.by)}"
    )
    first = Evaluation(name=OFFICIAL, overrides={}, protocol=protocol, selects_on_reported=True)
    ours = {"cross.protocol": "held_out"}
    return [first, *(replace(item, overrides={**item.overrides, **ours}) for item in others)]


def plain_loss(options: CrossConfig, fitted: CrossFitted) -> ClassLoss | None:
    """Gives the loss where the system sees everything and answers the largest logit; None elsewhere."""
    if options.system != "own" or options.prior != "train":
        return None
    return ClassLoss(target=TARGET, class_weights=fitted.loss_weights, label_smoothing=options.label_smoothing)
