"""Running a pretrained model over many inputs: device, precision, batches of like length, lack of memory."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch

from mersuite.errors import ConfigError, DataError

Precision = Literal["auto", "float32", "bfloat16"]


def choose_device(accelerator: str) -> str:
    """Gives the device of this process.

    Several GPUs: worker processes take turns, by the number at the end of the process's name, which the pool counts up
    from 1 (`SpawnProcess-3`); the main process takes the first.

    Args:
        accelerator: As runtime.accelerator: auto (a GPU where one is visible), cpu, gpu, cuda, mps.

    Raises:
        ConfigError: If the accelerator is not there or of no use here.
    """
    if accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if accelerator == "mps" and torch.backends.mps.is_available():
        return "mps"
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return f"cuda:{_worker_index() % torch.cuda.device_count()}"
    raise ConfigError(f"runtime.accelerator: {accelerator} is not available for extraction here; set it to auto or cpu")


def _worker_index() -> int:
    number = re.search(r"-(\d+)$", multiprocessing.current_process().name)
    return int(number[1]) - 1 if number else 0


@contextmanager
def answering(device: str, precision: Precision, batch_size: int) -> Iterator[None]:
    """Runs models without gradients, in bfloat16 where that is wanted, and tells what cures a lack of memory.

    Args:
        device: From choose_device.
        precision: auto is bfloat16 on a GPU and float32 elsewhere.
        batch_size: The knob's value, for the message.

    Raises:
        DataError: If memory runs out.
    """
    kind = device.partition(":")[0]
    half = precision == "bfloat16" or (precision == "auto" and kind == "cuda")
    try:
        with torch.inference_mode(), torch.autocast(kind, dtype=torch.bfloat16, enabled=half):
            yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if not _is_out_of_memory(error):
            raise
        if kind == "cuda":
            torch.cuda.empty_cache()
        cure = f"lower batch_size of this extractor (it is {batch_size})" if batch_size > 1 else "take a smaller model"
        shared = ", or runtime.prepare_workers, because every worker holds the model" if kind == "cuda" else ""
        raise DataError(f"out of memory on {device}: {cure}{shared}") from error


def _is_out_of_memory(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "can't allocate memory" in text


def length_batches(lengths: Sequence[int], batch_size: int, *, least_share: float = 0.0) -> list[list[int]]:
    """Puts inputs of like length together, so that little is padded.

    Args:
        lengths: One an input.
        batch_size: Most inputs a batch.
        least_share: Length of the shortest of a batch, as a share of its longest; 1.0 for batches of one length.

    Returns:
        Indices into lengths, each once, the longest first: a lack of memory shows at once.

    >>> length_batches([3, 9, 3, 8], 2), length_batches([3, 9, 3, 8], 2, least_share=1.0)
    ([[1, 3], [0, 2]], [[1], [3], [0, 2]])
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        last = batches[-1] if batches else []
        if last and len(last) < batch_size and lengths[index] >= least_share * lengths[last[0]]:
            last.append(index)
        else:
            batches.append([index])
    return batches


def layer_sum(output: Any, num_layers: int) -> torch.Tensor:
    """Sums the last hidden layers of a model's output: (batch, row, width) float32.

    The last of them is `last_hidden_state`. Why: models with a norm after their last layer (the large HuBERT, wav2vec2
    and WavLM) list it after that norm in transformers 4, which the organisers used, and before it in version 5.

    Raises:
        ConfigError: If the model has fewer layers.
    """
    states = output.hidden_states
    if num_layers > len(states) - 1:
        raise ConfigError(f"layers: need {len(states) - 1} or fewer, the layers of this model, got {num_layers}")
    total = output.last_hidden_state.float()
    for state in states[len(states) - num_layers : -1]:
        total = total + state.float()
    return total


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Gives a tensor as a float32 array."""
    return tensor.detach().to("cpu", torch.float32).numpy()
