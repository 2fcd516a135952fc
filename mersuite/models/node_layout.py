"""Which columns of a feature stream belong to which channel of the recording.

Axes: V nodes (channels of the recording), F features of a node.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mersuite.errors import ConfigError
from mersuite.models.base import StreamInfo

_SEPARATORS = (":", "/", " ", ".", "_")


def node_layout(info: StreamInfo, features_per_node: int | None) -> torch.Tensor:
    """Gives the columns of every node, (V, F) int64.

    Args:
        info: The stream; its names, such as "CZ:alpha", tell the nodes where features_per_node is None.
        features_per_node: F for columns that lie node by node ("CZ alpha", "CZ beta", ..., "OZ alpha", ...).

    Raises:
        ConfigError: If neither the names nor the number tell the nodes.
    """
    if features_per_node is not None:
        if features_per_node < 1 or info.num_channels % features_per_node:
            raise ConfigError(
                f"features_per_node: need a divisor of the stream's {info.num_channels} columns, "
                f"got {features_per_node}"
            )
        return torch.arange(info.num_channels).view(-1, features_per_node)
    columns = _columns_by_node(info.ch_names)
    if columns is None:
        raise ConfigError(
            f"features_per_node: the names of the stream's {info.num_channels} columns do not tell their nodes "
            f"(first ones: {list(info.ch_names[:3])}); give the number of features of a node"
        )
    return torch.tensor(columns)


def _columns_by_node(names: Sequence[str]) -> list[list[int]] | None:
    """Groups columns by the part of their names that takes the most values; None where no part groups them evenly.

    >>> _columns_by_node(["CZ:alpha", "OZ:alpha", "FZ:alpha", "CZ:beta", "OZ:beta", "FZ:beta"])
    [[0, 3], [1, 4], [2, 5]]
    >>> _columns_by_node(["a", "b"]) is None
    True
    """
    for separator in _SEPARATORS:
        parts = [name.split(separator) for name in names]
        if not parts or len({len(part) for part in parts}) != 1 or len(parts[0]) < 2:
            continue
        best = max(range(len(parts[0])), key=lambda place: len({part[place] for part in parts}))
        groups: dict[str, list[int]] = {}
        for column, part in enumerate(parts):
            groups.setdefault(part[best], []).append(column)
        if len({len(group) for group in groups.values()}) == 1:
            return list(groups.values())
    return None
