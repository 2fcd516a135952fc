"""The code submission: what is in the zip, that it runs anywhere, and that it answers as `mersuite predict` does."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import types
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mersuite import api, catalog, registry
from mersuite.errors import ConfigError, DataError, SubmissionError
from mersuite.inference import Checkpoint, answer, build_network, load_checkpoint
from mersuite.schema import Named
from mersuite.training.folds import build_context
from tracks.ps import code_check, code_submission
from tracks.ps.code_check import RUN_APART, expected_rows, installed_there, write_made_up_input
from tracks.ps.code_submission import carried_files, carried_modules, pack_weights, write_code_submission
from tracks.ps.reader import read_ps
from tracks.ps.runtime import META, SubjectFeatures, extract_streams, load_folds

WINDOWS = ("data.window_s=6", "data.stride_s=3", "runtime.progress=false", "runtime.accelerator=cpu")
TRAITS = {"system": "fused", "prior": True}


def unpack(archive: Path, folder: Path) -> Path:
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    return folder


def import_model(folder: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("submitted_model", folder / "model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def as_input(data: Path, out: Path, people: dict[str, str], *, reservations: bool) -> Path:
    """What the challenge hands over: ids and the four files a person, under any names; no label anywhere."""
    lines = ["sample_id"]
    for name, source in people.items():
        folder = out / "data" / name
        folder.mkdir(parents=True)
        for path in (data / "data" / source).glob("*.mat"):
            os.link(path, folder / path.name)
        ids = (data / "sample_ids.csv").read_text().split()[1:]
        lines += [item.replace(f"{source}_", f"{name}_") for item in ids if item.startswith(f"{source}_")]
    (out / "sample_ids.csv").write_text("\n".join(lines) + "\n")
    if reservations:
        text = (data / "fNIRS_reservations.csv").read_text().splitlines()
        row = next(line for line in text if line.startswith("predict1,")).partition(",")[2]
        (out / "fNIRS_reservations.csv").write_text("\n".join([text[0], *(f"{name},{row}" for name in people)]) + "\n")
    return out


@pytest.fixture(scope="module")
def run(fake_ps: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small trained run whose networks really correct something."""
    place = tmp_path_factory.mktemp("code")
    words = [f"data.root={fake_ps}", f"store.path={place / 'store'}", f"run.dir={place / 'run'}", *WINDOWS]
    words += ["cv.folds=3", "trainer.max_epochs=1", "evaluate=fused", "ps.shrink=false", "optim.lr=0.01"]
    api.fit(api.config("ps", overrides=words))
    return place / "run"


@pytest.fixture(scope="module")
def archive(run: Path) -> Path:
    out = run.parent / "submission.zip"
    api.export("ps", ckpt=run, kind="code", out=out)
    return out


@pytest.fixture
def submission(archive: Path, tmp_path: Path) -> Path:
    return unpack(archive, tmp_path / "submission")


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the run in another process, where a test runs the zip itself."""
    monkeypatch.setattr(code_submission, "check_submission", lambda archive, checkpoints, answer: 0)


def predicted_csv(run: Path, data: Path, place: Path) -> Path:
    api.predict(
        run, out=place / "p.jsonl", overrides=[f"data.root={data}", f"store.path={place / 'store'}", WINDOWS[2]]
    )
    api.export("ps", pred=place / "p.jsonl", out=place / "expected.csv")
    return place / "expected.csv"


def rows(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines()
    assert lines[0] == "sample_id,valence,arousal"
    return dict(line.split(",", 1) for line in lines[1:])


# ---- it runs apart and gives the same rows

DRIVER = """
import resource
one = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model.predict("many", "out/many")
many = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model.predict("one", "out/again")
tops = {name.partition(".")[0] for name in sys.modules}
print(many - one, sorted(tops & {"tracks", "mersuite", "mne", "yaml"}))
"""


def test_zip_runs_alone_with_relative_paths_and_gives_the_rows_of_predict(
    run: Path, submission: Path, fake_ps: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    single = as_input(fake_ps, work / "one", {"predict1": "predict1"}, reservations=False)
    people = {"predict1": "predict1", "private7": "predict1", **{f"P_{i}": "predict1" for i in range(4)}}
    many = as_input(fake_ps, work / "many", people, reservations=True)
    (work / "tracks").mkdir()
    (work / "tracks" / "__init__.py").write_text("raise RuntimeError('the stray one')")
    for path in (single, many):
        path.chmod(0o555)
    before = sorted(path.relative_to(work) for path in work.rglob("*"))
    command = [sys.executable, "-I", "-B", "-c", RUN_APART + DRIVER, str(submission), ",".join(installed_there())]
    done = subprocess.run([*command, "one", "out/one"], cwd=work, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    after = sorted(path.relative_to(work) for path in work.rglob("*") if not path.is_relative_to(work / "out"))
    assert after == before

    expected = predicted_csv(run, single, tmp_path / "a")
    assert rows(work / "out/one/predictions.csv") == rows(expected)
    found = rows(work / "out/many/predictions.csv")
    assert found == rows(predicted_csv(run, many, tmp_path / "b"))
    assert {name.partition("_V")[0] for name in found} == set(people)
    assert (work / "out/one/predictions.csv").read_bytes() == (work / "out/again/predictions.csv").read_bytes()
    ids = (many / "sample_ids.csv").read_text().split()[1:]
    assert list(found) == ids

    growth_kib, left = done.stdout.split(" ", 1)
    assert left.strip() == "[]", "model.py leaves its packages in place of others"
    subject_kib = sum(path.stat().st_size for path in (single / "data/predict1").iterdir()) / 1024
    assert int(growth_kib) < 3 * subject_kib, f"6 people took {growth_kib} KiB more than one of {subject_kib:.0f} KiB"


def test_other_modules_of_the_same_names_are_neither_used_nor_lost(
    submission: Path, fake_ps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = as_input(fake_ps, tmp_path / "in", {"predict1": "predict1"}, reservations=False)
    stray = types.ModuleType("tracks")
    monkeypatch.setitem(sys.modules, "tracks", stray)
    monkeypatch.setitem(sys.modules, "mersuite.clip", types.ModuleType("mersuite.clip"))
    before, places = dict(sys.modules), list(sys.path)
    model = import_model(submission)
    model.predict(data, tmp_path / "out")
    model.predict(str(data), str(tmp_path / "new" / "out"))
    assert sys.modules["tracks"] is stray and sys.path == places
    own = {name for name in sys.modules if name.partition(".")[0] in ("mersuite", "tracks")}
    assert {name: sys.modules[name] for name in own} == {name: before[name] for name in own}
    assert all(Path(item.__file__).is_relative_to(submission) for item in model._loaded.values())
    assert rows(tmp_path / "out/predictions.csv") == rows(tmp_path / "new/out/predictions.csv")


def test_modules_are_put_back_after_an_error(submission: Path, tmp_path: Path) -> None:
    model = import_model(submission)
    with pytest.raises(Exception, match=r"sample_ids\.csv: no such file"):
        model.predict(tmp_path, tmp_path / "out")
    assert sys.modules["mersuite.errors"].DataError is DataError
    assert torch.is_grad_enabled()


# ---- every model


def checkpoint_of(data: Path, overrides: list[str], files: list[str] = []) -> Checkpoint:  # noqa: B006  read only
    """An untrained system whose head answers something."""
    config = api.config("ps", files=files, overrides=[*WINDOWS, "ps.target_lag_s=1", *overrides])
    track = registry.load("ps")
    found = read_ps(data, "train")
    needed = {*config.model.encoders, "eeg_bands", "fnirs_stats"}
    features = SubjectFeatures(extract_streams(config, found.clips[:3], needed))
    fitted = track.fitted(config)
    samples = [item for item in found.samples if features.get(item.clip_id, "eeg_bands") is not None]
    fitted.fit(samples, samples[:1], features.get)
    context = build_context(track, config, features, samples) if track.uses_network(config) else None
    network = None if context is None else build_network(track, config, context, fitted)
    if network is not None:
        torch.nn.init.normal_(network.head.linear.weight, std=0.3)
        network.eval()
    return Checkpoint(
        track=track, config=config, evaluation="fused", fold=0, fitted=fitted, network=network, context=context
    )


CASES = {
    **{f"fusion {name}": [f"model.fusion={name}"] for name in catalog.names("fusion")},
    **{
        f"features by {name}": [f"model.encoders.eeg_bands={name}", f"model.encoders.fnirs_stats={name}"]
        for name in ("graph", "masa_tcn")
    },
    "ridge": ["ps.system=ridge"],
    "prior": ["ps.system=prior"],
    "signal": ["ps.system=signal", "ps.valence_only=true"],
    "conformer": ["model.encoders.eeg_bands=null", "model.encoders.eeg=conformer"],
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("case", [*CASES, "recipe ps_raw", "recipe ps_graph"])
def test_every_model_answers_alike_from_the_zip(case: str, fake_ps: Path, tmp_path: Path) -> None:
    files = [case.split()[1]] if case.startswith("recipe") else []
    checkpoint = checkpoint_of(fake_ps, CASES.get(case, []), [f"recipe/{item}.yaml" for item in files])
    write_code_submission([checkpoint], tmp_path / "s.zip", TRAITS, answer)
    data = as_input(fake_ps, tmp_path / "in", {"predict1": "predict1"}, reservations=True)
    import_model(unpack(tmp_path / "s.zip", tmp_path / "s")).predict(data, tmp_path / "out")
    expected = {name: f"{valence},{arousal}" for name, valence, arousal in expected_rows([checkpoint], data, answer)}
    assert rows(tmp_path / "out/predictions.csv") == expected
    assert len(set(expected.values())) > 1


def test_cases_cover_every_encoder_that_may_be_carried() -> None:
    told = " ".join([*(word for words in CASES.values() for word in words), "mlp", "eegnet"])
    assert {name for name in catalog.names("encoder") if name not in told} == set(code_submission.NOT_CARRIED)


def test_external_encoder_is_refused(fake_ps: Path, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(fake_ps, [])
    part = Named(name="external", config=catalog.find("encoder", "external").Config(factory="braindecode.models:A"))
    model = replace(checkpoint.config.model, encoders={"eeg": part})
    foreign = replace(checkpoint, config=replace(checkpoint.config, model=model))
    with pytest.raises(SubmissionError, match=r"model\.encoders\.eeg: external runs a network of another package"):
        write_code_submission([foreign], tmp_path / "s.zip", TRAITS, answer)
    assert not list(tmp_path.iterdir())


# ---- what is in the zip


def test_zip_holds_plain_arrays_small_files_and_no_places(archive: Path, run: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        names = file.namelist()
        weights = np.load(io.BytesIO(file.read("weights.npz")), allow_pickle=False)
        code = b"".join(file.read(name) for name in names if name.endswith(".py"))
        assert {item.external_attr >> 16 for item in file.infolist()} == {0o644}
    assert {weights[name].dtype.kind for name in weights.files} <= set("fiu")
    meta = weights[META].tobytes().decode()
    assert str(run.parent) not in meta and str(Path.cwd()) not in meta + code.decode()
    assert {"run", "store", "sweep", "runtime"}.isdisjoint(json.loads(meta)["folds"][0]["config"])
    assert archive.stat().st_size < 1_000_000
    assert {name for name in names if not name.startswith("code/")} == {"model.py", "weights.npz"}
    own = [name for name in names if name.startswith("code/mersuite/models/encoders/")]
    assert [Path(name).name for name in own] == ["__init__.py", "mlp.py"]
    for unwanted in ("training", "store", "prepare", "cli", "api", "report", "fake", "reader.py", "track.py"):
        assert not any(f"ps/{unwanted}" in name or f"mersuite/{unwanted}/" in name for name in names), unwanted


def test_same_run_gives_the_same_zip(run: Path, tmp_path: Path, unchecked: None) -> None:
    for name in ("a.zip", "b.zip"):
        api.export("ps", ckpt=run, kind="code", out=tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_one_checkpoint_can_be_exported(run: Path, tmp_path: Path, unchecked: None) -> None:
    found = api.export("ps", ckpt=run / "fold_0/best.ckpt", kind="code", out=tmp_path / "one.zip")
    assert "1 folds of system 'fused'" in found["message"] and "prior" in found["message"]


def test_existing_file_is_not_overwritten(run: Path, archive: Path) -> None:
    before = archive.read_bytes()
    with pytest.raises(SubmissionError, match=r"submission\.zip exists; choose another name or add overwrite=true"):
        api.export("ps", ckpt=run, kind="code", out=archive)
    assert archive.read_bytes() == before


def test_modules_with_foreign_imports_are_refused() -> None:
    with pytest.raises(SubmissionError, match=r"store_environment\.py imports lmdb, which the challenge's machine"):
        carried_modules(["mersuite.store_environment"])
    with pytest.raises(SubmissionError, match=r"module mersuite\.nowhere cannot be found"):
        carried_modules(["mersuite.nowhere"])


def test_packages_of_the_challenge_are_told_from_ours() -> None:
    there = installed_there()
    assert {"numpy", "scipy", "torch", "sympy"} <= set(there)
    assert not {"mne", "yaml", "omegaconf", "pytorch_lightning", "lmdb", "mersuite", "tracks"} & set(there)


# ---- the check of what was written


def check_refused(checkpoint: Checkpoint, out: Path, message: str) -> None:
    with pytest.raises(SubmissionError, match=message):
        write_code_submission([checkpoint], out, TRAITS, answer)
    assert not list(out.parent.iterdir())


@pytest.fixture
def prior(fake_ps: Path) -> Checkpoint:
    return checkpoint_of(fake_ps, ["ps.system=prior"])


def test_zip_that_lacks_a_file_is_refused(prior: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(parts: list[str]) -> dict[str, bytes]:
        return {name: content for name, content in carried_files(parts).items() if "rates" not in name}

    monkeypatch.setattr(code_submission, "carried_files", lacking)
    check_refused(
        prior, tmp_path / "s.zip", r"does not run apart from this installation: .*does not hold tracks\.ps\.rates"
    )


def test_zip_that_imports_more_inside_a_function_is_refused(
    prior: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def importing(parts: list[str]) -> dict[str, bytes]:
        files = carried_files(parts)
        place = "code/tracks/ps/runtime.py"
        return {
            **files,
            place: files[place].replace(b"    folds = load_folds", b"    import mne\n    folds = load_folds"),
        }

    monkeypatch.setattr(code_submission, "carried_files", importing)
    check_refused(prior, tmp_path / "s.zip", r"mne is not among the packages of the challenge's machine")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: [(name, valence, (arousal + 20) % 200 + 1) for name, valence, arousal in found], "differ by up"),
        (lambda found: found[:-1], r"the zip gave \d+ rows, \d+ were asked for"),
    ],
)
def test_zip_that_answers_otherwise_is_refused(change, message, prior, tmp_path, monkeypatch) -> None:
    def apart(folder: Path, input_dir: Path, output_dir: Path) -> None:
        import_model(folder).predict(input_dir, output_dir)

    monkeypatch.setattr(code_check, "run_apart", apart)
    monkeypatch.setattr(code_check, "expected_rows", lambda *args: change(expected_rows(*args)))
    check_refused(prior, tmp_path / "s.zip", message)


def test_run_on_other_recordings_is_refused(fake_ps: Path, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(fake_ps, [])
    info = replace(checkpoint.context.streams["eeg_bands"], num_channels=7)
    streams = {**checkpoint.context.streams, "eeg_bands": info}
    other = replace(checkpoint, context=replace(checkpoint.context, streams=streams))
    check_refused(
        other, tmp_path / "s.zip", "does not answer recordings in the challenge's layout: .*does not fit the data"
    )


def test_zip_that_does_not_end_is_refused(prior, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(code_check, "TIMEOUT_S", 0.01)
    check_refused(prior, tmp_path / "s.zip", r"did not answer a made-up clip within 0\.01 s")


def test_made_up_input_has_no_labels(tmp_path: Path) -> None:
    write_made_up_input(tmp_path, 9)
    assert len((tmp_path / "sample_ids.csv").read_text().split()) == 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "sample_ids.csv"]
    assert len(list((tmp_path / "data").glob("private1/*.mat"))) == 4


# ---- files that hold code


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_weights_with_an_object_array_are_refused_unexecuted(prior: Checkpoint, tmp_path: Path) -> None:
    trap, target = tmp_path / "trap", tmp_path / "weights.npz"
    with np.load(io.BytesIO(pack_weights([prior]))) as file:
        arrays = dict(file)
    np.savez(target, **{**arrays, "0/fitted/median": np.array([Payload(trap)], dtype=object)})
    with pytest.raises(DataError, match=r"weights\.npz: not the weights of a submission: .*never executed"):
        load_folds(target)
    assert not trap.exists()
    with np.load(target, allow_pickle=True) as file:
        file["0/fitted/median"]
    assert trap.exists(), "the payload is a real one"


@pytest.mark.parametrize("fault", ["cut", "empty", "no meta", "missing array", "other shape"])
def test_damaged_weights_are_refused(fault: str, fake_ps: Path, tmp_path: Path) -> None:
    content = pack_weights([checkpoint_of(fake_ps, [])])
    with np.load(io.BytesIO(content)) as file:
        arrays = dict(file)
    weight = "0/network/head.linear.weight"
    changed = {
        "no meta": {name: item for name, item in arrays.items() if name != META},
        "missing array": {name: item for name, item in arrays.items() if name != "0/fitted/median"},
        "other shape": {**arrays, weight: arrays[weight][:, :3]},
    }
    target = tmp_path / "weights.npz"
    if fault in changed:
        np.savez(target, allow_pickle=False, **changed[fault])
    else:
        target.write_bytes(content[: len(content) // 2] if fault == "cut" else b"")
    with pytest.raises(DataError, match="not the weights of a submission"):
        load_folds(target)


@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_checkpoint_with_pickled_objects_is_refused_unexecuted(save, tmp_path: Path) -> None:
    trap, path = tmp_path / "trap", tmp_path / "evil.ckpt"
    save({"mersuite_checkpoint": 1, "track": Payload(trap)}, path)
    with pytest.raises(ConfigError, match=r"evil\.ckpt cannot be read as a checkpoint: .*never executed"):
        api.export("ps", ckpt=path, kind="code", out=tmp_path / "s.zip")
    with pytest.raises(ConfigError, match="never executed"):
        load_checkpoint(path)
    assert not trap.exists() and not (tmp_path / "s.zip").exists()


def test_private_people_without_a_folder_are_named(submission: Path, fake_ps: Path, tmp_path: Path) -> None:
    data = as_input(fake_ps, tmp_path / "in", {"private7": "predict1"}, reservations=False)
    shutil.move(data / "data/private7", data / "data/private8")
    with pytest.raises(Exception, match="no leaderboard subject"):
        import_model(submission).predict(data, tmp_path / "out")
    (data / "data/predict1").mkdir()
    with pytest.raises(Exception, match=r"lists 'private7', an unknown subject; .*data has predict1, private8"):
        import_model(submission).predict(data, tmp_path / "out")
