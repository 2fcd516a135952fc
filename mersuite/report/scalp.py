"""Places of channels on a head seen from above."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

MONTAGES = ("colin27_1005", "standard_1005")
"""The 10-05 montage under its new name and the one that older releases of MNE know."""
HEAD_RADIUS_M = 0.095


def head_positions(names: Iterable[str]) -> dict[str, np.ndarray]:
    """Gives the (2,) places in metres of the channels that the standard montage knows, whatever their case.

    Electrodes are laid out by their angle from the top of a sphere fitted to the montage (azimuthal equidistant); the
    sphere's equator is the head's outline, `HEAD_RADIUS_M`.
    """
    import mne

    known_names = mne.channels.get_builtin_montages()
    montage = next(name for name in MONTAGES if name in known_names)
    places = mne.channels.make_standard_montage(montage).get_positions()["ch_pos"]
    cloud = np.array(list(places.values()))
    # Sphere: |p|^2 = 2 p.c + (r^2 - |c|^2) is linear in the centre c.
    system = np.column_stack([2 * cloud, np.ones(len(cloud))])
    centre = np.linalg.lstsq(system, (cloud**2).sum(axis=1), rcond=None)[0][:3]
    known = {name.lower(): place - centre for name, place in places.items()}
    return {name: _flat(known[name.lower()]) for name in names if name.lower() in known}


def _flat(place: np.ndarray) -> np.ndarray:
    from_top = np.arccos(place[2] / np.linalg.norm(place))
    direction = np.arctan2(place[1], place[0])
    return HEAD_RADIUS_M * from_top / (np.pi / 2) * np.array([np.cos(direction), np.sin(direction)])
