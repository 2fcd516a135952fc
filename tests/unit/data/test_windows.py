from __future__ import annotations

from fractions import Fraction

import pytest

from mersuite.clip import Sample, WindowKey
from mersuite.data.windows import last_start_s, plan_windows, window_rows
from mersuite.errors import ConfigError, DataError


def sample(name: str, duration_s: float | None) -> Sample:
    return Sample(sample_id=name, clip_id=name, groups={}, duration_s=duration_s)


def test_windows_cover_every_second_and_stay_inside_the_sample() -> None:
    for duration in range(10, 60):
        windows = plan_windows([sample("a", duration)], 10, 4)
        covered = {int(window.start_s) + second for window in windows for second in range(10)}
        assert covered == set(range(duration))
        assert len({window.start_s for window in windows}) == len(windows)


def test_the_last_window_is_aligned_to_the_end() -> None:
    assert [window.start_s for window in plan_windows([sample("a", 23)], 10, 10)] == [0.0, 10.0, 13.0]


def test_no_window_is_added_where_the_stride_reaches_the_end() -> None:
    assert [window.start_s for window in plan_windows([sample("a", 30)], 10, 5)] == [0.0, 5.0, 10.0, 15.0, 20.0]


def test_the_stride_is_the_window_where_none_is_given() -> None:
    assert plan_windows([sample("a", 30)], 10, None) == plan_windows([sample("a", 30)], 10, 10)


def test_starts_are_whole_seconds_also_where_the_sample_is_not() -> None:
    assert [window.start_s for window in plan_windows([sample("a", 12.9)], 10, 10)] == [0.0, 2.0]


def test_without_a_window_each_sample_is_whole() -> None:
    assert plan_windows([sample("a", 12.0), sample("b", None)], None, None) == [
        WindowKey("a", 0.0, 12.0),
        WindowKey("b", 0.0, 0.0),
    ]


def test_a_sample_shorter_than_the_window_is_named_with_its_length_and_the_key() -> None:
    with pytest.raises(DataError, match=r"'b' lasts 9 s, shorter than data\.window_s=10"):
        plan_windows([sample("a", 10), sample("b", 9)], 10, 5)


def test_a_sample_that_does_not_run_in_time_cannot_be_cut() -> None:
    with pytest.raises(ConfigError, match=r"'a' has one target and no length in seconds; use data\.window_s=null"):
        plan_windows([sample("a", None)], 10, 5)


@pytest.mark.parametrize(("window_s", "stride_s", "key"), [(2.5, 1, "data.window_s"), (10, 0.5, "data.stride_s")])
def test_lengths_that_are_not_whole_seconds_are_refused(window_s: float, stride_s: float, key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key}: need whole seconds"):
        plan_windows([sample("a", 30)], window_s, stride_s)


def test_a_stride_that_leaves_gaps_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.stride_s: 11 s is longer than data\.window_s=10"):
        plan_windows([sample("a", 30)], 10, 11)


def test_rows_of_a_window_are_the_nearest_to_its_start_at_the_exact_rate() -> None:
    exact = Fraction(1000, 21)
    for start in range(171):
        first, count = window_rows(1000 / 21, float(start), 10.0)
        assert abs(first - start * exact) <= Fraction(1, 2)
        assert count == 476


def test_a_rounded_rate_would_drift_by_more_than_a_second() -> None:
    assert abs(window_rows(1000 / 21, 160.0, 10.0)[0] - 160 * int(1000 / 21)) > 47


def test_rows_count_from_the_time_of_the_first_row() -> None:
    assert window_rows(100.0, 3.0, 2.0, first_row_s=-0.5) == (350, 200)


def test_the_last_start_is_the_last_whole_second_that_fits() -> None:
    assert [last_start_s(sample("a", length), 10) for length in (10, 12.9, 20)] == [0, 2, 10]
