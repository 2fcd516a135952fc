import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mersuite.catalog import find
from mersuite.clip import Clip, Media, Signal
from mersuite.errors import ConfigError, DataError
from mersuite.features import fnirs
from mersuite.features.fnirs import FnirsConfig, FnirsExtractor
from mersuite.models.layers import RunningNorm
from mersuite.schema import build
from mersuite.signal.haemodynamics import repair_motion
from tracks.ps.layout import FNIRS_CH_NAMES, FNIRS_CH_TYPES

RATE_HZ = 1000 / 21
PLAIN = FnirsConfig(baseline="none", scale="none", motion_repair=False, high_hz=None)


def blood(seconds: float, seed: int, *, level: float = 0.0) -> np.ndarray:
    """Slow waves in 6 x 51 channels as MER-PS stores them: (channel and kind, time), molar; kind 2 is the sum."""
    generator = np.random.default_rng(seed)
    num_samples = round(seconds * RATE_HZ)
    data = generator.standard_normal((6, 51, num_samples)).cumsum(axis=-1) * 1e-8 + level
    data[2] = data[0] + data[1]
    return data.reshape(306, num_samples)


class Recordings:
    """Stands in the place of the files: what a stream of a clip holds."""

    def __init__(self, monkeypatch) -> None:
        self.held: dict[tuple[str, str], Signal] = {}
        monkeypatch.setattr(fnirs, "read_stream", lambda clip, stream, **allowed: self.held[clip.clip_id, stream])

    def add(self, clip_id: str, trial: np.ndarray, baseline: np.ndarray | None = None, **facts) -> Clip:
        streams = {"fnirs": trial} if baseline is None else {"fnirs": trial, "fnirs_baseline": baseline}
        known = {"rate_hz": RATE_HZ, "ch_names": FNIRS_CH_NAMES, "ch_types": FNIRS_CH_TYPES, "unit": "M"} | facts
        for stream, data in streams.items():
            self.held[clip_id, stream] = Signal(data=np.ascontiguousarray(data.T, dtype=np.float32), **known)
        media = {stream: Media(path=Path("x.mat")) for stream in streams}
        return Clip(clip_id=clip_id, dataset="d", media=media, groups={"subject": "s"})


@pytest.fixture
def recordings(monkeypatch) -> Recordings:
    return Recordings(monkeypatch)


def extract(config: FnirsConfig, *clips: Clip) -> dict[str, dict[str, Signal]]:
    return {clip_id: dict(streams) for clip_id, streams in FnirsExtractor(config).extract(clips)}


def reserved(clip: Clip, folder: Path, bad: list[int], num_channels: int = 51) -> Clip:
    path = folder / "fNIRS_reservations.csv"
    header = ",".join(["sub_id", *(f"ch-{index + 1}" for index in range(num_channels))])
    row = ",".join(["s", *("0" if index in bad else "1" for index in range(num_channels))])
    path.write_text(f"{header}\n{row}\n")
    return replace(clip, media={**clip.media, "fnirs_reservations": Media(path=path, key="s")})


def test_catalog_finds_the_extractor():
    assert find("extractor", "fnirs") is FnirsExtractor


def test_shapes_rates_and_names(recordings):
    clip = recordings.add("a", blood(135, 0), blood(5, 1))
    streams = extract(FnirsConfig(), clip)["a"]
    assert set(streams) == set(FnirsExtractor(FnirsConfig()).outputs())
    assert streams["fnirs"].data.shape == (675, 102)
    assert streams["fnirs"].rate_hz == 5.0
    assert streams["fnirs"].ch_names[:3] == ("ch-1 hbo", "ch-1 hbr", "ch-2 hbo")
    assert streams["fnirs_stats"].data.shape == (135, 306)
    assert streams["fnirs_stats"].ch_names[:4] == ("ch-1 hbo_mean", "ch-1 hbo_slope", "ch-1 hbo_std", "ch-1 hbr_mean")
    for signal in streams.values():
        assert signal.data.dtype == np.float32
        assert signal.data.flags.c_contiguous
        assert np.isfinite(signal.data).all()


def test_values_are_micromolar_of_the_right_channel(recordings):
    trial = blood(20, 0)
    data = extract(replace(PLAIN, rate_hz=100.0), recordings.add("a", trial))["a"]["fnirs"]
    hbr_of_7 = trial[51 + 6] * 1e6
    np.testing.assert_allclose(data.data[:, 2 * 6 + 1], hbr_of_7 - hbr_of_7.mean(), atol=1e-4)
    assert data.unit == "uM"


def test_unknown_unit_leaves_the_values(recordings):
    data = extract(replace(PLAIN, rate_hz=100.0), recordings.add("a", blood(5, 0), unit=""))["a"]["fnirs"]
    assert data.unit == ""
    assert np.abs(data.data).max() < 1e-5


def test_haemoglobin_in_a_recording_with_eeg_is_molar(recordings):
    clip = recordings.add("a", blood(30, 0), unit="V")
    data = extract(PLAIN, clip, recordings.add("b", blood(30, 0)))
    assert data["a"]["fnirs"].unit == "uM"
    np.testing.assert_array_equal(data["a"]["fnirs"].data, data["b"]["fnirs"].data)


def test_total_haemoglobin_is_read_or_summed(recordings):
    config = replace(PLAIN, types=("hbo", "hbr", "hbt"))
    read = extract(config, recordings.add("a", blood(10, 0)))["a"]["fnirs"].data.reshape(50, 51, 3)
    names, types = FNIRS_CH_NAMES[:102], FNIRS_CH_TYPES[:102]
    summed = extract(config, recordings.add("b", blood(10, 0)[:102], ch_names=names, ch_types=types))["b"]["fnirs"].data
    np.testing.assert_allclose(read.reshape(50, -1), summed, atol=1e-4)
    np.testing.assert_allclose(read[..., 2], read[..., 0] + read[..., 1], atol=1e-4)


def test_statistics_follow_the_stored_signal(recordings):
    streams = extract(replace(PLAIN, context_s=10.0), recordings.add("a", blood(30, 0)))["a"]
    rows = streams["fnirs_stats"].data.reshape(30, 102, 3)
    context = streams["fnirs"].data[50:100]
    np.testing.assert_allclose(rows[19, :, 0], context.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(rows[19, :, 1], np.polyfit(np.arange(50) / 5, context, 1)[0], atol=1e-5)
    np.testing.assert_allclose(rows[19, :, 2], context.std(axis=0), atol=1e-5)


def test_baseline_mean_is_subtracted(recordings):
    clip = recordings.add("a", blood(20, 0, level=3e-5), blood(5, 1, level=2e-5))
    data = extract(replace(PLAIN, baseline="subtract"), clip)["a"]["fnirs"].data
    calm = 1e6 * blood(5, 1, level=2e-5)[0].mean()
    plain = 1e6 * blood(20, 0, level=3e-5)[0].mean()
    assert data[:, 0].mean() == pytest.approx(plain - calm, abs=0.01)


def test_missing_baseline_names_clip_and_cure(recordings):
    with pytest.raises(DataError, match=r"t/video_02: there is no fnirs_baseline.*features\.fnirs\.baseline=none"):
        extract(FnirsConfig(), recordings.add("t/video_02", blood(5, 0)))


def test_motion_repair_is_applied_before_resampling(recordings):
    trial = blood(30, 0)
    trial[:, 700:] += 5e-6
    clip = recordings.add("a", trial)
    config = replace(PLAIN, rate_hz=100.0)
    repaired = extract(replace(config, motion_repair=True), clip)["a"]["fnirs"].data
    expected = repair_motion(trial[:1].T * 1e6, RATE_HZ)[:, 0]
    np.testing.assert_allclose(repaired[:, 0], expected - expected.mean(), atol=1e-3)
    raw = extract(config, clip)["a"]["fnirs"].data
    steps = [abs(data[900:1200, 0].mean() - data[200:500, 0].mean()) for data in (raw, repaired)]
    assert steps[0] > 4 > 0.5 > steps[1]


def test_low_pass_takes_the_heart_beat_out(recordings):
    time = np.arange(round(60 * RATE_HZ)) / RATE_HZ
    trial = blood(60, 0) * 0 + 1e-6 * (np.sin(2 * np.pi * 0.05 * time) + np.sin(2 * np.pi * 1.1 * time))
    data = extract(replace(PLAIN, high_hz=0.2), recordings.add("a", trial))["a"]["fnirs"].data[:, 0]
    seconds = np.arange(len(data)) / 5
    assert np.abs(data - np.sin(2 * np.pi * 0.05 * seconds))[50:-50].max() < 0.02


def test_noise_does_not_mark_the_first_sample(recordings):
    noise = 1e-6 * np.random.default_rng(0).standard_normal((306, round(60 * RATE_HZ)))
    data = extract(replace(PLAIN, high_hz=0.2), recordings.add("a", noise))["a"]["fnirs"].data
    assert data[0].std() < 1.6 * data[50:-50].std()


def test_detrending_keeps_the_level_at_the_start(recordings):
    ramp = np.linspace(0, 3e-6, round(60 * RATE_HZ)) + 1e-6
    clip = recordings.add("a", blood(60, 0) * 1e-3 + ramp, blood(5, 1) * 1e-3)
    data = extract(replace(PLAIN, detrend="linear", baseline="subtract"), clip)["a"]["fnirs"].data
    assert np.abs(data[10:-10] - 1.0).max() < 0.05


def test_ruled_out_channels_take_the_mean_of_the_others(recordings, tmp_path):
    trial = blood(10, 0)
    trial[4] *= 1000
    clip = reserved(recordings.add("a", trial), tmp_path, [4, 9])
    data = extract(PLAIN, clip)["a"]["fnirs"].data.reshape(50, 51, 2)
    good = np.setdiff1d(np.arange(51), [4, 9])
    np.testing.assert_allclose(data[:, 4], data[:, good].mean(axis=1), atol=1e-4)
    np.testing.assert_allclose(data[:, 9], data[:, 4], atol=1e-6)
    zero = extract(replace(PLAIN, masked="zero"), clip)["a"]["fnirs"].data.reshape(50, 51, 2)
    assert not zero[:, [4, 9]].any()
    kept = extract(replace(PLAIN, use_reservations=False), clip)["a"]["fnirs"].data.reshape(50, 51, 2)
    assert np.abs(kept[:, 4, 0]).max() > 10 * np.abs(kept[:, 0, 0]).max()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e-5])
def test_what_ruled_out_channels_hold_stops_nothing(recordings, tmp_path, value):
    trial, baseline = blood(10, 0), blood(5, 1)
    clean = reserved(recordings.add("a", trial, baseline), tmp_path, [4, 9])
    expected = extract(FnirsConfig(), clean)["a"]
    trial[4, 100:], baseline[51 + 9] = value, value
    clip = reserved(recordings.add("a", trial, baseline), tmp_path, [4, 9])
    for name, signal in extract(FnirsConfig(), clip)["a"].items():
        np.testing.assert_array_equal(signal.data, expected[name].data)


def test_nan_in_a_kind_that_is_not_taken_stops_nothing(recordings):
    trial = blood(10, 0)
    expected = extract(PLAIN, recordings.add("a", trial))["a"]["fnirs"].data
    trial[2 * 51 + 7] = np.nan
    np.testing.assert_array_equal(extract(PLAIN, recordings.add("a", trial))["a"]["fnirs"].data, expected)


@pytest.mark.parametrize("stream", ["fnirs", "fnirs_baseline"])
def test_nan_in_a_kept_channel_is_refused(recordings, tmp_path, stream):
    held = {"fnirs": blood(10, 0), "fnirs_baseline": blood(5, 1)}
    held[stream][51 + 6, 20:23] = np.nan
    held[stream][4, 100:] = np.nan
    clip = reserved(recordings.add("a", held["fnirs"], held["fnirs_baseline"]), tmp_path, [4])
    message = rf"a: {stream}: x.mat: NaN or infinite values in 1 channels \(ch-7 hbr\) at 3 of .*fNIRS_reservations"
    with pytest.raises(DataError, match=message):
        extract(FnirsConfig(), clip)


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_unit_of_a_file_does_not_change_what_a_network_sees(recordings, factor):
    trial, baseline = blood(60, 0), blood(5, 1)
    trial[3, 1000:] += 3e-6
    expected = extract(FnirsConfig(), recordings.add("a", trial, baseline, unit=""))["a"]
    other = extract(FnirsConfig(), recordings.add("a", factor * trial, factor * baseline, unit=""))["a"]
    np.testing.assert_allclose(other["fnirs"].data, expected["fnirs"].data, atol=1e-3)
    norm, other_norm = (RunningNorm(306) for _ in range(2))
    mask = torch.ones(1, 60, dtype=torch.bool)
    rows = norm(torch.from_numpy(expected["fnirs_stats"].data)[None], mask)
    other_rows = other_norm(torch.from_numpy(other["fnirs_stats"].data)[None], mask)
    assert rows.std() > 0.9
    torch.testing.assert_close(other_rows, rows, atol=1e-3, rtol=0)


def test_flat_channels_are_filled(recordings):
    trial, baseline = blood(10, 0), blood(5, 1)
    trial[3] = 1e-5
    baseline[51 + 8] = 1e-5
    data = extract(replace(PLAIN, baseline="subtract"), recordings.add("a", trial, baseline))["a"]["fnirs"].data
    values = data.reshape(50, 51, 2)
    good = np.setdiff1d(np.arange(51), [3, 8])
    np.testing.assert_allclose(values[:, [3, 8]], values[:, good].mean(axis=1, keepdims=True).repeat(2, 1), atol=1e-4)


def test_subject_scale_is_one_factor(recordings):
    clips = [recordings.add(name, blood(20, seed)) for seed, name in enumerate("ab")]
    scaled, plain = extract(replace(PLAIN, scale="subject"), *clips), extract(PLAIN, *clips)
    factors = [plain[name]["fnirs"].data.std() / scaled[name]["fnirs"].data.std() for name in "ab"]
    assert factors[0] == pytest.approx(factors[1], rel=1e-4)
    deviation = np.concatenate([scaled[name]["fnirs"].data for name in "ab"])
    assert np.median(1.4826 * np.median(np.abs(deviation - np.median(deviation, 0)), 0)) == pytest.approx(1, rel=0.05)
    np.testing.assert_array_equal(scaled["a"]["fnirs_stats"].data, plain["a"]["fnirs_stats"].data)


def test_same_input_gives_the_same_bytes_alone_and_in_company(recordings):
    clips = [recordings.add(name, blood(20, seed), blood(5, 9)) for seed, name in enumerate("ab")]
    config = FnirsConfig(scale="none")
    together, alone = extract(config, *clips)["b"], extract(config, clips[1])["b"]
    for name in together:
        assert together[name].data.tobytes() == alone[name].data.tobytes()


def test_last_second_may_lack_a_fraction_of_a_sample(recordings):
    data = blood(61, 0)[:, : int(61 * RATE_HZ)]
    assert data.shape[1] / RATE_HZ < 61
    assert extract(PLAIN, recordings.add("a", data))["a"]["fnirs_stats"].data.shape == (61, 306)


def test_missing_kind_names_the_cure(recordings):
    names, types = FNIRS_CH_NAMES[:101], FNIRS_CH_TYPES[:101]
    with pytest.raises(DataError, match=r"a: fnirs has no hbr of ch-51; take hbr out of features\.fnirs\.types"):
        extract(PLAIN, recordings.add("a", blood(5, 0)[:101], ch_names=names, ch_types=types))


def test_recording_without_haemoglobin_is_refused(recordings):
    names = tuple(f"optode {index}" for index in range(306))
    with pytest.raises(DataError, match=r'a: fnirs has no haemoglobin: its channels are optode 0, .* " hbo"'):
        extract(PLAIN, recordings.add("a", blood(5, 0), ch_names=names, ch_types=("misc",) * 306))


def test_no_good_channel_is_refused(recordings, tmp_path):
    clip = reserved(recordings.add("a", blood(5, 0)), tmp_path, list(range(51)))
    with pytest.raises(DataError, match=r"a: fnirs has no good channel of 51.*use_reservations=false"):
        extract(PLAIN, clip)


def test_no_channel_good_in_trial_and_baseline_is_refused(recordings):
    trial, baseline = blood(5, 0), blood(5, 1)
    trial[:25] = 0.0
    baseline[25:51] = 0.0
    with pytest.raises(DataError, match="a: no fNIRS channel is good in both trial and baseline"):
        extract(replace(PLAIN, baseline="subtract"), recordings.add("a", trial, baseline))


def test_reservations_of_another_layout_are_refused(recordings, tmp_path):
    clip = reserved(recordings.add("a", blood(5, 0)), tmp_path, [], num_channels=40)
    with pytest.raises(DataError, match=r"40 channels are listed, the recording of a has 51"):
        extract(PLAIN, clip)


def test_less_than_a_second_is_refused(recordings):
    with pytest.raises(DataError, match=r"a: fnirs lasts 0\.50 s, need 1 s or more"):
        extract(PLAIN, recordings.add("a", blood(0.5, 0)))


def test_recordings_of_two_layouts_in_one_group_are_refused(recordings):
    names = tuple(name.replace("ch-", "other-") for name in FNIRS_CH_NAMES)
    clips = [recordings.add("a", blood(5, 0)), recordings.add("b", blood(5, 0), ch_names=names)]
    with pytest.raises(DataError, match=r"b: fnirs has the channels other-1, .* the group's first ch-1"):
        extract(PLAIN, *clips)


def test_baseline_of_another_layout_is_refused(recordings):
    clip = recordings.add("a", blood(5, 0), blood(5, 1))
    held = recordings.held["a", "fnirs_baseline"]
    recordings.held["a", "fnirs_baseline"] = replace(held, ch_names=tuple(f"x{name}" for name in FNIRS_CH_NAMES))
    with pytest.raises(DataError, match="a: fnirs and fnirs_baseline differ in channels"):
        extract(replace(PLAIN, baseline="subtract"), clip)


def test_filter_that_does_not_fit_the_rate_names_the_cure(recordings):
    with pytest.raises(DataError, match=r"a: need 0 < low_hz < high_hz .*set features\.fnirs\.low_hz"):
        extract(replace(PLAIN, high_hz=30.0), recordings.add("a", blood(5, 0)))


def test_filter_longer_than_the_recording_is_warned_of(recordings, caplog):
    extract(replace(PLAIN, low_hz=0.01), recordings.add("a", blood(60, 0)))
    assert "a: fnirs is shorter than half a filter; set features.fnirs.detrend" in caplog.text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"types": []}, "types: need one of hbo, hbr, hbt or more"),
        ({"types": ["hbx"]}, r"types\[0\]: got 'hbx'"),
        ({"rate_hz": 0.5}, "rate_hz: need 1 Hz or more"),
        ({"high_hz": 0}, "high_hz: need a frequency above 0, or null"),
        ({"low_hz": 0.5}, "need low_hz < high_hz, got 0.5 and 0.2"),
        ({"context_s": 0.5}, "context_s: need 1 s or more"),
        ({"clamp": 0}, "clamp: need a value above 0"),
        ({"min_coupling": 2}, "min_coupling: need a value from 0 to 1"),
    ],
)
def test_config_faults_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        build(FnirsConfig, values)


def light_clip() -> Clip:
    folder = os.environ.get("MERSUITE_TEST_DATA")
    if not folder:
        pytest.skip("MERSUITE_TEST_DATA is not set")
    media = Media(path=Path(folder) / "recordings" / "fnirs_18ch_intensity.snirf", start_s=10.0, duration_s=60.0)
    return Clip(clip_id="own", dataset="d", media={"fnirs": media}, groups={"subject": "s"})


def test_light_intensity_becomes_haemoglobin_in_micromolar():
    config = FnirsConfig(baseline="none", scale="none", min_coupling=0.0)
    streams = extract(config, light_clip())["own"]
    assert streams["fnirs"].data.shape == (300, 18)
    assert streams["fnirs"].unit == "uM"
    assert {name.split(" ")[1] for name in streams["fnirs"].ch_names} == {"hbo", "hbr"}
    assert streams["fnirs_stats"].data.shape == (60, 54)
    assert 0.01 < streams["fnirs"].data.std() < 100


def test_light_without_coupling_is_refused():
    with pytest.raises(DataError, match=r"own: fnirs has no good channel of 9.*min_coupling"):
        extract(FnirsConfig(baseline="none", min_coupling=1.0), light_clip())


def test_light_without_wavelengths_is_refused(monkeypatch):
    clip = light_clip()
    monkeypatch.setattr(
        fnirs.haemodynamics, "from_light", lambda raw, **facts: (_ for _ in ()).throw(ValueError("none"))
    )
    with pytest.raises(DataError, match=r"own: fnirs: light cannot be turned into haemoglobin \(none\)"):
        extract(FnirsConfig(baseline="none"), clip)
