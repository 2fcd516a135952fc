"""What prepare asks of extractors before any work: a look at all clips, sizes, and what else decides the numbers."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from mersuite.clip import Clip, Media, Signal
from mersuite.errors import DataError, StoreError
from mersuite.features.base import Extractor, output_name
from mersuite.prepare import fingerprint, prepare, stream_fingerprints
from mersuite.prepare.plan import make_plan
from mersuite.prepare.work import extract_unit, make_units


class Watchful(Extractor):
    """Refuses clips without sound, says how much it will write, and depends on a state of its own."""

    version = 1
    inputs = ("voice",)

    def __init__(self, *, refuses: bool = False, size_bytes: int | None = None, state: str = "") -> None:
        super().__init__({})
        self.refuses, self.size_bytes, self.state = refuses, size_bytes, state
        self.seen: list[list[str]] = []

    def survey(self, clips: Sequence[Clip]) -> None:
        self.seen.append([clip.clip_id for clip in clips])
        lacking = [clip.clip_id for clip in clips if "voice" not in clip.media]
        if self.refuses and lacking:
            raise DataError(f"no voice: {', '.join(lacking)}")

    def estimate_bytes(self, clips: Sequence[Clip]) -> int | None:
        return None if self.size_bytes is None else self.size_bytes * len(clips)

    def state_digest(self) -> str:
        return self.state

    def outputs(self) -> tuple[str, ...]:
        return ("loudness",)

    def extract(self, clips: Sequence[Clip]):
        for clip in clips:
            yield clip.clip_id, {"loudness": Signal(data=np.ones((1, 1), np.float32), rate_hz=0.0, ch_names=("db",))}


class Other(Watchful):
    """Writes a stream of its own."""

    def outputs(self) -> tuple[str, ...]:
        return ("other",)

    def extract(self, clips: Sequence[Clip]):
        for clip_id, streams in super().extract(clips):
            yield clip_id, {"other": streams["loudness"]}


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    made = []
    for index in range(3):
        path = tmp_path / f"{index}.bin"
        path.write_bytes(bytes([index]))
        media = {"voice": Media(path=path)} if index else {"face": Media(path=path)}
        made.append(Clip(clip_id=f"c{index}", dataset="d", media=media, groups={}))
    return made


def run(clips: list[Clip], extractor: Extractor, tmp_path: Path):
    return prepare(clips, {"v": extractor}, tmp_path / "store", num_workers=1)


def test_survey_sees_all_clips_before_anything_is_written(clips: list[Clip], tmp_path: Path):
    extractor = Watchful(refuses=True)
    with pytest.raises(DataError, match=r"^features\.v: no voice: c0"):
        run(clips, extractor, tmp_path)
    assert extractor.seen == [["c0", "c1", "c2"]]
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("store_is_there", [False, True])
def test_survey_comes_before_sources_are_hashed(clips: list[Clip], tmp_path: Path, monkeypatch, store_is_there: bool):
    if store_is_there:  # of something else
        prepare(clips, {"other": Other()}, tmp_path / "store", num_workers=1)
    hashed: list[Path] = []
    monkeypatch.setattr(fingerprint, "_hash_file", hashed.append)
    with pytest.raises(DataError, match="no voice: c0"):
        run(clips, Watchful(refuses=True), tmp_path)
    with pytest.raises(StoreError, match="GiB are needed"):
        run(clips, Watchful(size_bytes=2**60), tmp_path)
    assert hashed == []


def test_estimates_of_what_is_begun_and_what_is_not_add_up(clips: list[Clip], tmp_path: Path, monkeypatch):
    run(clips[1:2], Watchful(size_bytes=1000), tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1500))
    both = {"other": Other(size_bytes=400), "v": Watchful(size_bytes=1000)}  # 2 clips, and 1 that is left: 1,800
    with pytest.raises(StoreError, match=r"features\.other .*, features\.v "):
        prepare(clips[1:], both, tmp_path / "store", num_workers=1)


def test_room_for_the_rest_is_told_for_each_extractor_by_itself(tmp_path: Path, monkeypatch):
    film = tmp_path / "film.bin"
    film.write_bytes(bytes(1_000_000))  # were it to grow as the texts do, it would take 100 MB and more
    clips = [
        Clip(clip_id=f"c{index}", dataset="d", media={"text": str(index), "voice": Media(path=film)}, groups={})
        for index in range(4)
    ]
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**7))
    texts = Other()
    texts.inputs = ("text",)
    done = prepare(clips, {"t": texts, "v": Watchful()}, tmp_path / "store", num_workers=1)
    assert done.num_computed == 8


def test_survey_refuses_sources_that_went_missing_after_everything_was_stored(clips: list[Clip], tmp_path: Path):
    run(clips, Watchful(), tmp_path)
    with pytest.raises(DataError, match="no voice: c0"):
        run(clips, Watchful(refuses=True), tmp_path)


def test_survey_is_left_out_where_nothing_is_left_to_do(clips: list[Clip], tmp_path: Path):
    run(clips[1:], Watchful(), tmp_path)
    again = Watchful()
    run(clips[1:], again, tmp_path)
    assert again.seen == []


def test_an_estimate_larger_than_the_disk_is_refused_before_work(clips: list[Clip], tmp_path: Path):
    with pytest.raises(StoreError, match=r"GiB are needed \(features\.v .* are free; pool frames to fewer rows"):
        run(clips, Watchful(size_bytes=2**60), tmp_path)
    assert not (tmp_path / "store").exists()
    assert run(clips, Watchful(size_bytes=4), tmp_path).num_computed == 2


@pytest.mark.parametrize(("size_bytes", "shown"), [(2**20, False), (2**29, True)])
def test_a_large_estimate_is_shown_before_the_work(
    clips: list[Clip], tmp_path: Path, caplog: pytest.LogCaptureFixture, size_bytes: int, shown: bool
):
    with caplog.at_level(logging.WARNING):
        run(clips, Watchful(size_bytes=size_bytes), tmp_path)
    assert ("features.v: about 1 GiB for 2 clips" in caplog.text) == shown


def test_state_of_an_extractor_enters_the_fingerprint(clips: list[Clip], tmp_path: Path):
    keys = [
        stream_fingerprints(clips, {"v": Watchful(state=state)}, tmp_path / "store")[("c1", "loudness")].fingerprint
        for state in ("", "weights a", "weights b", "weights a")
    ]
    assert len(set(keys)) == 3 and keys[1] == keys[3]


def test_a_stored_stream_is_named_for_feature_and_role():
    assert output_name("prosody", "voice.speaker") == "prosody_speaker"
    assert output_name("motion", "video") == "motion"


@dataclass(frozen=True, slots=True, kw_only=True)
class SizedConfig:
    model: str = "here"
    num_bands: int = 3


class Sized(Watchful):
    """Has a knob that decides no number."""

    Config = SizedConfig
    no_effect = ("model",)

    def __init__(self, config: SizedConfig) -> None:
        super().__init__()
        self.config = config


def test_knobs_without_effect_stay_out_of_the_fingerprint(clips: list[Clip], tmp_path: Path):
    keys = [
        stream_fingerprints(clips, {"v": Sized(config)}, tmp_path / "store")[("c1", "loudness")].fingerprint
        for config in (SizedConfig(), SizedConfig(model="moved"), SizedConfig(num_bands=4))
    ]
    assert keys[0] == keys[1] != keys[2]


def test_an_extractor_may_ask_for_more_clips_at_once(clips: list[Clip]):
    many = [replace(clips[1], clip_id=f"m{index}") for index in range(64)]
    sizes = []
    for wanted in (None, 16):
        extractor = Watchful()
        extractor.clips_per_unit = wanted
        groups = make_plan(many, {"v": extractor}, None, 1).groups
        sizes.append({len(unit.groups) for unit in make_units(groups, 1)})
    assert sizes == [{8}, {16}]


def test_a_fault_of_many_clips_names_a_few_of_them(clips: list[Clip]):
    class Broken(Watchful):
        def extract(self, clips: Sequence[Clip]):
            raise DataError("out of memory")

    many = [replace(clips[1], clip_id=f"m{index}") for index in range(9)]
    with pytest.raises(DataError, match=r"^m0, m1, m2, m3, m4 and 4 more: out of memory$"):
        extract_unit(Broken(), many)
    with pytest.raises(DataError, match=r"^m0, m1: out of memory$"):
        extract_unit(Broken(), many[:2])
