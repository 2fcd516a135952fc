import json
import re
import shutil
from html.parser import HTMLParser

import pytest

from mersuite.errors import ConfigError, DataError, SubmissionError
from mersuite.predictions import read_predictions, write_predictions
from mersuite.report.page import write_report


class _Reader(HTMLParser):
    """Collects headings, text, ids and every place that a page points to."""

    def __init__(self):
        super().__init__()
        self.open, self.headings, self.ids, self.targets, self.tags, self.text = [], [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "srcset", "data"):
                self.targets.append(value)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)


def _read(path):
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader


@pytest.fixture(scope="module")
def report(finished_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "report.html"
    result = write_report(finished_run, out)
    return out, result


def _copy(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "run")


def test_page_has_every_section(report):
    assert _read(report[0]).headings == [
        "ps_demo",
        "Evaluations",
        "Beside published figures",
        "Valence and arousal over time",
        "Predicted against true ratings",
        "Where the errors are",
        "Learning curves",
        "Channel importance",
        "How it was made",
    ]


def test_result_says_what_was_written(report):
    out, result = report
    assert result["report"] == str(out) and result["size_bytes"] == out.stat().st_size < 1_000_000
    assert result["evaluations"][0] == "fused" and set(result["evaluations"]) >= {"constant", "signal", "prior"}


def test_page_asks_for_nothing_from_outside(report):
    page = _read(report[0])
    assert page.targets and all(target.startswith(("#", "data:image/png;base64,")) for target in page.targets)
    assert not {"script", "link", "iframe", "img"} & set(page.tags)
    text = report[0].read_text(encoding="utf-8")
    assert not re.search(r"url\((?!#)", text) and "@import" not in text and "default-src 'none'" in text


def test_ids_of_figures_never_meet(report):
    ids = _read(report[0]).ids
    counts = {name: ids.count(name) for name in ids}
    assert [name for name, count in counts.items() if count > 1] == []


def test_every_inner_reference_has_its_target(report):
    page = _read(report[0])
    text = report[0].read_text(encoding="utf-8")
    wanted = {target[1:] for target in page.targets if target.startswith("#")} | set(
        re.findall(r"url\(#([^)]+)\)", text)
    )
    assert wanted <= set(page.ids) and wanted


def test_figures_take_the_colours_of_the_page(report):
    text = report[0].read_text(encoding="utf-8")
    figures = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    assert "var(--main)" in figures and "currentColor" in figures and "var(--grid)" in figures
    assert not re.search(r"#0[0-9a-f]0[0-9a-f]0[0-9a-f]\b", figures) and "#000000" not in figures
    assert "prefers-color-scheme: dark" in text


def test_numbers_are_those_of_metrics_json(report, finished_run):
    metrics = json.loads((finished_run / "metrics.json").read_text())
    text = " ".join(_read(report[0]).text)
    for facts in metrics.values():
        assert f"{facts['mae']:.2f}" in text
    low, high = metrics["fused"]["interval"]["mae"]
    assert f"{low:.2f} to {high:.2f}" in text
    assert f"{metrics['signal']['mae'] - metrics['fused']['mae']:+.2f}" in text


def test_published_figures_stand_with_their_protocol(report):
    text = " ".join(_read(report[0]).text)
    assert "28.69" in text and "24 training people, 6 folds by person" in text and "4 leaderboard people" in text


def test_prior_is_declared_and_places_are_not(report):
    text = " ".join(_read(report[0]).text)
    assert "trait: prior" in text and "mersuite fit track=ps" in text and "0123abc" in text
    assert "/secret" not in report[0].read_text() and "window_s: 10" in text


def test_best_median_and_worst_trials_are_drawn(report):
    titles = re.findall(r"test_\d+/video_\d\d \((\w+) of 12\)", " ".join(_read(report[0]).text))
    assert titles == ["best", "median", "worst"]


def test_named_trials_are_drawn_instead(finished_run, tmp_path):
    write_report(finished_run, tmp_path / "r.html", clips=["test_2/video_03"])
    text = (tmp_path / "r.html").read_text()
    assert "<figcaption>test_2/video_03: mean absolute error" in text and "(best of" not in text


def test_same_run_gives_the_same_page(report, finished_run, tmp_path):
    write_report(finished_run, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text() == report[0].read_text()


def test_scalp_map_names_channels_without_a_place(report):
    text = " ".join(_read(report[0]).text)
    assert "eeg_bands, the eight largest named; not on the map:" in text and "CB1" in text
    assert "fnirs_stats, the largest of 51" in text


def test_missing_importance_and_curves_are_said(finished_run, tmp_path):
    run = _copy(finished_run, tmp_path)
    (run / "importance.json").unlink()
    (run / "metrics.csv").unlink()
    write_report(run, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert "holds no importance.json" in text and "no system of it trains a network" in text


def test_names_are_escaped(finished_run, tmp_path):
    run = _copy(finished_run, tmp_path)
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["prior"]["protocol"] = "<script>alert(1)</script>"
    (run / "metrics.json").write_text(json.dumps(metrics))
    write_report(run, tmp_path / "r.html")
    assert "<script>" not in (tmp_path / "r.html").read_text()
    assert "&lt;script&gt;" in (tmp_path / "r.html").read_text()


def test_unfinished_evaluations_are_left_out(finished_run, tmp_path):
    run = _copy(finished_run, tmp_path)
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps({"fused": metrics["fused"]}))
    result = write_report(run, tmp_path / "r.html")
    assert result["evaluations"] == ["fused"]
    (run / "metrics.json").write_text(json.dumps({"prior": metrics["prior"]}))
    with pytest.raises(DataError, match="has no 'fused' yet"):
        write_report(run, tmp_path / "r.html")


def test_evaluation_on_other_samples_has_no_difference(finished_run, tmp_path):
    run = _copy(finished_run, tmp_path)
    header, rows = read_predictions(run / "unseen_clips" / "oof.jsonl")
    write_predictions(run / "unseen_clips" / "oof.jsonl", header, rows[:-2])
    write_report(run, tmp_path / "r.html")
    row = re.search(r"<tr><td[^>]*>unseen_clips.*?</tr>", (tmp_path / "r.html").read_text())[0]
    assert '<td class="range"></td>' in row


def test_one_subject_has_no_interval_but_a_page(tmp_path, finished_run):
    run = _copy(finished_run, tmp_path)
    metrics = json.loads((run / "metrics.json").read_text())
    for facts in metrics.values():
        facts["interval"] = {}
        facts["groups"]["subject"] = {"test_1": facts["groups"]["subject"]["test_1"]}
    (run / "metrics.json").write_text(json.dumps(metrics))
    write_report(run, tmp_path / "r.html")
    assert "95 % interval" not in " ".join(_read(tmp_path / "r.html").text[:60])


def test_what_cannot_be_reported_is_refused(finished_run, tmp_path):
    with pytest.raises(ConfigError, match=r"need a file that ends in .html, got .*r.pdf"):
        write_report(finished_run, tmp_path / "r.pdf")
    with pytest.raises(DataError, match="need the folder of a finished run"):
        write_report(tmp_path, tmp_path / "r.html")
    with pytest.raises(DataError, match="no trial 'test_2/video_99' among the 12 held-out ones; did you mean"):
        write_report(finished_run, tmp_path / "r.html", clips=["test_2/video_99"])
    run = _copy(finished_run, tmp_path)
    (run / "prior" / "oof.jsonl").unlink()
    with pytest.raises(SubmissionError, match="no such prediction file"):
        write_report(run, tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("importance.json", "[1]", "need {stream: {channel: value}}"),
        ("importance.json", '{"eeg": {"FP1": "x"}}', "need {stream: {channel: value}}"),
        ("metrics.csv", "metric,value\nval/mae,1\n", "not a table of learning curves"),
    ],
)
def test_broken_files_are_named(finished_run, tmp_path, name, text, message):
    run = _copy(finished_run, tmp_path)
    (run / name).write_text(text)
    with pytest.raises(DataError, match=re.escape(str(run / name)) + ".*" + re.escape(message)):
        write_report(run, tmp_path / "r.html")
