from __future__ import annotations

from pathlib import Path

import pytest

from mersuite.config_layers import (
    find_config_file,
    merge,
    nest,
    parse_overrides,
    parse_value,
    read_yaml,
    shipped_configs,
)
from mersuite.errors import ConfigError


def written(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


# ---- words


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("null", None),
        ("~", None),
        ("on", True),
        ("Yes", True),
        ("true", True),
        ("off", False),
        ("no", False),
        ("3", 3),
        ("-3", -3),
        ("0.5", 0.5),
        ("1e-3", "1e-3"),
        ("010", "010"),
        ("1_000", "1_000"),
        ("2024_07_01", "2024_07_01"),
        ("2024-07-01", "2024-07-01"),
        ("12:30:00", "12:30:00"),
        ("1.10", "1.10"),
        ("0x10", "0x10"),
        ("postgresql://u:p@h:5/db?x=1&y=2", "postgresql://u:p@h:5/db?x=1&y=2"),
        ("sqlite:///a b.db", "sqlite:///a b.db"),
        ("C:\\Users\\new", "C:\\Users\\new"),
        ("a #b", "a #b"),
        ("#1", "#1"),
        ("a: b", "a: b"),
        ("%x", "%x"),
        ("@x", "@x"),
        ("*x", "*x"),
        ("!!python/object:os.system x", "!!python/object:os.system x"),
        ("- x", "- x"),
        ("a=b", "a=b"),
        ("ünï/日本", "ünï/日本"),
        ("a,b", "a,b"),
        ("'007'", "007"),
        ('"a: b"', "a: b"),
        ("''", ""),
        ("[1, 2.5, a, null]", [1, 2.5, "a", None]),
        ("[]", []),
        ("{a: 1, 2: {b: on}}", {"a": 1, "2": {"b": True}}),
        ("{value: 1}", {"value": 1}),
        ("???", "???"),
    ],
)
def test_value_of_a_word_is_what_it_looks_like(text: str, value: object):
    found = parse_value(text)
    assert found == value and type(found) is type(value)


def test_value_may_name_an_environment_variable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MERSUITE_TEST_ROOT", "/data")
    assert parse_value("${oc.env:MERSUITE_TEST_ROOT}/ps") == "/data/ps"


@pytest.mark.parametrize(
    "text", ["[1", "{a: 1", "'a", '"a" b', "${nowhere}", "${oc.env:MERSUITE_NOT_SET}", "[a]\nb: c"]
)
def test_malformed_value_is_refused_with_its_key(text: str):
    with pytest.raises(ConfigError, match=r"^data\.root: "):
        parse_overrides([f"data.root={text}"])


def test_text_with_a_second_value_in_it_is_refused():
    with pytest.raises(ConfigError, match="not one value; put a text with line breaks or brackets in quotes"):
        parse_value("[a]\nvalue2: c")


@pytest.mark.parametrize("word", ["seed", "=3", "", "--seed"])
def test_word_that_is_no_key_value_is_refused(word: str):
    with pytest.raises(ConfigError, match="need key=value"):
        parse_overrides([word])


@pytest.mark.parametrize("key", [".seed", "optim.", "optim..lr", "."])
def test_key_with_an_empty_part_is_refused(key: str):
    with pytest.raises(ConfigError, match=r"need names between the dots of a key, such as optim.lr"):
        parse_overrides([f"{key}=1"])


def test_of_a_key_given_twice_the_last_one_counts():
    assert parse_overrides(["seed=1", "cv.folds=2", "seed=3"]) == {"seed": 3, "cv": {"folds": 2}}


@pytest.mark.parametrize(
    "words",
    [
        ["model.fusion=gated", "model.fusion.width=8"],
        ["model.fusion.width=8", "model.fusion=gated"],
        ["model.fusion.width=8", "model.fusion.name=gated"],
        ["model.fusion.name=gated", "model.fusion.width=8"],
        ["model.fusion={name: gated}", "model.fusion.width=8"],
        ["model.fusion.width=8", "model.fusion={name: gated}"],
        ["model={fusion: {width: 8}}", "model.fusion=gated"],
    ],
)
def test_words_of_one_part_add_up_in_any_order(words: list[str]):
    assert parse_overrides(words) == {"model": {"fusion": {"name": "gated", "width": 8}}}


def test_nest_leaves_its_argument_alone():
    given = {"a": {"b": {"c": 1}}, "a.b.d": 2}
    assert nest(given) == {"a": {"b": {"c": 1, "d": 2}}}
    assert given["a"] == {"b": {"c": 1}}


# ---- merging

PARTS = {("model", "fusion"), ("model", "encoders", "*")}
OLD = {"name": "concat", "width": 8}


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        (OLD, {"name": "gated"}, {"name": "gated"}),
        (OLD, "gated", {"name": "gated"}),
        (OLD, {"name": "gated", "width": 4}, {"name": "gated", "width": 4}),
        (OLD, {"name": "concat"}, OLD),
        (OLD, "concat", OLD),
        (OLD, {"dropout": 0.1}, {**OLD, "dropout": 0.1}),
        (OLD, None, None),
        ("concat", {"width": 8}, OLD),
        ("concat", {"name": "gated"}, {"name": "gated"}),
        ("concat", "gated", {"name": "gated"}),
        ({"width": 8}, {"name": "gated"}, {"name": "gated"}),
        (None, {"name": "gated"}, {"name": "gated"}),
    ],
)
@pytest.mark.parametrize("place", [("fusion",), ("encoders", "eeg")])
def test_later_layer_that_changes_a_part_brings_no_old_knobs(old: object, new: object, wanted: object, place: tuple):
    def under(item: object) -> dict:
        for key in reversed(place):
            item = {key: item}
        return {"model": item}

    assert merge(under(old), under(new), PARTS) == under(wanted)


def test_name_of_a_section_that_is_no_part_keeps_its_other_values():
    old = {"optim": {"name": "adamw", "lr": 0.1}, "ps": {"loss": {"name": "huber", "huber_delta": 3.0}}}
    found = merge(old, {"optim": {"name": "sgd"}, "ps": {"loss": {"name": "l1"}}}, PARTS)
    assert found == {"optim": {"name": "sgd", "lr": 0.1}, "ps": {"loss": {"name": "l1", "huber_delta": 3.0}}}


# ---- files


def test_file_is_found_here_then_among_the_shipped_then_in_the_track(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    here, track = tmp_path / "here", tmp_path / "track"
    here.mkdir()
    track.mkdir()
    monkeypatch.chdir(here)
    written(track / "own.yaml", "seed: 1")
    assert find_config_file("own", track) == track / "own.yaml"
    assert find_config_file("base.yaml", track) == shipped_configs() / "base.yaml"
    written(here / "base.yaml", "seed: 1")
    assert find_config_file("base", track).resolve() == here / "base.yaml"
    assert find_config_file(str(track / "own.yaml"), track) == track / "own.yaml"


def test_file_that_is_nowhere_is_refused_with_the_nearest_name(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"config=bsae.yaml: no such file here .* did you mean 'base.yaml'\?"):
        find_config_file("bsae.yaml", tmp_path)
    with pytest.raises(ConfigError, match=r"config=\.: no such file"):
        find_config_file(".", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"seed: \xff\xfe", "is not a valid configuration file: .*decode"),
        (b"seed: [1", "is not a valid configuration file"),
        (b"a: 1\na: 2", "is not a valid configuration file: .*duplicate"),
        (b"seed: \x00", "is not a valid configuration file"),
        (b"seed: ${nowhere}", "is not a valid configuration file: .*nowhere"),
        (b"seed: !!python/object/apply:os.getcwd []", "is not a valid configuration file"),
        (b"- 1", "need a mapping of keys to values, got list"),
    ],
)
def test_file_that_is_no_mapping_of_values_is_refused(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"x\.yaml.*{message}"):
        read_yaml(path)


def test_file_that_cannot_be_opened_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"is not a valid configuration file: .*directory"):
        read_yaml(tmp_path)


def test_file_may_be_empty_begin_with_a_mark_and_refer_to_itself(tmp_path: Path):
    assert read_yaml(Path(written(tmp_path / "empty.yaml", ""))) == {}
    path = written(tmp_path / "x.yaml", "\ufeffseed: 3\ncv: {folds: '${seed}', 7: {8: a}}")
    assert read_yaml(Path(path)) == {"seed": 3, "cv": {"folds": 3, "7": {"8": "a"}}}
