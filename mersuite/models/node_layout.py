"""Which columns of a feature stream belong to which channel of the recording.

Axes: V nodes (channels of the recording), F features of a node.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mersuite.errors import ConfigError
from mersuite.models.base import StreamInfo


def node_layout(info: StreamInfo, features_per_node: int | None) -> torch.Tensor:
    """Gives the columns of every node, (V, F) int64.

    Args:
        info: The stream. Where features_per_node is None its names tell the nodes, as those of the EEG and fNIRS
            features do: "CZ de_alpha" is a node, a space, and what is told of it; columns may lie in any order.
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
    """Groups columns by what stands before the last space of their names; None where that groups them unevenly.

    >>> _columns_by_node(["CZ alpha", "OZ alpha", "FZ alpha", "CZ beta", "OZ beta", "FZ beta"])
    [[0, 3], [1, 4], [2, 5]]
    >>> _columns_by_node(["a", "b"]) is None
    True
    """
    groups: dict[str, list[int]] = {}
    for column, name in enumerate(names):
        node, space, _ = name.rpartition(" ")
        if not space:
            return None
        groups.setdefault(node, []).append(column)
    return list(groups.values()) if len({len(group) for group in groups.values()}) == 1 else None
