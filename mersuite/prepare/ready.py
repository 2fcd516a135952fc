"""What the verbs do before their own work: extractors of a configuration, prepared streams, and their reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mersuite import catalog, registry
from mersuite.config import RunConfig
from mersuite.features.base import Extractor
from mersuite.prepare import Coverage, FeatureReader, prepare
from mersuite.track import TrackData


def extractors_of(run_config: RunConfig, streams: Sequence[str] | None = None) -> dict[str, Extractor]:
    """Builds the extractors by their names under `features`; with streams, those that write one of them."""
    built = {name: catalog.find("extractor", part.name)(part.config) for name, part in run_config.features.items()}
    for extractor in built.values():
        extractor.accelerator = run_config.runtime.accelerator
    if streams is None:
        return built
    return {name: item for name, item in built.items() if set(item.outputs()) & set(streams)}


def prepare_data(run_config: RunConfig, data: TrackData, extractors: Mapping[str, Extractor]) -> Coverage:
    """Prepares what is missing of all clips, as `prepare` does."""
    return prepare(
        data.clips,
        extractors,
        run_config.store_path,
        num_workers=run_config.runtime.prepare_workers,
        progress=run_config.runtime.progress,
    )


def ready_reader(run_config: RunConfig, data: TrackData) -> FeatureReader:
    """Prepares what the configured systems read, and gives its reader."""
    extractors = extractors_of(run_config, registry.load(run_config.track).stored_streams(run_config))
    prepare_data(run_config, data, extractors)
    return FeatureReader.open(run_config.store_path, data.clips, extractors)
