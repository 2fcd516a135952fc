from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mersuite import catalog
from mersuite.errors import ConfigError
from mersuite.models.base import Encoder, Fusion


@pytest.fixture
def own_fusions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder of fusions: `one` defines one, `bare` an abstract one, `two` defines two, `shared` none."""
    package = tmp_path / "own_fusions"
    package.mkdir()
    (package / "__init__.py").write_text("")
    start = "from mersuite.models.base import Fusion\n"
    body = "(Fusion):\n    def __init__(self): ...\n    width = 1\n    def forward(self, tokens, masks): ...\n"
    (package / "one.py").write_text(f"{start}class One{body}")
    (package / "bare.py").write_text(f"{start}class Bare(Fusion): ...\n")
    (package / "shared.py").write_text("class Layer: ...\n")
    (package / "two.py").write_text(f"{start}class One{body}class Two{body}")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(catalog._KINDS, "fusion", ("own_fusions", "mersuite.models.base", "Fusion"))
    catalog.names.cache_clear()
    catalog.find.cache_clear()
    yield
    catalog.names.cache_clear()
    catalog.find.cache_clear()
    for name in [name for name in sys.modules if name.startswith("own_fusions")]:
        del sys.modules[name]


def test_parts_are_sorted_files_of_their_folder():
    folder = Path(catalog.__file__).parent / "models" / "encoders"
    assert {"eegnet", "mlp"} <= set(catalog.names("encoder")) <= {path.stem for path in folder.glob("*.py")}
    assert list(catalog.names("encoder")) == sorted(catalog.names("encoder"))


@pytest.mark.parametrize(("kind", "base"), [("encoder", Encoder), ("fusion", Fusion)])
def test_every_listed_part_is_found_with_its_config(kind: str, base: type):
    for name in catalog.names(kind):
        part = catalog.find(kind, name)
        assert issubclass(part, base) and part.__module__.endswith(f".{name}")
        assert part.Config is not None


def test_every_extractor_is_found():
    from mersuite.features.base import Extractor

    assert {"eeg", "fnirs"} <= set(catalog.names("extractor"))
    assert all(issubclass(catalog.find("extractor", name), Extractor) for name in catalog.names("extractor"))


def test_unknown_part_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"there is no encoder 'eegnett'; did you mean 'eegnet'\?"):
        catalog.find("encoder", "eegnett")


def test_a_new_file_with_a_part_is_found_and_one_without_is_not(own_fusions: None):
    assert catalog.names("fusion") == ("bare", "one", "two")
    assert catalog.find("fusion", "one").__name__ == "One"


@pytest.mark.parametrize(("name", "count"), [("bare", 0), ("two", 2)])
def test_a_file_must_define_exactly_one_part(own_fusions: None, name: str, count: int):
    with pytest.raises(ConfigError, match=rf"own_fusions\.{name} must define exactly one Fusion, found {count}"):
        catalog.find("fusion", name)
