"""Recordings as other programs write them, with an effect that a model may find: FIF, EDF, BrainVision, SNIRF."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import mne
import numpy as np

CH_NAMES = ("Fp1", "Fp2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2", "Cz", "Pz")
RATE_HZ = 128.0
LIGHT_RATE_HZ = 10.0
LENGTH_S = 30


def make_eeg(
    rng: np.random.Generator, ch_names: tuple[str, ...] = CH_NAMES, rate_hz: float = RATE_HZ, length_s: int = LENGTH_S
) -> mne.io.RawArray:
    """Pink-ish noise of some 10 uV, partly common to neighbours."""
    num = round(length_s * rate_hz)
    own, common = rng.normal(size=(len(ch_names), num)), rng.normal(size=(1, num))
    data = 1e-5 * (own + common)
    data[:, 1:] += 0.7 * data[:, :-1]
    return mne.io.RawArray(data, mne.create_info(list(ch_names), rate_hz, "eeg"), verbose="ERROR")


def write_brainvision(raw: mne.io.BaseRaw, path: Path) -> None:
    """Writes the .vhdr, .vmrk, .eeg triple by hand."""
    data = raw.get_data().T * 1e6
    data.astype("<f4").tofile(path.with_suffix(".eeg"))
    channels = "\n".join(f"Ch{i + 1}={name},,1,µV" for i, name in enumerate(raw.ch_names))
    path.write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\nCodepage=UTF-8\n"
        f"DataFile={path.stem}.eeg\nMarkerFile={path.stem}.vmrk\nDataFormat=BINARY\nDataOrientation=MULTIPLEXED\n"
        f"NumberOfChannels={len(raw.ch_names)}\nSamplingInterval={1e6 / raw.info['sfreq']:g}\n"
        f"[Binary Infos]\nBinaryFormat=IEEE_FLOAT_32\n[Channel Infos]\n{channels}\n",
        encoding="utf-8",
    )
    path.with_suffix(".vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\n[Common Infos]\nCodepage=UTF-8\n"
        f"DataFile={path.stem}.eeg\n[Marker Infos]\nMk1=New Segment,,1,1,0\n",
        encoding="utf-8",
    )


def write_eeg(raw: mne.io.BaseRaw, path: Path) -> None:
    """Writes a recording in the format of the path's suffix."""
    if path.suffix == ".fif":
        raw.save(path, verbose="ERROR")
    elif path.suffix == ".edf":
        mne.export.export_raw(path, raw, verbose="ERROR")
    else:
        write_brainvision(raw, path)


def write_snirf(rng: np.random.Generator, path: Path, length_s: int = LENGTH_S) -> None:
    """Writes light intensity of two sources and four detectors at 760 and 850 nm, with a pulse."""
    import h5py

    num = round(length_s * LIGHT_RATE_HZ)
    times = np.arange(num) / LIGHT_RATE_HZ
    pairs = [(source, detector) for source in (1, 2) for detector in (1, 2, 3, 4)]
    pulse = 0.02 * np.sin(2 * np.pi * 1.1 * times + rng.uniform(0, 6))[:, None]
    slow = np.cumsum(rng.normal(size=(num, 2 * len(pairs))), axis=0) * 1e-4
    light = 1.0 + pulse + slow + 1e-4 * rng.normal(size=slow.shape)
    with h5py.File(path, "w") as file:
        text = h5py.string_dtype("ascii")
        file.create_dataset("formatVersion", data="1.0", dtype=text)
        nirs = file.create_group("nirs")
        units = {"FrequencyUnit": "Hz", "LengthUnit": "cm", "TimeUnit": "s"}
        facts = {"SubjectID": "x", "MeasurementDate": "2024-01-01", "MeasurementTime": "00:00:00", **units}
        for name, value in facts.items():
            nirs.create_dataset(f"metaDataTags/{name}", data=value, dtype=text)
        nirs["data1/dataTimeSeries"], nirs["data1/time"] = light, times
        for number, (wavelength, (source, detector)) in enumerate(
            [(wavelength, pair) for wavelength in (1, 2) for pair in pairs], 1
        ):
            entry = nirs.create_group(f"data1/measurementList{number}")
            for name, value in (
                ("dataType", 1),
                ("dataTypeIndex", 1),
                ("detectorIndex", detector),
                ("sourceIndex", source),
                ("wavelengthIndex", wavelength),
            ):
                entry.create_dataset(name, data=np.int32(value))
        nirs["probe/wavelengths"] = np.array([760.0, 850.0])
        nirs["probe/sourcePos3D"] = np.array([[0.0, 0.0, 9.0], [6.0, 0.0, 9.0]])
        nirs["probe/detectorPos3D"] = np.array([[3.0, 0.0, 9.0], [0.0, 3.0, 9.0], [3.0, 3.0, 9.0], [6.0, 3.0, 9.0]])


def write_ratings(rng: np.random.Generator, path: Path, num_seconds: int) -> None:
    """Writes a slowly wandering valence and arousal, one row a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.clip(128 + np.cumsum(rng.normal(0, 6, (num_seconds, 2)), axis=0), 1, 255)
    rows = [f"{second},{valence:.1f},{arousal:.1f}" for second, (valence, arousal) in enumerate(values)]
    path.write_text("\n".join(["second,valence,arousal", *rows]) + "\n")


def shown_manifest(document: Path) -> str:
    """Gives the manifest that a document shows."""
    (block,) = re.findall(r"```csv\n(.*?)```", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    return block


def write_shown(text: str, folder: Path) -> Path:
    """Writes a manifest, and every file that it names, into a folder; gives the manifest's path."""
    folder.mkdir(parents=True)
    manifest = folder / "manifest.csv"
    manifest.write_text(text, encoding="utf-8")
    rng = np.random.default_rng(0)
    for row in csv.DictReader(text.splitlines()):
        if row["eeg"] and not (folder / row["eeg"]).exists():
            write_eeg(make_eeg(rng), folder / row["eeg"])
        if row["fnirs"] and not (folder / row["fnirs"]).exists():
            write_snirf(rng, folder / row["fnirs"])
        if row["target"]:
            write_ratings(rng, folder / row["target"], int(float(row["duration_s"])))
    return manifest
