"""Where electrodes lie, which of them are on the scalp, and which are each other's neighbours or mirror images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

import numpy as np

from mersuite.signal.positions import TABLE

NON_SCALP = frozenset(("M1", "M2", "A1", "A2", "CB1", "CB2"))
"""Mastoids, ear lobes and the two electrodes below the occipital rim: kept, but no source of any average."""
STAND_INS = {"CB1": "PO9", "CB2": "PO10"}
"""Why: the 10-05 system has no CB1 and CB2; a bad one is filled as if it lay at the nearest place that it has."""
_AFFIXES = re.compile(r"^EEG[\s_-]+|[\s_-]+(REF|LE|AVG|A1|A2|M1|M2)$|\.+$", re.IGNORECASE)
_SIDED = re.compile(r"([A-Z]+)(\d+)")


def plain_name(name: str) -> str:
    """Gives the 10-05 name in capitals, without what file formats put around it.

    >>> plain_name("EEG Fp1-REF"), plain_name("Fc5."), plain_name("CPz")
    ('FP1', 'FC5', 'CPZ')
    """
    return _AFFIXES.sub("", _AFFIXES.sub("", name.strip())).upper()


@cache
def standard_positions() -> dict[str, tuple[float, float, float]]:
    """Gives name in capitals -> (x, y, z) in metres, head coordinates, of all electrodes of the 10-05 system."""
    found = {}
    for entry in TABLE.replace("\n", " ").split(";"):
        name, *values = entry.split()
        x, y, z = (int(value) * 1e-7 for value in values)
        found[name.upper()] = (x, y, z)
    return found


def positions(ch_names: Sequence[str]) -> np.ndarray:
    """Gives (channel, 3) float64, metres, head coordinates; NaN for names outside the 10-05 system."""
    table = standard_positions()
    plain = [plain_name(name) for name in ch_names]
    missing = (np.nan,) * 3
    return np.array([table.get(STAND_INS.get(name, name), missing) for name in plain], np.float64).reshape(-1, 3)


def on_scalp(ch_names: Sequence[str]) -> np.ndarray:
    """Gives (channel,) bool: True for electrodes of the 10-05 system other than mastoids, ear lobes, CB1 and CB2."""
    table = standard_positions()
    plain = [plain_name(name) for name in ch_names]
    return np.array([name in table and name not in NON_SCALP for name in plain], bool)


def sphere_origin(places: np.ndarray) -> np.ndarray:
    """Gives the centre of the sphere that fits electrode places best, (3,) metres.

    MNE's automatic origin for a montage: least squares on all places but those of the face (in front, below the
    fiducials' plane).

    Args:
        places: (electrode, 3) float64, head coordinates.
    """
    face = (places[:, 2] < 0) & (places[:, 1] > 0)
    kept = places[~face] if (~face).sum() >= 4 else places
    system = np.column_stack((2 * kept, np.ones(len(kept))))
    return np.linalg.lstsq(system, (kept**2).sum(axis=1), rcond=None)[0][:3]


def neighbours(places: np.ndarray, num_neighbours: int) -> np.ndarray:
    """Gives the nearest other electrodes of each, (electrode, num_neighbours) int, nearest first."""
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    return np.argsort(distance, axis=1, kind="stable")[:, :num_neighbours]


def mirror_pairs(ch_names: Sequence[str]) -> list[tuple[int, int]]:
    """Gives index pairs (left, right) of scalp electrodes that mirror each other, in the order of the left ones.

    >>> mirror_pairs(["FP1", "FZ", "FP2", "PO8", "PO7", "M1", "M2"])
    [(0, 2), (4, 3)]
    """
    plain = [plain_name(name) for name in ch_names]
    index = {name: place for place, name in enumerate(plain)}
    scalp = on_scalp(ch_names)
    pairs = []
    for left, name in enumerate(plain):
        match = _SIDED.fullmatch(name)
        if match is None or int(match[2]) % 2 == 0 or not scalp[left]:
            continue
        right = index.get(f"{match[1]}{int(match[2]) + 1}")
        if right is not None:
            pairs.append((left, right))
    return pairs
