"""What answers for dialogues: baselines against counts by hand, the network against the known optimum."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from dialogue_files import config_of, dialogue_rows, write_csv, write_made_up, write_small

from mersuite import api, catalog, registry
from mersuite.clip import Batch, Output, Sample, WindowKey
from mersuite.config import RunConfig, with_overrides
from mersuite.data.collate import IGNORED_CLASS
from mersuite.data.fake_dialogue import Rule
from mersuite.errors import ConfigError, SubmissionError
from mersuite.inference import answer_with, find_checkpoints, load_checkpoint
from mersuite.models.base import Fused
from mersuite.prepare import FeatureReader
from mersuite.track import ScoreRequest
from tracks.cross.dialogue import LAST_OWN, LAST_PARTNER, read_dialogue_data, read_truths
from tracks.cross.dialogue_head import EARLIER, DialogueHead, earlier_losses
from tracks.cross.dialogue_systems import DialogueFitted, dialogue_evaluations
from tracks.cross.options import DIALOGUE_SYSTEMS, CrossConfig, DialogueConfig


def sample_of(name: str, speaker: str, emotion: str, own: str = "", partner: str = "", earlier: str = "[]") -> Sample:
    return Sample(
        sample_id=name,
        clip_id=name,
        groups={"clip": name, "dialogue": "d", "speaker": speaker},
        texts={LAST_OWN: own, LAST_PARTNER: partner, EARLIER: earlier},
        target={"emotion": np.asarray(emotion)},
    )


TRAIN = [
    *(sample_of(f"a{i}", "Ana", emotion) for i, emotion in enumerate(("joy", "joy", "anger"))),
    *(sample_of(f"b{i}", "Bo", "anger") for i in range(3)),
    sample_of("c0", "Cem", "joy"),
    sample_of("c1", "Cem", "anger"),
    sample_of("c2", "Cem", "fear"),
]
"""anger 5, joy 3, fear 1; Cem's three are equally frequent."""


def fitted_of(system: Any) -> DialogueFitted:
    fitted = DialogueFitted(CrossConfig(system=system, labels=(), dialogue=DialogueConfig()))
    fitted.fit(TRAIN, [], lambda clip_id, stream: None)
    return fitted


def answer(fitted: DialogueFitted, sample: Sample) -> str:
    values = fitted.apply(sample, None).values
    return max(values, key=lambda label: float(values[label]))


# ---- what uses no network


def test_copies_answer_what_was_felt_before_or_else_the_majority():
    both = sample_of("x", "Ana", "fear", own="fear", partner="joy")
    neither = sample_of("x", "Ana", "fear")
    assert answer(fitted_of("copy_own"), both) == "fear"
    assert answer(fitted_of("copy_partner"), both) == "joy"
    assert [answer(fitted_of(name), neither) for name in ("copy_own", "copy_partner", "majority")] == ["anger"] * 3


def test_a_copied_emotion_that_training_rows_do_not_have_falls_back_to_the_majority():
    assert answer(fitted_of("copy_own"), sample_of("x", "Ana", "joy", own="disgust")) == "anger"


@pytest.mark.parametrize(("speaker", "label"), [("Ana", "joy"), ("Bo", "anger"), ("Cem", "anger"), ("Dora", "anger")])
def test_speaker_answers_their_most_frequent_label_or_else_the_majority(speaker: str, label: str):
    assert answer(fitted_of("speaker"), sample_of("x", speaker, "fear", own="fear", partner="fear")) == label


def test_majority_looks_neither_at_speakers_nor_at_earlier_emotions():
    assert answer(fitted_of("majority"), sample_of("x", "Ana", "joy", own="fear", partner="fear")) == "anger"


@pytest.mark.parametrize("system", DIALOGUE_SYSTEMS[1:])
def test_state_restores_every_answer(system: str):
    fitted = fitted_of(system)
    arrays, values = fitted.state()
    again = DialogueFitted(fitted.options)
    again.load_state(arrays, json.loads(json.dumps(values)))
    for sample in (sample_of("x", "Ana", "joy", own="fear", partner="joy"), sample_of("y", "Dora", "joy")):
        assert fitted.apply(sample, None).values == again.apply(sample, None).values


def test_a_network_goes_before_what_is_counted():
    output = Output(key=WindowKey("x", 0.0, 0.0), values={"logits": np.array([0.0, 3.0, 1.0], dtype=np.float32)})
    found = fitted_of("dialogue").apply(sample_of("x", "Bo", "joy"), output)
    assert {label: float(value) for label, value in found.values.items()} == {"anger": 0.0, "fear": 3.0, "joy": 1.0}


def test_configured_system_comes_first_and_all_are_offered():
    for system in DIALOGUE_SYSTEMS:
        options = CrossConfig(system=system, dialogue=DialogueConfig())  # type: ignore[arg-type]
        names = [item.name for item in dialogue_evaluations(options)]
        assert names[0] == system and set(names) == set(DIALOGUE_SYSTEMS)


# ---- the network


def test_earlier_emotions_are_targets_of_their_rows_and_the_asked_one_is_not():
    target = fitted_of("dialogue").target(sample_of("x", "Ana", "fear", earlier='["joy", "", "disgust", "anger"]'))
    assert target["emotion"] == 1
    assert target[EARLIER].tolist() == [2, IGNORED_CLASS, IGNORED_CLASS, 0, IGNORED_CLASS]


def fused_of(num_rows: tuple[int, ...] = (3, 1)) -> Fused:
    mask = torch.arange(max(num_rows)) < torch.tensor(num_rows).unsqueeze(1)
    tokens = torch.randn(len(num_rows), max(num_rows), 4) * mask.unsqueeze(-1)
    return Fused(tokens=tokens, mask=mask, pooled=torch.zeros(len(num_rows), 4))


def batch_of(target: torch.Tensor | None = None) -> Batch:
    return Batch(keys=[], streams={}, masks={}, target={} if target is None else {EARLIER: target})


def test_head_answers_from_the_last_real_token():
    fused, head = fused_of(), DialogueHead(4, 3, dropout=0.5, teaches_earlier=True).eval()
    output = head(fused, batch_of())
    assert set(output) == {"logits"}
    torch.testing.assert_close(output["logits"], head.linear(torch.stack([fused.tokens[0, 2], fused.tokens[1, 0]])))


def test_earlier_turns_are_answered_in_training_alone_and_only_where_taught():
    for teaches in (True, False):
        head = DialogueHead(4, 3, dropout=0.0, teaches_earlier=teaches).train()
        assert (EARLIER in head(fused_of(), batch_of())) == teaches


def test_earlier_loss_is_the_weighted_mean_over_known_turns():
    logits = torch.randn(2, 3, 4)
    target = torch.tensor([[1, IGNORED_CLASS, IGNORED_CLASS], [0, 3, IGNORED_CLASS]])
    known = [logits[0, 0].log_softmax(0)[1], logits[1, 0].log_softmax(0)[0], logits[1, 1].log_softmax(0)[3]]
    found = earlier_losses(DialogueConfig(earlier_weight=0.5), {EARLIER: logits}, batch_of(target))
    torch.testing.assert_close(found[EARLIER], -0.5 * torch.stack(known).mean())


def test_earlier_loss_without_a_known_turn_is_zero_and_outside_training_absent():
    nothing = torch.full((1, 2), IGNORED_CLASS)
    assert earlier_losses(DialogueConfig(), {EARLIER: torch.randn(1, 2, 3)}, batch_of(nothing))[EARLIER] == 0
    assert earlier_losses(DialogueConfig(), {}, batch_of()) == {}


def test_a_fusion_that_keeps_no_token_a_turn_is_refused():
    with pytest.raises(ConfigError, match=r"earlier_weight: the fusion gives 1 tokens for 3 turns; use one encoder"):
        earlier_losses(
            DialogueConfig(), {EARLIER: torch.randn(2, 1, 3)}, batch_of(torch.zeros(2, 3, dtype=torch.int64))
        )


# ---- from a csv file to scores


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A finished run on 12 dialogues to train on and 2 to test, one epoch a fold."""
    folder = tmp_path_factory.mktemp("dialogue")
    splits = ["train"] * 10 + ["dev"] * 2 + ["test"] * 2
    path = write_csv(
        folder / "dialogue.csv", [row for i, split in enumerate(splits) for row in dialogue_rows(i, split)]
    )
    config = config_of(path, f"run.dir={folder / 'run'}", "trainer.max_epochs=1", "features.turns.num_features=16")
    api.fit(config)
    return config


def test_fit_scores_network_and_baselines_on_the_same_rows(run: RunConfig):
    metrics = json.loads((run.run.dir / "metrics.json").read_text())
    assert list(metrics) == list(DIALOGUE_SYSTEMS)
    assert {item["num_rows"] for item in metrics.values()} == {12 * 4}
    # Asked are Bo's anger, Ana's surprise, Cem's neutral and Ana's joy, equally often; anger comes first among equals.
    expected = {"copy_partner": 0, "copy_own": 1 / 4, "speaker": 3 / 4, "majority": 1 / 4}
    assert {name: metrics[name]["acc"] for name in expected} == pytest.approx(expected)


def test_predictions_of_the_test_file_are_scored_against_it(run: RunConfig, tmp_path: Path):
    place, out = run.data.place, tmp_path / "p.jsonl"
    made = api.predict(run.run.dir, out=out, evaluation="speaker")
    assert made["num_samples"] == 8 and made["traits"]["dialogue"]["ask"] == "next"
    assert api.score("cross", pred=out, target=place, options={})["num_rows"] == 8
    api.predict(run.run.dir, out=tmp_path / "n.jsonl")
    assert api.score("cross", pred=tmp_path / "n.jsonl", target=place, options={})["num_rows"] == 8


def test_predictions_that_lack_an_asked_turn_are_refused(run: RunConfig):
    track, truths = registry.load("cross"), read_truths(run.data.place)
    answers = {name: label for name, label in truths.items() if name.endswith(".current")}
    assert track.score(answers, truths, ScoreRequest())["num_rows"] == len(answers) == 12
    answers.pop("test_dia12_utt0.current")
    with pytest.raises(SubmissionError, match=r"1 of 12 names have no prediction: test_dia12_utt0\.current"):
        track.score(answers, truths, ScoreRequest())


def test_answers_do_not_depend_on_what_the_baselines_are_told(run: RunConfig):
    checkpoint = load_checkpoint(find_checkpoints(run.run.dir, None)[0])
    data = registry.load("cross").read(run, "test")
    extractors = {name: catalog.find("extractor", part.name)(part.config) for name, part in run.features.items()}
    api.prepare(run, split="test")
    reader = FeatureReader.open(run.store_path, data.clips, extractors)
    told = [
        replace(item, texts={**item.texts, LAST_OWN: "fear", LAST_PARTNER: "fear"}, target={}) for item in data.samples
    ]
    before, after = (answer_with(checkpoint, rows, reader) for rows in (data.samples, told))
    for some, others in zip(before, after, strict=True):
        assert {key: float(item) for key, item in some.outputs.items()} == {
            key: float(item) for key, item in others.outputs.items()
        }


@pytest.mark.parametrize("split", ["train", "test"])
def test_reading_twice_gives_the_same(tmp_path: Path, split: str):
    config = config_of(write_small(tmp_path / "d.csv"))
    assert read_dialogue_data(config, split) == read_dialogue_data(config, split)


# ---- against what is known of made-up dialogues

CLEAR = Rule(snr=4.0, contagion=0.5, inertia=0.4)
"""Words tell the emotion nearly always, emotions spread and last."""


def accuracies(
    folder: Path, rule: Rule, num_dialogues: int, *overrides: str
) -> tuple[dict[str, float], dict[str, float]]:
    """(optimal, reached) accuracy by system."""
    path = folder / "dialogue.csv"
    optimum = write_made_up(path, rule, num_dialogues, seed=1)
    metrics = api.fit(config_of(path, f"run.dir={folder / 'run'}", "trainer.max_epochs=8", *overrides)).metrics
    return optimum, {name: item["acc"] for name, item in metrics.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "optimum", "margin"),
    [
        (("cross.dialogue.emotions=true",), "next", 0.05),
        ((), "next", 0.15),  # the optimum is that of who is told all true emotions
        (("cross.dialogue.ask=current",), "current", 0.10),
    ],
    ids=["next, emotions given away", "next", "current"],
)
def test_network_comes_near_the_optimum_and_copies_reach_theirs(
    tmp_path: Path, overrides: tuple[str, ...], optimum: str, margin: float
):
    best, found = accuracies(tmp_path, CLEAR, 400, *overrides)
    assert found["dialogue"] > found["majority"] + 0.25 and found["dialogue"] > found["speaker"] + 0.25
    assert best[optimum] - margin < found["dialogue"] < best[optimum] + 0.03
    if optimum == "next":  # current asks first turns, too, which have nothing to copy
        for name in ("copy_partner", "copy_own"):
            assert found[name] == pytest.approx(best[name], abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("ask", ["next", "current"])
def test_where_nothing_tells_anything_nothing_beats_the_majority(tmp_path: Path, ask: str):
    """snr=0: emotions are independent of one another, of words and of speakers."""
    best, found = accuracies(tmp_path, Rule(snr=0.0, contagion=0.5, inertia=0.4), 200, f"cross.dialogue.ask={ask}")
    assert [best[name] for name in ("next", "current", "speaker")] == pytest.approx([best["majority"]] * 3)
    noise = 3 * (0.24 * 0.76 / 1300) ** 0.5
    assert max(found.values()) < best["majority"] + noise


def test_evaluations_of_the_configured_recipe_are_valid_systems(tmp_path: Path):
    config = config_of(write_small(tmp_path / "d.csv"))
    track = registry.load("cross")
    for item in track.evaluations(config):
        system = with_overrides(config, item.overrides)
        assert track.uses_network(system) == (item.name == "dialogue") and item.protocol
        assert json.loads(json.dumps(track.traits(system)))["dialogue"]["context"] == 5
