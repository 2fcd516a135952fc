"""Text encoders: RoBERTa, MacBERT, and any model of transformers that reads tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from mersuite.clip import Clip, Media, Signal
from mersuite.errors import DataError
from mersuite.features.base import Extractor
from mersuite.features.batched import Precision, answering, choose_device, layer_sum, length_batches, to_numpy
from mersuite.features.feature_rows import STEP_HZ, Level, estimate, level_signals
from mersuite.features.from_pretrained import FromPretrained
from mersuite.features.pretrained import check_name
from mersuite.schema import require_all

_BATCHES_PER_UNIT = 4
"""Clips that are wanted at once, in batches: among more, lengths are more alike."""
_NO_LIMIT = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageConfig:
    """Knobs of a text encoder.

    Attributes:
        model: Folder or hub id.
        revision: Branch, tag or commit on the hub.
        output: What streams are called by, instead of the last part of model.
        stream: Which text.
        layers: Hidden layers that are summed, counted from the last; four is the organisers' rule.
        special_tokens: Whether the tokens that a tokenizer puts around a text ([CLS], [SEP]) are kept. Why drop: the
            organisers leave them out, and they are no part of what was said.
        empty: What becomes of a text without a token: "refuse" it, or "zeros", as the organisers do.
        long_text: What becomes of a text of more tokens than the model reads: "refuse" it, or "cut" its end.
        pooling: utt (mean over tokens), fra (a row a token, at a nominal 1 Hz), or both.
        batch_size: Texts a step.
        precision: auto is bfloat16 on a GPU and float32 on a processor.
    """

    model: str = "hfl/chinese-roberta-wwm-ext-large"
    revision: str | None = None
    output: str | None = None
    stream: str = "text.speaker.zh"
    layers: int = 4
    special_tokens: Literal["drop", "keep"] = "drop"
    empty: Literal["refuse", "zeros"] = "refuse"
    long_text: Literal["refuse", "cut"] = "refuse"
    pooling: tuple[Level, ...] = ("utt",)
    batch_size: int = 32
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        check_name(self.model, self.output)
        require_all(
            (bool(self.pooling), "pooling: need utt, fra or both"),
            (self.layers >= 1, f"layers: need 1 or more, got {self.layers}"),
            (self.batch_size >= 1, f"batch_size: need 1 or more, got {self.batch_size}"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tokens:
    """Token ids of a text, and which of them are its own: (token,) each."""

    ids: np.ndarray
    own: np.ndarray


class LanguageExtractor(FromPretrained, Extractor):
    """Writes `<model>-UTT` and `<model>-FRA`, with the role and language of the stream.

    `clips_per_unit` is how many clips it is best given at once.
    """

    Config = LanguageConfig
    version = 1
    config: LanguageConfig

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__(config, "text", config.pooling)
        self.clips_per_unit = _BATCHES_PER_UNIT * config.batch_size

    def survey(self, clips: Sequence[Clip]) -> None:
        """Looks at the model and at all texts.

        Raises:
            ConfigError: If the model lacks a file or cannot be reached.
            DataError: If texts are empty or too long, and no knob says what becomes of them.
        """
        self._pretrained.check()
        with_text = [clip for clip in clips if self.config.stream in clip.media]
        self._refuse(with_text, self._tokens(with_text))

    def estimate_bytes(self, clips: Sequence[Clip]) -> int | None:
        """Gives about how many bytes the streams of these clips will take; None where the width is not known."""
        width = getattr(self._pretrained.config, "hidden_size", None)
        if width is None:
            return None
        return estimate(clips, width, self.config.pooling, lambda clip: float(self._tokens([clip])[0].own.sum()))

    def extract(self, clips: Sequence[Clip]) -> Iterator[tuple[str, Mapping[str, Signal]]]:
        """Yields the streams of each clip.

        Raises:
            DataError: If texts are empty or too long, and no knob says what becomes of them, or memory runs out.
            ConfigError: If the model cannot be loaded or has no such layers.
        """
        texts = self._tokens(clips)
        self._refuse(clips, texts)
        for clip, rows in zip(clips, self._encode(texts), strict=True):
            yield clip.clip_id, level_signals(rows, STEP_HZ, self._names, None)

    def _tokens(self, clips: Sequence[Clip]) -> list[_Tokens]:
        """Gives the tokens of each clip, cut where that is wanted; a text without any of its own has none at all."""
        texts = [self._text(clip) for clip in clips]
        if not texts:
            return []
        cut: dict[str, Any] = {}
        if self.config.long_text == "cut" and (limit := self._limit()) < _NO_LIMIT:
            cut = {"truncation": True, "max_length": limit}
        found = self._pretrained.processor(texts, return_special_tokens_mask=True, verbose=False, **cut)
        made = []
        for ids, special in zip(found["input_ids"], found["special_tokens_mask"], strict=True):
            own = np.array(special) == 0
            if self.config.special_tokens == "keep" and own.any():
                own[:] = True
            made.append(_Tokens(ids=np.array(ids), own=own))
        return made

    def _text(self, clip: Clip) -> str:
        text = clip.media.get(self.config.stream)
        if text is None or isinstance(text, Media):
            there = ", ".join(sorted(clip.media)) or "none"
            raise DataError(
                f"{clip.clip_id}: there is no text {self.config.stream!r}; the streams that are there: {there}"
            )
        return text.strip()

    def _limit(self) -> int:
        """Gives the most tokens that the model reads."""
        model_config = self._pretrained.config
        own = getattr(model_config, "max_position_embeddings", None)
        if own is not None and model_config.model_type in ("roberta", "xlm-roberta", "camembert"):
            own -= model_config.pad_token_id + 1  # their positions count from behind the padding's id
        return min(own or _NO_LIMIT, self._pretrained.processor.model_max_length)

    def _refuse(self, clips: Sequence[Clip], texts: Sequence[_Tokens]) -> None:
        if self.config.empty == "refuse":
            empty = [clip.clip_id for clip, text in zip(clips, texts, strict=True) if not text.own.any()]
            _refuse_some(empty, len(clips), f"{self.config.stream} is empty", "empty=zeros, or leave them out")
        if self.config.long_text == "refuse":
            limit = self._limit()
            long = [clip.clip_id for clip, text in zip(clips, texts, strict=True) if len(text.ids) > limit]
            _refuse_some(
                long,
                len(clips),
                f"{self.config.stream} has more than {limit} tokens",
                "long_text=cut, or another model",
            )

    def _encode(self, texts: Sequence[_Tokens]) -> list[np.ndarray]:
        """Gives (token, width) a text; zeros in one row for a text without tokens."""
        config, pad = self.config, self._pad_id()
        device = choose_device(self.accelerator)
        made: dict[int, np.ndarray] = {}
        full = [index for index, text in enumerate(texts) if text.own.any()]
        with answering(device, config.precision, config.batch_size):
            model = self._pretrained.load("AutoModel", device)
            width = model.config.hidden_size
            if getattr(model.config, "is_encoder_decoder", False):
                model = model.get_encoder()
            for places in length_batches([len(texts[index].ids) for index in full], config.batch_size):
                batch = [full[place] for place in places]
                ids = [torch.from_numpy(texts[index].ids) for index in batch]
                padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=pad)
                lengths = torch.tensor([len(item) for item in ids])
                mask = (torch.arange(padded.shape[1]) < lengths[:, None]).long()
                output = model(input_ids=padded.to(device), attention_mask=mask.to(device), output_hidden_states=True)
                rows = to_numpy(layer_sum(output, config.layers))
                made |= {index: rows[place, : len(ids[place])][texts[index].own] for place, index in enumerate(batch)}
        return [made.get(index, np.zeros((1, width), np.float32)) for index in range(len(texts))]

    def _pad_id(self) -> int:
        """Gives a token to pad with; masked, so any will do where the tokenizer has none."""
        pad = self._pretrained.processor.pad_token_id
        return 0 if pad is None else pad


def _refuse_some(clip_ids: Sequence[str], num_clips: int, fault: str, cure: str) -> None:
    if clip_ids:
        shown = ", ".join(clip_ids[:5]) + (", ..." if len(clip_ids) > 5 else "")
        raise DataError(f"{len(clip_ids)} of {num_clips} clips: {fault} ({shown}); set {cure}")
