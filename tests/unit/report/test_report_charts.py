import numpy as np

from mersuite.report.charts import binned_means, curves_chart, groups_chart
from mersuite.report.html import table
from mersuite.report.scalp import HEAD_RADIUS_M, head_positions
from mersuite.report.svg import MAIN, drawing, inline_svg


def test_binned_means_follow_a_known_relation():
    preds = np.repeat(np.arange(24.0), 10)
    means = binned_means(preds, 2 * preds + 1)
    np.testing.assert_allclose(means[:, 1], 2 * means[:, 0] + 1)
    assert len(means) >= 10 and (np.diff(means[:, 0]) > 0).all()


def test_constant_predictions_give_one_point():
    np.testing.assert_allclose(binned_means(np.full(50, 128.0), np.linspace(1, 99, 50)), [[128.0, 50.0]])


def test_channels_lie_where_heads_have_them():
    places = head_positions(["CZ", "fp1", "FP2", "O1", "T7", "T8", "CB1", "ch-3 hbo"])
    assert set(places) == {"CZ", "fp1", "FP2", "O1", "T7", "T8"}
    assert np.linalg.norm(places["CZ"]) < 0.2 * HEAD_RADIUS_M
    assert places["fp1"][1] > 0.5 * HEAD_RADIUS_M and places["O1"][1] < -0.5 * HEAD_RADIUS_M
    assert places["T7"][0] < -0.6 * HEAD_RADIUS_M and places["T8"][0] > 0.6 * HEAD_RADIUS_M
    assert places["fp1"][0] < 0 < places["FP2"][0]


def test_svg_scales_and_tells_what_it_shows():
    with drawing(1, 1, (4.0, 2.0)) as (figure, axes):
        axes[0, 0].plot([0, 1], [0, 1], color=MAIN)
        text = inline_svg(figure, "one", 'a "line"')
    assert (
        text.startswith('<svg role="img" aria-label="a &quot;line&quot;" class="figure"')
        and 'viewBox="0 0 288 144"' in text
    )
    head = text[: text.index(">")]
    assert " width=" not in head and " height=" not in head and "<metadata" not in text and "font-family" not in text


def test_drawing_leaves_the_users_style_alone():
    import matplotlib

    before = matplotlib.rcParams["axes.grid"]
    groups_chart({"a": 1.0, "b": 2.0}, {"constant": {"a": 3.0}}, "fused", "subject", "mae")
    assert matplotlib.rcParams["axes.grid"] == before


def test_curves_of_a_single_epoch_are_drawn_as_points():
    text = curves_chart({"val/mae": {"fused": {0: [(0, 30.0)], 1: [(0, 31.0)]}}})
    assert "<use " in text


def test_cells_below_a_line_break_are_small_and_escaped():
    text = table(["a", "b"], [["x\n<y>", "1"]], text_columns=(0,), main=0)
    assert '<td class="text">x<small>&lt;y&gt;</small></td>' in text and '<tr class="main">' in text
