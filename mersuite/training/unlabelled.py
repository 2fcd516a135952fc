"""What training sees without labels: read beside the training split, and what was guessed of it told afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mersuite.config import RunConfig
from mersuite.data.unlabelled import Teacher, without_truth
from mersuite.inference import Checkpoint
from mersuite.track import Track, TrackData


def with_unlabelled(track: Track, config: RunConfig, data: TrackData) -> TrackData:
    """Gives the training split with the samples of another one that training may see without their truth.

    Nothing else of that split is kept: neither its notes, which may count labels, nor its other clips.

    Args:
        track: Says whether it wants some, and reads them.
        config: The run's configuration.
        data: The training split.

    Raises:
        DataError: If there is no such sample, or one is also a training sample.
    """
    use = track.unlabelled(config)
    if use is None:
        return data
    other = track.read(config, use.split)
    unlabelled = without_truth(other.samples, use, data.samples)
    names = {sample.clip_id for sample in unlabelled}
    clips = [clip for clip in other.clips if clip.clip_id in names]
    note = (
        f"training sees {len(unlabelled)} samples of split {use.split} without their labels: systems that say so are "
        "transductive, made for these samples"
    )
    return replace(data, clips=(*data.clips, *clips), unlabelled=unlabelled, notes=(*data.notes, note))


def taught_lines(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """Says which labels were guessed in the training of each fold."""
    return [
        f"fold {checkpoint.fold}: {line}"
        for checkpoint in checkpoints
        if isinstance(checkpoint.fitted, Teacher)
        for line in checkpoint.fitted.taught()
    ]
