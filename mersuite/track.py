"""The Track contract: everything that differs from one track to the next. The rest of mersuite is shared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mersuite.clip import Clip, Output, Prediction, Sample, Signal
from mersuite.errors import ConfigError
from mersuite.panels import CheckRow as CheckRow

if TYPE_CHECKING:
    import torch
    from torch import nn

    from mersuite.clip import Batch
    from mersuite.config import RunConfig
    from mersuite.data.unlabelled import Unlabelled
    from mersuite.inference import Checkpoint
    from mersuite.models.base import BuildContext, Fused
    from mersuite.panels import PublishedFigure, Section

ReadFeatures = Callable[[str, str], Signal | None]
"""(clip_id, stream) -> the stored stream, or None where the clip has none."""
AnswerFunction = Callable[["Sequence[Checkpoint]", Sequence[Sample], Any], list[Prediction]]
"""(checkpoints, samples, reader of streams) -> predictions, averaged over the checkpoints."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackData:
    """What a reader found for one split.

    Attributes:
        clips: Every clip with at least one medium.
        samples: What is to be predicted, in the order of the organisers' files.
        notes: Things a user should know: counts, what was missing or skipped; shown once.
        caveat: What every score on these data must say, such as "simulated targets"; joins each evaluation's protocol.
        row_ids: Rows that a submission must hold, in the organisers' order; () for every row of every sample in order.
        unlabelled: Samples of another split that training may see, without targets (Track.unlabelled); no reader's.
    """

    clips: tuple[Clip, ...]
    samples: tuple[Sample, ...]
    notes: tuple[str, ...] = ()
    caveat: str = ""
    row_ids: tuple[str, ...] = ()
    unlabelled: tuple[Sample, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One row of the final table: a system under a protocol.

    Attributes:
        name: Key in metrics.json.
        overrides: Config keys that make the system, such as {"ps.system": "signal"}.
        split_by: Groups that held-out rows differ in from all training rows; () means as cv.by says.
        protocol: One sentence for people.
        shares: Groups that must have a member which several people (Track.reports_by) have in common, such as the
            stimulus for what is learned from other people about it. On other data the evaluation is left out.
        unfit: Why the configured model cannot be evaluated so; "" where it can. It is left out then.
        selects_on_reported: Hold no rows back for choices: each fold trains on all that is not held out, and epoch and
            draw of hyper-parameters (config.draws) are chosen by the held-out rows that are reported. Only for
            protocols of others; scores are too high, and every place that shows them says so.
    """

    name: str
    overrides: Mapping[str, Any]
    split_by: tuple[str, ...] = ()
    protocol: str = ""
    shares: tuple[str, ...] = ()
    unfit: str = ""
    selects_on_reported: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassLoss:
    """What a system learns and answers that is a plain classifier: networks of such systems can be trained together.

    It minimises mersuite.losses.cross_entropy of its head's one tensor, nothing is done to its batches (Track.augment),
    and it answers the class with the largest logit.

    Attributes:
        target: Name of the classes in what Fitted.target gives.
        class_weights: (class,) float32, weights of classes in the loss; None where all weigh alike.
        label_smoothing: Share of the truth spread evenly over all classes.
    """

    target: str
    class_weights: np.ndarray | None = None
    label_smoothing: float = 0.0


class Fitted(ABC):
    """What is learned without gradient steps, kept in each fold's checkpoint: priors, scales, lags, thresholds.

    The order of calls in a fold: fit (training rows), then the network trains on `target`, then calibrate
    (validation rows), then apply on anything.
    """

    @abstractmethod
    def fit(self, train: Sequence[Sample], val: Sequence[Sample], features: ReadFeatures) -> None:
        """Learns from training rows; choices between fits may be made on validation rows."""

    @abstractmethod
    def target(self, sample: Sample) -> Mapping[str, np.ndarray]:
        """What the network is trained towards for a training or validation sample."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the target's classes, known once fit was called; () for regression. BuildContext hands them on."""
        return ()

    @property
    def calibrates_on_train(self) -> bool:
        """Whether calibrate wants the outputs for training rows, too, which cost another pass over them."""
        return False

    @abstractmethod
    def calibrate(self, val: Sequence[tuple[Sample, Output]], train: Sequence[tuple[Sample, Output]] = ()) -> None:
        """Chooses thresholds, temperature, smoothing on outputs for validation rows.

        Args:
            val: Validation samples with their raw outputs.
            train: Training samples with theirs, where calibrates_on_train asks for them.
        """

    def refit(self, val: Sequence[tuple[Sample, Output | None]]) -> None:
        """Takes the validation rows' labels in as well, after every choice is made; does nothing by default.

        Why it is honest: they belong to the training groups, and nothing is chosen any more.
        """
        return

    def raw_output(self, sample: Sample, features: ReadFeatures, network: Output | None = None) -> Output | None:
        """Gives a sample's raw output: the network's, what is added to it, or what stands in for it.

        Args:
            sample: The sample.
            features: Its stored streams.
            network: What the network gave; None in systems without one.
        """
        return network

    @abstractmethod
    def apply(self, sample: Sample, output: Output | None) -> Output:
        """Turns a raw output into values that can be averaged over folds; None where the system has no raw output."""

    @abstractmethod
    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Gives arrays and JSON values from which load_state restores it."""

    @abstractmethod
    def load_state(self, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> None:
        """Restores what state gave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest:
    """Options of `mersuite score` that only some tracks read, such as level=2 or wheels=DIR."""

    options: Mapping[str, str] = field(default_factory=dict)


class Track(ABC):
    """One track of the challenge. tracks/<name>/__init__.py exports a subclass as `Track`.

    Attributes:
        name: The folder's name.
        Config: Frozen dataclass behind the config key of the track's name (`ps.system=signal`).
        FakeConfig: Frozen dataclass of the options of `mersuite fake track=<name>`.
        streams: Media streams that the reader may give; features/* stands for any that begins so.
        monitor: Metric that checkpoints and sweeps go by; a key of `metrics`.
        monitor_mode: "min" or "max".
        metric_names: Metrics shown in tables, in order.
        token_rate_hz: Tokens a second for tracks that answer in time; None for one answer a clip.
        reports_by: Group whose members are shown one by one and resampled in bootstrap intervals ("subject").
        groups_shown: Groups whose members metrics.json scores one by one, reports_by among them; () where each of its
            members is a row. Why not all: a group may have a member a row.
    """

    name: ClassVar[str]
    Config: ClassVar[type]
    FakeConfig: ClassVar[type]
    streams: ClassVar[tuple[str, ...]]
    monitor: ClassVar[str]
    monitor_mode: ClassVar[str]
    metric_names: ClassVar[tuple[str, ...]]
    token_rate_hz: ClassVar[float | None] = None
    reports_by: ClassVar[str]
    groups_shown: ClassVar[tuple[str, ...]]

    # ---- data
    @abstractmethod
    def read(self, config: RunConfig, split: str) -> TrackData:
        """Reads clips and samples of a split ("train", "test") of config.data without loading signals.

        Raises:
            DataError: If files are missing, malformed or contradict each other.
        """

    @abstractmethod
    def check(self, config: RunConfig) -> list[CheckRow]:
        """Looks at everything in config.data, signals included, and reports instead of raising."""

    @abstractmethod
    def fake(self, config: Any, out: Path) -> Mapping[str, Any]:
        """Writes small data in the organisers' layout and gives a summary."""

    # ---- learning
    def unlabelled(self, config: RunConfig) -> Unlabelled | None:
        """Says what the configured system sees in training without labels; None for nothing.

        Fitted.target is then asked for such samples, too, and gives what losses leave out: a negative class, or NaN.
        Each system that sees some says in its protocol and traits that it is transductive.
        """
        return None

    @abstractmethod
    def fitted(self, config: RunConfig) -> Fitted:
        """Gives the unfitted parts of the configured system."""

    @abstractmethod
    def build_head(self, config: RunConfig, width: int, context: BuildContext, fitted: Fitted) -> nn.Module | None:
        """Gives the head on a backbone of that width, or None for systems without a network.

        The head is called as head(fused, batch) and gives {name: tensor with batch first}.

        Args:
            config: The system's configuration.
            width: Width of the backbone's tokens.
            context: What the data told.
            fitted: The fold's fitted parts after fit or load_state, such as embeddings of labels.
        """

    @abstractmethod
    def loss(
        self, config: RunConfig, output: Mapping[str, torch.Tensor], fused: Fused, batch: Batch, fitted: Fitted
    ) -> Mapping[str, torch.Tensor]:
        """Gives loss terms by name, each a scalar; their sum is minimised.

        Args:
            config: The system's configuration.
            output: What the head gave.
            fused: What the head was given.
            batch: Targets and weights.
            fitted: The fold's fitted parts after fit, such as weights of classes.
        """

    def class_loss(self, config: RunConfig, fitted: Fitted) -> ClassLoss | None:
        """Says what `loss` is where the configured system is a plain classifier; None where it is more than that."""
        return None

    @abstractmethod
    def evaluations(self, config: RunConfig) -> list[Evaluation]:
        """Gives the rows of the final table; the configured system itself comes first as the main one.

        Those that the data cannot have are left out by the run; the first that stays is then the main one.
        """

    def as_asked(self, config: RunConfig, sample: Sample) -> Sample:
        """Gives a sample as it is asked at validation, scoring and prediction: without streams that may not be used."""
        return sample

    def standardised_among(self, config: RunConfig, sample: Sample) -> str:
        """Names the kind of asked samples whose statistics standardise this one's inputs; "" takes the training rows'.

        Why: samples of another kind than all training rows lie elsewhere as a whole. It needs many of them at once, and
        is transductive.
        """
        return ""

    def augment(self, config: RunConfig, batch: Batch) -> Batch:
        """Changes a training batch before the network sees it; randomness comes from PyTorch's global generator."""
        return batch

    def adjust(self, config: RunConfig, outputs: Mapping[str, Output]) -> Mapping[str, Output]:
        """Changes final outputs of all samples that are asked together, by sample id, before they are decoded."""
        return outputs

    def uses_network(self, config: RunConfig) -> bool:
        """Whether the configured system trains a network."""
        return True

    def streams_read(self, config: RunConfig) -> tuple[str, ...]:
        """Names the streams that the configured systems read: the encoders', and those that fitted parts add."""
        return tuple(config.model.encoders)

    def stored_streams(self, config: RunConfig) -> tuple[str, ...]:
        """Names the stored streams that may play the part of those (Sample.streams): what must be prepared."""
        return self.streams_read(config)

    def traits(self, config: RunConfig) -> Mapping[str, Any]:
        """Facts of the system that every prediction file and export states, such as {"prior": true}."""
        return {}

    def resampled_by(self, config: RunConfig) -> str:
        """Names the group whose members are drawn together in bootstrap intervals of a run."""
        return self.reports_by

    # ---- answers
    @abstractmethod
    def decode(self, config: RunConfig, sample: Sample, output: Output) -> Any:
        """Turns averaged output values into an answer of JSON types."""

    @abstractmethod
    def metrics(self, answers: Sequence[Any], targets: Sequence[Any]) -> dict[str, float]:
        """Scores answers against targets, as `decode` and `answer_of` give them; the function that training logs."""

    @abstractmethod
    def answer_of(self, sample: Sample) -> Any:
        """Gives a sample's truth in the form of an answer."""

    @abstractmethod
    def write_submission(
        self,
        predictions: Sequence[Prediction],
        out: Path,
        kind: str,
        traits: Mapping[str, Any],
        row_ids: Sequence[str] = (),
    ) -> str:
        """Writes the challenge's format, re-reads and checks it, and gives one line that says what was written.

        Args:
            predictions: One a sample.
            out: File to write.
            kind: Which of the track's formats; "" for the usual one.
            traits: Facts of the system.
            row_ids: Rows to write, in this order; () for every row of every prediction.

        Raises:
            SubmissionError: If the predictions do not form a valid submission. Nothing is left behind then.
        """

    def read_row_ids(self, path: Path) -> tuple[str, ...]:
        """Reads the organisers' list of the rows that a submission must hold, in its order.

        Raises:
            ConfigError: If the track has no such list.
            DataError: If the file is missing or malformed.
        """
        raise ConfigError(f"ids: track {self.name} has no list of rows; leave out ids={path}")

    def export_run(
        self, checkpoints: Sequence[Checkpoint], out: Path, kind: str, answer: AnswerFunction
    ) -> Mapping[str, Any]:
        """Writes a format that holds a program rather than answers, and gives {"out", "message", ...}.

        Args:
            checkpoints: One a fold of the run's main evaluation, loaded.
            out: File to write.
            kind: Which of the track's formats; "" for the usual one.
            answer: What `mersuite predict` runs, to compare the program's answers with.

        Raises:
            ConfigError: If the track has no such format.
        """
        raise ConfigError(f"kind: track {self.name} exports predictions only; use pred=FILE.jsonl, got kind={kind!r}")

    @abstractmethod
    def read_table(self, path: Path) -> dict[str, Any]:
        """Reads a submission, prediction or target file as row id -> answer of that row.

        Raises:
            SubmissionError: If ids repeat or values are out of range.
        """

    @abstractmethod
    def score(self, pred: Mapping[str, Any], target: Mapping[str, Any], request: ScoreRequest) -> dict[str, float]:
        """Scores two tables joined by id, with `metrics` underneath.

        Raises:
            SubmissionError: If an id of the target has no prediction.
        """

    # ---- report
    def published(self) -> Sequence[PublishedFigure]:
        """Gives results that others published, to set a run beside."""
        return ()

    def report_sections(self, rows: Mapping[str, Sequence[Prediction]], clips: Sequence[str]) -> Sequence[Section]:
        """Gives what the report shows for this track alone.

        Args:
            rows: Evaluation name to its out-of-fold rows with targets, the main one first.
            clips: Samples that the user wants drawn; () leaves the choice to the track.

        Raises:
            DataError: If a named sample is not among the rows.
        """
        return ()
