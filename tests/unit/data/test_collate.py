from __future__ import annotations

import numpy as np
import pytest
import torch

from mersuite.clip import Batch, WindowKey
from mersuite.data.collate import as_is, join, pad_rows, stack_targets
from mersuite.errors import DataError

FLOAT = np.dtype("float32")


def test_rows_are_kept_and_the_rest_is_zero_and_masked() -> None:
    parts = [np.full((2, 3), 7, np.float32), None, np.full((4, 3), 8, np.float32)]
    rows, mask = pad_rows(parts, num_rows=None, num_channels=3, dtype=FLOAT)
    assert rows.shape == (3, 4, 3)
    assert mask.sum(1).tolist() == [2, 0, 4]
    assert torch.equal(rows[:, :, 0], torch.tensor([[7.0, 7, 0, 0], [0, 0, 0, 0], [8, 8, 8, 8]]))
    assert torch.equal(rows.abs().sum(2) > 0, mask)


def test_a_fixed_length_holds_also_where_all_parts_are_missing() -> None:
    rows, mask = pad_rows([None, None], num_rows=5, num_channels=2, dtype=FLOAT)
    assert rows.shape == (2, 5, 2)
    assert rows.abs().sum() == 0
    assert not mask.any()


def test_token_ids_lose_their_channel_axis() -> None:
    parts = [np.array([[5], [6]]), np.array([[9]])]
    rows, mask = pad_rows(parts, num_rows=None, num_channels=1, dtype=np.dtype("int64"))
    assert rows.dtype == torch.int64
    assert rows.tolist() == [[5, 6], [9, 0]]
    assert mask.tolist() == [[True, True], [True, False]]


def test_ragged_targets_are_padded_with_nan_and_classes_with_the_ignored_one() -> None:
    ragged = stack_targets([np.ones((3, 2)), np.ones((1, 2))])
    assert ragged.dtype == torch.float32
    assert torch.isnan(ragged).sum() == 4
    assert stack_targets([np.array([1, 2]), np.array([3])]).tolist() == [[1, 2], [3, -100]]
    assert stack_targets([np.array(4), np.array(5)]).tolist() == [4, 5]


def test_targets_of_other_shapes_are_refused() -> None:
    with pytest.raises(DataError, match="equal shapes but for the first axis"):
        stack_targets([np.ones((3, 2)), np.ones((3, 1))])
    with pytest.raises(DataError, match="equal shapes but for the first axis"):
        stack_targets([np.ones((3, 2)), np.ones(3)])


def batch(name: str, num_rows: int, weight: float | None = None) -> Batch:
    return Batch(
        keys=[WindowKey(name, 0.0, 0.0)],
        streams={"eeg": torch.ones(1, num_rows, 2), "text": torch.ones(1, num_rows, dtype=torch.int64)},
        masks={"eeg": torch.ones(1, num_rows, dtype=torch.bool), "text": torch.ones(1, num_rows, dtype=torch.bool)},
        target={"score": torch.tensor([3.0]), "course": torch.ones(1, num_rows, 2)},
        weight=None if weight is None else torch.tensor([weight]),
        texts={"a": [name]},
    )


def test_joined_batches_are_padded_to_the_longest() -> None:
    joined = join([batch("x", 2), batch("y", 4, weight=2.0)])
    assert [key.sample_id for key in joined.keys] == ["x", "y"]
    assert joined.streams["eeg"].shape == (2, 4, 2)
    assert joined.masks["eeg"].sum(1).tolist() == [2, 4]
    assert joined.streams["text"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert torch.isnan(joined.target["course"][0, 2:]).all()
    assert joined.target["score"].tolist() == [3.0, 3.0]
    assert joined.weight is not None
    assert joined.weight.tolist() == [1.0, 2.0]
    assert joined.texts == {"a": ["x", "y"]}


def test_one_batch_joined_is_itself() -> None:
    single = batch("x", 3)
    joined = join([single])
    assert torch.equal(joined.streams["eeg"], single.streams["eeg"])
    assert joined.weight is None
    assert as_is(single) is single


def test_batches_of_other_streams_or_none_cannot_be_joined() -> None:
    other = batch("y", 2)
    other.streams.pop("text")
    with pytest.raises(DataError, match="different streams"):
        join([batch("x", 2), other])
    with pytest.raises(DataError, match="at least one batch"):
        join([])
