"""What extractors that run one pretrained model have in common."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from mersuite.features.feature_rows import stream_names
from mersuite.features.pretrained import Pretrained, feature_name


class FromPretrained:
    """Stands before Extractor among the bases of an extractor whose knobs are model, revision, output and stream.

    Args:
        config: The extractor's.
        kind: What the model reads, for its processor.
        levels: Which streams are written: "utt", "fra" or both.
    """

    no_effect: ClassVar[tuple[str, ...]] = ("model", "revision", "batch_size")

    def __init__(self, config: Any, kind: Literal["image", "sound", "text"], levels: tuple[Any, ...]) -> None:
        super().__init__(config)  # type: ignore[call-arg]
        self.inputs: tuple[str, ...] = (config.stream,)
        self._pretrained = Pretrained(config.model, config.revision, kind)
        self._names = stream_names(feature_name(config.model, config.output), config.stream, levels)

    def outputs(self) -> tuple[str, ...]:
        """Names of the streams written for each clip."""
        return tuple(self._names.values())

    def state_digest(self) -> str:
        """Gives the digest of the model's files."""
        return self._pretrained.digest()
