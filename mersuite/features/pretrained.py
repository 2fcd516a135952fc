"""Pretrained models from a folder or the hub: what they need, their files' digest, and loading them once a process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from mersuite.errors import ConfigError, DataError
from mersuite.schema import require

Kind = Literal["image", "sound", "text"]

_PREPROCESSORS = (("preprocessor_config.json",), ("processor_config.json",))
_NEEDED: Mapping[Kind, tuple[tuple[str, ...], ...]] = {
    "image": _PREPROCESSORS,
    "sound": _PREPROCESSORS,
    "text": (
        ("tokenizer.json",),
        ("vocab.txt",),
        ("vocab.json", "merges.txt"),
        ("tokenizer.model",),
        ("spiece.model",),
        ("sentencepiece.bpe.model",),
    ),
}
"""Sets of files, one of which a model folder must hold beside its configuration and weights."""
_MAX_REASON = 160
"""Characters kept of what transformers says; some of its messages list every model there is."""
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_LOADED_FIRST = ("model.safetensors", "model.safetensors.index.json")
"""Where one of these is there, transformers leaves pytorch_model.bin alone; other safetensors, of adapters, it does not
load."""
_UNUSED_WEIGHTS = ("pooler", "masked_spec_embed", "mask_token", "position_ids")
"""What published checkpoints may lack, because no feature passes through it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a model comes from.

    Attributes:
        model: Folder or hub id, as configured.
        revision: Branch, tag or commit on the hub; None for its newest.
        folder: The folder; None for a hub id.
    """

    model: str
    revision: str | None
    folder: Path | None

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of every from_pretrained: folders never reach for the hub, and no code of a model is run."""
        if self.folder is not None:
            return {"local_files_only": True, "trust_remote_code": False}
        return {"revision": self.revision, "trust_remote_code": False}


def find_source(model: str, revision: str | None = None) -> Source:
    """Says whether a model is a folder or a hub id.

    Raises:
        ConfigError: If it is neither.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return Source(model=str(folder), revision=None, folder=folder)
    parts = model.split("/")
    if not all(parts) or len(parts) > 2 or model.startswith((".", "~")):
        raise ConfigError(f"model: the folder {model} does not exist; give a folder, or a hub id such as owner/name")
    return Source(model=model, revision=revision, folder=None)


def feature_name(model: str, output: str | None) -> str:
    """Gives what the streams of a model are called by: the last part of its name, without dots.

    Why no dots: the stream is a key of the configuration, where dots part words.

    >>> feature_name("TencentGameMate/chinese-hubert-large", None), feature_name("/models/Qwen2.5-7B/", None)
    ('chinese-hubert-large', 'Qwen2_5-7B')
    """
    return (output or Path(model).name or "model").replace(".", "_")


def check_name(model: str, output: str | None) -> None:
    """Refuses a model or an output without a name; for __post_init__ of Config classes."""
    require(bool(model.strip()), "model: need a folder or a hub id, got an empty text")
    require(
        output is None or (bool(output.strip()) and "/" not in output), f"output: need a name without /, got {output!r}"
    )


def check_folder(source: Source, kind: Kind) -> None:
    """Refuses a model folder that lacks a file; hub ids are checked by loading.

    Raises:
        ConfigError: Naming the file that is not there.
    """
    if source.folder is None:
        return
    _require_config(source.folder)
    if not any(all((source.folder / name).is_file() for name in names) for names in _NEEDED[kind]):
        options = " or ".join(" with ".join(names) for names in _NEEDED[kind])
        what = "tokenizer" if kind == "text" else "processor"
        raise ConfigError(
            f"model: {source.folder} has no {what}: need {options}; copy it from where the weights come from"
        )
    if not any(path for pattern in _WEIGHTS for path in source.folder.glob(pattern)):
        raise ConfigError(
            f"model: {source.folder} has no weights: need model.safetensors or pytorch_model.bin; download them whole"
        )


def _require_config(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ConfigError(f"model: {folder} has no config.json; copy it from where the weights come from")


def library() -> ModuleType:
    """Gives the package `transformers`.

    Raises:
        ConfigError: If it is not installed.
    """
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"features: pretrained models need the package {error.name!r}; pip install 'mersuite[llm]'"
        ) from error
    return transformers


@contextmanager
def _loading(source: Source, what: str) -> Iterator[None]:
    """Turns what transformers raises for a bad folder or an unknown hub id into a ConfigError."""
    from pickle import UnpicklingError

    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, UnpicklingError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:_MAX_REASON]
        cure = "give a folder that holds the model" if source.folder is None else "compare it with the model's page"
        raise ConfigError(f"model: {source.model}: its {what} cannot be loaded ({reason}); {cure}") from error


def read_config(source: Source) -> Any:
    """Reads a model's configuration, without its weights; every call gives one that may be changed.

    Raises:
        ConfigError: If it is not there, the hub cannot be reached, or it is of no known kind of model.
    """
    if source.folder is not None:
        _require_config(source.folder)
    with _loading(source, "configuration"):
        return library().AutoConfig.from_pretrained(source.model, **source.options)


@cache
def read_processor(source: Source, kind: Kind, digest: str) -> Any:
    """Loads what prepares a model's input: image processor, sound feature extractor or tokenizer.

    Why always the PIL image processors: numbers would depend on whether torchvision is installed, which resizes
    otherwise.

    Args:
        source: Folder or hub id.
        kind: What the model reads.
        digest: Of the folder's files; a folder that has changed is read again.

    Raises:
        ConfigError: If it is not there or the hub cannot be reached.
    """
    transformers = library()
    with _loading(source, "tokenizer" if kind == "text" else "processor"):
        if kind == "image":
            return transformers.AutoImageProcessor.from_pretrained(source.model, backend="pil", **source.options)
        if kind == "sound":
            return transformers.AutoFeatureExtractor.from_pretrained(source.model, **source.options)
        return transformers.AutoTokenizer.from_pretrained(source.model, **source.options)


_VISION_TOWERS = ("Blip2VisionModel", "CLIPVisionModel", "CLIPVisionModelWithProjection")
"""Classes that are loaded from a checkpoint with a language part too, and leave that out."""


@lru_cache(maxsize=1)
def load_model(
    source: Source, digest: str, class_name: str, device: str, changes: tuple[tuple[str, Any], ...] = ()
) -> Any:
    """Loads a model in float32, frozen, for answering; the last one is kept, so each process loads it once.

    Args:
        source: Folder or hub id.
        digest: Of the folder's files; a folder that has changed is loaded again.
        class_name: Class of transformers, such as AutoModel.
        device: Where it shall be, such as cuda:0.
        changes: Fields of the model's configuration to set otherwise.

    Raises:
        ConfigError: If the model cannot be loaded.
        DataError: If weights are missing, which would stay random.
    """
    import torch

    config = read_config(source)
    kind = getattr(library(), class_name)
    if class_name in _VISION_TOWERS:
        config = getattr(config, "vision_config", config)
    for key, value in changes:
        setattr(config, key, value)
    with _quiet(), _loading(source, "weights"):
        model, report = kind.from_pretrained(
            source.model,
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
            key_mapping={r"^vision_model\.": ""} if class_name == "Blip2VisionModel" else None,
            **source.options,
        )
    _refuse_missing(source, report)
    return model.eval().requires_grad_(False).to(device)


def _refuse_missing(source: Source, report: Mapping[str, Any]) -> None:
    wrong = [str(item[0] if isinstance(item, tuple) else item) for item in report["mismatched_keys"]]
    wrong += [key for key in report["missing_keys"] if not any(part in key for part in _UNUSED_WEIGHTS)]
    if wrong:
        raise DataError(
            f"model: {source.model}: {len(wrong)} weights are missing or of another size, such as {sorted(wrong)[0]}; "
            "they would be random; download the model again, or give the one that its config.json describes"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences progress bars and load reports of transformers: what matters is checked and raised."""
    logging = library().utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def state_digest(source: Source) -> str:
    """Gives a digest of a model's files: SHA-256 over configuration, processor, vocabulary and weights.

    Of a hub id it is the commit that its revision stands for at this time. Why whole files: a fine-tuned copy has the
    same names and sizes.

    Raises:
        ConfigError: If the folder has no configuration or the hub cannot be reached.
    """
    if source.folder is None:
        return _commit(source)
    _require_config(source.folder)
    total = hashlib.sha256()
    for path in _deciding_files(source.folder):
        status = path.stat()
        total.update(f"{path.name} {_file_digest(path, status.st_size, status.st_mtime_ns)}\n".encode())
    return total.hexdigest()


def _commit(source: Source) -> str:
    """Gives the commit of a hub id, by the folder of the cache that its configuration lies in: snapshots/<commit>."""
    with _loading(source, "configuration"):
        path = Path(library().utils.cached_file(source.model, "config.json", revision=source.revision))
    if path.parent.parent.name != "snapshots":
        raise ConfigError(
            f"model: {source.model}: the cache of the hub does not say which commit {path} is of; give a folder that "
            "holds the model"
        )
    return path.parent.name


def _deciding_files(folder: Path) -> Sequence[Path]:
    """Gives the files that numbers depend on, sorted; where there are weights of two forms, those that are loaded."""
    patterns = _WEIGHTS if any((folder / name).is_file() for name in _LOADED_FIRST) else _WEIGHTS[::-1]
    weights = next((found for pattern in patterns if (found := sorted(folder.glob(pattern)))), [])
    others = [path for suffix in (".json", ".txt", ".model") for path in folder.glob(f"*{suffix}")]
    return sorted([*weights, *others])


@cache
def _file_digest(path: Path, size_bytes: int, mtime_ns: int) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"model: {path} cannot be read ({error.strerror})") from error


class Pretrained:
    """A model that an extractor works with: looked at early, loaded late, never pickled with the extractor."""

    def __init__(self, model: str, revision: str | None, kind: Kind) -> None:
        self._name, self._revision, self._kind = model, revision, kind
        self._digest: str | None = None
        self._config: Any = None

    @property
    def source(self) -> Source:
        """Folder or hub id."""
        return find_source(self._name, self._revision)

    @property
    def config(self) -> Any:
        """The model's configuration, read once."""
        if self._config is None:
            self._config = read_config(self.source)
        return self._config

    @property
    def processor(self) -> Any:
        """What prepares the model's input."""
        return read_processor(self.source, self._kind, self.digest())

    def check(self) -> None:
        """Refuses what can be told without weights.

        Raises:
            ConfigError: If a file is missing or broken, or the hub cannot be reached.
        """
        check_folder(self.source, self._kind)
        _ = self.config, self.processor

    def load(self, class_name: str, device: str, changes: tuple[tuple[str, Any], ...] = ()) -> Any:
        """Gives the model, as `load_model` does."""
        return load_model(self.source, self.digest(), class_name, device, changes)

    def digest(self) -> str:
        """Gives the digest of the model's files, as `state_digest` does; worked out once."""
        if self._digest is None:
            self._digest = state_digest(self.source)
        return self._digest
