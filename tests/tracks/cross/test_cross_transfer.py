"""Alignment of roles and guessed labels: the equations, the rule, and what switches them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent))

from cross_files import config_of

from mersuite.clip import Batch, Prediction, Sample, WindowKey
from mersuite.config import RunConfig, with_overrides
from mersuite.errors import ConfigError
from mersuite.models.base import Fused
from tracks.cross.fitted import CrossFitted
from tracks.cross.head import CrossHead
from tracks.cross.options import LABELS
from tracks.cross.pseudo_labels import PseudoLabelConfig, Taken, choose_threshold, confidences, take
from tracks.cross.track import CrossTrack
from tracks.cross.transfer import (
    RoleClassifier,
    adversary_strength,
    compared_rows,
    coral_loss,
    reverse_gradient,
    role_loss,
)

TRACK = CrossTrack()


def rows_of(num_own: int, num_other: int, width: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn((num_own + num_other, width), generator=generator, dtype=torch.float64)
    is_other = torch.arange(len(vectors)) >= num_own
    vectors[is_other] = 2 * vectors[is_other] + 1
    return vectors, is_other


# ---- CORAL


def test_coral_is_the_squared_distance_of_covariances_over_four_width_squared() -> None:
    vectors, is_other = rows_of(7, 12)
    own, other = vectors[~is_other].numpy(), vectors[is_other].numpy()
    expected = np.linalg.norm(np.cov(own.T) - np.cov(other.T), "fro") ** 2 / (4 * 5**2)
    assert float(coral_loss(vectors, ~is_other, is_other)) == pytest.approx(expected, rel=1e-12)


def test_coral_equals_the_papers_form_of_the_covariance() -> None:
    """C = (X^T X - (1^T X)^T (1^T X) / n) / (n - 1)."""
    vectors, is_other = rows_of(6, 9, seed=1)
    parts = []
    for rows in (vectors[~is_other], vectors[is_other]):
        ones = torch.ones((1, len(rows)), dtype=rows.dtype)
        total = ones @ rows
        parts.append((rows.T @ rows - total.T @ total / len(rows)) / (len(rows) - 1))
    expected = (parts[0] - parts[1]).square().sum() / (4 * vectors.shape[1] ** 2)
    assert float(coral_loss(vectors, ~is_other, is_other)) == pytest.approx(float(expected), rel=1e-10)


def test_coral_sees_no_shift_and_no_row_of_neither_set() -> None:
    vectors, is_other = rows_of(6, 6)
    shifted = torch.where(is_other.unsqueeze(1), vectors + 100, vectors)
    before = float(coral_loss(vectors, ~is_other, is_other))
    assert float(coral_loss(shifted, ~is_other, is_other)) == pytest.approx(before, rel=1e-9)
    more = torch.cat([vectors, 1e6 * torch.ones((2, 5), dtype=vectors.dtype)])
    none = torch.zeros(2, dtype=torch.bool)
    assert float(coral_loss(more, torch.cat([~is_other, none]), torch.cat([is_other, none]))) == pytest.approx(before)


def test_coral_gradient_is_right_and_brings_covariances_together() -> None:
    vectors, is_other = rows_of(5, 6, width=3)
    vectors.requires_grad_()
    assert torch.autograd.gradcheck(lambda values: coral_loss(values, ~is_other, is_other), (vectors,))
    first = coral_loss(vectors, ~is_other, is_other)
    (gradient,) = torch.autograd.grad(first, vectors)
    assert float(coral_loss(vectors.detach() - 0.1 * gradient, ~is_other, is_other)) < float(first.detach())


@pytest.mark.parametrize("num_other", [0, 1])
def test_fewer_than_two_rows_have_no_covariance_and_no_loss(num_other: int) -> None:
    vectors, is_other = rows_of(4, num_other)
    vectors.requires_grad_()
    loss = coral_loss(vectors, ~is_other, is_other)
    loss.backward()
    assert float(loss.detach()) == 0 and vectors.grad is not None and not vectors.grad.any()


# ---- adversary


def test_a_reversed_gradient_is_the_gradient_times_minus_the_strength() -> None:
    values = torch.randn((4, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def gradient(strength: float | None) -> torch.Tensor:
        leaf = values.clone().requires_grad_()
        seen = leaf if strength is None else reverse_gradient(leaf, strength)
        assert torch.equal(seen, leaf)
        (seen.pow(3).sum() * 0.5).backward()
        assert leaf.grad is not None
        return leaf.grad

    plain = gradient(None)
    for strength in (0.0, 0.3, 1.0):
        assert torch.allclose(gradient(strength), -strength * plain, rtol=1e-12, atol=0)


def test_the_strength_follows_the_papers_schedule() -> None:
    places = np.linspace(0, 1, 11)
    expected = 2 / (1 + np.exp(-10 * places)) - 1
    assert [adversary_strength(place) for place in places] == pytest.approx(list(expected), abs=1e-12)
    assert adversary_strength(0.0) == 0.0


def test_the_classifier_learns_the_role_while_what_comes_before_unlearns_it() -> None:
    vectors, is_other = rows_of(8, 8)
    vectors = vectors.float().requires_grad_()
    torch.manual_seed(0)
    classifier = RoleClassifier(5)
    loss = role_loss(classifier(vectors, 1.0), ~is_other, is_other)
    loss.backward()
    assert vectors.grad is not None
    with torch.no_grad():
        worse = role_loss(classifier(vectors - 0.5 * vectors.grad, 1.0), ~is_other, is_other)
        for parameter in classifier.parameters():
            assert parameter.grad is not None
            parameter -= 0.1 * parameter.grad
        better = role_loss(classifier(vectors, 1.0), ~is_other, is_other)
    assert float(better) < float(loss.detach()) < float(worse)


def test_both_roles_weigh_alike_in_the_role_loss() -> None:
    logits = torch.tensor([0.3, -1.0, 2.0, 0.5, 0.1])
    is_other = torch.tensor([False, True, True, True, True])
    own = functional.binary_cross_entropy_with_logits(logits[:1], torch.zeros(1))
    other = functional.binary_cross_entropy_with_logits(logits[1:], torch.ones(4))
    assert float(role_loss(logits, ~is_other, is_other)) == pytest.approx(float(own + other) / 2, rel=1e-6)
    assert float(role_loss(logits, ~is_other, torch.zeros(5, dtype=torch.bool))) == 0.0


def test_the_head_tells_roles_in_training_alone() -> None:
    head = CrossHead(4, 6, dropout=0.0, tells_roles=True)
    fused = Fused(tokens=torch.ones((3, 1, 4)), mask=torch.ones((3, 1), dtype=torch.bool), pooled=torch.ones((3, 4)))
    batch = Batch(keys=[WindowKey(str(i), 0.0, 0.0) for i in range(3)], streams={}, masks={}, progress=0.5)
    assert set(head(fused, batch)) == {"logits", "role"} and head(fused, batch)["role"].shape == (3,)
    assert set(head.eval()(fused, batch)) == {"logits"}
    assert set(CrossHead(4, 6, dropout=0.0).state_dict()) == {"linear.weight", "linear.bias"}


# ---- the loss of a mixed batch


def batch_of(roles: Sequence[int], labels: Sequence[int], silenced: Sequence[bool]) -> Batch:
    num = len(roles)
    there = torch.ones((num, 1), dtype=torch.bool)
    return Batch(
        keys=[WindowKey(str(i), 0.0, 0.0) for i in range(num)],
        streams={"face": torch.ones((num, 1, 4)), "voice": torch.ones((num, 1, 5))},
        masks={"face": there, "voice": ~torch.tensor(silenced).unsqueeze(1)},
        target={"emotion": torch.tensor(labels), "role": torch.tensor(roles)},
    )


def gradients(config: RunConfig, batch: Batch, vectors: torch.Tensor, term: str) -> list[torch.Tensor]:
    """Of one loss term, by the head's weights and the fused vectors."""
    torch.manual_seed(0)
    fitted = CrossFitted(config.options)
    fitted.fit(
        [Sample(sample_id="a", clip_id="a", groups={}, target={"emotion": np.asarray("sad")})], [], lambda *_: None
    )
    head = CrossHead(vectors.shape[1], len(LABELS), dropout=0.0, tells_roles=config.options.align == "adversarial")
    leaf = vectors.clone().requires_grad_()
    fused = Fused(tokens=leaf.unsqueeze(1), mask=torch.ones((len(leaf), 1), dtype=torch.bool), pooled=leaf)
    losses = TRACK.loss(config, head(fused, batch), fused, batch, fitted)
    found = torch.autograd.grad(losses[term], [head.linear.weight, head.linear.bias, leaf])
    return list(found)


@pytest.mark.parametrize("align", ["coral", "adversarial"])
@pytest.mark.parametrize("class_weights", ["none", "sqrt"])
def test_unlabelled_rows_change_no_gradient_of_the_label_loss(align: str, class_weights: str) -> None:
    config = config_of(None, cross__align=align, cross__class_weights=class_weights, cross__label_smoothing=0.1)
    vectors = torch.randn((7, 4), generator=torch.Generator().manual_seed(1))
    labelled = batch_of([0] * 4, [3, 3, 3, 3], [True] * 4)
    mixed = batch_of([0] * 4 + [1] * 3, [3, 3, 3, 3, -100, -100, -100], [True] * 7)
    alone = gradients(config, labelled, vectors[:4], "cross_entropy")
    together = gradients(config, mixed, vectors, "cross_entropy")
    assert all(torch.allclose(one, two, rtol=1e-6, atol=0) for one, two in zip(alone[:2], together[:2], strict=True))
    assert torch.allclose(alone[2], together[2][:4], rtol=1e-6, atol=0)
    assert not together[2][4:].any()


@pytest.mark.parametrize("weight", [1.0, 2.5])
def test_the_alignment_has_its_weight_in_the_loss(weight: float) -> None:
    config = config_of(None, cross__align="coral", cross__align_weight=weight)
    vectors, is_other = rows_of(4, 3, width=4)
    batch = batch_of([0] * 4 + [1] * 3, [3] * 4 + [-100] * 3, [True] * 7)
    fused = Fused(tokens=vectors.unsqueeze(1), mask=torch.ones((7, 1), dtype=torch.bool), pooled=vectors)
    losses = TRACK.loss(config, {"logits": torch.zeros((7, 6))}, fused, batch, CrossFitted(config.options))
    assert float(losses["align"]) == pytest.approx(weight * float(coral_loss(vectors, ~is_other, is_other)))


@pytest.mark.parametrize(
    ("overrides", "own"),
    [
        ({}, [True, False, True, False]),  # silenced rows alone
        ({"cross__silence": 0.0}, [True, True, True, False]),
        ({"cross__system": "own"}, [True, True, True, False]),
    ],
)
def test_listeners_are_compared_with_rows_that_lack_what_they_lack(overrides: dict[str, Any], own: list[bool]) -> None:
    config = config_of(None, cross__align="coral", **overrides)
    batch = batch_of([0, 0, 0, 1], [1, 1, 1, -100], [True, False, True, True])
    is_own, is_other = compared_rows(config, batch)
    assert is_own.tolist() == own and is_other.tolist() == [False, False, False, True]


def test_a_candidate_has_a_negative_label_where_roles_are_aligned_alone() -> None:
    rows = {role: Sample(sample_id=role, clip_id=role, groups={"role": role}) for role in ("own", "other")}
    fitted = CrossFitted(config_of(None, cross__align="coral").options)
    found = {role: {name: int(value) for name, value in fitted.target(row).items()} for role, row in rows.items()}
    assert found == {"own": {"emotion": -100, "role": 0}, "other": {"emotion": -100, "role": 1}}


# ---- pseudo-labels


def predictions(scores: Sequence[Sequence[float]], truth: Sequence[str] = ()) -> list[Prediction]:
    """Rows with scores for neutral, angry and happy."""
    labels = LABELS[:3]
    return [
        Prediction(
            sample_id=f"c{index}",
            groups={},
            outputs={name: np.asarray(value, np.float32) for name, value in zip(labels, row, strict=True)},
            answer=labels[int(np.argmax(row))],
            target={"emotion": np.asarray(truth[index])} if truth else {},
        )
        for index, row in enumerate(scores)
    ]


def test_confidence_is_the_probability_of_the_answer() -> None:
    assert confidences(predictions([[0, np.log(2), 0], [1000, 0, 0]])) == pytest.approx([0.5, 1.0])
    assert confidences([]).shape == (0,)


@pytest.mark.parametrize(
    ("is_right", "min_accuracy", "min_share", "expected"),
    [
        ([1, 1, 1, 1, 1], 1.0, 0.1, 0.5),  # all are right: the smallest of all
        ([1, 1, 0, 1, 1], 0.8, 0.1, 0.5),  # 4 of 5
        ([1, 1, 0, 1, 0], 0.75, 0.1, 0.6),  # 3 of 4, though 2 of 3 before was too few
        ([1, 1, 0, 0, 0], 0.9, 0.1, 0.8),
        ([1, 1, 0, 0, 0], 0.9, 0.5, None),  # only two of five reach it
        ([0, 1, 0, 0, 0], 0.9, 0.1, None),  # the surest one is wrong
    ],
)
def test_the_smallest_confidence_with_the_accuracy_asked_for_is_chosen(
    is_right: list[int], min_accuracy: float, min_share: float, expected: float | None
) -> None:
    confidence = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    shuffle = np.array([3, 0, 4, 1, 2])
    found = choose_threshold(
        confidence[shuffle], np.array(is_right)[shuffle], min_accuracy=min_accuracy, min_share=min_share
    )
    assert found == expected


def test_rows_of_equal_confidence_stand_or_fall_together() -> None:
    confidence, is_right = np.array([0.9, 0.7, 0.7, 0.7]), np.array([1, 1, 0, 0])
    assert choose_threshold(confidence, is_right, min_accuracy=0.9, min_share=0.1) == 0.9
    assert choose_threshold(np.zeros(0), np.zeros(0), min_accuracy=0.9, min_share=0.1) is None


def test_candidates_that_reach_the_confidence_get_their_answer_as_label() -> None:
    val = predictions([[5, 0, 0], [0, 3, 0], [1, 0, 0], [0, 0, 1]], ["neutral", "angry", "happy", "happy"])
    asked = predictions([[4, 0, 0], [0, 0, 2], [0, 6, 0], [0.1, 0, 0]])
    options = PseudoLabelConfig(min_accuracy=1.0, min_share=0.5, weight=0.25)
    guesses, taken = take(options, val, asked, target="emotion", labels=LABELS)
    assert {name: (str(guess.target["emotion"]), guess.weight) for name, guess in guesses.items()} == {
        "c0": ("neutral", 0.25),
        "c2": ("angry", 0.25),
    }
    assert taken == Taken(
        threshold=float(confidences(val)[1]),
        val_accuracy=1.0,
        num_val=2,
        num_asked=4,
        labels={"neutral": 1, "angry": 1},
    )
    assert "2 of 4 candidates were given a guessed label (neutral 1, angry 1)" in taken.sentence()


def test_no_guess_is_believed_where_validation_rows_do_not_bear_it_out() -> None:
    val = predictions([[9, 0, 0], [0, 1, 0]], ["sad", "angry"])
    guesses, taken = take(PseudoLabelConfig(), val, predictions([[99, 0, 0]]), target="emotion", labels=LABELS)
    assert guesses == {} and taken.threshold is None and taken.val_accuracy == 0.5
    assert taken.sentence().startswith("no guess about 1 candidates was believed")


def test_what_was_taken_is_kept_with_the_fitted_parts() -> None:
    config = config_of(None, cross__pseudo_labels={})
    fitted, again = CrossFitted(config.options), CrossFitted(config.options)
    val = predictions([[5, 0, 0]] * 3, ["neutral"] * 3)
    assert set(fitted.teach(val, predictions([[6, 0, 0]]))) == {"c0"}
    again.load_state(*fitted.state())
    assert again.taken == fitted.taken and again.taught() == fitted.taught()
    assert again.taught()[0].startswith("pseudo-labels, round 1: 1 of 1 candidates")


# ---- options and evaluations


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"cross__align_weight": 0.0}, "align_weight: need a weight above 0, got 0"),
        ({"cross__align_share": 1.0}, "align_share: need 0 < share < 1, got 1"),
        ({"cross__align": "mmd"}, "cross.align"),
        ({"cross__pseudo_labels": {"min_accuracy": 1.5}}, "min_accuracy: need 0 < share <= 1, got 1.5"),
        ({"cross__pseudo_labels": {"min_share": 0}}, "min_share: need 0 < share <= 1, got 0"),
        ({"cross__pseudo_labels": {"weight": 0}}, "weight: need 0 < weight <= 1, got 0"),
        ({"cross__pseudo_labels": {"rounds": 0}}, "rounds: need 1 or more, got 0"),
        ({"cross__pseudo_labels": {}, "cross__system": "own"}, "pseudo_labels: need system=listener.*got system=own"),
        ({"cross__align": "coral", "cross__dialogue": {}, "cross__system": "dialogue"}, "dialogues have none"),
    ],
)
def test_options_that_do_not_fit_are_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of(None, **overrides)


def test_each_option_that_is_on_is_also_switched_off_on_the_same_rows() -> None:
    config = config_of(None, cross__align="coral", cross__pseudo_labels={}, cross__prior="uniform")
    found = {item.name: item for item in TRACK.evaluations(config)}
    assert list(found)[:5] == ["listener", "without_align", "without_pseudo_labels", "without_silence", "without_prior"]
    off = {name: with_overrides(config, item.overrides).options for name, item in found.items()}
    assert off["listener"] == config.options
    assert (off["without_align"].align, off["without_align"].pseudo_labels) == ("none", PseudoLabelConfig())
    assert (off["without_pseudo_labels"].align, off["without_pseudo_labels"].pseudo_labels) == ("coral", None)
    assert off["without_silence"].silence == 0 and off["without_prior"].prior == "train"
    assert all(not item.split_by for item in found.values())


def test_only_the_configured_system_and_its_ablations_see_candidates_and_they_say_so() -> None:
    config = config_of(None, cross__align="adversarial", cross__pseudo_labels={})
    seen = {}
    for item in TRACK.evaluations(config):
        its = with_overrides(config, item.overrides)
        sees = TRACK.unlabelled(its) is not None
        assert sees == ("transductive: candidates were seen in training" in item.protocol)
        assert TRACK.traits(its)["transductive"] == sees
        seen[item.name] = sees
    assert [name for name, sees in seen.items() if sees] == [
        "listener",
        "without_align",
        "without_pseudo_labels",
        "without_silence",
    ]


@pytest.mark.parametrize("overrides", [{}, {"cross__silence": 0.0}, {"cross__system": "own"}])
def test_nothing_is_seen_by_default(overrides: dict[str, Any]) -> None:
    config = config_of(None, **overrides)
    names = [item.name for item in TRACK.evaluations(config)]
    assert ("without_silence" in names) == (overrides == {})
    assert "without_align" not in names and "without_pseudo_labels" not in names
    assert TRACK.unlabelled(config) is None and TRACK.traits(config)["transductive"] is False


def test_pseudo_labels_alone_bring_no_candidate_into_a_batch() -> None:
    use = TRACK.unlabelled(config_of(None, cross__pseudo_labels={}))
    aligned = TRACK.unlabelled(config_of(None, cross__align="coral", cross__align_share=0.3))
    assert use is not None and (use.split, use.where, use.share) == ("test", {"role": "other"}, 0.0)
    assert aligned is not None and aligned.share == 0.3
    assert TRACK.unlabelled(config_of(None, cross__align="coral", cross__system="majority")) is None


def test_a_system_that_sees_candidates_is_no_plain_classifier() -> None:
    config = config_of(None, cross__system="own")
    fitted = CrossFitted(config.options)
    assert TRACK.class_loss(config, fitted) is not None
    assert TRACK.class_loss(with_overrides(config, {"cross.align": "coral"}), fitted) is None


def test_protocols_say_what_answers_take_from_all_rows_that_are_asked() -> None:
    config = config_of(None, cross__prior="estimate", cross__restandardise=True)
    told = "transductive: label shares are estimated and listeners' inputs are standardised from all rows asked"
    found = {item.name: item for item in TRACK.evaluations(config)}
    for name, item in found.items():
        its = with_overrides(config, item.overrides)
        assert (told in item.protocol) == (name not in ("majority", "without_prior"))
        assert TRACK.traits(its)["transductive"] == (name != "majority")
    assert "inputs are standardised from all rows" in found["without_prior"].protocol


def test_the_organisers_protocol_says_that_guessed_labels_are_chosen_by_its_rows_too() -> None:
    config = config_of(None, cross__protocol="official", cross__pseudo_labels={})
    first = TRACK.evaluations(config)[0]
    assert (
        first.selects_on_reported and "the confidence from which guessed labels are believed) chosen" in first.protocol
    )
