from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from mersuite import api, cli
from mersuite.clip import Clip, Signal
from mersuite.errors import StoreError
from mersuite.prepare import FeatureReader, prepare, upkeep
from mersuite.store import FeatureStore
from mersuite.store_entry import StoreKey


def fill(path: Path, fingerprint: str = "a" * 64) -> list[StoreKey]:
    """Writes six entries of distinct content: two streams of three clips."""
    keys = [StoreKey("set", f"s1/v{clip}", stream, fingerprint) for clip in range(3) for stream in ("eeg", "face")]
    with FeatureStore(path, readonly=False) as store:
        store.put(
            {
                key: Signal(data=np.full((50, 20), 1.0 + index, np.float32), rate_hz=1.0, ch_names=())
                for index, key in enumerate(keys)
            }
        )
    return keys


def damage(path: Path, index: int) -> None:
    raw = bytearray((path / "data.mdb").read_bytes())
    raw[raw.index(np.full(20, 1.0 + index, np.float32).tobytes()) + 500] ^= 0xFF
    (path / "data.mdb").write_bytes(raw)


def run(capsys: pytest.CaptureFixture, *words: str) -> tuple[int, str, str]:
    status = cli.main(["store", *words])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def test_info_counts_clips_entries_and_bytes_of_each_stream(tmp_path: Path) -> None:
    fill(tmp_path)
    fill(tmp_path, "b" * 64)
    told = api.store_info(tmp_path)
    with FeatureStore(tmp_path, readonly=True) as store:
        sizes = sum(store.entry_size_bytes(key) for key in store.all_keys() if key.stream == "eeg")
        assert told["size_bytes"] == store.size_bytes
    assert told["num_entries"] == 12
    assert [row["stream"] for row in told["streams"]] == ["eeg", "face"]
    assert told["streams"][0] == {"dataset": "set", "stream": "eeg", "clips": 3, "entries": 6, "size_bytes": sizes}


def test_info_is_shown_as_a_table(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    fill(tmp_path)
    status, out, _ = run(capsys, "info", f"path={tmp_path}")
    assert status == 0
    assert "face" in out and "MiB" in out


def test_verify_finds_a_sound_store_sound(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    fill(tmp_path)
    assert run(capsys, "verify", f"path={tmp_path}")[:2] == (0, "6 entries, all whole\n")


def test_verify_names_damaged_entries_and_removes_them_if_asked(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    keys = fill(tmp_path)
    damage(tmp_path, 3)
    told = json.loads(run(capsys, "verify", f"path={tmp_path}", "json=true")[1])
    assert (told["ok"], told["num_entries"], told["num_removed"]) == (False, 6, 0)
    assert [(item["clip_id"], item["stream"]) for item in told["damaged"]] == [("s1/v1", "face")]
    assert "1 damaged; remove=true deletes them" in run(capsys, "verify", f"path={tmp_path}")[1]
    assert (
        "1 removed; `mersuite prepare` makes them again" in run(capsys, "verify", f"path={tmp_path}", "remove=true")[1]
    )
    with FeatureStore(tmp_path, readonly=True) as store:
        assert store.missing(keys) == [keys[3]]
    assert api.store_verify(tmp_path)["ok"]


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    monkeypatch.setenv("PROBE_LOG", str(tmp_path / "log"))
    import prepare_probe

    yield prepare_probe


@pytest.fixture
def clips(probe: ModuleType, tmp_path: Path) -> list[Clip]:
    return probe.make_clips(tmp_path / "source")


def test_prune_deletes_what_other_settings_made_and_nothing_else(probe, clips, tmp_path: Path) -> None:
    store = tmp_path / "store"
    foreign = fill(store)
    for settings in (probe.extractors(0.001), probe.extractors()):
        prepare(clips, settings, store, num_workers=1)
    wanted = upkeep.describe(store)["num_entries"] - 36
    assert wanted == 36 + len(foreign)
    assert upkeep.prune(store, clips, probe.extractors()) == {
        "path": str(store),
        "num_deleted": 36,
        "num_entries": wanted,
    }
    reader = FeatureReader.open(store, clips, probe.extractors())
    assert all(reader.get(clip.clip_id, "alone") is not None for clip in clips)
    with FeatureStore(store, readonly=True) as opened:
        assert opened.missing(foreign) == []
    assert prepare(clips, probe.extractors(), store, num_workers=1).num_computed == 0


def test_prune_keeps_the_old_where_the_new_is_not_made_yet(probe, clips, tmp_path: Path) -> None:
    store = tmp_path / "store"
    prepare(clips, probe.extractors(0.001), store, num_workers=1)
    assert upkeep.prune(store, clips, probe.extractors())["num_deleted"] == 0


def test_nothing_makes_a_store_where_there_is_none(probe, clips, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    for call in (
        lambda: upkeep.describe(gone),
        lambda: upkeep.verify(gone, remove=True),
        lambda: upkeep.prune(gone, clips, probe.extractors()),
    ):
        with pytest.raises(StoreError, match="is not a feature store"):
            call()
    assert not gone.exists()


def test_prune_of_the_api_reads_all_clips_and_all_extractors(probe, clips, tmp_path: Path, monkeypatch) -> None:
    store = tmp_path / "store"
    for settings in (probe.extractors(0.001), probe.extractors()):
        prepare(clips, settings, store, num_workers=1)
    config = replace(api.config("ps"), store=replace(api.config("ps").store, path=store))
    seen = []

    class Toy:
        def read(self, data: object, split: str):
            seen.append(split)
            return type("Data", (), {"clips": clips})

    monkeypatch.setattr("mersuite.registry.load", lambda name: Toy())
    monkeypatch.setattr("mersuite.prepare.ready.extractors_of", lambda config: probe.extractors())
    assert api.store_prune(config)["num_deleted"] == 36
    assert seen == ["all"]


def test_prune_verb_hands_on_the_configuration(monkeypatch, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    places = []

    def pruned(config):
        places.append(config.store_path)
        return {"path": "", "num_deleted": 2, "num_entries": 5}

    monkeypatch.setattr(api, "store_prune", pruned)
    status, out, _ = run(capsys, "prune", "track=ps", "data.root=d", f"store.path={tmp_path}")
    assert (status, out) == (0, "2 superseded entries deleted, 5 left\n")
    assert places == [tmp_path]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prune", "path=a"], "need track=NAME data.root=DIR store.path=DIR, and no path="),
        (["prune", "track=ps", "path=a"], "need track=NAME data.root=DIR store.path=DIR, and no path="),
        (["verify"], "need info path=DIR, verify path=DIR, or prune"),
        (["path=a"], "need info path=DIR, verify path=DIR, or prune"),
        (["info", "path=a", "store.path=b"], "need info path=DIR, verify path=DIR, or prune"),
        (["info", "path=a", "track=ps"], "need info path=DIR, verify path=DIR, or prune"),
        (["verify", "path=a", "remove=yes"], "remove: need true or false, got 'yes'"),
        (["prue"], "unexpected word 'prue'; did you mean 'prune'"),
    ],
)
def test_words_that_do_not_fit_are_refused(capsys: pytest.CaptureFixture, words: list[str], message: str) -> None:
    status, _, err = run(capsys, *words)
    assert status == 2
    assert message in err
