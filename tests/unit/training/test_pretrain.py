"""Pretraining as a run: what it learns, resumes, says of itself, and hands on."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from ps_setup import MadeFeatures, make_config, make_run, make_samples
from safetensors.torch import load_file, save_file

from mersuite import registry
from mersuite.clip import Sample, Signal
from mersuite.config import RunConfig
from mersuite.errors import ConfigError, DataError
from mersuite.inference import find_checkpoints, load_checkpoint
from mersuite.models.base import StreamInfo
from mersuite.models.pretrain import _check_same_channels, seen_recordings
from mersuite.run_folder import open_run, read_curve, read_run_json
from mersuite.track import TrackData
from mersuite.training import pretrain
from mersuite.training.folds import BEST, train_fold
from mersuite.training.pretrain import WEIGHTS, choose_recordings, pretrained_on, run_pretraining
from mersuite.training.run import run_evaluations


class Stop(Exception):
    """Stands for a kill."""


def _recordings() -> tuple[list[Sample], MadeFeatures]:
    """Samples without targets whose channels are mixtures of one slow wave, so that what is hidden can be told."""
    samples, _ = make_samples(np.random.default_rng(0))
    signals = {}
    for number, sample in enumerate(samples):
        wave = np.sin(np.arange(int(sample.duration_s or 0)) / 2 + number)[:, None]
        for stream, width in (("eeg_bands", 5), ("fnirs_stats", 3)):
            data = (wave * np.linspace(1, 2, width)).astype(np.float32)
            names = tuple(f"C{i}" for i in range(width))
            signals[sample.clip_id, stream] = Signal(data=data, rate_hz=1.0, ch_names=names)
    return [replace(sample, target={}) for sample in samples], MadeFeatures(signals)


def _config(folder: Path, *words: str) -> RunConfig:
    return make_config(f"run.dir={folder}", "trainer.batch_size=8", *words)


def _pretrain(config: RunConfig, recordings: tuple[Sequence[Sample], MadeFeatures] | None = None) -> dict:
    samples, reader = recordings or _recordings()
    data = TrackData(clips=(), samples=tuple(samples), notes=("a note of the reader",))
    return run_pretraining(registry.load("ps"), config, data, reader, open_run(config, pretraining=True))


def _losses(folder: Path, metric: str) -> list[float]:
    return [float(row["value"]) for row in read_curve(folder / "curve.csv") if row["metric"] == metric]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encoders pretrained on the six people of ps_setup, with signals as ps_setup makes them."""
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    _pretrain(_config(folder, "trainer.max_epochs=2"), make_samples(np.random.default_rng(0)))
    return folder / WEIGHTS


def test_loss_on_other_people_falls_and_the_best_epoch_is_kept(tmp_path: Path) -> None:
    result = _pretrain(_config(tmp_path / "run", "trainer.max_epochs=15", "optim.lr=0.01"))
    losses = _losses(tmp_path / "run", "val/loss")
    assert losses[0] > 0.9  # 1 is what knowing nothing gives
    assert losses[-1] < 0.65
    assert result["val_loss"] == min(losses)
    assert result["epochs"] == len(losses) == 15
    assert result["notes"] == ["a note of the reader"]
    assert Path(result["weights"]).is_file()


def test_run_folder_and_weights_say_whose_recordings_were_used(tmp_path: Path) -> None:
    result = _pretrain(_config(tmp_path / "run", "trainer.max_epochs=1", "cv.held_out=[test_5]"))
    kept = read_run_json(tmp_path / "run")["pretraining"]
    seen = seen_recordings(tmp_path / "run" / WEIGHTS)
    assert seen is not None
    people = ["test_1", "test_2", "test_3", "test_4", "test_6"]
    assert sorted(kept["train"] + kept["val"]) == people == list(seen.members)
    assert kept["left_out"] == result["left_out"] == ["test_5"]
    assert seen.streams["eeg_bands"].num_channels == 5
    assert kept["num_recordings"] == 20


def test_people_are_split_never_windows_and_targets_are_dropped() -> None:
    samples, reader = make_samples(np.random.default_rng(0))
    found = choose_recordings(registry.load("ps"), make_config("cv.val_fraction=0.4"), samples, reader)
    train, val = found.members(found.train), found.members(found.val)
    assert len(val) == 2
    assert not set(train) & set(val)
    assert len(found.train) + len(found.val) == len(samples)
    assert not any(sample.target for sample in (*found.train, *found.val))


def test_clips_without_any_stream_are_left_out_and_counted(tmp_path: Path) -> None:
    samples, reader = _recordings()
    other = replace(samples[0], sample_id="x", clip_id="x")
    result = _pretrain(_config(tmp_path / "run", "trainer.max_epochs=1"), ([*samples, other], reader))
    assert result["num_recordings"] == len(samples)
    assert result["notes"][-1] == "1 clips have none of the model's streams and were left out"


def test_killed_run_goes_on_with_exactly_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _pretrain(_config(tmp_path / "whole"))
    with monkeypatch.context() as patch:

        def stop_in_third_epoch(self: pretrain.PretrainingModule) -> None:
            if self.current_epoch == 2:
                raise Stop

        patch.setattr(pretrain.PretrainingModule, "on_validation_end", stop_in_third_epoch)
        with pytest.raises(Stop):
            _pretrain(_config(tmp_path / "killed"))
    assert not (tmp_path / "killed" / WEIGHTS).exists()
    torch.manual_seed(12345)  # what ran before must not matter
    resumed = _pretrain(_config(tmp_path / "killed", "run.resume=true"))
    first, second = load_file(whole["weights"]), load_file(resumed["weights"])
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert read_curve(tmp_path / "whole" / "curve.csv") == read_curve(tmp_path / "killed" / "curve.csv")


def test_two_runs_of_one_config_agree_to_the_last_bit(tmp_path: Path) -> None:
    first, second = (load_file(_pretrain(_config(tmp_path / name))["weights"]) for name in ("a", "b"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_finished_run_is_not_done_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _pretrain(_config(tmp_path / "run", "trainer.max_epochs=1"))
    monkeypatch.setattr(pretrain, "_train", None)  # calling it would fail
    again = _pretrain(_config(tmp_path / "run", "trainer.max_epochs=1", "run.resume=true"))
    assert again == first


def test_resuming_with_other_recordings_is_refused(tmp_path: Path) -> None:
    config = _config(tmp_path / "run", "trainer.max_epochs=1")
    samples, reader = _recordings()
    _pretrain(config, (samples, reader))
    before = (tmp_path / "run" / "run.json").read_bytes()
    resumed = _config(tmp_path / "run", "trainer.max_epochs=1", "run.resume=true")
    with pytest.raises(ConfigError, match=r"made with other (train|val) rows and signals than the data have now"):
        _pretrain(resumed, (samples[1:], reader))
    louder = {key: replace(signal, data=2 * signal.data) for key, signal in reader._signals.items()}
    with pytest.raises(ConfigError, match=r"made with other signals than the data have now; give data\.root"):
        _pretrain(resumed, (samples, MadeFeatures(louder)))
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_run_killed_before_its_first_epoch_stays_one_of_pretraining(tmp_path: Path) -> None:
    config = _config(tmp_path / "run", "trainer.max_epochs=1")
    _pretrain(config)
    (tmp_path / "run" / "run.json").unlink()
    resumed = _config(tmp_path / "run", "trainer.max_epochs=1", "run.resume=true")
    open_run(resumed, pretraining=True)
    with pytest.raises(ConfigError, match="holds a run of pretraining, and this would be a run that evaluates"):
        open_run(resumed)


# ---- transfer


def _network_state(folder: Path) -> dict[str, torch.Tensor]:
    network = load_checkpoint(folder / BEST).network
    assert network is not None
    return network.backbone.encoders.state_dict()


def test_frozen_encoders_are_exactly_the_pretrained_ones_after_training(tmp_path: Path, weights: Path) -> None:
    words = ("ps.system=signal", f"model.pretrained={weights}", "model.freeze_encoders=true")
    train_fold(make_run(tmp_path, make_config(*words)))
    held = {name.removeprefix("encoders."): value for name, value in load_file(weights).items()}
    found = _network_state(tmp_path)
    assert found.keys() == held.keys()
    assert all(torch.equal(found[name], held[name]) for name in held)


def test_encoders_that_are_not_frozen_start_there_and_move_on(tmp_path: Path, weights: Path) -> None:
    config = make_config("ps.system=signal", f"model.pretrained={weights}", "optim.lr=1e-12", "trainer.max_epochs=1")
    train_fold(make_run(tmp_path / "still", config))
    begin = _network_state(tmp_path / "still")
    held = {name.removeprefix("encoders."): value for name, value in load_file(weights).items()}
    trained = [name for name in held if name.endswith(("weight", "bias"))]
    assert trained
    assert all(torch.allclose(begin[name], held[name], atol=1e-6) for name in trained)
    train_fold(make_run(tmp_path / "moved", make_config("ps.system=signal", f"model.pretrained={weights}")))
    moved = _network_state(tmp_path / "moved")
    assert any(not torch.allclose(moved[name], held[name], atol=1e-6) for name in trained)


def test_weights_of_another_shape_are_refused_with_the_names(tmp_path: Path, weights: Path) -> None:
    words = ("ps.system=signal", f"model.pretrained={weights}", "model.encoders.eeg_bands={name: mlp, hidden: 9}")
    with pytest.raises(ConfigError, match=r"weights of stream 'eeg_bands' in .* do not fit this model: .* is \("):
        train_fold(make_run(tmp_path, make_config(*words)))


def _run_on(folder: Path, config: RunConfig, change: dict[str, object]) -> None:
    run = make_run(folder, config)
    signals = {}
    for sample in run.samples.values():
        for stream in ("eeg_bands", "fnirs_stats"):
            signal = run.reader.get(sample.clip_id, stream)
            assert signal is not None
            signals[sample.clip_id, stream] = replace(signal, **change) if stream == "eeg_bands" else signal
    train_fold(replace(run, reader=MadeFeatures(signals)))


def test_weights_for_channels_in_another_order_are_refused(tmp_path: Path, weights: Path) -> None:
    config = make_config("ps.system=signal", f"model.pretrained={weights}", "ps.prior_smoothing_s=1")
    names = tuple(f"C{i} alpha" for i in (1, 0, 2, 3, 4))
    with pytest.raises(ConfigError, match=r"pretrained with channel 'C0 alpha' where the data have\s+'C1 alpha'"):
        _run_on(tmp_path, config, {"ch_names": names})


def test_weights_for_another_rate_are_refused(tmp_path: Path, weights: Path) -> None:
    with pytest.raises(ConfigError, match="was pretrained at 200 Hz, the data have 128 Hz; bring both to one rate"):
        _check_same_channels(
            weights, "eeg", StreamInfo(num_channels=1, rate_hz=200.0), StreamInfo(num_channels=1, rate_hz=128.0)
        )


# ---- honesty


def test_fit_says_how_many_held_out_people_pretraining_has_seen(tmp_path: Path, weights: Path) -> None:
    samples, reader = make_samples(np.random.default_rng(0))
    words = (f"model.pretrained={weights}", "trainer.max_epochs=1", "cv.folds=3", "evaluate=[signal,median]")
    config = _config(tmp_path / "run", "ps.system=signal", *words)
    data = TrackData(clips=(), samples=tuple(samples))
    result = run_evaluations(registry.load("ps"), config, data, reader, open_run(config))
    said = "encoders pretrained, without labels, also on recordings of 6 of 6 held-out subjects: transductive"
    assert result.metrics["signal"]["protocol"].endswith(said)
    assert "pretrained" not in result.metrics["median"]["protocol"]
    assert any(said in line for line in result.lines())
    kept = json.loads((tmp_path / "run" / "run.json").read_text())["evaluations"]
    assert kept["signal"]["pretrained"]["held_out_seen"] == [f"test_{i}" for i in range(1, 7)]
    assert "pretrained" not in kept["median"]


def test_people_kept_away_by_held_out_are_not_called_seen(tmp_path: Path) -> None:
    samples, _ = _recordings()
    _pretrain(_config(tmp_path / "run", "trainer.max_epochs=1", "cv.held_out=[test_5]"))
    config = make_config(f"model.pretrained={tmp_path / 'run' / WEIGHTS}")
    held_out = [sample for sample in samples if sample.groups["subject"] == "test_5"]
    found = pretrained_on(config, held_out)
    assert found is not None
    assert found.sentence() == "encoders pretrained on recordings of no held-out subject"


def test_weights_of_unknown_making_are_said_to_be_unknown(tmp_path: Path, weights: Path) -> None:
    save_file(load_file(weights), tmp_path / "bare.safetensors")
    found = pretrained_on(make_config(f"model.pretrained={tmp_path / 'bare.safetensors'}"), _recordings()[0])
    assert found is not None
    assert "recordings that their file does not name" in found.sentence()
    gone = pretrained_on(make_config(f"model.pretrained={tmp_path / 'gone.safetensors'}"), _recordings()[0])
    assert gone is not None
    assert gone.sentence("predicted").endswith("their file does not name, perhaps predicted ones")
    assert pretrained_on(make_config(), _recordings()[0]) is None


# ---- refusals


def test_one_person_alone_is_refused(tmp_path: Path) -> None:
    samples, reader = _recordings()
    alone = [sample for sample in samples if sample.groups["subject"] == "test_1"]
    with pytest.raises(DataError, match="pretraining: 1 subject with recordings of eeg_bands, fnirs_stats, need 2"):
        _pretrain(_config(tmp_path / "run"), (alone, reader))


def test_unknown_name_in_held_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cv\.held_out: nobody is called 'test_9'"):
        _pretrain(_config(tmp_path / "run", "cv.held_out=[test_9]"))


def test_frozen_encoders_cannot_be_pretrained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.freeze_encoders: pretraining trains the encoders"):
        _pretrain(_config(tmp_path / "run", "model.freeze_encoders=true"))


def test_freezing_untrained_encoders_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.freeze_encoders: needs model\.pretrained=FILE"):
        train_fold(make_run(tmp_path, make_config("ps.system=signal", "model.freeze_encoders=true")))


def test_folder_of_one_kind_is_not_continued_as_the_other(weights: Path, tmp_path: Path) -> None:
    config = _config(weights.parent, "trainer.max_epochs=2", "run.resume=true")
    with pytest.raises(ConfigError, match="holds a run of pretraining, and this would be a run that evaluates"):
        open_run(config)
    open_run(_config(tmp_path / "run"))
    (tmp_path / "run" / "fold_0").mkdir()
    with pytest.raises(ConfigError, match="holds a run that evaluates systems, and this would be a run of pretraining"):
        open_run(_config(tmp_path / "run", "run.resume=true"), pretraining=True)


def test_pretrained_encoders_alone_cannot_predict(weights: Path) -> None:
    with pytest.raises(ConfigError, match="holds pretrained encoders, which answer nothing"):
        find_checkpoints(weights.parent, None)
