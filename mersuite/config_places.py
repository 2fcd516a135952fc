"""A trained configuration at the places of another machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mersuite.config import DATA_PLACES, DataConfig, RunConfig, RuntimeConfig, StoreConfig, parse_overrides
from mersuite.errors import ConfigError
from mersuite.schema import build


def at_places(trained: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """Gives the configuration of a checkpoint with other places of data and store, and another runtime.

    Args:
        trained: The checkpoint's.
        overrides: Words such as "data.root=DIR". Where data are named and no store is, the store lies beside the data.

    Raises:
        ConfigError: If a word names anything else: what decides numbers is the checkpoint's.
    """
    values = parse_overrides(overrides)
    allowed = {"data": DATA_PLACES, "store": ("path",), "runtime": None}
    for key, item in values.items():
        names = allowed.get(key, ())
        wrong = (
            [name for name in item if names is not None and name not in names] if isinstance(item, Mapping) else [""]
        )
        if key not in allowed or wrong:
            full = f"{key}.{wrong[0]}" if wrong and wrong[0] else key
            raise ConfigError(
                f"{full}: predict takes {', '.join(f'data.{name}' for name in DATA_PLACES)}, store.path and runtime.*; "
                "the rest is the run's"
            )
    places = build(DataConfig, values.get("data", {}), where="data")
    data = trained.data
    if "data" in values:
        data = replace(trained.data, **{name: getattr(places, name) for name in DATA_PLACES})
    store = build(StoreConfig, values["store"], where="store") if "store" in values else trained.store
    if "data" in values and "store" not in values:
        store = StoreConfig()
    runtime = build(RuntimeConfig, values.get("runtime", {}), where="runtime")
    return replace(trained, data=data, store=store, runtime=runtime)
