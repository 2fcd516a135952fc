"""What is learned by counting, and what is hidden from whom."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from cross_files import config_of

from mersuite.clip import Batch, Output, Sample, WindowKey
from mersuite.errors import ConfigError, DataError
from mersuite.schema import build
from tracks.cross.fitted import CrossFitted
from tracks.cross.options import LABELS, CrossConfig
from tracks.cross.prior import estimate_shares, shifted
from tracks.cross.roles import as_listener
from tracks.cross.track import CrossTrack


def sample_of(name: str, label: str | None = None, **streams: str | None) -> Sample:
    target = {} if label is None else {"emotion": np.asarray(label)}
    return Sample(sample_id=name, clip_id=name, groups={"clip": name}, streams=streams, target=target)


def fitted_of(found: list[str], **options: object) -> CrossFitted:
    fitted = CrossFitted(build(CrossConfig, options))
    fitted.fit([sample_of(str(i), label) for i, label in enumerate(found)], [], lambda clip, stream: None)
    return fitted


def logits_of(name: str, values: list[float]) -> Output:
    return Output(key=WindowKey(name, 0.0, 0.0), values={"logits": np.array(values, np.float32)})


def test_targets_are_indices_in_the_organisers_order() -> None:
    fitted = fitted_of(["sad", "happy"])
    assert fitted.classes == LABELS == ("neutral", "angry", "happy", "sad", "worried", "surprise")
    target = fitted.target(sample_of("x", "sad"))["emotion"]
    assert target == 3 and target.dtype == np.int64 and target.ndim == 0


def test_labels_of_the_rows_are_taken_where_none_are_configured() -> None:
    assert fitted_of(["joy", "anger", "joy"], labels=[]).classes == ("anger", "joy")


def test_without_a_network_the_most_frequent_label_is_answered() -> None:
    fitted = fitted_of(["sad", "happy", "sad"])
    answer = CrossTrack().decode(config_of(None), sample_of("x"), fitted.apply(sample_of("x"), None))
    assert answer == "sad"


def test_scores_are_named_by_label() -> None:
    output = fitted_of(["sad"]).apply(sample_of("x"), logits_of("x", [0, 1, 2, 3, 4, 5]))
    assert {name: float(value) for name, value in output.values.items()} == dict(zip(LABELS, range(6), strict=True))
    assert all(value.shape == () for value in output.values.values())


def test_a_uniform_prior_takes_the_training_shares_off() -> None:
    labels = ["neutral"] * 6 + ["sad"] * 2
    plain, even = fitted_of(labels), fitted_of(labels, prior="uniform")
    rows = logits_of("x", [0.5, 0, 0, 0, 0, 0])
    gaps = [
        float(plain.apply(sample_of("x"), rows).values[name] - even.apply(sample_of("x"), rows).values[name])
        for name in ("neutral", "sad")
    ]
    assert gaps == pytest.approx([np.log(0.75), np.log(0.25)], abs=1e-6)


@pytest.mark.parametrize(("kind", "power"), [("balanced", 1.0), ("sqrt", 0.5)])
def test_weights_of_labels_go_with_their_inverse_share_and_average_to_one(kind: str, power: float) -> None:
    fitted = fitted_of(["sad"] * 3 + ["happy"], class_weights=kind)
    weights = fitted.loss_weights
    assert weights is not None
    happy, sad = weights[LABELS.index("happy")], weights[LABELS.index("sad")]
    assert happy / sad == pytest.approx(3**power, rel=1e-6)
    assert (weights * fitted.shares).sum() == pytest.approx(1.0, rel=1e-6)
    assert weights[LABELS.index("angry")] == 0.0
    assert fitted_of(["sad"]).loss_weights is None


def test_a_row_without_a_label_cannot_be_learned_from() -> None:
    with pytest.raises(DataError, match="sample 'x' has no label"):
        fitted_of(["sad"]).target(sample_of("x"))


def test_state_restores_labels_and_shares() -> None:
    fitted = fitted_of(["joy", "anger", "joy"], labels=[])
    restored = CrossFitted(build(CrossConfig, {"labels": []}))
    restored.load_state(*fitted.state())
    assert restored.classes == fitted.classes and np.array_equal(restored.shares, fitted.shares)


# ---- the frequency of labels among what is asked


def draws(shares: list[float], seed: int, num_rows: int = 4000) -> tuple[np.ndarray, dict[str, Output]]:
    """Rows whose scores are exact log posteriors under uniform training shares, and their labels."""
    generator = np.random.default_rng(seed)
    truth = generator.choice(len(shares), num_rows, p=shares)
    seen = 1.5 * np.eye(len(shares))[truth] + generator.normal(size=(num_rows, len(shares)))
    scores = 1.5 * seen
    names = [f"l{i}" for i in range(len(shares))]
    outputs = {
        str(row): Output(
            key=WindowKey(str(row), 0.0, 0.0),
            values={name: np.float32(value) for name, value in zip(names, scores[row], strict=True)},
        )
        for row in range(num_rows)
    }
    return truth, outputs


def accuracy(truth: np.ndarray, outputs: dict[str, Output]) -> float:
    answers = [np.argmax([float(value) for value in item.values.values()]) for item in outputs.values()]
    return float((np.array(answers) == truth).mean())


@pytest.mark.parametrize("seed", range(3))
def test_estimated_shares_come_near_the_true_ones_and_help(seed: int) -> None:
    shares = [0.7, 0.2, 0.1]
    truth, outputs = draws(shares, seed)
    found = estimate_shares(outputs)
    assert np.abs(found.after - shares).max() < np.abs(found.before - shares).max()
    assert accuracy(truth, shifted(outputs, found)) > accuracy(truth, outputs) + 0.01


def test_shares_that_are_as_in_training_move_nothing_much() -> None:
    _, outputs = draws([1 / 3] * 3, 5)
    found = estimate_shares(outputs)
    assert np.abs(found.after - 1 / 3).max() < 0.04


# ---- who has a voice


ROWS = {"face": torch.ones(4, 1, 2), "voice": torch.ones(4, 1, 2)}


def batch_of(face_there: list[bool]) -> Batch:
    masks = {"face": torch.tensor(face_there).unsqueeze(1), "voice": torch.ones(4, 1, dtype=torch.bool)}
    return Batch(keys=[WindowKey(str(i), 0.0, 0.0) for i in range(4)], streams=dict(ROWS), masks=masks)


def test_a_listener_is_asked_without_voice(tmp_path: Path) -> None:
    config = config_of(None)
    asked = CrossTrack().as_asked(config, sample_of("x", face="face-UTT", voice="voice-UTT"))
    assert asked.streams == {"face": "face-UTT", "voice": None}
    assert as_listener(config, asked) == asked
    own = config_of(None, cross__system="own")
    assert CrossTrack().as_asked(own, sample_of("x", voice="voice-UTT")).streams == {"voice": "voice-UTT"}


def test_silence_hides_the_voice_of_about_as_many_rows_as_configured() -> None:
    track, config = CrossTrack(), config_of(None, cross__silence=0.3)
    torch.manual_seed(0)
    kept = torch.cat([track.augment(config, batch_of([True] * 4)).masks["voice"][:, 0] for _ in range(500)])
    assert abs(kept.float().mean() - 0.7) < 0.05
    silenced = track.augment(config_of(None, cross__silence=0.99), batch_of([True] * 4))
    assert (silenced.streams["voice"][~silenced.masks["voice"]] == 0).all()
    assert silenced.masks["face"].all()


def test_a_row_that_has_nothing_but_a_voice_keeps_it() -> None:
    batch = CrossTrack().augment(config_of(None, cross__silence=0.99), batch_of([False] * 4))
    assert batch.masks["voice"].all()


@pytest.mark.parametrize(
    "overrides", [{"cross__system": "own"}, {"cross__silence": 0.0}, {"cross__other": {"voice": ["voice-UTT"]}}]
)
def test_nothing_is_silenced_where_nobody_asks_for_it(overrides: dict) -> None:
    batch = batch_of([True] * 4)
    assert CrossTrack().augment(config_of(None, **overrides), batch) is batch


def test_the_listener_system_needs_streams_that_a_listener_has_none_of() -> None:
    rows = {
        item.name: item for item in CrossTrack().evaluations(config_of(None, cross__other={"voice": ["voice-UTT"]}))
    }
    assert rows["listener"].unfit == "cross.other hides no stream of the model"
    rows = {
        item.name: item for item in CrossTrack().evaluations(config_of(None, cross__other={"face": [], "voice": []}))
    }
    assert rows["listener"].unfit == "cross.other hides every stream of the model"


def test_each_stream_is_also_tried_alone() -> None:
    rows = {item.name: item.overrides for item in CrossTrack().evaluations(config_of(None))}
    assert rows["only_face"] == {"cross.system": "own", "model.encoders.voice": None}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ["a", "a"]}, "labels: need different names, got a, a"),
        ({"silence": 1.0}, "silence: need 0 <= chance < 1, got 1.0"),
        ({"label_smoothing": -0.1}, "label_smoothing: need 0 <= share < 1"),
        ({"head_dropout": 1.0}, "head_dropout: need 0 <= rate < 1"),
        ({"check_clips": -1}, "check_clips: need 0 or more"),
        (
            {"restandardise": True, "align": "coral"},
            "restandardise: .* than align=coral was trained with; use one of them",
        ),
    ],
)
def test_options_out_of_range_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(CrossConfig, options)
