"""Sound encoders: HuBERT, wav2vec2, WavLM and their like on waveforms, Whisper on its own spectrogram."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

import numpy as np
import torch

from mersuite.clip import Clip, Signal
from mersuite.errors import ConfigError, DataError
from mersuite.features.base import Extractor
from mersuite.features.batched import Precision, answering, choose_device, layer_sum, length_batches, to_numpy
from mersuite.features.feature_rows import Level, estimate, level_signals
from mersuite.features.from_pretrained import FromPretrained
from mersuite.features.pretrained import check_name
from mersuite.media.audio import read_audio
from mersuite.media.streams import stream_media
from mersuite.schema import require, require_all

_BATCHES_PER_UNIT = 4
"""Clips that are wanted at once, in batches: among more, lengths are more alike."""
_LEAST_SHARE = 0.75
"""Shortest piece of a padded batch, as a share of its longest. Why: a processor gains little from batches of sound, and
loses what it spends on padding."""
_BEAR_PADDING = ("hubert", "unispeech", "unispeech-sat", "wav2vec2", "wavlm")
"""Kinds of models whose layers see no padding under a mask, if their norms do not."""
_NEEDED_NAMES = ("conv_kernel", "conv_stride", "hidden_size")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechConfig:
    """Knobs of a sound encoder.

    Attributes:
        model: Folder or hub id.
        revision: Branch, tag or commit on the hub.
        output: What streams are called by, instead of the last part of model.
        stream: Where the sound is: a wav file, or a film with a sound track.
        layers: Hidden layers that are summed, counted from the last. null is the organisers' rule: four, and the last
            alone for Whisper.
        piece_s: Longer sound is cut in pieces of this length; Whisper's pieces have its own, 30 s.
        tail: What becomes of the last piece: "pad" with zeros, whose rows count too, as the organisers do; or "keep" it
            as short as it is. Sound of one piece is never padded.
        whisper: Which part of Whisper: its encoder, over the real sound only; or the two start tokens of its decoder,
            as the organisers do, whose stream has no clock.
        pooling: utt (mean over all rows of all pieces), fra (the rows), or both.
        rate_hz: Rate that the rows of fra are averaged to; null keeps the model's, 50 Hz as a rule.
        batch_size: Pieces a step.
        precision: auto is bfloat16 on a GPU and float32 on a processor.
    """

    model: str = "TencentGameMate/chinese-hubert-large"
    revision: str | None = None
    output: str | None = None
    stream: str = "voice.speaker"
    layers: int | None = None
    piece_s: float = 10.0
    tail: Literal["pad", "keep"] = "pad"
    whisper: Literal["encoder", "decoder"] = "encoder"
    pooling: tuple[Level, ...] = ("utt",)
    rate_hz: float | None = None
    batch_size: int = 8
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        check_name(self.model, self.output)
        require_all(
            (bool(self.pooling), "pooling: need utt, fra or both"),
            (self.layers is None or self.layers >= 1, f"layers: need 1 or more or null, got {self.layers}"),
            (self.piece_s >= 1, f"piece_s: need 1 s or more, got {self.piece_s}"),
            (self.batch_size >= 1, f"batch_size: need 1 or more, got {self.batch_size}"),
        )
        require(self.rate_hz is None or self.rate_hz > 0, f"rate_hz: need a rate above 0 or null, got {self.rate_hz}")


class SpeechExtractor(FromPretrained, Extractor):
    """Writes `<model>-UTT` and `<model>-FRA`, with the role of the stream.

    Pieces of like length are padded together with a mask. Models whose answer depends on padding even so, or may -
    those whose first layer is normalised over time (`feat_extract_norm: group`, as in the base sizes), Conformers and
    other kinds, see `bears_padding` - get batches of one length only. `clips_per_unit` is how many clips it is best
    given at once.
    """

    Config = SpeechConfig
    version = 1
    config: SpeechConfig

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__(config, "sound", config.pooling)
        self.clips_per_unit = _BATCHES_PER_UNIT * config.batch_size

    def survey(self, clips: Sequence[Clip]) -> None:
        """Looks at the model.

        Raises:
            ConfigError: If it lacks a file, cannot be reached, or does not fit the knobs.
        """
        self._refuse_other_kinds()
        self._pretrained.check()
        self._own_rate_hz()

    def estimate_bytes(self, clips: Sequence[Clip]) -> int | None:
        """Gives about how many bytes the streams of these clips will take."""
        rate_hz = self.config.rate_hz or self._own_rate_hz()
        width = self._pretrained.config.hidden_size
        return estimate(clips, width, self.config.pooling, lambda clip: ceil(self._seconds(clip) * rate_hz))

    def extract(self, clips: Sequence[Clip]) -> Iterator[tuple[str, Mapping[str, Signal]]]:
        """Yields the streams of each clip.

        Raises:
            DataError: If there is no sound, it is too short, or memory runs out.
            ConfigError: If the model cannot be loaded or has no such layers.
        """
        sounds = [self._read(clip) for clip in clips]
        rate_hz = self._own_rate_hz()
        rows = self._whisper_rows(sounds) if self._is_whisper() else self._wave_rows(clips, sounds)
        for clip, own in zip(clips, rows, strict=True):
            yield clip.clip_id, level_signals(own, rate_hz, self._names, self.config.rate_hz)

    def _read(self, clip: Clip) -> np.ndarray:
        media = stream_media(clip, self.config.stream)
        try:
            return read_audio(
                media.path,
                rate_hz=self._pretrained.processor.sampling_rate,
                start_s=media.start_s,
                duration_s=media.duration_s,
            )
        except DataError as error:
            raise DataError(f"{clip.clip_id}: {self.config.stream}: {error}") from error

    def _seconds(self, clip: Clip) -> float:
        duration_s = stream_media(clip, self.config.stream).duration_s
        return len(self._read(clip)) / self._pretrained.processor.sampling_rate if duration_s is None else duration_s

    def _is_whisper(self) -> bool:
        return self._pretrained.config.model_type == "whisper"

    def _refuse_other_kinds(self) -> None:
        model_config = self._pretrained.config
        missing = [name for name in _NEEDED_NAMES if not hasattr(model_config, name)]
        if missing and not self._is_whisper():
            raise ConfigError(
                f"model: {self.config.model} is of the kind {model_config.model_type}, without {missing[0]}; give a "
                "model that reads waveforms, such as hubert, wav2vec2 or wavlm, or whisper"
            )

    def _own_rate_hz(self) -> float:
        """Gives the model's rows a second."""
        model_config, config = self._pretrained.config, self.config
        if self._is_whisper():
            if config.whisper == "decoder":
                if config.rate_hz is not None:
                    raise ConfigError("rate_hz: rows of Whisper's decoder have no clock; set rate_hz=null")
                return 1.0
            own_hz = model_config.max_source_positions / self._pretrained.processor.chunk_length
        else:
            own_hz = self._pretrained.processor.sampling_rate / float(np.prod(model_config.conv_stride))
        if config.rate_hz is not None and config.rate_hz > own_hz:
            raise ConfigError(f"rate_hz: need at most {own_hz:g} Hz, the rate of the model, got {config.rate_hz}")
        return own_hz

    # ---- models of waveforms

    def _wave_rows(self, clips: Sequence[Clip], sounds: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Gives (row, width) a sound."""
        model_config, processor = self._pretrained.config, self._pretrained.processor
        shortest = _receptive_field(model_config)
        length = round(self.config.piece_s * processor.sampling_rate)
        pieces: list[np.ndarray] = []
        owners: list[int] = []
        for index, (clip, sound) in enumerate(zip(clips, sounds, strict=True)):
            if len(sound) < shortest:
                raise DataError(
                    f"{clip.clip_id}: {self.config.stream}: {len(sound)} samples of sound are too short for the model, "
                    f"which needs {shortest}; leave the clip out"
                )
            wave = np.asarray(processor(sound, sampling_rate=processor.sampling_rate).input_values[0], np.float32)
            own = cut_pieces(wave, length, tail=self.config.tail, shortest=shortest)
            pieces += own
            owners += [index] * len(own)
        made = self._encode_waves(pieces)
        rows: list[list[np.ndarray]] = [[] for _ in sounds]
        for owner, piece in zip(owners, made, strict=True):
            rows[owner].append(piece)
        return [np.concatenate(parts) for parts in rows]

    def _encode_waves(self, pieces: Sequence[np.ndarray]) -> list[np.ndarray]:
        config = self.config
        device = choose_device(self.accelerator)
        made: list[np.ndarray] = [np.empty(0)] * len(pieces)
        with answering(device, config.precision, config.batch_size):
            model = self._pretrained.load("AutoModel", device, _plain(self._pretrained.config))
            share = _LEAST_SHARE if bears_padding(model.config) else 1.0
            for batch in length_batches([len(piece) for piece in pieces], config.batch_size, least_share=share):
                lengths = torch.tensor([len(pieces[index]) for index in batch])
                waves = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(pieces[i]) for i in batch], batch_first=True)
                mask = None
                if (lengths != lengths[0]).any():
                    mask = (torch.arange(waves.shape[1]) < lengths[:, None]).long().to(device)
                output = model(waves.to(device), attention_mask=mask, output_hidden_states=True)
                rows = to_numpy(layer_sum(output, config.layers or 4))
                for place, index in enumerate(batch):
                    made[index] = rows[place, : _num_rows(model.config, len(pieces[index]))]
        return made

    # ---- Whisper

    def _whisper_rows(self, sounds: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Gives (row, width) a sound: its 30 s pieces' rows of the encoder, or of the decoder's start tokens."""
        processor = self._pretrained.processor
        length = processor.chunk_length * processor.sampling_rate
        pieces = [(index, piece) for index, sound in enumerate(sounds) for piece in _chunks(sound, length)]
        device = choose_device(self.accelerator)
        rows: list[list[np.ndarray]] = [[] for _ in sounds]
        with answering(device, self.config.precision, self.config.batch_size):
            model = self._pretrained.load("AutoModel", device)
            for start in range(0, len(pieces), self.config.batch_size):
                chunk = pieces[start : start + self.config.batch_size]
                waves = [piece for _, piece in chunk]
                inputs = processor(waves, sampling_rate=processor.sampling_rate, return_tensors="pt")
                made = to_numpy(self._whisper(model, inputs.input_features.to(device)))
                for (index, piece), own in zip(chunk, made, strict=True):
                    rows[index].append(own[: self._num_heard(len(piece), length, len(own))])
        return [np.concatenate(parts) for parts in rows]

    def _whisper(self, model: Any, spectrogram: torch.Tensor) -> torch.Tensor:
        layers = self.config.layers or 1
        if self.config.whisper == "encoder":
            return layer_sum(model.encoder(spectrogram, output_hidden_states=True), layers)
        if layers != 1:
            raise ConfigError("layers: the organisers' rule for Whisper's decoder is its last layer; set layers=null")
        tokens = torch.full((len(spectrogram), 2), model.config.decoder_start_token_id, device=spectrogram.device)
        return model(spectrogram, decoder_input_ids=tokens).last_hidden_state.float()

    def _num_heard(self, num_samples: int, length: int, num_rows: int) -> int:
        """Gives how many rows of a piece are of real sound, the last one in part; the rest is padding to 30 s."""
        return num_rows if self.config.whisper == "decoder" else ceil(num_samples * num_rows / length)


def cut_pieces(wave: np.ndarray, length: int, *, tail: Literal["pad", "keep"], shortest: int) -> list[np.ndarray]:
    """Cuts a waveform into pieces; one that is no longer than a piece stays as it is.

    Args:
        wave: (sample,).
        length: Samples a piece.
        tail: Whether the last piece is padded with zeros or kept as short as it is.
        shortest: A kept last piece of fewer samples is joined to the one before.

    >>> [piece.tolist() for piece in cut_pieces(np.arange(1, 6), 2, tail="pad", shortest=1)]
    [[1, 2], [3, 4], [5, 0]]
    >>> [piece.tolist() for piece in cut_pieces(np.arange(1, 6), 2, tail="keep", shortest=2)]
    [[1, 2], [3, 4, 5]]
    """
    if len(wave) <= length:
        return [wave]
    if tail == "pad":
        wave = np.pad(wave, (0, -len(wave) % length))
    pieces = _chunks(wave, length)
    if len(pieces[-1]) < shortest:
        pieces[-2:] = [np.concatenate(pieces[-2:])]
    return pieces


def _chunks(wave: np.ndarray, length: int) -> list[np.ndarray]:
    return [wave[start : start + length] for start in range(0, len(wave), length)]


def bears_padding(model_config: Any) -> bool:
    """Whether a model of waveforms gives the same rows when the end of its input is padding under a mask.

    Not so where the first layer is normalised over time, padding included, where hidden states are normalised before
    positions are embedded, so that masked zeros do not stay zero, or where layers hold convolutions over time, as in
    Conformers; unknown kinds are not trusted.
    """
    return (
        model_config.model_type in _BEAR_PADDING
        and model_config.feat_extract_norm == "layer"
        and not getattr(model_config, "conv_pos_batch_norm", False)
    )


def _plain(model_config: Any) -> tuple[tuple[str, Any], ...]:
    """Leaves out an adapter on top, which thins out rows and is no hidden layer."""
    return (("add_adapter", False),) if getattr(model_config, "add_adapter", False) else ()


def _num_rows(model_config: Any, num_samples: int) -> int:
    for kernel, stride in zip(model_config.conv_kernel, model_config.conv_stride, strict=True):
        num_samples = (num_samples - kernel) // stride + 1
    return num_samples


def _receptive_field(model_config: Any) -> int:
    """Gives the fewest samples that give a row."""
    field = 1
    for kernel, stride in reversed([*zip(model_config.conv_kernel, model_config.conv_stride, strict=True)]):
        field = (field - 1) * stride + kernel
    return field
