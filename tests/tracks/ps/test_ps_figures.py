import numpy as np
import pytest

from mersuite.clip import Prediction
from mersuite.errors import DataError
from mersuite.panels import Calibration, Timeline
from tracks.ps.figures import ps_sections
from tracks.ps.published import PUBLISHED
from tracks.ps.scores import DIMENSIONS


def _row(video, gap, seconds=6):
    truth = np.linspace(50, 200, 2 * seconds).reshape(-1, 2).astype(np.float32)
    return Prediction(
        sample_id=f"test_1/video_{video:02d}",
        groups={},
        outputs={},
        answer=(truth + gap).tolist(),
        target={"valence_arousal": truth},
    )


ROWS = {
    "fused": [_row(1, 9.0), _row(2, 1.0), _row(3, 4.0), _row(4, 5.0)],
    "constant": [_row(video, 30.0) for video in (1, 2, 3, 4)],
    "prior": [_row(video, 11.0) for video in (1, 2, 3)],
}


def test_best_median_and_worst_trials_are_chosen_by_their_error():
    timelines = ps_sections(ROWS, ())[0].panels
    assert [panel.title for panel in timelines] == [
        "test_1/video_02 (best of 4): mean absolute error 1.0",
        "test_1/video_04 (median of 4): mean absolute error 5.0",
        "test_1/video_01 (worst of 4): mean absolute error 9.0",
    ]


def test_curves_are_truth_main_and_others_that_answered_the_trial():
    best, median, _ = ps_sections(ROWS, ())[0].panels
    assert isinstance(best, Timeline) and set(best.lines) == set(DIMENSIONS) and best.rate_hz == 1.0
    assert [(line.name, line.role) for line in best.lines["arousal"]] == [
        ("truth", "truth"),
        ("fused", "main"),
        ("prior", "other"),
        ("constant", "other"),
    ]
    assert "prior" not in [line.name for line in median.lines["valence"]]
    truth, fused = best.lines["arousal"][0].values, best.lines["arousal"][1].values
    np.testing.assert_allclose(fused - truth, 1.0, atol=1e-4)


def test_calibration_holds_all_rows_of_the_main_system():
    (panel,) = ps_sections(ROWS, ())[1].panels
    assert isinstance(panel, Calibration) and len(panel.preds["valence"]) == len(panel.target["arousal"]) == 24


def test_named_trials_are_drawn_and_unknown_ones_refused():
    (panel,) = ps_sections(ROWS, ["test_1/video_03"])[0].panels
    assert panel.title == "test_1/video_03: mean absolute error 4.0"
    with pytest.raises(DataError, match="no trial 'test_1/video_30' among the 4 held-out ones; did you mean"):
        ps_sections(ROWS, ["test_1/video_30"])


def test_published_overall_error_is_the_mean_of_both_dimensions():
    whole = [figure.metrics for figure in PUBLISHED if len(figure.metrics) == 3]
    assert len(whole) == 5
    for metrics in whole:
        assert abs(metrics["mae"] - (metrics["mae_valence"] + metrics["mae_arousal"]) / 2) < 0.011
