"""Which stored stream plays the part of each of the model's streams, by who is labelled and who speaks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mersuite import catalog
from mersuite.clip import Clip, Sample
from mersuite.config import RunConfig
from mersuite.errors import ConfigError, did_you_mean
from tracks.cross.options import CrossConfig

ROLE = "role"
OWN, OTHER = "own", "other"
"""Members of the group `role`: the labelled person speaks, or listens."""


def sources_of(config: RunConfig) -> dict[str, tuple[str, ...]]:
    """Gives stored stream to the media streams that its extractor needs."""
    found: dict[str, tuple[str, ...]] = {}
    for part in config.features.values():
        extractor = catalog.find("extractor", part.name)(part.config)
        needed = tuple(name for name in extractor.inputs if not name.endswith("?"))
        found |= dict.fromkeys(extractor.outputs(), needed)
    return found


def check_parts(config: RunConfig) -> None:
    """Makes sure that the streams of `own` and `other` are ones that extractors write.

    Raises:
        ConfigError: If one is not.
    """
    options: CrossConfig = config.options
    made = sources_of(config)
    for side in (OWN, OTHER):
        for stream, stored in getattr(options, side).items():
            for name in stored:
                if name not in made and stream in config.model.encoders:
                    raise ConfigError(
                        f"cross.{side}.{stream}: no extractor under `features` writes the stream {name!r}; "
                        f"{did_you_mean(name, made)}"
                    )


def assign(config: RunConfig, clip: Clip, role: str, made: Mapping[str, Sequence[str]]) -> dict[str, str | None]:
    """Gives the model streams that a sample does not read under their own name.

    Args:
        config: model.encoders and cross.* are read.
        clip: The sample's clip.
        role: own or other.
        made: As sources_of gives it.
    """
    plays: dict[str, str | None] = {}
    for stream, stored in getattr(config.options, role).items():
        if stream in config.model.encoders:
            plays[stream] = next((name for name in stored if all(item in clip.media for item in made[name])), None)
    return plays


def hidden_of_listener(config: RunConfig) -> tuple[str, ...]:
    """Gives the model's streams that a clip has none of whose labelled person listens."""
    options: CrossConfig = config.options
    return tuple(stream for stream, stored in options.other.items() if not stored and stream in config.model.encoders)


def as_listener(config: RunConfig, sample: Sample) -> Sample:
    """Gives a sample without the streams that somebody who listens has none of."""
    return replace(sample, streams={**sample.streams, **dict.fromkeys(hidden_of_listener(config))})


def notes_of(config: RunConfig, samples: Sequence[Sample]) -> list[str]:
    """Says, for listeners, which stored stream plays which part how often."""
    notes = []
    others = [sample for sample in samples if sample.groups.get(ROLE) == OTHER]
    for stream, stored in config.options.other.items():
        if not stored or stream not in config.model.encoders or not others:
            continue
        counts = Counter(sample.stored(stream) for sample in others)
        told = ", ".join(f"{name or 'nothing'} {count}" for name, count in counts.items())
        if set(counts) != {stored[0]}:
            notes.append(f"listeners' {stream}: {told}; where no {stored[0]} is there, `mersuite faces` cuts it out")
    return notes
