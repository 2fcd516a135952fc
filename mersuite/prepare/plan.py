"""What there is to prepare: which clips go together, under which fingerprint, and which are left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mersuite.clip import Clip
from mersuite.errors import ConfigError, DataError
from mersuite.features.base import Extractor
from mersuite.prepare.fingerprint import SourceHashes, fingerprint, input_streams, lacking_streams
from mersuite.store import FeatureStore, SourceHash
from mersuite.store_entry import StoreKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Clips that are extracted together, with one extractor and one fingerprint.

    Attributes:
        name: Name of the extractor's entry under `features`.
        extractor: What runs.
        clips: One, or all of a group.
        fingerprint: Of the extractor and of all the clips' sources.
        source_bytes: Size of the sources.
    """

    name: str
    extractor: Extractor
    clips: tuple[Clip, ...]
    fingerprint: str
    source_bytes: int

    def key(self, clip: Clip, stream: str) -> StoreKey:
        """Gives the store's key of a stream of a clip."""
        return StoreKey(clip.dataset, clip.clip_id, stream, self.fingerprint)

    def keys(self) -> list[StoreKey]:
        """Gives the store's keys of all streams of all clips."""
        return [self.key(clip, stream) for clip in self.clips for stream in self.extractor.outputs()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All work there is, done or not.

    Attributes:
        groups: What belongs together, extractor by extractor, in the order of the clips.
        left_out: Extractor's name to reason to clip ids.
        fresh_sources: Hashes that the store does not remember yet.
    """

    groups: tuple[Group, ...]
    left_out: Mapping[str, Mapping[str, tuple[str, ...]]]
    fresh_sources: Mapping[Path, SourceHash]


def make_plan(
    clips: Sequence[Clip], extractors: Mapping[str, Extractor], store: FeatureStore | None, num_threads: int
) -> Plan:
    """Hashes all sources and says what must be in the store.

    Raises:
        ConfigError: If two extractors write one stream.
        DataError: If a source file cannot be read, or a clip lacks the group that an extractor goes by.
    """
    check_outputs(extractors)
    hashes = SourceHashes(store)
    hashes.add(clips, extractors.values(), num_threads)
    groups, left_out = [], {}
    for name, extractor in extractors.items():
        usable = [clip for clip in clips if not lacking_streams(extractor, clip)]
        reasons: dict[str, list[str]] = {}
        for clip in clips:
            if lacking := lacking_streams(extractor, clip):
                reasons.setdefault(f"no {', '.join(lacking)}", []).append(clip.clip_id)
        left_out[name] = {reason: tuple(ids) for reason, ids in reasons.items()}
        for members in _grouped(name, extractor, usable):
            groups.append(
                Group(
                    name=name,
                    extractor=extractor,
                    clips=members,
                    fingerprint=fingerprint(extractor, members, hashes),
                    source_bytes=sum(
                        hashes.size_bytes(clip.media[item])
                        for clip in members
                        for item in input_streams(extractor, clip)
                    ),
                )
            )
    return Plan(groups=tuple(groups), left_out=left_out, fresh_sources=hashes.fresh)


def check_outputs(extractors: Mapping[str, Extractor]) -> None:
    """Refuses two extractors that write one stream.

    Raises:
        ConfigError: Naming them and the stream.
    """
    owners: dict[str, str] = {}
    for name, extractor in extractors.items():
        for stream in extractor.outputs():
            if owners.setdefault(stream, name) != name:
                raise ConfigError(
                    f"features: {owners[stream]!r} and {name!r} both write the stream {stream!r}; take one of them out "
                    f"with features.{name}=null"
                )


def _grouped(name: str, extractor: Extractor, clips: Sequence[Clip]) -> list[tuple[Clip, ...]]:
    group_by = extractor.group_by
    if group_by is None:
        return [(clip,) for clip in clips]
    groups: dict[tuple[str, str], list[Clip]] = {}
    for clip in clips:
        if group_by not in clip.groups:
            raise DataError(
                f"clip {clip.clip_id!r} has no group {group_by!r}, which features.{name} needs; it has "
                f"{', '.join(clip.groups) or 'none'}"
            )
        groups.setdefault((clip.dataset, clip.groups[group_by]), []).append(clip)
    return [tuple(members) for members in groups.values()]
