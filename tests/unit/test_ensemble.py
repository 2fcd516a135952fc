import json

import numpy as np
import pytest

from mersuite.clip import Prediction
from mersuite.ensemble import ensemble, ensemble_files
from mersuite.errors import DataError, SubmissionError
from mersuite.predictions import PredictionHeader, read_predictions, write_predictions


class Levels:
    """A track that answers in time: decoded answers are clipped, lower is better."""

    name, monitor, monitor_mode, reports_by, token_rate_hz = "levels", "mae", "min", "subject", 1.0
    metric_names = ("mae",)

    def resampled_by(self, config):
        return self.reports_by

    def decode(self, config, sample, output):
        assert sample.duration_s == len(output.values["level"])
        return np.clip(output.values["level"], 1, 255).tolist()

    def answer_of(self, sample):
        return sample.target["level"]

    def metrics(self, answers, targets):
        return {"mae": float(np.abs(np.concatenate(answers) - np.concatenate(targets)).mean())}


class Labels:
    """A track with one label a clip: the largest logit, accuracy, higher is better."""

    name, monitor, monitor_mode, reports_by, token_rate_hz = "labels", "accuracy", "max", "dialogue", None
    metric_names = ("accuracy",)

    def resampled_by(self, config):
        return self.reports_by

    def decode(self, config, sample, output):
        return int(output.values["logit"].argmax())

    def answer_of(self, sample):
        return int(sample.target["label"])

    def metrics(self, answers, targets):
        return {"accuracy": float(np.mean([answer == target for answer, target in zip(answers, targets, strict=True)]))}


def _truth(subject, clip, rng):
    return rng.uniform(40, 210, (12, 2)).astype(np.float32)


def _write(path, predictions, *, run="", evaluation="fused", split="test", track="levels", traits=None):
    header = PredictionHeader(
        track=track, run=str(run), evaluation=evaluation, split=split, traits=traits or {"prior": False}
    )
    write_predictions(path, header, predictions)
    return path


def _levels(noise, seed, *, subjects=8, bias=0.0, with_target=True):
    truth_rng, rng = np.random.default_rng(0), np.random.default_rng(seed)
    rows = []
    for subject in range(subjects):
        for clip in range(3):
            truth = _truth(subject, clip, truth_rng)
            level = (truth + bias + rng.normal(0, noise, truth.shape)).astype(np.float32)
            rows.append(
                Prediction(
                    sample_id=f"s{subject}/{clip}",
                    groups={"subject": f"s{subject}", "clip": str(clip)},
                    outputs={"level": level},
                    answer=np.clip(level, 1, 255).tolist(),
                    target={"level": truth} if with_target else {},
                )
            )
    return rows


def _run(folder, rows, main="fused"):
    folder.mkdir()
    (folder / "run.json").write_text(
        json.dumps({"track": "levels", "evaluations": {main: {"main": True}, "prior": {"main": False}}})
    )
    (folder / "metrics.json").write_text("{}")
    _write(folder / "oof.jsonl", rows, run=folder, split="oof")
    return folder


def _member(tmp_path, name, noise, seed, bias=0.0, **header):
    run = _run(tmp_path / f"run_{name}", _levels(noise, seed, bias=bias))
    return _write(
        tmp_path / f"{name}.jsonl", _levels(noise, seed + 100, bias=bias, with_target=False), run=run, **header
    )


def test_weights_follow_the_out_of_fold_rows(tmp_path):
    members = [_member(tmp_path, "good", 5, 1), _member(tmp_path, "bad", 60, 2)]
    found = ensemble(Levels(), None, members)
    assert found.weights[0] > 0.9 and abs(sum(found.weights) - 1) < 1e-9
    assert found.how.startswith("fitted weights: mae on 24 out-of-fold samples")
    assert found.scores["fitted"] < found.scores["equal"] and set(found.scores) == {
        *map(str, members),
        "equal",
        "fitted",
    }


def test_the_best_members_are_kept_and_said_to_be_chosen(tmp_path):
    members = [_member(tmp_path, name, noise, 1) for name, noise in (("bad", 60), ("good", 5), ("fair", 20))]
    found = ensemble(Levels(), None, members, top=2)
    assert [item["file"] for item in found.header.members] == [str(members[1]), str(members[2])]
    assert found.how.startswith("the best 2 of 3 members by mae on the same out-of-fold rows; ")
    alone = ensemble(Levels(), None, members[1:])
    assert found.weights == alone.weights
    np.testing.assert_array_equal(found.predictions[3].outputs["level"], alone.predictions[3].outputs["level"])


@pytest.mark.parametrize("top", [1, 4])
def test_more_or_fewer_members_than_can_be_kept_are_refused(tmp_path, top):
    members = [_member(tmp_path, name, 5, seed) for seed, name in enumerate("abc")]
    with pytest.raises(DataError, match=f"top: need 2 to 3, the number of prediction files, got {top}"):
        ensemble(Levels(), None, members, top=top)


def test_members_without_out_of_fold_rows_cannot_be_chosen(tmp_path):
    members = [_write(tmp_path / f"{name}.jsonl", _levels(5, 1, with_target=False)) for name in "abc"]
    with pytest.raises(DataError, match=r"top: members are chosen by their out-of-fold rows, but .*give oof="):
        ensemble(Levels(), None, members, top=2)


def test_joined_outputs_are_the_weighted_mean_decoded_once(tmp_path):
    members = [_member(tmp_path, "a", 5, 1), _member(tmp_path, "b", 20, 2)]
    found = ensemble(Levels(), None, members)
    rows = [_levels(5, 101), _levels(20, 102)]
    expected = sum(w * each[4].outputs["level"].astype(np.float64) for w, each in zip(found.weights, rows, strict=True))
    np.testing.assert_allclose(found.predictions[4].outputs["level"], expected, atol=1e-4)
    np.testing.assert_allclose(found.predictions[4].answer, np.clip(expected, 1, 255), atol=1e-4)
    assert [each.sample_id for each in found.predictions] == [each.sample_id for each in rows[0]]


def test_equals_are_not_told_apart_by_noise(tmp_path):
    members = [_member(tmp_path, name, 20, seed) for seed, name in enumerate("abc", start=1)]
    found = ensemble(Levels(), None, members)
    np.testing.assert_allclose(found.weights, 1 / 3, atol=0.15)
    assert found.scores["equal"] < min(found.scores[str(member)] for member in members)


def test_fitted_weights_that_do_not_carry_over_give_way_to_equal_ones(tmp_path):
    rng = np.random.default_rng(0)
    tables = [[], []]
    for subject in range(4):
        for index, table in enumerate(tables):
            wrong = 40.0 if (subject + index) % 2 else 10.0
            for row in _levels(1, int(rng.integers(1000)), subjects=4)[3 * subject : 3 * subject + 3]:
                shifted = row.outputs["level"] + (wrong if index else -wrong)
                table.append(
                    Prediction(
                        sample_id=row.sample_id,
                        groups=row.groups,
                        outputs={"level": shifted},
                        answer=0,
                        target=row.target,
                    )
                )
    oof = [_write(tmp_path / f"oof{i}.jsonl", table, split="oof") for i, table in enumerate(tables)]
    found = ensemble(Levels(), None, oof, oof=oof)
    assert found.weights == (0.5, 0.5) and "no better" in found.how


def test_header_says_members_weights_and_how(tmp_path):
    members = [_member(tmp_path, "a", 5, 1), _member(tmp_path, "b", 20, 2, traits={"prior": True, "lag_s": 2})]
    header = ensemble(Levels(), None, members).header
    assert header.evaluation == "ensemble" and header.split == "test" and header.track == "levels"
    assert [(row["file"], row["evaluation"]) for row in header.members] == [
        (str(member), "fused") for member in members
    ]
    assert header.traits["prior"] is True and header.traits["lag_s"] == 2 and "out-of-fold" in header.traits["ensemble"]


def test_evaluation_of_the_header_chooses_the_rows(tmp_path):
    members = [_member(tmp_path, "a", 5, 1), _member(tmp_path, "b", 60, 2, evaluation="prior")]
    found = ensemble(Levels(), None, members)
    assert found.how.startswith("equal weights: ") and "run_b/prior/oof.jsonl is missing" in found.how


def test_run_beside_the_prediction_file_is_found(tmp_path):
    members = [_member(tmp_path, "a", 5, 1), _member(tmp_path, "b", 60, 2)]
    for name, member in zip("ab", members, strict=True):
        _write(member, _levels(5, 9, with_target=False), run=f"run_{name}")
    assert ensemble(Levels(), None, members).how.startswith("fitted")


def test_without_runs_weights_are_equal_and_said_to_be(tmp_path):
    members = [_write(tmp_path / f"{i}.jsonl", _levels(5, i, with_target=False), run="gone") for i in range(2)]
    found = ensemble(Levels(), None, members)
    assert found.weights == (0.5, 0.5) and found.how.startswith("equal weights: the run of") and found.scores == {}


def test_rows_of_one_group_give_equal_weights(tmp_path):
    oof = [_write(tmp_path / f"{i}.jsonl", _levels(5 + 50 * i, i, subjects=1), split="oof") for i in range(2)]
    found = ensemble(Levels(), None, oof, oof=oof)
    assert found.weights == (0.5, 0.5) and "of one subject" in found.how


def test_labels_are_joined_through_their_logits(tmp_path):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 90)
    files = []
    for index, noise in enumerate([0.6, 3.0]):
        rows = [
            Prediction(
                sample_id=str(i),
                groups={"dialogue": str(i // 3)},
                outputs={"logit": (np.eye(3)[label] + rng.normal(0, noise, 3)).astype(np.float32)},
                answer=0,
                target={"label": np.array(label)},
            )
            for i, label in enumerate(truth)
        ]
        files.append(_write(tmp_path / f"{index}.jsonl", rows, track="labels", split="oof"))
    found = ensemble(Labels(), None, files, oof=files)
    assert found.weights[0] > 0.6 and isinstance(found.predictions[0].answer, int)
    assert found.scores["fitted"] >= found.scores["equal"]


def test_files_become_one_file_decoded_by_their_track(tmp_path):
    files = []
    for index, noise in enumerate((3.0, 30.0)):
        rows = [
            Prediction(
                sample_id=f"predict1/video_{i + 1:02d}",
                groups=row.groups,
                outputs={"valence_arousal": row.outputs["level"]},
                answer=0,
                target={"valence_arousal": row.target["level"]},
            )
            for i, row in enumerate(_levels(noise, index))
        ]
        files.append(_write(tmp_path / f"{index}.jsonl", rows, track="ps", split="oof"))
    result = ensemble_files(files, out=tmp_path / "joined.jsonl", oof=files)
    header, predictions = read_predictions(tmp_path / "joined.jsonl", "ps")
    assert [row["weight"] for row in header.members] == [row["weight"] for row in result["members"]]
    assert result["num_samples"] == len(predictions) == 24 and result["how"].startswith("fitted weights: mae")
    expected = predictions[0].outputs["valence_arousal"]
    np.testing.assert_array_equal(predictions[0].answer, np.clip(np.rint(expected), 1, 255))


def test_configuration_of_the_first_run_is_used(tmp_path, monkeypatch):
    rows = [
        Prediction(
            sample_id="predict1/video_01", groups={}, outputs={"valence_arousal": np.full((2, 2), 9.0)}, answer=0
        )
    ]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text('{"track": "ps", "evaluations": {"fused": {"main": true}}}')
    (tmp_path / "run" / "metrics.json").write_text("{}")
    (tmp_path / "run" / "config.yaml").write_text("track: ps\nseed: 77\n")
    files = [_write(tmp_path / f"{i}.jsonl", rows, track="ps", run="run") for i in range(2)]
    seen = []
    monkeypatch.setattr("mersuite.ensemble.ensemble", lambda track, config, *_, **__: seen.append(config) or _refuse())
    with pytest.raises(DataError, match="stop here"):
        ensemble_files(files, out=tmp_path / "x.jsonl")
    assert seen[0].seed == 77


def _refuse():
    raise DataError("stop here")


def test_no_file_at_all_is_refused(tmp_path):
    with pytest.raises(DataError, match="got none"):
        ensemble_files([], out=tmp_path / "x.jsonl")


def test_members_that_do_not_fit_are_refused(tmp_path):
    rows = _levels(5, 1)
    whole = _write(tmp_path / "whole.jsonl", rows)
    with pytest.raises(DataError, match="need at least two prediction files, got 1"):
        ensemble(Levels(), None, [whole])
    with pytest.raises(DataError, match="2 members need as many out-of-fold files, got 1"):
        ensemble(Levels(), None, [whole, whole], oof=[whole])
    with pytest.raises(DataError, match=r"part.jsonl lacks 1 samples \(s7/2\)"):
        ensemble(Levels(), None, [whole, _write(tmp_path / "part.jsonl", rows[:-1])])
    other = [
        Prediction(sample_id=r.sample_id, groups=r.groups, outputs={"logit": r.outputs["level"]}, answer=0)
        for r in rows
    ]
    with pytest.raises(DataError, match=r"'s0/0' has outputs \{'logit': \(12, 2\)\}"):
        ensemble(Levels(), None, [whole, _write(tmp_path / "other.jsonl", other)])
    bare = [Prediction(sample_id=r.sample_id, groups=r.groups, outputs={}, answer="text") for r in rows]
    with pytest.raises(SubmissionError, match="no raw output"):
        ensemble(Levels(), None, [whole, _write(tmp_path / "bare.jsonl", bare)])
    with pytest.raises(SubmissionError, match="predictions of track 'fg'"):
        ensemble(Levels(), None, [whole, _write(tmp_path / "fg.jsonl", rows, track="fg")])
    with pytest.raises(DataError, match="different splits: oof, test"):
        ensemble(Levels(), None, [whole, _write(tmp_path / "oof.jsonl", rows, split="oof")])
    with pytest.raises(DataError, match="have no target"):
        ensemble(
            Levels(),
            None,
            [whole, whole],
            oof=[whole, _write(tmp_path / "blind.jsonl", _levels(5, 1, with_target=False))],
        )


def test_groups_of_a_run_are_not_torn_apart_to_judge_weights(tmp_path):
    class ByClip(Levels):
        def resampled_by(self, config):
            return "clip"

    members = [_member(tmp_path, "a", 5, 1), _member(tmp_path, "b", 20, 2)]
    assert "with weights fitted on other clip groups" in ensemble(ByClip(), None, members).how


def test_members_chosen_by_their_rows_are_not_ranked_beside_others(tmp_path):
    chosen = {"selects_on_reported": True}
    members = [_member(tmp_path, "a", 1, 1, traits=chosen), _member(tmp_path, "b", 20, 2)]
    found = ensemble(Levels(), None, members)
    assert found.weights == (0.5, 0.5)
    assert "a.jsonl was chosen by its out-of-fold rows and" in found.how and "do not compare" in found.how
    with pytest.raises(DataError, match=r"top: members are chosen by their out-of-fold rows, but .*do not compare"):
        ensemble(Levels(), None, members, top=2)
    both = [members[0], _member(tmp_path, "c", 20, 3, traits=chosen)]
    assert ensemble(Levels(), None, both).how.endswith("on which scores are too high")
