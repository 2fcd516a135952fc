"""Trainings of one fold one after the other, each with the labels that the one before led to (Teacher)."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mersuite.data.unlabelled import Guess, Teacher, with_guesses
from mersuite.inference import Checkpoint, answer_with
from mersuite.models.network import Network
from mersuite.run_folder import is_first_process
from mersuite.training.folds import TRAINED, FoldRun, FoldStart, known_outputs, train_network

ROUND = "round_"
"""Folder of one training, before its number."""
CURVE = "curve.csv"


def train_rounds(run: FoldRun, start: FoldStart, network: Network) -> Network:
    """Trains the network, and, for a Teacher, again from the same start with labels that it guessed.

    Each round has a folder of its own. A fold that was killed goes through them again: a finished round is not trained
    twice, and guesses the same.
    """
    teacher = start.fitted if isinstance(start.fitted, Teacher) else None
    if teacher is None or teacher.num_rounds == 0:
        return train_network(run, start, network)
    untrained = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    last = _round_of(run, 0)
    network = train_network(last, start, network)
    for number in range(1, teacher.num_rounds + 1):
        guesses = _guesses(run, start, teacher, network)
        if not guesses:
            break
        taught, rest = with_guesses(start.unlabelled, guesses)
        network.load_state_dict(untrained)
        rows = replace(start, train=[*start.train, *taught], unlabelled=rest)
        last = _round_of(run, number)
        network = train_network(last, rows, network.train())
    if is_first_process():
        shutil.copyfile(last.folder / CURVE, run.folder / CURVE)
    return network


def _round_of(run: FoldRun, number: int) -> FoldRun:
    """Gives the fold with the folder of one round; epochs are counted on over the rounds."""
    report, before = run.report, number * run.config.trainer.max_epochs
    counted = None if report is None else lambda epoch, value: report(before + epoch, value)
    return replace(run, folder=run.folder / f"{ROUND}{number}", report=counted)


def _guesses(run: FoldRun, start: FoldStart, teacher: Teacher, network: Network) -> Mapping[str, Guess]:
    """Lets the teacher guess from what `predict` would answer to validation and unlabelled samples by now."""
    fitted, streams = start.fitted, None if start.context is None else start.context.streams
    seen = known_outputs(run, fitted, network, start.train, streams) if fitted.calibrates_on_train else []
    fitted.calibrate(known_outputs(run, fitted, network, start.val, streams), seen)
    asked = Checkpoint(
        track=run.track,
        config=run.config,
        evaluation=run.evaluation,
        fold=run.fold.index,
        fitted=fitted,
        network=network,
        context=start.context,
    )
    val, unlabelled = (answer_with(asked, rows, run.reader) for rows in (start.val, start.unlabelled))
    return teacher.teach(val, unlabelled)


def tidy_rounds(folder: Path) -> None:
    """Leaves nothing but their curves of the rounds of a finished fold."""
    if is_first_process():
        for path in folder.glob(f"{ROUND}*"):
            for name in ("best_weights.ckpt", "last.ckpt", TRAINED):
                (path / name).unlink(missing_ok=True)
