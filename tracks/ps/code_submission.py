"""The code submission: a zip whose root holds model.py, weights.npz and the few files of mersuite that it needs."""

from __future__ import annotations

import ast
import importlib.util
import io
import json
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mersuite.config import to_plain
from mersuite.errors import SubmissionError
from mersuite.provenance import versions
from mersuite.schema import plain
from mersuite.track import AnswerFunction
from tracks.ps.code_check import check_submission
from tracks.ps.runtime import META

if TYPE_CHECKING:
    from mersuite.inference import Checkpoint

ENTRY = "tracks.ps.runtime"
ALLOWED = frozenset({"numpy", "scipy", "torch"})
OWN = ("mersuite", "tracks")
EMPTY_PACKAGES = frozenset({"tracks.ps"})
"""Packages whose own __init__ leads to code that inference does not need; the zip holds an empty one."""
_DATE = (1980, 1, 1, 0, 0, 0)

NOT_CARRIED = {"external": "runs a network of another package"}
"""Encoders that cannot go into the zip, and why."""
_READABLE = 0o644 << 16

MODEL_PY = '''\
"""MER-PS code submission, written by mersuite: predict(input_dir, output_dir) writes predictions.csv.

{facts}
"""

import sys
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
_loaded = {{}}


def _take_out():
    names = [name for name in sys.modules if name.partition(".")[0] in ("mersuite", "tracks")]
    return {{name: sys.modules.pop(name) for name in names}}


@contextmanager
def _own_code():
    """Makes `mersuite` and `tracks` mean the code beside this file, whatever else goes by these names."""
    code, others = str(HERE / "code"), _take_out()
    sys.modules.update(_loaded)
    sys.path.insert(0, code)
    try:
        yield
    finally:
        sys.path.remove(code)
        _loaded.update(_take_out())
        sys.modules.update(others)


def predict(input_dir, output_dir):
    """Reads input_dir/sample_ids.csv and input_dir/data, writes output_dir/predictions.csv. No training, no network."""
    with _own_code():
        from tracks.ps.runtime import predict_folder

        predict_folder(Path(input_dir), Path(output_dir), HERE / "weights.npz")


if __name__ == "__main__":
    predict(sys.argv[1], sys.argv[2])
'''


def carried_modules(parts: Iterable[str]) -> dict[str, Path]:
    """Finds every file of mersuite that inference imports, by following imports from tracks.ps.runtime.

    Args:
        parts: Modules that are loaded by name: the configured extractors, encoders and fusions.

    Returns:
        Module name to file.

    Raises:
        SubmissionError: If one of them imports a package that the challenge's machine does not have.
    """
    found: dict[str, Path] = {}
    queue = [ENTRY, *parts]
    while queue:
        name = queue.pop()
        if name in found:
            continue
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise SubmissionError(f"export: module {name} cannot be found; is mersuite installed whole?")
        found[name] = Path(spec.origin)
        if "." in name:
            queue.append(name.rpartition(".")[0])
        if name not in EMPTY_PACKAGES:
            queue += [item for item in _imports(found[name]) if item not in found]
    return found


def _imports(path: Path) -> list[str]:
    """Own modules that a file imports when it is loaded, not those inside functions or for type checkers."""
    own: list[str] = []
    for node in _top_level(ast.parse(path.read_text(encoding="utf-8")).body):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *[f"{node.module}.{alias.name}" for alias in node.names]]
        for name in names:
            top = name.partition(".")[0]
            if top in OWN:
                own += [name] if _is_module(name) else []
            elif top not in ALLOWED and top not in sys.stdlib_module_names:
                raise SubmissionError(
                    f"export: {path.name} imports {top}, which the challenge's machine does not have; "
                    f"a code submission may use {', '.join(sorted(ALLOWED))} only: choose other encoders or extractors"
                )
    return own


def _top_level(body: Sequence[ast.stmt]) -> Iterable[ast.stmt]:
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, (ast.If, ast.Try)):
            yield from _top_level(node.body)
        else:
            yield node


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def pack_weights(checkpoints: Sequence[Checkpoint]) -> bytes:
    """Gives the npz of all folds: arrays and one JSON text, no pickled object."""
    arrays: dict[str, np.ndarray] = {}
    folds: list[dict[str, Any]] = []
    for index, checkpoint in enumerate(checkpoints):
        fitted, values = checkpoint.fitted.state()
        arrays |= {f"{index}/fitted/{name}": array for name, array in fitted.items()}
        if checkpoint.network is not None:
            state = checkpoint.network.state_dict()
            arrays |= {f"{index}/network/{name}": tensor.cpu().numpy() for name, tensor in state.items()}
        config = to_plain(checkpoint.config)
        for section in ("run", "store", "sweep", "runtime"):
            config.pop(section, None)
        config["data"] = {key: item for key, item in config["data"].items() if key not in ("root", "manifest")}
        config["model"] = {key: item for key, item in config["model"].items() if key != "pretrained"}
        folds.append({"config": config, "context": plain(checkpoint.context), "fitted": values})
    text = json.dumps({"folds": folds, "versions": versions()}).encode("utf-8")
    arrays[META] = np.frombuffer(text, dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def write_code_submission(
    checkpoints: Sequence[Checkpoint], out: Path, traits: Mapping[str, Any], answer: AnswerFunction
) -> str:
    """Writes the zip, runs it on made-up recordings, and gives one line that says what is in it.

    It is there whole and checked, or not at all.

    Args:
        checkpoints: One a fold.
        out: The zip.
        traits: What the track says of the system.
        answer: What `mersuite predict` runs, for the check.

    Raises:
        SubmissionError: If a configured part needs packages that the challenge's machine does not have, or what was
            written does not run or does not answer as this program does.
    """
    facts = (
        f"{len(checkpoints)} folds of system {traits.get('system')!r}, averaged. The stimulus prior (training labels "
        f"averaged by clip and second) is {'part of it' if traits.get('prior') else 'not part of it'}."
    )
    files = {
        "model.py": MODEL_PY.format(facts=facts).encode("utf-8"),
        "weights.npz": pack_weights(checkpoints),
        **carried_files(_named_parts(checkpoints)),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                info = zipfile.ZipInfo(name, _DATE)
                info.external_attr = _READABLE
                archive.writestr(info, content, zipfile.ZIP_DEFLATED)
        num_rows = check_submission(partial, checkpoints, answer)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    size_kib = out.stat().st_size / 1024
    return (
        f"{out}: {facts} {len(files)} files, {size_kib:.0f} KiB; needs numpy, scipy and torch. Checked: run apart from "
        f"this installation, it gave the same {num_rows} rows for made-up recordings"
    )


def carried_files(parts: Iterable[str]) -> dict[str, bytes]:
    """Gives name in the zip to content of every file of carried_modules."""
    files: dict[str, bytes] = {}
    for name, path in sorted(carried_modules(parts).items()):
        place = "code/" + name.replace(".", "/") + ("/__init__.py" if path.name == "__init__.py" else ".py")
        files[place] = b"" if name in EMPTY_PACKAGES else path.read_bytes()
    return files


def _named_parts(checkpoints: Sequence[Checkpoint]) -> list[str]:
    parts: list[str] = []
    for checkpoint in checkpoints:
        config = checkpoint.config
        parts += [f"mersuite.features.{part.name}" for part in config.features.values()]
        parts += [f"mersuite.models.fusion.{config.model.fusion.name}", "mersuite.models.fusion.concat"]
        for stream, part in config.model.encoders.items():
            if part.name in NOT_CARRIED and checkpoint.network is not None:
                raise SubmissionError(
                    f"export: model.encoders.{stream}: {part.name} {NOT_CARRIED[part.name]}, which the challenge's "
                    "machine does not have; train another encoder, or export predictions with pred=FILE.jsonl"
                )
            parts.append(f"mersuite.models.encoders.{part.name}")
    return list(dict.fromkeys(parts))
