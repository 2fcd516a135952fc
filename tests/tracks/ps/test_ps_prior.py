from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from ps_samples import TARGET, random_samples, sample_of

from mersuite.clip import Sample
from tracks.ps.prior import STATISTICS, StimulusPrior, moving_average, stimulus_of

LENGTHS = {0: 20, 1: 17, 2: 20, 3: 23, 4: 9}


def brute_force(train: list[Sample], sample: Sample, num_seconds: int, *, leave_out_own: bool, smoothing_s: int):
    """The prior by its definition, a second and a dimension at a time, in plain Python."""
    clip, subject = sample.groups["clip"], sample.groups["subject"]
    others = [
        item.target[TARGET]
        for item in train
        if item.groups["clip"] == clip and not (leave_out_own and item.groups["subject"] == subject)
    ]
    if not others:
        labels = np.concatenate([item.target[TARGET] for item in train])
        return np.array([[np.median(labels[:, 0]), np.median(labels[:, 1])]] * num_seconds)
    longest = max(map(len, others))
    curve = [[float(np.median([row[t, d] for row in others if len(row) > t])) for d in (0, 1)] for t in range(longest)]
    half = min(smoothing_s // 2, longest - 1)
    smooth = [np.mean(curve[max(0, t - half) : t + half + 1], axis=0) for t in range(longest)]
    return np.array([smooth[min(t, longest - 1)] for t in range(num_seconds)])


# ---- smoothing


@pytest.mark.parametrize("width", [1, 3, 5, 7, 21])
@pytest.mark.parametrize("num_rows", [1, 2, 6, 21, 50])
def test_moving_average_is_a_convolution_over_what_is_there(rng: np.random.Generator, width: int, num_rows: int):
    values = rng.normal(128, 40, size=(num_rows, 2))
    half = min(width // 2, num_rows - 1)
    kernel = np.ones(2 * half + 1)
    counts = np.convolve(np.ones(num_rows), kernel, mode="full")[half : half + num_rows]
    wanted = np.stack(
        [np.convolve(column, kernel, mode="full")[half : half + num_rows] / counts for column in values.T]
    )
    np.testing.assert_allclose(moving_average(values, width), wanted.T, rtol=1e-12)


def test_moving_average_keeps_constants_type_and_emptiness():
    constant = np.full((9, 2), 37.3, dtype=np.float32)
    found = moving_average(constant, 5)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, constant)
    assert moving_average(np.zeros((0, 2), dtype=np.float32), 5).shape == (0, 2)


# ---- curves


@pytest.mark.parametrize("leave_out_own", [False, True])
@pytest.mark.parametrize("smoothing_s", [1, 5])
def test_prior_is_the_median_of_the_others_at_the_same_second(
    rng: np.random.Generator, leave_out_own: bool, smoothing_s: int
):
    train = random_samples(rng, range(5), LENGTHS)
    prior = StimulusPrior()
    prior.fit(train)
    for sample in train:
        for num_seconds in (5, len(sample.target[TARGET]), 30):
            found = prior.curve(sample, num_seconds, leave_out_own=leave_out_own, smoothing_s=smoothing_s)
            wanted = brute_force(train, sample, num_seconds, leave_out_own=leave_out_own, smoothing_s=smoothing_s)
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_prior_without_the_longest_trial_goes_on_with_the_last_value_known():
    short, long = np.full((4, 2), 10.0), np.full((7, 2), 200.0)
    prior = StimulusPrior()
    prior.fit([sample_of(1, 1, short), sample_of(2, 1, long)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = prior.curve(sample_of(2, 1, long), 7, leave_out_own=True, smoothing_s=3)
    np.testing.assert_array_equal(found, np.full((7, 2), 10.0, dtype=np.float32))


def test_own_labels_do_not_enter_the_prior_that_leaves_them_out(rng: np.random.Generator):
    train = random_samples(rng, range(4))
    changed = [sample_of(0, 0, 256 - train[0].target[TARGET]), *train[1:]]
    curves = []
    for samples in (train, changed):
        prior = StimulusPrior()
        prior.fit(samples)
        curves.append(prior.curve(samples[0], 20, leave_out_own=True, smoothing_s=1))
    np.testing.assert_array_equal(*curves)


def test_two_trials_of_one_subject_and_clip_are_both_left_out():
    first, second = np.full((3, 2), 10.0), np.full((3, 2), 90.0)
    again = Sample(
        sample_id="again", clip_id="again", groups={"subject": "test_1", "clip": "video_1"}, target={TARGET: second}
    )
    prior = StimulusPrior()
    prior.fit([sample_of(1, 1, first), again, sample_of(2, 1, np.full((3, 2), 50.0))])
    found = prior.curve(again, 3, leave_out_own=True, smoothing_s=1)
    np.testing.assert_array_equal(found, np.full((3, 2), 50.0))


def test_what_signals_explain_is_taken_off_trial_by_trial():
    first, second = (sample_of(1, 1, np.full((3, 2), value)) for value in (10.0, 90.0))
    second = Sample(sample_id="again", clip_id="again", groups=second.groups, target=second.target)
    prior = StimulusPrior()
    prior.fit([first, second, sample_of(2, 1, np.full((3, 2), 50.0))])
    prior.explain([(first, np.full((3, 2), -30.0)), (second, np.full((3, 2), 45.0))])
    found = prior.curve(sample_of(3, 1, np.zeros((3, 2))), 3, leave_out_own=False, smoothing_s=1)
    np.testing.assert_array_equal(found, np.full((3, 2), np.median([10 + 30, 90 - 45, 50])))


@pytest.mark.parametrize("num_subjects", [1, 2, 3, 4, 5, 8, 9])
def test_midmean_is_the_mean_of_the_middle_half(rng: np.random.Generator, num_subjects: int):
    table = rng.normal(size=(num_subjects, 6, 2)).astype(np.float32)
    table[1:, 4:] = np.nan
    found = STATISTICS["midmean"](table)
    assert found.dtype == np.float32
    for second in range(6):
        for dimension in range(2):
            column = np.sort(table[:, second, dimension])[: num_subjects if second < 4 else 1]
            cut = len(column) // 4
            assert found[second, dimension] == pytest.approx(column[cut : len(column) - cut].mean(), abs=1e-6)


def test_unseen_clip_gets_the_training_median(rng: np.random.Generator):
    train = random_samples(rng, range(3), num_clips=2)
    prior = StimulusPrior()
    prior.fit(train)
    unseen = sample_of(0, 9, np.zeros((4, 2)))
    wanted = np.median(np.concatenate([item.target[TARGET] for item in train]), axis=0)
    assert prior.knows(train[0]) and not prior.knows(unseen)
    np.testing.assert_array_equal(prior.curve(unseen, 4, leave_out_own=False, smoothing_s=5), np.tile(wanted, (4, 1)))


def test_clip_seen_by_nobody_else_gets_the_training_median(rng: np.random.Generator):
    train = random_samples(rng, range(1), num_clips=3)
    prior = StimulusPrior()
    prior.fit(train)
    found = prior.curve(train[0], 20, leave_out_own=True, smoothing_s=1)
    np.testing.assert_array_equal(found, np.tile(prior.median, (20, 1)))


def test_fitting_again_forgets_what_was_there(rng: np.random.Generator):
    prior = StimulusPrior()
    prior.fit([sample_of(1, 1, np.full((3, 2), 10.0))])
    prior.fit([sample_of(1, 2, np.full((3, 2), 90.0))])
    assert list(prior.curves) == ["video_2"] and prior.median.tolist() == [90.0, 90.0]


def test_sample_without_groups_is_its_own_stimulus():
    sample = Sample(sample_id="x", clip_id="y", groups={}, target={TARGET: np.full((2, 2), 7.0, dtype=np.float32)})
    prior = StimulusPrior()
    prior.fit([sample])
    assert stimulus_of(sample) == "x"
    assert prior.curve(sample, 2, leave_out_own=False, smoothing_s=1).tolist() == [[7.0, 7.0]] * 2
