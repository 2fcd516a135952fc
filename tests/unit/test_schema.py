from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from mersuite.config import RunConfig
from mersuite.errors import ConfigError, did_you_mean
from mersuite.schema import Faults, Named, build, build_named, named, part_places, plain, require, require_all


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    low: float = 1.0
    high: float = 2.0
    kind: Literal["a", "b", 1] = "a"

    def __post_init__(self) -> None:
        require_all(
            (self.low > 0, f"low: need a value above 0, got {self.low}"),
            (self.low < self.high, f"high: need more than low={self.low}, got {self.high}"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    count: int
    inner: Inner = field(default_factory=Inner)
    lag: int | Literal["auto"] = "auto"
    limit: float | None = None
    flag: bool = False
    text: str = ""
    path: Path | None = None
    names: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    pair: tuple[float, float] = (0.0, 1.0)
    bands: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    free: Mapping[str, Any] = field(default_factory=dict)
    anything: Any = None
    fusion: Named | None = named("fusion", default=None)
    parts: Mapping[str, Named] = named("fusion", default_factory=dict)
    part: Named = named("fusion", default_factory=lambda: build_named("fusion", "concat", "part"))


def built(**values: Any) -> Outer:
    return build(Outer, {"count": 1, **values})


def faults_of(**values: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        built(**values)
    return str(caught.value)


# ---- what is taken


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("count", 3.0, 3),
        ("count", "12", 12),
        ("count", "-2", -2),
        ("limit", "1e-3", 1e-3),
        ("limit", 2, 2.0),
        ("limit", None, None),
        ("lag", 4, 4),
        ("lag", "auto", "auto"),
        ("text", 7, "7"),
        ("path", "a/b", Path("a/b")),
        ("path", 2024, Path("2024")),
        ("path", "~/x", Path.home() / "x"),
        ("names", "b, a,", ("b", "a")),
        ("names", ["b", 1], ("b", "1")),
        ("names", "", ()),
        ("sizes", "3,5", (3, 5)),
        ("sizes", 4, (4,)),
        ("pair", "0.5,45", (0.5, 45.0)),
        ("bands", {"alpha": [8, 14], "gamma": None}, {"alpha": (8.0, 14.0)}),
        ("bands", None, {}),
        ("free", {"trainer.patience": None}, {"trainer.patience": None}),
        ("anything", {"x": [1]}, {"x": [1]}),
    ],
)
def test_value_is_converted_to_the_annotated_type(key: str, value: Any, wanted: Any):
    found = getattr(built(**{key: value}), key)
    assert found == wanted and type(found) is type(wanted)


def test_null_takes_a_part_out_of_a_mapping():
    assert list(built(parts={"a": "concat", "b": None}).parts) == ["a"]


def test_missing_section_takes_its_defaults():
    assert built(inner=None).inner == Inner()
    assert build(Inner, None) == Inner()


# ---- what is refused


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("count", 1.5, r"count: need a whole number, got 1\.5"),
        ("count", True, "count: need a whole number, got True"),
        ("count", "1_0", "count: need a whole number, got '1_0'"),
        ("limit", "fast", "limit: need a number or null, got 'fast'"),
        ("limit", True, "limit: need a number or null, got True"),
        ("lag", "atuo", "lag: need a whole number or auto, got 'atuo'"),
        ("flag", "true", "flag: need true or false, got 'true'"),
        ("flag", 1, "flag: need true or false, got 1"),
        ("text", True, "text: need a text, got True"),
        ("text", None, "text: need a text, got None"),
        ("path", "", "path: need a path or null, got ''"),
        ("path", ["a"], r"path: need a path or null, got \['a'\]"),
        ("sizes", "3,x", r"sizes\[1\]: need a whole number, got 'x'"),
        ("pair", "1,2,3", "pair: need 2 values, got 3"),
        ("bands", [1], r"bands: need a mapping, got \[1\]"),
        ("bands", {"alpha": 1}, r"bands\.alpha: need 2 values, got 1"),
        ("inner", 3, "inner: need a mapping with keys of Inner, got 3"),
        ("inner", {"kind": "c"}, r"inner\.kind: got 'c'; choose one of: 1, a, b"),
        ("inner", {"kind": True}, r"inner\.kind: got True; choose one of: 1, a, b"),
        ("inner", {"lwo": 1}, r"inner\.lwo: unknown key; did you mean 'low'\?"),
        ("inner", {"low": -1}, r"^inner\.low: need a value above 0, got -1\.0$"),
        ("part", "concatt", r"part\.name: there is no fusion 'concatt'; did you mean 'concat'\?"),
        ("part", {"width": 3}, r"part: need \{name: \.\.\., knobs\} or a name, got .*choose one of: attention"),
        ("part", {"name": "concat", "widht": 3}, r"part\.widht: unknown key; did you mean 'width'\?"),
        ("parts", {"a": 3}, r"parts\.a: need \{name: \.\.\., knobs\} or a name, got 3"),
    ],
)
def test_value_of_a_wrong_kind_is_refused_with_its_key(key: str, value: Any, message: str):
    with pytest.raises(ConfigError, match=message):
        built(**{key: value})


def test_needed_value_that_is_missing_is_named():
    with pytest.raises(ConfigError, match=r"^count: a value is needed and none was given$"):
        build(Outer, {})


@pytest.mark.parametrize("values", [[], "", 0, False])
def test_an_empty_value_is_no_mapping(values: Any):
    with pytest.raises(ConfigError, match="run: need a mapping with keys of Inner"):
        build(Inner, values, where="run")


def test_all_faults_are_listed_at_once():
    lines = faults_of(count="x", inner={"low": -1.0, "high": -2.0, "kidn": "a"}, part="gatd", flgs=True).splitlines()
    assert lines[0] == "6 faults in the configuration:"
    keys = sorted(line.strip().partition(":")[0] for line in lines[1:])
    assert keys == ["count", "flgs", "inner.high", "inner.kidn", "inner.low", "part.name"]


def test_one_fault_stands_without_a_headline():
    assert faults_of(flag=2) == "flag: need true or false, got 2"


def test_build_named_raises_where_no_faults_are_collected():
    with pytest.raises(ConfigError, match=r"model.fusion.name: there is no fusion 'nix'"):
        build_named("fusion", "nix", "model.fusion")


def test_build_named_notes_faults_where_they_are_collected():
    faults = Faults()
    assert build_named("fusion", "nix", "model.fusion", faults) is None
    assert len(faults.lines) == 1


def test_require_raises_its_message():
    require(True, "never seen")
    with pytest.raises(ConfigError, match=r"^rate: need more$"):
        require(False, "rate: need more")


def test_require_all_names_every_condition_that_fails():
    require_all((True, "never seen"))
    with pytest.raises(ConfigError, match=r"^first\nthird$"):
        require_all((False, "first"), (True, "second"), (False, "third"))


# ---- round trip and places of parts


def test_plain_form_builds_the_same_again():
    config = built(part={"name": "gated"}, parts={"x": "concat"}, path="a", names="b,c", inner={"low": 0.5}, lag=2)
    values = plain(config)
    assert values["part"]["name"] == "gated" and values["path"] == "a" and values["names"] == ["b", "c"]
    assert build(Outer, values) == config


def test_part_places_are_the_fields_that_hold_named_parts():
    assert part_places(Outer) == {("parts", "*"), ("part",), ("fusion",)}
    assert part_places(RunConfig) == {("features", "*"), ("model", "encoders", "*"), ("model", "fusion")}


def test_hint_is_the_nearest_name_or_all_of_them():
    assert did_you_mean("folsd", ["folds", "seed"]) == "did you mean 'folds'?"
    assert did_you_mean("x", ["b", "a"]) == "choose one of: a, b"
    assert did_you_mean("x", []) == "there is nothing to choose from"
