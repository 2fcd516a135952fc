from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from mersuite.config import (
    DataConfig,
    RunConfig,
    StoreConfig,
    build_run_config,
    changes,
    load_run_config,
    merge,
    parse_overrides,
    part_places_of,
    to_plain,
    with_overrides,
    with_paths,
)
from mersuite.errors import ConfigError
from mersuite.schema import Named, named


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyOptions:
    """Options of a track that exists in this file only."""

    level: int = 1
    joined: Named | None = named("fusion", default=None)


def loaded(tmp_path: Path, *words: str, files: tuple[str, ...] = ()) -> RunConfig:
    return load_run_config("toy", ToyOptions, tmp_path, files=files, overrides=parse_overrides(words))


def written(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


# ---- layers


@pytest.mark.parametrize("how", ["file then file", "file then words", "track then file", "track then words"])
def test_knobs_of_the_old_part_are_dropped_between_all_layers(tmp_path: Path, how: str):
    first, second = how.split(" then ")
    old, new = "model: {fusion: {name: concat, dropout: 0.7}}", "model: {fusion: gated}"
    files = [written(tmp_path / "old.yaml", old)] if first == "file" else []
    if first == "track":
        written(tmp_path / "config.yaml", old)
    if second == "file":
        files.append(written(tmp_path / "new.yaml", new))
    words = ["model.fusion.name=gated"] if second == "words" else []
    found = loaded(tmp_path, *words, files=tuple(files)).model.fusion
    assert found.name == "gated" and found.config == type(found.config)()


def test_part_in_the_options_of_a_track_is_a_part_too(tmp_path: Path):
    written(tmp_path / "config.yaml", "toy: {joined: {name: concat, dropout: 0.7}}")
    found = loaded(tmp_path, "toy.joined=gated").options.joined
    assert found.name == "gated" and found.config == type(found.config)()
    assert ("toy", "joined") in part_places_of(ToyOptions, "toy")


def test_later_layers_win(tmp_path: Path):
    written(tmp_path / "config.yaml", "optim: {lr: 0.1}\ncv: {folds: 3}\nseed: 1")
    one = written(tmp_path / "one.yaml", "optim: {lr: 0.2}\ncv: {folds: 4}")
    two = written(tmp_path / "two.yaml", "optim: {lr: 0.3}")
    found = loaded(tmp_path, "optim.name=sgd", files=(one, two))
    assert (found.optim.lr, found.optim.name, found.cv.folds, found.seed) == (0.3, "sgd", 4, 1)


def test_null_takes_an_encoder_of_an_earlier_layer_out(tmp_path: Path):
    written(tmp_path / "config.yaml", "model: {encoders: {a: mlp, b: {name: mlp}}}")
    assert list(loaded(tmp_path, "model.encoders.b=null").model.encoders) == ["a"]


def test_overrides_by_key_change_a_part_whatever_their_order(tmp_path: Path):
    written(tmp_path / "config.yaml", "model: {encoders: {a: {name: mlp, dropout: 0.7}}}\noptim: {lr: 0.2}")
    config = loaded(tmp_path)
    changed = with_overrides(
        config, {"model.encoders.a.width": 24, "model.encoders.a.name": "graph", "optim.name": "sgd"}
    )
    part = changed.model.encoders["a"]
    assert (part.name, part.config.width) == ("graph", 24)
    assert part.config == replace(type(part.config)(), width=24)
    assert (changed.optim.name, changed.optim.lr) == ("sgd", 0.2)
    assert config.model.encoders["a"].config.dropout == 0.7


def test_overrides_are_checked(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"optim\.lrr: unknown key; did you mean 'lr'\?"):
        with_overrides(loaded(tmp_path), {"optim.lrr": 1})
    with pytest.raises(ConfigError, match="track: cannot be overridden; the configuration is for track 'toy'"):
        with_overrides(loaded(tmp_path), {"track": "other"})


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["optim.name=sgd", "toy.level=3", "trainer.ema_decay=0.9", "cv.by=subject,clip"],
        ["model.encoders.b=null", "model.encoders.c=mlp", "model.fusion=gated", "trainer.patience=null"],
        ["model.encoders.a=graph", "model.encoders.a.width=24", "toy.joined=concat"],
    ],
)
def test_changes_are_the_layer_that_leads_from_one_configuration_to_another(tmp_path: Path, words: list[str]):
    written(tmp_path / "config.yaml", "model: {encoders: {a: {name: mlp, dropout: 0.7}, b: mlp}}")
    base, config = to_plain(loaded(tmp_path)), loaded(tmp_path, *words)
    parts = part_places_of(ToyOptions, "toy")
    layer = changes(base, to_plain(config), parts)
    assert bool(layer) is bool(words)
    values = merge(base, layer, parts)
    values.pop("track")
    assert build_run_config(values, "toy", ToyOptions) == config


def test_plain_form_builds_the_same_again(tmp_path: Path):
    config = loaded(tmp_path, "model.encoders.a=mlp", "data.root=x", "toy.level=2", "optim.lr=1e-5")
    values = to_plain(config)
    assert values.pop("track") == "toy" and values["toy"]["level"] == 2
    assert build_run_config(values, "toy", ToyOptions) == config


def test_checkpoint_takes_the_places_of_another_machine(tmp_path: Path):
    config = loaded(tmp_path, "data.root=old", "data.window_s=4", "store.path=old_store")
    moved = with_paths(config, data=DataConfig(manifest=Path("new.csv")), store=StoreConfig(path=Path("s")))
    assert (moved.data.root, moved.data.manifest, moved.data.window_s) == (None, Path("new.csv"), 4.0)
    assert moved.store.path == Path("s")
    assert with_paths(config) == config


# ---- checks


def test_file_of_another_track_is_refused(tmp_path: Path):
    other = written(tmp_path / "x.yaml", "track: prefer")
    with pytest.raises(ConfigError, match="the files are for track 'prefer', but track=toy was asked for"):
        loaded(tmp_path, files=(other,))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("data.window_s=0", r"^data\.window_s: need a length above 0 s, got 0\.0$"),
        ("data.window_s=nan", r"^data\.window_s: need a length above 0 s, got nan$"),
        ("data.stride_s=-1", r"^data\.stride_s: need a step above 0 s"),
        ("data={root: a, manifest: b}", "^data: give either data.root or data.manifest, not both$"),
        ("model.modality_dropout=1", r"^model\.modality_dropout: need 0 <= rate < 1, got 1\.0$"),
        ("optim.lr=0", r"^optim\.lr: need a rate above 0"),
        ("optim.lr=inf", r"^optim\.lr: need a rate above 0"),
        ("optim.weight_decay=-1", r"^optim\.weight_decay: need 0 or more"),
        ("optim.warmup_fraction=1", r"^optim\.warmup_fraction: need 0 <= share < 1"),
        ("optim.name=adamx", r"^optim\.name: got 'adamx'; did you mean 'adamw?'\?$"),
        ("trainer.max_epochs=0", r"^trainer\.max_epochs: need 1 or more, got 0$"),
        ("trainer.batch_size=0", r"^trainer\.batch_size: need 1 or more"),
        ("trainer.accumulate=0", r"^trainer\.accumulate: need 1 or more"),
        ("trainer.ema_decay=1", r"^trainer\.ema_decay: need 0 < decay < 1 or null"),
        ("trainer.patience=0", r"^trainer\.patience: need 1 or more or null"),
        ("trainer.gradient_clip=0", r"^trainer\.gradient_clip: need a norm above 0 or null"),
        ("trainer.max_steps=0", r"^trainer\.max_steps: need 1 or more, or -1 for no bound, got 0$"),
        ("trainer.precision=16", r"^trainer\.precision: got 16; .*32-true"),
        ("cv.folds=1", r"^cv\.folds: need 2 or more, got 1$"),
        ("cv.val_fraction=0", r"^cv\.val_fraction: need 0 < share < 1"),
        ("cv.by=[]", r"^cv\.by: need at least one group, such as subject$"),
        ("runtime.num_workers=-1", r"^runtime\.num_workers: need 0 or more"),
        ("runtime.prepare_workers=-1", r"^runtime\.prepare_workers: need 0 or more"),
        ("runtime.devices=0", r"^runtime\.devices: need 1 or more"),
        ("runtime.num_nodes=0", r"^runtime\.num_nodes: need 1 or more"),
        ("runtime.threads=0", r"^runtime\.threads: need 1 or more or null"),
        ("runtime.accelerator=gpuu", r"^runtime\.accelerator: got 'gpuu'; did you mean 'gpu'\?$"),
        ("sweep.num_trials=0", r"^sweep\.num_trials: need 1 or more"),
        ("sweep.timeout_s=0", r"^sweep\.timeout_s: need a time above 0 s or null"),
        ("seed=-1", r"^seed: need 0 to 4294967295, got -1$"),
        ("fold_overrides={x: {}}", "^fold_overrides: need the index of a fold, got 'x'$"),
        ("fold_overrides={0: {optim.lrr: 1}}", r"^fold_overrides\.0: optim\.lrr: unknown key; did you mean 'lr'\?$"),
        ("options=1", "^options: unknown key; "),
        ("toi.level=1", r"^toi: unknown key; did you mean 'toy'\?$"),
        ("toy=[]", "^toy: need a mapping with keys of ToyOptions"),
        ("optim=adam", "^optim: need a mapping with keys of OptimConfig, got 'adam'$"),
    ],
)
def test_value_that_does_not_fit_is_refused(tmp_path: Path, word: str, message: str):
    with pytest.raises(ConfigError, match=message):
        loaded(tmp_path, word)


def test_all_faults_of_all_layers_are_listed_at_once(tmp_path: Path):
    written(tmp_path / "config.yaml", "optim: {lr: fast}\nmodell: {}")
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, "toy.levl=1", "trainer.max_epochs=0", "trainer.batch_size=0", "model.fusion=concatt")
    lines = str(caught.value).splitlines()
    assert lines[0] == "6 faults in the configuration:" and len(lines) == 7
    assert sum("did you mean" in line for line in lines) == 3


def test_place_of_the_data_is_named_and_exists(tmp_path: Path):
    (tmp_path / "d").mkdir()
    assert loaded(tmp_path, f"data.root={tmp_path / 'd'}").data.place == tmp_path / "d"
    with pytest.raises(ConfigError, match=r"data\.root: no data given; add data\.root=DIR .* or data\.manifest=FILE"):
        _ = loaded(tmp_path).data.place
    with pytest.raises(ConfigError, match=r"data\.root: .*nope does not exist"):
        _ = loaded(tmp_path, f"data.root={tmp_path / 'nope'}").data.place
    with pytest.raises(ConfigError, match=r"data\.manifest: .*nope\.csv does not exist"):
        _ = loaded(tmp_path, f"data.manifest={tmp_path / 'nope.csv'}").data.place


def test_store_lies_beside_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    inner = tmp_path / "far" / "data"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    assert loaded(tmp_path, "data.root=.").store_path == tmp_path / "far" / "store"
    assert loaded(tmp_path, "data.root=..").store_path == tmp_path / "store"
    (tmp_path / "link").symlink_to(inner)
    assert loaded(tmp_path, f"data.root={tmp_path / 'link'}").store_path == tmp_path / "store"
    assert loaded(tmp_path, "data.root=.", "store.path=s").store_path == Path("s")
