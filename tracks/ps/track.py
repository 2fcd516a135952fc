"""The ps track: everything that is not shared, put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mersuite.clip import Output, Prediction, Sample
from mersuite.config import RunConfig
from mersuite.errors import ConfigError, did_you_mean
from mersuite.panels import PublishedFigure, Section
from mersuite.schema import Named
from mersuite.track import AnswerFunction, CheckRow, Evaluation, Fitted, ScoreRequest, Track, TrackData
from tracks.ps.fake import FakeConfig, write_fake
from tracks.ps.figures import ps_sections
from tracks.ps.fitted import PsFitted
from tracks.ps.head import TARGET, PsHead
from tracks.ps.layout import read_row_ids
from tracks.ps.options import PsConfig
from tracks.ps.published import PUBLISHED
from tracks.ps.reader import read_ps, read_ps_manifest
from tracks.ps.rows import round_ratings
from tracks.ps.scores import metrics_of_answers
from tracks.ps.submission import read_table, score_tables, write_predictions_csv

if TYPE_CHECKING:
    import torch

    from mersuite.clip import Batch
    from mersuite.inference import Checkpoint
    from mersuite.models.base import BuildContext, Fused

KINDS = ("csv", "code")


class PsTrack(Track):
    """Continuous valence and arousal, 1 to 255, one pair a second."""

    name: ClassVar[str] = "ps"
    Config: ClassVar[type] = PsConfig
    FakeConfig: ClassVar[type] = FakeConfig
    streams: ClassVar[tuple[str, ...]] = ("eeg", "eeg_baseline", "fnirs", "fnirs_baseline", "fnirs_reservations")
    monitor: ClassVar[str] = "mae"
    monitor_mode: ClassVar[str] = "min"
    metric_names: ClassVar[tuple[str, ...]] = ("mae", "mae_valence", "mae_arousal")
    token_rate_hz: ClassVar[float | None] = 1.0
    reports_by: ClassVar[str] = "subject"
    groups_shown: ClassVar[tuple[str, ...]] = ("subject", "clip")

    # ---- data
    def read(self, config: RunConfig, split: str) -> TrackData:
        """Reads the organisers' folder (data.root) or a manifest of own recordings (data.manifest)."""
        data = config.data
        if data.manifest is not None:
            return read_ps_manifest(data.place, split)
        return read_ps(data.place, split)

    def check(self, config: RunConfig) -> list[CheckRow]:
        """Reports counts beside the published ones, and every fault of every file."""
        from tracks.ps.check import check_ps

        return check_ps(config.data.place)

    def fake(self, config: Any, out: Path) -> Mapping[str, Any]:
        """Writes recordings and labels with a known effect, and the error that nobody can beat."""
        return write_fake(config, out)

    # ---- learning
    def fitted(self, config: RunConfig) -> Fitted:
        """Gives offset, prior, lag, ridge and calibration of the configured system, unfitted."""
        return PsFitted(config.options, feature_streams(config))

    def uses_network(self, config: RunConfig) -> bool:
        """Whether the system is signal or fused."""
        return config.options.correction_kind == "network"

    def streams_read(self, config: RunConfig) -> tuple[str, ...]:
        """Adds the streams of the ridge, which every run compares with, to the encoders'."""
        return tuple(dict.fromkeys((*config.model.encoders, *config.options.ridge_streams)))

    def build_head(self, config: RunConfig, width: int, context: BuildContext, fitted: Fitted) -> PsHead | None:
        """Gives the zero-initialised residual head."""
        options: PsConfig = config.options
        if not self.uses_network(config):
            return None
        return PsHead(width, scale=options.head_scale, dropout=options.head_dropout, valence_only=options.valence_only)

    def loss(
        self, config: RunConfig, output: Mapping[str, torch.Tensor], fused: Fused, batch: Batch, fitted: Fitted
    ) -> Mapping[str, torch.Tensor]:
        """Gives the configured loss between the correction and what the offset leaves, in units of the head's scale."""
        from mersuite.losses import regression_loss

        options: PsConfig = config.options
        dimensions = 1 if options.valence_only else 2
        preds = output[TARGET][..., :dimensions] / options.head_scale
        target = batch.target[TARGET][..., :dimensions] / options.head_scale
        scaled = replace(options.loss, huber_delta=options.loss.huber_delta / options.head_scale)
        return {options.loss.name: regression_loss(scaled, preds, target, fused.mask, batch.weight)}

    def evaluations(self, config: RunConfig) -> list[Evaluation]:
        """Gives the configured system, then the comparisons that every run must report."""
        own = config.options.system
        has_features = bool(config.options.ridge_streams or feature_streams(config))
        rows = [
            Evaluation(
                name=name,
                overrides={"ps.system": name},
                protocol=protocol,
                shares=_SHARED if name in ("fused", "prior") else (),
                unfit="" if has_features or name != "ridge" else "the model reads no features; see ps.ridge_streams",
            )
            for name, protocol in _PROTOCOLS.items()
        ]
        rows.sort(key=lambda item: item.name != own)
        unseen = Evaluation(
            name="unseen_clips",
            overrides={"ps.system": "fused"},
            split_by=("subject", "clip"),
            protocol="prior + network, neither subject nor clip ever seen",
            shares=_SHARED,
        )
        beside = Evaluation(
            name="unseen_clips_median",
            overrides={"ps.system": "median"},
            split_by=("subject", "clip"),
            protocol="training median on the rows of unseen_clips",
            shares=_SHARED,
        )
        return [*rows, unseen, beside]

    def traits(self, config: RunConfig) -> Mapping[str, Any]:
        """Says which system it is and whether the stimulus prior is part of it."""
        options: PsConfig = config.options
        return {"system": options.system, "prior": options.offset_kind == "prior"}

    # ---- answers
    def decode(self, config: RunConfig, sample: Sample, output: Output) -> list[list[int]]:
        """Gives (second, 2) integers from 1 to 255: rounded, then clipped."""
        return round_ratings(output.values[TARGET], sample.sample_id).tolist()

    def answer_of(self, sample: Sample) -> np.ndarray:
        """Gives the labels, (second, 2)."""
        return sample.target[TARGET]

    def metrics(self, answers: Sequence[Any], targets: Sequence[Any]) -> dict[str, float]:
        """Gives MAE (the metric that ranks) and the rest over the rows of all samples."""
        return metrics_of_answers(answers, targets)

    def write_submission(
        self,
        predictions: Sequence[Prediction],
        out: Path,
        kind: str,
        traits: Mapping[str, Any],
        row_ids: Sequence[str] = (),
    ) -> str:
        """Writes predictions.csv. The code submission is made from a run folder, not from predictions."""
        if (kind or "csv") != "csv":
            hint = "it is made from a run: mersuite export track=ps ckpt=RUN kind=code out=submission.zip"
            raise ConfigError(
                f"kind: predictions can be exported as csv, got {kind!r}; " + (hint if kind == "code" else "")
            )
        return write_predictions_csv(predictions, out, uses_prior=traits.get("prior"), row_ids=row_ids)

    def read_row_ids(self, path: Path) -> tuple[str, ...]:
        """Reads sample_ids.csv."""
        return read_row_ids(path)

    def export_run(
        self, checkpoints: Sequence[Checkpoint], out: Path, kind: str, answer: AnswerFunction
    ) -> Mapping[str, Any]:
        """Writes the code submission: a zip with model.py, weights and the code that inference needs."""
        from tracks.ps.code_submission import write_code_submission

        if kind not in ("", "code"):
            raise ConfigError(f"kind: a run can be exported as code, got {kind!r}; csv is made from pred=FILE.jsonl")
        traits = self.traits(checkpoints[0].config)
        message = write_code_submission(checkpoints, out, traits, answer)
        return {"out": str(out), "traits": dict(traits), "message": message}

    def read_table(self, path: Path) -> dict[str, Any]:
        """Reads a csv or a prediction file as row id -> (valence, arousal)."""
        return read_table(path)

    def score(self, pred: Mapping[str, Any], target: Mapping[str, Any], request: ScoreRequest) -> dict[str, float]:
        """Scores tables joined by row id."""
        if request.options:
            name = next(iter(request.options))
            raise ConfigError(f"score: unknown key {name!r} for track ps; {did_you_mean(name, ['json'])}")
        return score_tables(pred, target)

    # ---- report
    def published(self) -> Sequence[PublishedFigure]:
        """Gives the figures of participants and of the organisers' kit."""
        return PUBLISHED

    def report_sections(self, rows: Mapping[str, Sequence[Prediction]], clips: Sequence[str]) -> Sequence[Section]:
        """Gives ratings over time and calibration."""
        return ps_sections(rows, clips)


_SHARED = ("clip",)
"""What the prior is looked up by: without a stimulus that several people had there is nothing to look up."""
_PROTOCOLS = {  # in the order in which they stand in for a main system that the data cannot have
    "fused": "prior + network",
    "signal": "training median + network on signals alone",
    "constant": "always 128",
    "median": "training median of each dimension",
    "ridge": "training median + ridge regression on features",
    "prior": "training labels of the same clip and second, averaged over people",
}


def feature_streams(config: RunConfig) -> tuple[str, ...]:
    """Names the model's feature streams: those whose encoder accepts features rather than signals."""
    from mersuite import catalog

    def accepts(part: Named) -> str:
        return catalog.find("encoder", part.name).accepts

    return tuple(stream for stream, part in config.model.encoders.items() if accepts(part) == "feature")
