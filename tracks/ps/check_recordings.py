"""What a manifest of own recordings holds: every recording is opened, and faults are listed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from mersuite.clip import Media, Signal
from mersuite.errors import DataError
from mersuite.formats.manifest import ManifestRow, read_manifest
from mersuite.media.physio import read_reservations, read_signal, where
from mersuite.track import CheckRow
from tracks.ps import layout, reader

_HAEMOGLOBIN = frozenset(("hbo", "hbr"))


def check_manifest(path: Path) -> list[CheckRow]:
    """Opens every recording of a manifest and reports counts, channels, rates, places of electrodes, and faults."""
    try:
        rows = read_manifest(path, layout.STREAMS)
    except DataError as error:
        return [CheckRow(name="fault", found=str(error), ok=False)]
    report = [CheckRow(name="rows", found=str(len(rows)))]
    splits = Counter(row.split for row in rows)
    report.append(CheckRow(name="splits", found=", ".join(f"{count} {name}" for name, count in sorted(splits.items()))))
    subjects = {row.groups["subject"] for row in rows if "subject" in row.groups}
    report.append(
        CheckRow(name="subjects", found=str(len(subjects)), expected="2 or more to split", ok=len(subjects) > 1 or None)
    )
    rated = sum(row.target_path is not None or bool(row.targets) for row in rows)
    report.append(CheckRow(name="rated rows", found=f"{rated} of {len(rows)}", ok=rated > 0 or None))
    sources = Counter(row.target_source for row in rows if row.target_source)
    if sources:
        found = ", ".join(f"{source} ({count})" for source, count in sources.items())
        report.append(CheckRow(name="ratings come from", found=found, ok=None))
    faults: list[CheckRow] = []
    facts: Counter[tuple[str, str]] = Counter()
    for row in rows:
        faults += _check_trial(path, row)
        for stream, medium in row.media.items():
            if isinstance(medium, Media):
                faults += _check_medium(stream, medium, row, facts)
    report += [
        CheckRow(name=stream, found=f"{text} ({count} recordings)") for (stream, text), count in sorted(facts.items())
    ]
    return report + faults


def _check_trial(path: Path, row: ManifestRow) -> list[CheckRow]:
    try:
        reader.manifest_trial(path, row)
    except DataError as error:
        return [CheckRow(name="fault", found=str(error), ok=False)]
    return []


def _check_medium(stream: str, medium: Media, row: ManifestRow, facts: Counter[tuple[str, str]]) -> list[CheckRow]:
    try:
        if stream == "fnirs_reservations":
            mask = read_reservations(medium.path, row.groups.get("subject", ""))
            facts[stream, f"{int(mask.sum())} of {mask.size} channels kept"] += 1
            return []
        signal = read_signal(medium, allow_flat=True)
    except DataError as error:
        return [CheckRow(name="fault", found=str(error), ok=False)]
    facts[stream, describe(signal)] += 1
    faults = []
    flat = [name for name, spread in zip(signal.ch_names, np.ptp(signal.data, axis=0), strict=True) if spread == 0]
    if flat:
        text = f"{where(medium)}: {len(flat)} flat channels ({', '.join(flat[:6])})"
        faults.append(CheckRow(name="fault", found=text, ok=False, hint="mark them as bad or leave the recording out"))
    wanted = stream.removesuffix("_baseline")
    if signal.ch_types and not any(_family(kind) == wanted for kind in signal.ch_types):
        kinds = ", ".join(sorted(set(signal.ch_types)))
        text = f"{where(medium)}: no {wanted} channel, the channels are of type {kinds}"
        faults.append(CheckRow(name="fault", found=text, ok=False, hint=f"is the file in the right column ({stream})?"))
    return faults


def describe(signal: Signal) -> str:
    """Gives one line on a recording: channels, rate, how many electrodes have a known place, what fNIRS holds."""
    kinds = Counter(signal.ch_types)
    parts = [
        " + ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or f"{len(signal.ch_names)} channels"
    ]
    parts.append(f"{signal.rate_hz:.4g} Hz")
    eeg = [name for name, kind in zip(signal.ch_names, signal.ch_types, strict=False) if kind == "eeg"]
    if eeg:
        parts.append(f"{_num_placed(eeg)} of {len(eeg)} names in the standard 10-05 montage")
    if kinds["fnirs_cw_amplitude"]:
        parts.append("light intensity: goes through optical density and Beer-Lambert")
    elif kinds["fnirs_od"] and not _HAEMOGLOBIN & kinds.keys():
        parts.append("optical density: goes through Beer-Lambert")
    elif _HAEMOGLOBIN & kinds.keys():
        parts.append("haemoglobin: taken as it is")
    return ", ".join(parts)


def _family(kind: str) -> str:
    return "fnirs" if kind.startswith("fnirs") or kind in _HAEMOGLOBIN else kind


def _num_placed(names: list[str]) -> int:
    import mne

    # Why two names: MNE 1.13 renamed the montage and announced that the old name goes.
    montage = "colin27_1005" if "colin27_1005" in mne.channels.get_builtin_montages() else "standard_1005"
    known = {name.upper() for name in mne.channels.make_standard_montage(montage).ch_names}
    return sum(name.strip(".").upper() in known for name in names)
