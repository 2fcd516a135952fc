"""The cross track: everything that is not shared, put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mersuite.clip import Output, Prediction, Sample
from mersuite.config import RunConfig
from mersuite.data.unlabelled import Unlabelled
from mersuite.errors import ConfigError, did_you_mean
from mersuite.formats.mer2026 import read_names
from mersuite.panels import PublishedFigure, Section
from mersuite.schema import plain
from mersuite.track import CheckRow, ClassLoss, Evaluation, Fitted, ScoreRequest, Track, TrackData
from tracks.cross.ablations import ablations, overrides_off, with_seen
from tracks.cross.dialogue import STREAM, of_same_question
from tracks.cross.dialogue_head import DialogueHead, earlier_losses
from tracks.cross.dialogue_systems import DialogueFitted, dialogue_evaluations
from tracks.cross.fake import FakeConfig, write_fake
from tracks.cross.figures import cross_sections
from tracks.cross.fitted import CrossFitted, label_of
from tracks.cross.head import LOGITS, TARGET, CrossHead
from tracks.cross.official import OFFICIAL, plain_loss, with_official
from tracks.cross.options import CrossConfig
from tracks.cross.prior import estimate_shares, shifted
from tracks.cross.published import PUBLISHED
from tracks.cross.reader import STREAMS, read_cross
from tracks.cross.roles import OTHER, ROLE, as_listener, hidden_of_listener, sources_of
from tracks.cross.scores import emotion_metrics, score_tables
from tracks.cross.submission import read_answers, write_answers
from tracks.cross.transfer import alignment

if TYPE_CHECKING:
    import torch

    from mersuite.clip import Batch
    from mersuite.models.base import BuildContext, Fused


class CrossTrack(Track):
    """One of six emotions a clip: of the speaker in training clips, of the listener in candidates."""

    name: ClassVar[str] = "cross"
    Config: ClassVar[type] = CrossConfig
    FakeConfig: ClassVar[type] = FakeConfig
    streams: ClassVar[tuple[str, ...]] = (*STREAMS, STREAM)
    monitor: ClassVar[str] = "waf"
    monitor_mode: ClassVar[str] = "max"
    metric_names: ClassVar[tuple[str, ...]] = ("waf", "acc", "uar")
    reports_by: ClassVar[str] = "clip"
    groups_shown: ClassVar[tuple[str, ...]] = ()

    # ---- data
    def read(self, config: RunConfig, split: str) -> TrackData:
        """Reads the organisers' folder (data.root), a manifest of own clips, or dialogues (data.manifest)."""
        return read_cross(config, split)

    def check(self, config: RunConfig) -> list[CheckRow]:
        """Reports counts beside the published ones, missing and unreadable media, coverage and widths of features."""
        from tracks.cross.check import check_cross

        return check_cross(config)

    def fake(self, config: Any, out: Path) -> Mapping[str, Any]:
        """Writes clips whose emotion is expressed in face, voice and words, and the scores that nobody can beat."""
        return write_fake(config, out)

    # ---- learning
    def unlabelled(self, config: RunConfig) -> Unlabelled | None:
        """Candidates whose labelled person listens, for cross.align and cross.pseudo_labels."""
        options: CrossConfig = config.options
        if not self.uses_network(config) or (options.align == "none" and options.pseudo_labels is None):
            return None
        share = options.align_share if options.align != "none" else 0.0
        return Unlabelled(split="test", where={ROLE: OTHER}, share=share)

    def fitted(self, config: RunConfig) -> Fitted:
        """Gives labels and their shares, unfitted."""
        return CrossFitted(config.options) if config.options.dialogue is None else DialogueFitted(config.options)

    def uses_network(self, config: RunConfig) -> bool:
        """Those that neither count nor copy do."""
        return config.options.system in ("listener", "own", "dialogue")

    def stored_streams(self, config: RunConfig) -> tuple[str, ...]:
        """Adds the streams that play parts for speakers and listeners."""
        options: CrossConfig = config.options
        found: dict[str, None] = {}
        for stream in config.model.encoders:
            sides = [side[stream] for side in (options.own, options.other) if stream in side]
            plays = [name for side in sides for name in side]
            found |= dict.fromkeys(plays if len(sides) == 2 else [*plays, stream])
        made = sources_of(config)
        return tuple(name for name in found if name in made or name in config.model.encoders)

    def as_asked(self, config: RunConfig, sample: Sample) -> Sample:
        """Hides voice and words where the system answers for somebody who listens."""
        return as_listener(config, sample) if config.options.system == "listener" else sample

    def standardised_among(self, config: RunConfig, sample: Sample) -> str:
        """With cross.restandardise, listeners among all listeners that are asked."""
        return OTHER if config.options.restandardise and sample.groups.get(ROLE) == OTHER else ""

    def augment(self, config: RunConfig, batch: Batch) -> Batch:
        """Silences some rows: takes all the streams away that a listener has none of."""
        import torch

        options: CrossConfig = config.options
        hidden = [stream for stream in hidden_of_listener(config) if stream in batch.masks]
        if options.system != "listener" or not options.silence or not hidden:
            return batch
        kept = torch.rand(len(batch), device=batch.masks[hidden[0]].device) >= options.silence
        left = torch.stack([mask.any(1) for name, mask in batch.masks.items() if name not in hidden])
        kept = kept | ~left.any(0)  # a row with nothing else keeps what it has
        masks = {name: batch.masks[name] & kept.unsqueeze(1) for name in hidden}
        streams = {
            name: batch.streams[name] * kept.view(-1, *[1] * (batch.streams[name].dim() - 1)).to(batch.streams[name])
            for name in hidden
        }
        return replace(batch, masks={**batch.masks, **masks}, streams={**batch.streams, **streams})

    def build_head(
        self, config: RunConfig, width: int, context: BuildContext, fitted: Fitted
    ) -> CrossHead | DialogueHead | None:
        """Gives a linear map to one logit a label."""
        if not self.uses_network(config):
            return None
        options: CrossConfig = config.options
        if options.dialogue is not None:
            return DialogueHead(
                width,
                len(fitted.classes),
                dropout=options.head_dropout,
                teaches_earlier=options.dialogue.earlier_weight > 0,
            )
        tells_roles = options.align == "adversarial"
        return CrossHead(width, len(fitted.classes), dropout=options.head_dropout, tells_roles=tells_roles)

    def loss(
        self, config: RunConfig, output: Mapping[str, torch.Tensor], fused: Fused, batch: Batch, fitted: Fitted
    ) -> Mapping[str, torch.Tensor]:
        """Gives cross entropy, with the configured weights of labels and smoothing, and the alignment of roles."""
        import torch

        from mersuite.losses import cross_entropy

        logits = output[LOGITS]
        weights = fitted.loss_weights if isinstance(fitted, CrossFitted) else None
        loss = cross_entropy(
            logits,
            batch.target[TARGET],
            weight=batch.weight,
            class_weights=None if weights is None else torch.as_tensor(weights, device=logits.device),
            label_smoothing=config.options.label_smoothing,
        )
        options: CrossConfig = config.options
        if options.dialogue is not None:
            return {"cross_entropy": loss, **earlier_losses(options.dialogue, output, batch)}
        if options.align == "none":
            return {"cross_entropy": loss}
        return {"cross_entropy": loss, "align": options.align_weight * alignment(config, output, fused, batch)}

    def class_loss(self, config: RunConfig, fitted: Fitted) -> ClassLoss | None:
        """Gives the cross entropy of a system that sees everything but candidates."""
        if not isinstance(fitted, CrossFitted) or self.unlabelled(config) is not None:
            return None
        if config.options.dialogue is not None:
            return None
        return plain_loss(config.options, fitted)

    def evaluations(self, config: RunConfig) -> list[Evaluation]:
        """Gives the configured system, its ablations, the other systems, and each stream of the model alone.

        Candidates are seen in training by the configured system and its ablations alone.
        """
        options: CrossConfig = config.options
        if options.dialogue is not None:
            return self._say_what_is_seen(config, with_official(config, dialogue_evaluations(options)))
        hides = set(hidden_of_listener(config))
        nothing_left = hides == set(config.model.encoders)
        unfit = {
            "listener": ""
            if hides and not nothing_left
            else f"cross.other hides {'every stream' if nothing_left else 'no stream'} of the model",
            "own": "",
            "majority": "",
        }
        off = overrides_off(options)
        rows = [
            Evaluation(
                name=name,
                overrides={"cross.system": name, **({} if name == options.system else off)},
                protocol=protocol,
                unfit=unfit[name],
            )
            for name, protocol in _PROTOCOLS.items()
        ]
        rows.sort(key=lambda item: item.name != options.system)
        main = rows[0]
        encoders = config.model.encoders
        alone = [
            Evaluation(
                name=f"only_{stream}",
                overrides={
                    "cross.system": "own",
                    **off,
                    **{f"model.encoders.{other}": None for other in encoders if other != stream},
                },
                protocol=f"{stream} alone, own clips",
            )
            for stream in (encoders if len(encoders) > 1 else ())
        ]
        return self._say_what_is_seen(
            config, with_official(config, [main, *ablations(config, main), *rows[1:], *alone])
        )

    def _say_what_is_seen(self, config: RunConfig, evaluations: Sequence[Evaluation]) -> list[Evaluation]:
        found = []
        for item in evaluations:
            changed = {key.removeprefix("cross."): value for key, value in item.overrides.items() if "cross." in key}
            options = replace(config.options, **changed)
            learns = self.uses_network(replace(config, options=options))
            found.append(replace(item, protocol=with_seen(item.protocol, options)) if learns else item)
        return found

    def resampled_by(self, config: RunConfig) -> str:
        """Clips, or what folds go by, such as dialogues: clips of one dialogue are no draws of their own."""
        return config.cv.by[0]

    def traits(self, config: RunConfig) -> Mapping[str, Any]:
        """Says which system it is, whether label shares were estimated from all that was asked, and what was asked."""
        options: CrossConfig = config.options
        asked = {} if options.dialogue is None else {"dialogue": plain(options.dialogue)}
        chosen = {"selects_on_reported": True} if options.protocol == OFFICIAL else {}
        seen: dict[str, Any] = {} if self.unlabelled(config) is None else {"align": options.align}
        if seen and options.pseudo_labels is not None:
            seen = {**seen, "pseudo_labels": plain(options.pseudo_labels)}
        learns = self.uses_network(config)
        if options.restandardise and learns:
            seen = {**seen, "restandardise": True}
        transductive = (options.prior == "estimate" and learns) or bool(seen)
        facts = {"system": options.system, "prior": options.prior, "transductive": transductive}
        return {**facts, **seen, **asked, **chosen}

    # ---- answers
    def adjust(self, config: RunConfig, outputs: Mapping[str, Output]) -> Mapping[str, Output]:
        """With cross.prior=estimate moves the answers to the label shares estimated from all of them."""
        if config.options.prior != "estimate" or not self.uses_network(config):
            return outputs
        return shifted(outputs, estimate_shares(outputs))

    def decode(self, config: RunConfig, sample: Sample, output: Output) -> str:
        """Gives the label with the largest score; the first in index order among equals."""
        return max(output.values, key=lambda label: float(output.values[label]))

    def answer_of(self, sample: Sample) -> str:
        """Gives the label's name."""
        return label_of(sample)

    def metrics(self, answers: Sequence[Any], targets: Sequence[Any]) -> dict[str, float]:
        """Gives WAF (the metric that ranks) and the rest."""
        return emotion_metrics(answers, targets)

    def write_submission(
        self,
        predictions: Sequence[Prediction],
        out: Path,
        kind: str,
        traits: Mapping[str, Any],
        row_ids: Sequence[str] = (),
    ) -> str:
        """Writes answer.csv or answer.zip."""
        return write_answers(predictions, out, kind, row_ids)

    def read_row_ids(self, path: Path) -> tuple[str, ...]:
        """Reads the candidate list."""
        return read_names(path)

    def read_table(self, path: Path) -> dict[str, Any]:
        """Reads a csv, zip, manifest or prediction file as name -> label."""
        return dict(read_answers(path))

    def score(self, pred: Mapping[str, Any], target: Mapping[str, Any], request: ScoreRequest) -> dict[str, float]:
        """Scores tables joined by name."""
        if request.options:
            name = next(iter(request.options))
            raise ConfigError(f"score: unknown key {name!r} for track cross; {did_you_mean(name, ['json'])}")
        return score_tables(pred, of_same_question(pred, target))

    # ---- report
    def published(self) -> Sequence[PublishedFigure]:
        """Gives the figures of participants."""
        return PUBLISHED

    def report_sections(self, rows: Mapping[str, Sequence[Prediction]], clips: Sequence[str]) -> Sequence[Section]:
        """Gives the confusion matrix and the F1 of each label."""
        return cross_sections(rows, clips)


_PROTOCOLS = {  # in the order in which they stand in for a main system that the data cannot have
    "listener": "voice and words hidden from held-out rows, as of somebody who listens; own clips",
    "own": "everything seen; own clips",
    "majority": "always the most frequent label of the training rows",
}
