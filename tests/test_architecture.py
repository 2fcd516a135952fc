"""What keeps the code readable: who imports whom, sizes, names, docstrings, light start-up."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from mersuite import registry

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = sorted(path for package in ("mersuite", "tracks") for path in (ROOT / package).rglob("*.py"))
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

MAX_FILE_LINES = 400
MAX_TEST_FILE_LINES = 600  # a test file follows the module that it mirrors, and its cases are independent
MAX_FUNCTION_LINES = 50  # without the docstring
LONG_FILES: dict[str, str] = {}
"""File -> why it is not split."""
LONG_FUNCTIONS: dict[str, str] = {}
"""file:function -> why it is not split."""

TESTED_THROUGH_OTHERS: dict[str, str] = {
    "mersuite.__main__": "tests/e2e runs it",
    "mersuite.cli": "tests/e2e runs it",
    "mersuite.verbs": "tests/e2e runs them",
    "mersuite.config_sections": "mersuite.config gives its names on, and its tests use them from there",
}
"""Part -> why no test imports it."""

VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base2", "new", "v2"}
OPTIONAL = {
    "av",
    "braindecode",
    "cv2",
    "dask",
    "distributed",
    "edfio",
    "h5py",
    "matplotlib",
    "peft",
    "skimage",
    "sklearn",
    "transformers",
}
HEAVY = {
    "av",
    "cv2",
    "lmdb",
    "matplotlib",
    "mne",
    "optuna",
    "pandas",
    "pytorch_lightning",
    "scipy",
    "torch",
    "torchmetrics",
    "transformers",
}

CARRIED = (
    "errors.py",
    "clip.py",
    "schema.py",
    "catalog.py",
    "tables.py",
    "media/physio.py",
    "features/*.py",
    "signal/*.py",
    "models/**/*.py",
    "config.py",
    "data/windows.py",
    "data/dataset.py",
)
"""What the ps code submission may take along, under mersuite/; the export itself follows the imports."""
CARRIED_NEEDS = {"numpy", "scipy", "torch"}

TRACK_FILES = (
    "__init__.py",
    "track.py",
    "reader.py",
    "head.py",
    "submission.py",
    "fake.py",
    "config.yaml",
    "sweep.yaml",
    "README.md",
)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(_tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _imported_on_load(path: Path) -> set[str]:
    """Modules that importing the file imports: no function bodies, no `if TYPE_CHECKING`."""
    found: set[str] = set()
    stack: list[ast.AST] = list(_tree(path).body)
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            stack += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            stack += ast.iter_child_nodes(node)
    return found


def _packages(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


# ---- who imports whom


def test_import_contracts_hold() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_tracks_lies_beside_mersuite() -> None:
    assert registry.TRACKS_DIR == ROOT / "tracks"


@pytest.mark.parametrize("path", SHIPPED, ids=_name)
def test_optional_packages_are_imported_where_they_are_used(path: Path) -> None:
    assert _packages(_imported_on_load(path)) & OPTIONAL == set()


def _carried() -> list[Path]:
    return sorted({path for pattern in CARRIED for path in (ROOT / "mersuite").glob(pattern)})


@pytest.mark.parametrize("path", _carried(), ids=_name)
def test_code_that_a_submission_carries_loads_with_numpy_scipy_and_torch(path: Path) -> None:
    foreign = _packages(_imported_on_load(path)) - sys.stdlib_module_names - CARRIED_NEEDS - {"mersuite"}
    assert foreign == set()


# ---- the command line starts fast

CLI = ROOT / "mersuite" / "cli.py"
START = """
import resource, sys
from mersuite.cli import main
sys.argv = ["mersuite", *sys.argv[1:]]
try:
    status = main()
except SystemExit as stop:
    status = stop.code
usage = resource.getrusage(resource.RUSAGE_SELF)
loaded = sorted({name.partition(".")[0] for name in sys.modules})
print("\\nRESULT", status or 0, usage.ru_utime + usage.ru_stime, *loaded)
"""


@pytest.mark.parametrize("words", [["--help"], ["tracks"]], ids=" ".join)
def test_a_light_command_starts_fast_and_loads_no_heavy_package(words: list[str]) -> None:
    command = [sys.executable, "-c", START, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "RESULT" in done.stdout, done.stderr
    status, cpu_s, *loaded = done.stdout.rpartition("RESULT")[2].split()
    assert status == "0", done.stdout
    assert HEAVY & set(loaded) == set()
    assert float(cpu_s) < 0.5  # processor time, because a busy machine says nothing about the program


# ---- sizes and names


@pytest.mark.parametrize("path", [*SHIPPED, *SCRIPTS, *TESTS], ids=_name)
def test_file_is_short(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    limit = MAX_TEST_FILE_LINES if path in TESTS else MAX_FILE_LINES
    assert lines <= limit or _name(path) in LONG_FILES


@pytest.mark.parametrize("path", [*SHIPPED, *SCRIPTS], ids=_name)
def test_functions_are_short(path: Path) -> None:
    long = {}
    for function in _functions(path):
        first = function.body[0]
        has_doc = ast.get_docstring(function) is not None
        doc_lines = (first.end_lineno or 0) - first.lineno + 1 if has_doc else 0
        lines = (function.end_lineno or 0) - function.lineno + 1 - doc_lines
        if lines > MAX_FUNCTION_LINES and f"{_name(path)}:{function.name}" not in LONG_FUNCTIONS:
            long[function.name] = lines
    assert long == {}


def test_exceptions_to_sizes_still_exist() -> None:
    functions = {f"{_name(path)}:{function.name}" for path in [*SHIPPED, *SCRIPTS] for function in _functions(path)}
    assert set(LONG_FUNCTIONS) <= functions
    assert set(LONG_FILES) <= {_name(path) for path in [*SHIPPED, *SCRIPTS, *TESTS]}


@pytest.mark.parametrize("path", [*SHIPPED, *SCRIPTS], ids=_name)
def test_module_is_named_for_what_it_holds(path: Path) -> None:
    assert not VAGUE & {part.removesuffix(".py") for part in path.relative_to(ROOT).parts}


# ---- what code must not do


@pytest.mark.parametrize("path", SHIPPED, ids=_name)
def test_contracts_are_abstract_methods_not_exceptions(path: Path) -> None:
    names = {node.id for node in ast.walk(_tree(path)) if isinstance(node, ast.Name)}
    assert "NotImplementedError" not in names


@pytest.mark.parametrize("path", SHIPPED, ids=_name)
def test_nothing_is_printed_past_the_command_line(path: Path) -> None:
    calls = [node.func for node in ast.walk(_tree(path)) if isinstance(node, ast.Call)]
    assert [call.lineno for call in calls if isinstance(call, ast.Name) and call.id == "print"] == []


@pytest.mark.parametrize("path", SHIPPED, ids=_name)
def test_public_methods_without_a_contract_have_docstrings(path: Path) -> None:
    bare = []
    for node in ast.walk(_tree(path)):
        if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
            continue
        if {ast.unparse(base) for base in node.bases} - {"ABC", "Protocol", "NamedTuple"}:
            continue  # a documented contract says what the method gives
        methods = (item for item in node.body if isinstance(item, ast.FunctionDef) and not item.name.startswith("_"))
        bare += [f"{node.name}.{item.name}" for item in methods if ast.get_docstring(item) is None]
    assert bare == []


# ---- tracks and tests are complete


@pytest.mark.parametrize("track", registry.tracks())
def test_track_folder_has_the_files_of_the_contract(track: str) -> None:
    assert [name for name in TRACK_FILES if not (registry.folder(track) / name).is_file()] == []


def test_every_folder_of_tracks_is_a_track() -> None:
    folders = {
        path.name for path in (ROOT / "tracks").iterdir() if path.is_dir() and not path.name.startswith(("_", "."))
    }
    assert folders == set(registry.tracks())


def test_unit_tests_mirror_the_package() -> None:
    unit = ROOT / "tests" / "unit"
    folders = {path.parent.relative_to(unit) for path in unit.rglob("test_*.py")}
    assert [str(folder) for folder in folders if not (ROOT / "mersuite" / folder).is_dir()] == []


def _module(path: Path) -> str:
    return _name(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@cache
def _tested() -> frozenset[str]:
    """Modules that some test imports, and `package.name` for each `from package import name`."""
    found: set[str] = set()
    for test in TESTS:
        for node in ast.walk(_tree(test)):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def test_every_part_of_mersuite_is_imported_by_a_test() -> None:
    parts = {".".join(_module(path).split(".")[:2]) for path in SHIPPED if path.name != "__init__.py"}
    covered = {".".join(name.split(".")[:2]) for name in _tested()}
    assert parts - covered - set(TESTED_THROUGH_OTHERS) == set()
