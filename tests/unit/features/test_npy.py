import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mersuite.catalog import find
from mersuite.clip import Clip, Media, Signal
from mersuite.errors import ConfigError, DataError
from mersuite.features.npy import NpyConfig, NpyExtractor
from mersuite.prepare import stream_fingerprints
from mersuite.schema import build
from mersuite.store_entry import StoreKey, check_signal

FOLDER = "clip-base-FRA"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "features" / FOLDER
    path.mkdir(parents=True)
    return path


def clip_of(folder: Path, name: str, array: np.ndarray | None) -> Clip:
    """A clip with a file of features; without one for None."""
    if array is None:
        return Clip(clip_id=name, dataset="d", media={"features/other": Media(path=folder)}, groups={})
    np.save(folder / f"{name}.npy", array)
    return Clip(clip_id=name, dataset="d", media={f"features/{FOLDER}": Media(path=folder / f"{name}.npy")}, groups={})


def extractor_of(**knobs) -> NpyExtractor:
    return NpyExtractor(build(NpyConfig, {"folder": FOLDER, **knobs}))


def signal_of(clip: Clip, **knobs) -> Signal:
    extractor = extractor_of(**knobs)
    ((_, streams),) = extractor.extract([clip])
    (stream,) = extractor.outputs()
    check_signal(StoreKey("d", clip.clip_id, stream, "f"), streams[stream])
    return streams[stream]


def frames(rows: int, width: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


def test_catalog_finds_the_extractor():
    assert find("extractor", "npy") is NpyExtractor


def test_streams_are_named_for_folder_and_role():
    assert extractor_of().inputs == (f"features/{FOLDER}",)
    assert extractor_of().outputs() == (FOLDER,)
    assert extractor_of(role="listener").outputs() == (f"{FOLDER}_listener",)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_vector_is_stored_as_it_is(folder, dtype):
    array = frames(1)[0].astype(dtype)
    signal = signal_of(clip_of(folder, "a", array))
    assert signal.rate_hz == 0.0
    np.testing.assert_array_equal(signal.data, array[None].astype(np.float32))


def test_a_single_row_without_a_rate_is_a_vector(folder):
    signal = signal_of(clip_of(folder, "a", frames(1)))
    assert (signal.data.shape, signal.rate_hz) == ((1, 8), 0.0)


@pytest.mark.parametrize("array", [frames(5), frames(1), frames(1)[0]], ids=["5 frames", "1 frame", "axis dropped"])
def test_with_a_rate_every_file_holds_frames(folder, array):
    signal = signal_of(clip_of(folder, "a", array), rate_hz=25)
    np.testing.assert_array_equal(signal.data, np.atleast_2d(array))
    assert signal.rate_hz == 25.0


def test_pooled_frames_are_their_mean(folder):
    array = frames(7)
    signal = signal_of(clip_of(folder, "a", array), pool="mean", rate_hz=25)
    np.testing.assert_allclose(signal.data, array.mean(axis=0, keepdims=True), rtol=1e-6, atol=1e-7)
    assert signal.rate_hz == 0.0


def test_a_stretch_of_a_file_takes_its_rows(folder):
    array = frames(100)
    clip = clip_of(folder, "a", array)
    media = replace(clip.media[f"features/{FOLDER}"], start_s=1.0, duration_s=2.0)
    signal = signal_of(replace(clip, media={f"features/{FOLDER}": media}), rate_hz=25)
    np.testing.assert_array_equal(signal.data, array[25:75])


def test_estimate_counts_of_a_long_file_the_stretches_only(folder):
    clip = clip_of(folder, "a", frames(1000))
    (name, media), *_ = clip.media.items()
    clips = [
        replace(clip, clip_id=f"a{start}", media={name: replace(media, start_s=start, duration_s=2.0)})
        for start in range(10)
    ]
    assert extractor_of(rate_hz=25).estimate_bytes(clips) == 10 * 50 * 8 * 4


def test_what_missing_files_mean_stays_out_of_the_fingerprint(folder, tmp_path):
    clips = [clip_of(folder, "a", frames(1))]
    keys = [
        stream_fingerprints(clips, {"x": extractor_of(missing=missing)}, tmp_path / "store")
        for missing in ("refuse", "mask")
    ]
    assert keys[0] == keys[1]


def test_a_header_that_asks_for_more_than_the_memory_is_refused(folder):
    clip = clip_of(folder, "a", frames(2))
    path = folder / "a.npy"
    path.write_bytes(path.read_bytes().replace(b"(2, 8), }" + b" " * 13, b"(2000000000000, 8), }" + b" "))
    with pytest.raises(DataError, match=r"a: .*a\.npy: not a readable \.npy file \(.*; make or copy it again"):
        signal_of(clip, pool="mean")


def test_estimate_is_what_the_features_take(folder):
    clips = [clip_of(folder, "a", frames(5)), clip_of(folder, "b", frames(3).astype(np.float64))]
    assert extractor_of(rate_hz=25).estimate_bytes(clips) == 4 * 8 * 8
    assert extractor_of(pool="mean").estimate_bytes(clips) == 4 * 8 * 2


def test_survey_accepts_files_of_one_width_without_a_word(folder, caplog):
    extractor_of(rate_hz=25).survey([clip_of(folder, "a", frames(5)), clip_of(folder, "b", frames(3))])
    assert caplog.text == ""


def test_missing_files_are_refused_with_names_number_share_and_cure(folder):
    clips = [clip_of(folder, f"m{index}", None) for index in range(25)] + [
        clip_of(folder, f"c{index}", frames(1)) for index in range(75)
    ]
    with pytest.raises(DataError) as caught:
        extractor_of().survey(clips)
    message = str(caught.value)
    assert f"features/{FOLDER}: 25 of 100 clips (25.0%) have no file: m0, m1, " in message
    assert "m19 and 5 more" in message
    assert "m20" not in message
    assert f"set missing=mask of the entry under `features` with folder={FOLDER}" in message


def test_missing_files_are_masked_and_counted_if_asked(folder, caplog):
    with caplog.at_level(logging.WARNING):
        extractor_of(missing="mask").survey([clip_of(folder, "a", None), clip_of(folder, "b", frames(1))])
    assert f"features/{FOLDER}: 1 of 2 clips (50.0%) have no file and are masked" in caplog.text


def test_a_folder_that_no_clip_has_is_refused_with_the_others_named(folder):
    with pytest.raises(DataError, match=r"none of the 1 clips has a file there; choose one of: other"):
        extractor_of().survey([clip_of(folder, "a", None)])


def test_a_folder_that_only_other_clips_have_is_told_where_missing_files_are_masked(folder, caplog):
    with caplog.at_level(logging.WARNING):
        extractor_of(missing="mask").survey([clip_of(folder, "a", None)])
    assert "none of the 1 clips has a file there; choose one of: other; the stream is masked" in caplog.text


def test_no_folder_at_all_is_said():
    clip = Clip(clip_id="a", dataset="d", media={}, groups={})
    with pytest.raises(DataError, match="there is no folder of features at all"):
        extractor_of().survey([clip])


def test_differing_widths_are_refused_with_counts_and_examples(folder):
    clips = [clip_of(folder, name, frames(1, width)) for name, width in (("a", 768), ("b", 1024), ("c", 1024))]
    message = r"files differ in width: 1024 \(2 files, such as b.npy\), 768 \(1 files, such as a.npy\)"
    with pytest.raises(DataError, match=message):
        extractor_of().survey(clips)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.arange(4), "a: .*a.npy: need floating point numbers, got int64"),
        (np.zeros((0, 4)), r"a: .*a.npy: need \(width,\) or \(frame, width\), none of them 0, got \(0, 4\)"),
        (np.zeros((2, 3, 4)), r"need \(width,\) or \(frame, width\), none of them 0, got \(2, 3, 4\)"),
        (np.zeros(()), r"none of them 0, got \(\)"),
        (frames(5), f"holds 5 frames; of the entry under `features` with folder={FOLDER} set rate_hz"),
        (np.array([{}], object), "need floating point numbers, got object"),
    ],
    ids=["int", "empty", "3 axes", "scalar", "frames", "object"],
)
def test_survey_and_extract_refuse_files_of_another_form(folder, array, message):
    clip = clip_of(folder, "a", array)
    with pytest.raises(DataError, match=message):
        extractor_of().survey([clip])
    with pytest.raises(DataError, match=message):
        signal_of(clip)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00v\x00{'descr'", b"PK\x03\x04 something else"])
def test_broken_files_are_refused_by_survey(folder, content):
    clip = clip_of(folder, "a", frames(1))
    (folder / "a.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"a: .*a.npy: not a readable .npy file"):
        extractor_of().survey([clip])


def test_a_file_that_ends_early_is_refused(folder):
    clip = clip_of(folder, "a", frames(50))
    whole = (folder / "a.npy").read_bytes()
    (folder / "a.npy").write_bytes(whole[:-40])
    with pytest.raises(DataError, match=r"a: .*a.npy: not a readable .npy file"):
        signal_of(clip, rate_hz=25)


@pytest.mark.filterwarnings("ignore:Stored array in format 3.0")
def test_fields_with_names_are_refused(folder):
    clip = clip_of(folder, "a", np.zeros(2, [("很", "f4")]))
    with pytest.raises(DataError, match=r"its format 3.0 is for named fields"):
        extractor_of().survey([clip])


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_values_that_are_not_finite_are_refused(folder, value):
    array = frames(2).astype(np.float64)
    array[1, 3] = value
    with pytest.raises(DataError, match=r"a: .*a.npy: 1 of 16 values are NaN or infinite"):
        signal_of(clip_of(folder, "a", array), rate_hz=25)


def test_a_stretch_without_a_rate_and_one_beyond_the_end_are_refused(folder):
    clip = clip_of(folder, "a", frames(1))
    later = replace(clip, media={name: replace(media, start_s=9.0) for name, media in clip.media.items()})
    with pytest.raises(DataError, match="the clip is a stretch of the file; set rate_hz"):
        signal_of(later)
    with pytest.raises(DataError, match="the clip begins at 9 s, and 1 frames at 25 Hz end before"):
        signal_of(later, rate_hz=25)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"folder": "a/b"}, r"folder: need the name of one folder in features/, got 'a/b'"),
        ({"folder": ""}, "folder: need the name of one folder"),
        ({"rate_hz": 0}, "rate_hz: need a rate above 0, or null, got 0.0"),
        ({"missing": "skip"}, "missing: got 'skip'"),
    ],
)
def test_knobs_out_of_range_are_refused(knobs, message):
    with pytest.raises(ConfigError, match=message):
        extractor_of(**knobs)
