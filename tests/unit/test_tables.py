import numpy as np
import pytest

from mersuite.clip import Output, Sample, WindowKey
from mersuite.errors import DataError
from mersuite.tables import average_outputs, merge_windows


def _sample(sample_id="a/1", duration_s=10.0):
    return Sample(sample_id=sample_id, clip_id=sample_id, groups={"subject": "a"}, duration_s=duration_s)


def _window(start_s, values, duration_s=None, sample_id="a/1", name="level"):
    array = np.asarray(values, dtype=np.float32)
    return Output(key=WindowKey(sample_id, float(start_s), float(duration_s or len(array))), values={name: array})


def _truth(num_rows=10):
    return np.random.default_rng(0).normal(size=(num_rows, 2)).astype(np.float32)


def test_overlapping_windows_are_averaged_where_they_overlap():
    merged = merge_windows([_window(0, np.full((6, 2), 1.0)), _window(4, np.full((6, 2), 3.0))], [_sample()])
    np.testing.assert_array_equal(merged["a/1"].values["level"][:, 0], [1, 1, 1, 1, 2, 2, 3, 3, 3, 3])
    assert merged["a/1"].key == WindowKey("a/1", 0.0, 10.0)
    assert merged["a/1"].values["level"].dtype == np.float32


def test_windows_cut_from_a_truth_give_it_back_in_any_order():
    truth = _truth(97)
    windows = [_window(start, truth[start : start + 20]) for start in [*range(0, 77, 7), 77]]
    sample = _sample(duration_s=97.0)
    merged = merge_windows(windows, [sample])["a/1"].values["level"]
    np.testing.assert_allclose(merged, truth, atol=1e-6)
    shuffled = [windows[index] for index in np.random.default_rng(1).permutation(len(windows))]
    np.testing.assert_array_equal(merge_windows(shuffled, [sample])["a/1"].values["level"], merged)


def test_rows_per_second_follow_from_the_key():
    truth = _truth(40)
    windows = [_window(0, truth[:24], duration_s=6), _window(5.5, truth[22:], duration_s=4.5)]
    np.testing.assert_allclose(merge_windows(windows, [_sample()])["a/1"].values["level"], truth, atol=1e-6)


def test_whole_sample_key_needs_no_duration():
    truth = _truth()
    whole = Output(key=WindowKey("a/1", 0.0, 0.0), values={"level": truth})
    np.testing.assert_array_equal(merge_windows([whole], [_sample()])["a/1"].values["level"], truth)


def test_values_without_time_are_averaged_over_windows():
    sample = Sample(sample_id="c", clip_id="c", groups={})
    windows = [_window(0, [1.0, 2.0], sample_id="c"), _window(2, [3.0, 6.0], sample_id="c")]
    np.testing.assert_array_equal(merge_windows(windows, [sample])["c"].values["level"], [2.0, 4.0])


def test_order_is_that_of_the_samples():
    windows = [_window(0, _truth(), sample_id=name) for name in ("b", "a", "c")]
    assert list(merge_windows(windows, [_sample(name) for name in "cab"])) == ["c", "a", "b"]


def test_duplicates_of_distributed_runs_count_once():
    truth = _truth()
    windows = [_window(0, truth[:6]), _window(4, truth[4:] + 1), _window(4, truth[4:] + 1 + 1e-5)]
    once = merge_windows(windows[:2], [_sample()])["a/1"].values["level"]
    np.testing.assert_array_equal(merge_windows(windows, [_sample()])["a/1"].values["level"], once)


def test_two_answers_for_one_window_are_refused():
    with pytest.raises(DataError, match=r"'a/1': two different answers \(level\) for the window at 0 s"):
        merge_windows([_window(0, _truth()), _window(0, _truth() + 1)], [_sample()])


def test_gap_names_sample_and_seconds():
    with pytest.raises(DataError, match=r"'a/1': level: no window covers 3 to 5 s, 9 to 10 s"):
        merge_windows([_window(0, np.ones((3, 2))), _window(5, np.ones((4, 2)))], [_sample()])


def test_sample_without_output_is_named():
    with pytest.raises(DataError, match="1 of 2 samples have no output: b"):
        merge_windows([_window(0, _truth())], [_sample(), _sample("b")])


def test_output_of_a_stranger_is_refused():
    with pytest.raises(DataError, match="'x', which is none of the 1 samples"):
        merge_windows([_window(0, _truth(), sample_id="x")], [_sample()])


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        ([_window(5, np.ones((6, 2)))], "window 5 to 11 s lies outside the sample's 10 s"),
        ([_window(0.4, np.ones((9, 2)))], "starts at 0.4 s, between two rows"),
        ([_window(0, np.ones((5, 2))), _window(5, np.ones((10, 2)), duration_s=5)], "10 rows in 5 s"),
        ([_window(0, np.ones((5, 2))), _window(5, np.ones((5, 3)))], "shapes"),
        ([_window(0, np.ones((5, 2))), _window(5, np.ones((5, 2)), name="other")], "different values"),
    ],
)
def test_windows_that_do_not_fit_are_refused(windows, message):
    with pytest.raises(DataError, match=message):
        merge_windows(windows, [_sample()])


def test_shapes_that_differ_between_untimed_windows_are_refused():
    sample = Sample(sample_id="c", clip_id="c", groups={})
    with pytest.raises(DataError, match=r"shapes differ: \(2,\), \(3,\)"):
        merge_windows([_window(0, [1.0, 2.0], sample_id="c"), _window(2, [1.0, 2.0, 3.0], sample_id="c")], [sample])


def _member(value, ids=("a", "b"), name="level"):
    return {i: Output(key=WindowKey(i, 0.0, 2.0), values={name: np.full((2, 2), value, np.float32)}) for i in ids}


def test_average_is_the_mean_and_obeys_weights():
    assert average_outputs([_member(1.0), _member(4.0)])["b"].values["level"][0, 0] == 2.5
    assert average_outputs([_member(1.0), _member(4.0)], [2.0, 1.0])["a"].values["level"][1, 1] == 2.0


def test_average_is_summed_in_float64():
    members = [_member(1e8), _member(1.0), _member(-1e8)]
    assert average_outputs(members)["a"].values["level"][0, 0] == np.float32(1 / 3)


def test_members_with_other_ids_are_refused():
    with pytest.raises(DataError, match=r"member 1 lacks 1 samples \(b\) and has 1 that the first one lacks \(c\)"):
        average_outputs([_member(1.0), _member(1.0, ids=("a", "c"))])


def test_members_with_other_names_or_shapes_are_refused():
    with pytest.raises(DataError, match="members name different values"):
        average_outputs([_member(1.0), _member(1.0, name="logit")])
    short = {i: Output(key=o.key, values={"level": o.values["level"][:1]}) for i, o in _member(1.0).items()}
    with pytest.raises(DataError, match="shapes differ"):
        average_outputs([_member(1.0), short])


@pytest.mark.parametrize(
    ("members", "weights", "message"),
    [
        ([], None, "at least one member"),
        ([_member(1.0)], [0.5, 0.5], "1 members need as many weights, got 2"),
        ([_member(1.0), _member(2.0)], [-1.0, 2.0], "0 or more"),
        ([_member(1.0), _member(2.0)], [0.0, 0.0], "sum above 0"),
        ([_member(1.0), _member(2.0)], [float("nan"), 1.0], "0 or more"),
    ],
)
def test_weights_that_do_not_fit_are_refused(members, weights, message):
    with pytest.raises(DataError, match=message):
        average_outputs(members, weights)
