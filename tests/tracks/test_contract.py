"""The contract of a track, held against every track that the registry finds. A new folder is taken up by itself."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mersuite import api, catalog, cli, registry
from mersuite.clip import Prediction
from mersuite.config import RunConfig, build_run_config, read_yaml, shipped_configs, to_plain, with_overrides
from mersuite.errors import ConfigError, DataError, SubmissionError
from mersuite.inference import Checkpoint, answer_with, load_checkpoint
from mersuite.prepare import FeatureReader
from mersuite.schema import build
from mersuite.search_space import read_space
from mersuite.track import Evaluation, ScoreRequest, Track, TrackData
from mersuite.training.folds import BEST, FoldRun, train_fold
from mersuite.training.run import choose_evaluations, plan_folds

TRACKS = tuple(registry.tracks())
FILES = (
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
SMALL_FAKE: Mapping[str, tuple[str, ...]] = {
    "ps": (
        "num_subjects=4",
        "num_leaderboard_subjects=1",
        "num_clips=4",
        "min_clip_s=10",
        "max_clip_s=14",
        "rate_hz=200",
    ),
    "cross": ("num_clips=36", "max_clip_s=1.8", "rate_hz=8", "num_dialogues=4"),
}
"""Track -> options that make its fake data quick to read; a track that is not listed takes its own defaults."""
QUICK = ("cv.folds=2", "trainer.max_epochs=1", "runtime.accelerator=cpu", "runtime.progress=false")


@cache
def track_of(name: str) -> Track:
    return registry.load(name)


def evaluations_of(name: str) -> list[Evaluation]:
    return track_of(name).evaluations(api.config(name))


EVALUATIONS = [(name, item.name) for name in TRACKS for item in evaluations_of(name)]
every_track = pytest.mark.parametrize("name", TRACKS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A track's fake data, read and prepared."""

    track: Track
    root: Path
    config: RunConfig
    train: TrackData
    test: TrackData
    reader: FeatureReader


@pytest.fixture(scope="module", params=TRACKS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(request.param, tmp_path_factory.mktemp(request.param))


def make(name: str, folder: Path) -> Made:
    track, root = track_of(name), folder / "data"
    api.fake(name, root, overrides=SMALL_FAKE.get(name, ()))
    places = (f"data.root={root}", f"store.path={folder / 'store'}", "runtime.prepare_workers=1")
    config = api.config(name, overrides=[*QUICK, *places])
    api.prepare(config)
    train, test = (track.read(config, split) for split in ("train", "test"))
    extractors = {key: catalog.find("extractor", part.name)(part.config) for key, part in config.features.items()}
    reader = FeatureReader.open(config.store_path, [*train.clips, *test.clips], extractors)
    return Made(track=track, root=root, config=config, train=train, test=test, reader=reader)


@pytest.fixture(scope="module")
def trained(made: Made, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[FoldRun, Checkpoint]]:
    """The first outer fold of every evaluation after one epoch."""
    samples = {sample.sample_id: sample for sample in made.train.samples}
    found = {}
    for evaluation in made.track.evaluations(made.config):
        run = FoldRun(
            track=made.track,
            config=with_overrides(made.config, evaluation.overrides),
            evaluation=evaluation.name,
            samples=samples,
            reader=made.reader,
            fold=plan_folds(made.config, evaluation, list(samples.values()))[0],
            folder=tmp_path_factory.mktemp(f"{made.track.name}_{evaluation.name}"),
        )
        found[evaluation.name] = run, train_fold(run)
    return found


# ---- the folder


def missing_files(folder: Path) -> list[str]:
    """Files of the contract that are not there or empty."""
    return [name for name in FILES if not (folder / name).is_file() or not (folder / name).read_text().strip()]


def test_there_is_a_track():
    assert "ps" in TRACKS


@every_track
def test_folder_is_complete(name: str):
    assert missing_files(registry.folder(name)) == []


@pytest.mark.parametrize("lacking", FILES)
def test_an_incomplete_folder_is_noticed(tmp_path: Path, lacking: str):
    for name in FILES:
        (tmp_path / name).write_text("" if name == lacking else "x")
    assert missing_files(tmp_path) == [lacking]


def test_no_folder_of_tracks_escapes_the_contract():
    folders = {path.name for path in registry.TRACKS_DIR.iterdir() if path.is_dir() and path.name[0] not in "._"}
    assert folders == set(TRACKS)
    assert set(SMALL_FAKE) <= folders


@every_track
def test_first_docstring_line_says_what_the_track_answers(name: str):
    line = registry.tracks()[name]
    assert 10 < len(line) <= 100 and line.endswith(".")


@every_track
def test_a_track_imports_no_other_track(name: str):
    others = set(TRACKS) - {name}
    for path in registry.folder(name).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not others & {item.split(".")[1] for item in modules if item.startswith("tracks.")}, path


@every_track
def test_readme_tells_metric_submission_and_every_published_figure(name: str):
    text = (registry.folder(name) / "README.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
    assert {"Task", "Files", "Metric", "Submission"} <= set(headings)
    monitor = track_of(name).monitor
    missing = [item for item in track_of(name).published() if f"{item.metrics[monitor]:.2f}" not in text]
    assert missing == []


# ---- the class


@every_track
def test_class_says_what_the_rest_of_mersuite_asks_for(name: str):
    track = track_of(name)
    assert track.name == name
    assert track.monitor in track.metric_names
    assert track.monitor_mode in ("min", "max")
    assert track.streams and (not track.groups_shown or track.reports_by in track.groups_shown)
    assert track.token_rate_hz is None or track.token_rate_hz > 0


@every_track
@pytest.mark.parametrize("kind", ["Config", "FakeConfig"])
def test_options_are_a_frozen_dataclass_with_defaults_and_a_line_on_every_field(name: str, kind: str):
    options = getattr(track_of(name), kind)
    assert is_dataclass(options) and options.__dataclass_params__.frozen and "__slots__" in vars(options)
    values = build(options, {})
    undocumented = [item.name for item in fields(values) if not re.search(rf"^\s+{item.name}: ", options.__doc__, re.M)]
    assert undocumented == []


@every_track
def test_fake_data_has_a_seed(name: str):
    assert "seed" in {item.name for item in fields(track_of(name).FakeConfig)}  # tracks may share a folder of one seed


@every_track
def test_help_of_fake_lists_every_option_with_its_default_and_meaning(name: str, capsys: pytest.CaptureFixture):
    assert cli.main(["fake", f"track={name}", "--help"]) == 0
    shown = capsys.readouterr().out
    for item in fields(track_of(name).FakeConfig):
        assert re.search(rf"^ +{item.name}=\S.*  [A-Z]\w+ ", shown, flags=re.MULTILINE), item.name


# ---- configuration


def keys_of(node: yaml.Node, place: tuple[str, ...] = (), said: str = "", lines: list[str] | None = None) -> Iterator:
    """(dotted key, its comment or that of a section around it) of every value in a YAML tree."""
    for key, value in node.value:
        line = (lines or [])[key.start_mark.line]
        comment = line.partition(" #")[2].strip() or said
        here = (*place, key.value)
        if isinstance(value, yaml.MappingNode):
            yield from keys_of(value, here, comment, lines)
        else:
            yield ".".join(here), comment


def value_at(values: Mapping[str, Any], key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, Mapping) else None
    return values


@every_track
def test_every_key_of_config_yaml_differs_from_the_default_and_says_why(name: str):
    text = (registry.folder(name) / "config.yaml").read_text(encoding="utf-8")
    track = track_of(name)
    shared = to_plain(build_run_config(read_yaml(shipped_configs() / "base.yaml"), name, track.Config))
    own = to_plain(api.config(name))
    said = dict(keys_of(yaml.compose(text), lines=text.splitlines()))
    assert said
    assert [key for key in said if value_at(shared, key) == value_at(own, key)] == []
    assert [key for key, comment in said.items() if len(comment) < 10] == []


@every_track
def test_configuration_survives_being_written_and_read(name: str):
    config = api.config(name)
    values = yaml.safe_load(yaml.safe_dump(to_plain(config)))
    assert values.pop("track") == name
    assert build_run_config(values, name, track_of(name).Config) == config


@every_track
def test_unknown_option_is_refused_with_its_full_key(name: str):
    with pytest.raises(ConfigError, match=rf"{name}\.no_such_option: unknown key"):
        api.config(name, overrides=[f"{name}.no_such_option=1"])


@every_track
def test_search_space_fits_the_configuration(name: str):
    config = api.config(name)
    taken = tuple(track_of(name).evaluations(config)[0].overrides)
    assert read_space(registry.folder(name) / "sweep.yaml", config, taken=taken)


def test_shipped_recipes_fit_a_track():
    layers = sorted((shipped_configs() / "recipe").glob("*.yaml"))
    assert layers
    for path in layers:
        name = path.name.split("_")[0].removesuffix(".yaml")
        assert name in TRACKS, f"{path.name}: recipes are named <track>_<what>.yaml"
        assert api.config(name, files=[f"recipe/{path.name}"]) != api.config(name), path.name


# ---- evaluations


@every_track
def test_evaluations_have_names_of_their_own_and_say_their_protocol(name: str):
    found = evaluations_of(name)
    assert len({item.name for item in found}) == len(found)
    assert all(item.protocol for item in found)


@pytest.mark.parametrize(("name", "evaluation"), EVALUATIONS)
def test_every_evaluation_is_a_valid_system(name: str, evaluation: str):
    config = api.config(name)
    (item,) = [item for item in evaluations_of(name) if item.name == evaluation]
    system = with_overrides(config, item.overrides)
    assert json.loads(json.dumps(track_of(name).traits(system))) == dict(track_of(name).traits(system))


@pytest.mark.parametrize(("name", "evaluation"), EVALUATIONS)
def test_the_configured_system_comes_first(name: str, evaluation: str):
    (item,) = [item for item in evaluations_of(name) if item.name == evaluation]
    if item.split_by or any(key.startswith("model.") for key in item.overrides) or evaluation.startswith("without_"):
        return  # the same system under another protocol, with fewer streams, or with an option switched off
    config = with_overrides(api.config(name), item.overrides)
    first = track_of(name).evaluations(config)[0]
    assert first.name == evaluation
    assert choose_evaluations(track_of(name), config)[0] == first


# ---- data


def test_check_finds_no_fault_in_fake_data(made: Made):
    rows = made.track.check(made.config)
    assert rows
    assert [row for row in rows if row.ok is False] == []


def test_check_reports_an_empty_folder_instead_of_raising(made: Made, tmp_path: Path):
    config = with_overrides(made.config, {"data.root": str(tmp_path)})
    assert any(row.ok is False for row in made.track.check(config))


@pytest.mark.parametrize("split", ["train", "test"])
def test_reading_an_empty_folder_is_refused(made: Made, tmp_path: Path, split: str):
    config = with_overrides(made.config, {"data.root": str(tmp_path)})
    with pytest.raises(DataError, match=re.escape(str(tmp_path))):
        made.track.read(config, split)


def test_unknown_split_is_refused(made: Made):
    with pytest.raises(ConfigError, match="split"):
        made.track.read(made.config, "trian")


@pytest.mark.parametrize("split", ["train", "test"])
def test_ids_are_unique_and_samples_belong_to_clips(made: Made, split: str):
    data: TrackData = getattr(made, split)
    assert data.samples and data.clips
    clips = {clip.clip_id for clip in data.clips}
    assert len(clips) == len(data.clips)
    assert len({sample.sample_id for sample in data.samples}) == len(data.samples)
    assert {sample.clip_id for sample in data.samples} <= clips


def test_splits_share_no_sample_and_no_group_that_folds_go_by(made: Made):
    for side in (lambda item: item.sample_id, *(lambda item, by=by: item.groups[by] for by in made.config.cv.by)):
        assert not {side(item) for item in made.train.samples} & {side(item) for item in made.test.samples}


def test_reading_twice_gives_the_same(made: Made):
    again = made.track.read(made.config, "train")
    assert [sample.sample_id for sample in again.samples] == [sample.sample_id for sample in made.train.samples]
    assert again.clips == made.train.clips and again.notes == made.train.notes


@pytest.mark.parametrize("split", ["train", "test"])
def test_samples_have_every_group_that_splits_and_reports_go_by(made: Made, split: str):
    needed = {made.track.reports_by, *made.config.cv.by}
    needed |= {group for item in made.track.evaluations(made.config) for group in item.split_by}
    for sample in getattr(made, split).samples:
        assert needed <= sample.groups.keys() and all(sample.groups[group] for group in needed)


@pytest.mark.parametrize("split", ["train", "test"])
def test_clips_hold_only_streams_that_the_track_declares(made: Made, split: str):
    streams = {stream for clip in getattr(made, split).clips for stream in clip.media}
    assert [name for name in streams if not any(fnmatch(name, known) for known in made.track.streams)] == []


def test_training_targets_are_finite_and_as_long_as_the_sample(made: Made):
    for sample in made.train.samples:
        assert sample.target
        for target in sample.target.values():
            assert target.dtype.kind == "U" or np.isfinite(target).all()
            if made.track.token_rate_hz is not None:
                assert sample.duration_s is not None and target.dtype == np.float32
                assert target.shape[0] == round(sample.duration_s * made.track.token_rate_hz)


# ---- learning


def same_values(some: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]) -> bool:
    return some.keys() == others.keys() and all(np.array_equal(some[key], others[key]) for key in some)


def test_fitted_state_is_arrays_and_json_and_restores_every_answer(made: Made, trained: dict):
    for name, (run, checkpoint) in trained.items():
        arrays, values = checkpoint.fitted.state()
        assert all(isinstance(array, np.ndarray) and array.dtype != object for array in arrays.values()), name
        restored = made.track.fitted(run.config)
        restored.load_state(arrays, json.loads(json.dumps(values)))
        for sample in run.rows(run.fold.held_out):
            raw = checkpoint.fitted.raw_output(sample, made.reader.get)
            before, after = (part.apply(sample, raw).values for part in (checkpoint.fitted, restored))
            assert same_values(before, after), name
        again, values_again = restored.state()
        assert same_values(arrays, again) and values == values_again, name


def test_checkpoint_answers_the_same_after_it_was_kept(made: Made, trained: dict):
    for name, (run, checkpoint) in trained.items():
        rows = run.rows(run.fold.held_out)
        kept = load_checkpoint(run.folder / BEST)
        assert kept.config == run.config and kept.fold == run.fold.index, name
        before, after = (answer_with(item, rows, made.reader) for item in (checkpoint, kept))
        assert [item.answer for item in before] == [item.answer for item in after], name


def test_systems_with_a_network_have_one(made: Made, trained: dict):
    for run, checkpoint in trained.values():
        assert (checkpoint.network is not None) == made.track.uses_network(run.config)


def test_answers_are_json_and_a_perfect_one_scores_best(made: Made, trained: dict):
    better = min if made.track.monitor_mode == "min" else max
    for name, (run, checkpoint) in trained.items():
        rows = run.rows(run.fold.held_out)
        answers = [item.answer for item in answer_with(checkpoint, rows, made.reader)]
        assert json.loads(json.dumps(answers)) == answers, name
        truth = [made.track.answer_of(sample) for sample in rows]
        perfect, found = (made.track.metrics(item, truth)[made.track.monitor] for item in (truth, answers))
        assert better(perfect, found) == perfect != found, name


def test_metrics_hold_every_name_that_tables_show(made: Made):
    truth = [made.track.answer_of(sample) for sample in made.train.samples]
    metrics = made.track.metrics(truth, truth)
    assert set(made.track.metric_names) <= metrics.keys()
    assert all(isinstance(value, float) for value in metrics.values())


# ---- submission


@pytest.fixture(scope="module")
def predictions(made: Made, trained: dict) -> list[Prediction]:
    """What the main system answers for the test split."""
    return answer_with(trained[made.track.evaluations(made.config)[0].name][1], made.test.samples, made.reader)


def test_submission_is_written_read_back_and_scored(made: Made, predictions: list[Prediction], tmp_path: Path):
    out = tmp_path / "answers.out"
    message = made.track.write_submission(predictions, out, "", made.track.traits(made.config))
    assert str(out) in message and "\n" not in message
    table = made.track.read_table(out)
    assert table
    score = made.track.score(table, table, ScoreRequest())
    assert set(made.track.metric_names) <= score.keys()
    lacking = dict(list(table.items())[1:])
    with pytest.raises(SubmissionError, match=re.escape(next(iter(table)))):
        made.track.score(lacking, table, ScoreRequest())


@pytest.mark.parametrize("fault", ["nothing", "doubled", "kind"])
def test_submission_that_is_none_is_refused_and_leaves_nothing(
    made: Made, predictions: list[Prediction], tmp_path: Path, fault: str
):
    rows = {"nothing": [], "doubled": [*predictions, predictions[0]]}.get(fault, predictions)
    with pytest.raises((SubmissionError, ConfigError)):
        made.track.write_submission(rows, tmp_path / "out", "no such kind" if fault == "kind" else "", {})
    assert list(tmp_path.iterdir()) == []


def test_table_that_is_not_there_is_refused(made: Made, tmp_path: Path):
    with pytest.raises(SubmissionError, match="no such file"):
        made.track.read_table(tmp_path / "absent.csv")


def test_unknown_score_option_is_refused(made: Made, predictions: list[Prediction], tmp_path: Path):
    out = tmp_path / "answers.out"
    made.track.write_submission(predictions, out, "", {})
    table = made.track.read_table(out)
    with pytest.raises(ConfigError, match="no_such_option"):
        made.track.score(table, table, ScoreRequest(options={"no_such_option": "1"}))


def test_report_draws_what_it_is_given(made: Made, trained: dict):
    rows = {
        name: answer_with(checkpoint, run.rows(run.fold.held_out), made.reader)
        for name, (run, checkpoint) in trained.items()
    }
    sections = made.track.report_sections(rows, ())
    assert all(section.title and section.panels for section in sections)
    with pytest.raises(DataError, match="no such sample"):
        made.track.report_sections(rows, ("no such sample",))


def test_track_without_a_list_of_rows_says_so():
    with pytest.raises(ConfigError, match=r"ids: track ps has no list of rows; leave out ids=rows\.csv"):
        Track.read_row_ids(registry.load("ps"), Path("rows.csv"))
