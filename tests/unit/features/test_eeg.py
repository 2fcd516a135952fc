import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mne
import numpy as np
import pytest
import scipy.io
import scipy.signal

from mersuite.catalog import find
from mersuite.clip import Clip, Media, Signal
from mersuite.errors import ConfigError, DataError
from mersuite.features import eeg
from mersuite.features.eeg import EegConfig, EegExtractor
from mersuite.schema import build
from tracks.ps.layout import EEG_CH_NAMES

mne.set_log_level("ERROR")
PLAIN = EegConfig(baseline="none", scale="none")
SCALP = [name for name in EEG_CH_NAMES if name not in ("M1", "M2", "CB1", "CB2")]
INDEX = {name: place for place, name in enumerate(EEG_CH_NAMES)}


def pink(num_samples: int, seed: int, *, rate_hz: float = 1000.0, num_channels: int = 64) -> np.ndarray:
    """Like EEG on disk: falling power between 1 and 50 Hz, shared by the channels in part; (channel, time), volts."""
    generator = np.random.default_rng(seed)
    freqs = np.fft.rfftfreq(num_samples, 1 / rate_hz)
    shape = np.where((freqs > 1) & (freqs < 48), 1 / np.sqrt(np.maximum(freqs, 1)), 0)
    white = generator.standard_normal((num_channels, num_samples)) + 0.7 * generator.standard_normal(num_samples)
    data = np.fft.irfft(np.fft.rfft(white) * shape, n=num_samples)
    return 20e-6 * data / data.std()


class Recordings:
    """Stands in the place of the files: what a stream of a clip holds."""

    def __init__(self, monkeypatch) -> None:
        self.held: dict[tuple[str, str], Signal] = {}
        monkeypatch.setattr(eeg, "read_stream", lambda clip, stream, allow_flat: self.held[clip.clip_id, stream])

    def add(self, clip_id: str, trial: np.ndarray, baseline: np.ndarray | None = None, **facts) -> Clip:
        streams = {"eeg": trial} if baseline is None else {"eeg": trial, "eeg_baseline": baseline}
        for stream, data in streams.items():
            known = {"rate_hz": 1000.0, "ch_names": EEG_CH_NAMES, "ch_types": ("eeg",) * len(data), "unit": "V"} | facts
            self.held[clip_id, stream] = Signal(data=np.ascontiguousarray(data.T, dtype=np.float32), **known)
        media = {stream: Media(path=Path("x.mat")) for stream in streams}
        return Clip(clip_id=clip_id, dataset="d", media=media, groups={"subject": "s"})


@pytest.fixture
def recordings(monkeypatch) -> Recordings:
    return Recordings(monkeypatch)


def extract(config: EegConfig, *clips: Clip) -> dict[str, dict[str, Signal]]:
    return {clip_id: dict(streams) for clip_id, streams in EegExtractor(config).extract(clips)}


def test_catalog_finds_the_extractor():
    assert find("extractor", "eeg") is EegExtractor


def test_outputs_name_exactly_the_streams_written(recordings):
    clip = recordings.add("a", pink(4000, 0), pink(2000, 1))
    for config in (EegConfig(), EegConfig(hjorth=True, asymmetry=True)):
        assert set(extract(config, clip)["a"]) == set(EegExtractor(config).outputs())


def test_shapes_rates_and_names(recordings):
    clip = recordings.add("a", pink(7300, 0), pink(5000, 1))
    streams = extract(EegConfig(hjorth=True, asymmetry=True), clip)["a"]
    assert streams["eeg"].data.shape == (1460, 64)
    assert streams["eeg"].rate_hz == 200.0
    assert streams["eeg"].ch_names == EEG_CH_NAMES
    assert {name: streams[name].data.shape for name in ("eeg_bands", "eeg_hjorth", "eeg_asymmetry")} == {
        "eeg_bands": (7, 320),
        "eeg_hjorth": (7, 192),
        "eeg_asymmetry": (7, 130),
    }
    assert streams["eeg_bands"].ch_names[:6] == (
        "FP1 de_delta", "FP1 de_theta", "FP1 de_alpha", "FP1 de_beta", "FP1 de_gamma", "FPZ de_delta",
    )  # fmt: skip
    for signal in streams.values():
        assert signal.data.dtype == np.float32
        assert signal.data.flags.c_contiguous
        assert np.isfinite(signal.data).all()
        assert len(signal.ch_names) == signal.data.shape[1]


def test_trial_equals_the_chain_of_mne(recordings):
    """Band-pass, notch, resampling, interpolation and average reference by MNE; periodogram by scipy."""
    trial = pink(20_000, 0)
    trial[INDEX["CZ"]] *= 40
    clip = recordings.add("a", trial)
    streams = extract(replace(PLAIN, low_hz=0.5, high_hz=70.0, notch_hz=(50.0,)), clip)["a"]

    raw = mne.io.RawArray(trial[[INDEX[name] for name in SCALP]], mne.create_info(SCALP, 1000.0, "eeg"))
    names = {name.upper(): name for name in mne.channels.make_standard_montage("standard_1005").ch_names}
    raw.rename_channels({name: names[name] for name in SCALP}).set_montage("standard_1005")
    raw.filter(0.5, 70.0).notch_filter(50.0).resample(200.0, npad=1000)
    raw.info["bads"] = ["Cz"]
    theirs = raw.interpolate_bads().set_eeg_reference("average").get_data().T * 1e6
    ours = streams["eeg"].data[:, [INDEX[name] for name in SCALP]]
    inner = slice(400, -400)
    assert np.abs(ours - theirs)[inner].max() < 1e-3 * theirs.std()

    freqs, density = scipy.signal.periodogram(theirs.reshape(20, 200, 60), 200.0, "hann", axis=1)
    power = np.stack(
        [density[:, (freqs >= low) & (freqs < high)].sum(axis=1) for low, high in eeg.BANDS_HZ.values()], -1
    )
    entropy = 0.5 * np.log(2 * np.pi * np.e * power)
    bands = streams["eeg_bands"].data.reshape(20, 64, 5)[:, [INDEX[name] for name in SCALP]]
    np.testing.assert_allclose(bands[2:-2], entropy[2:-2], atol=1e-3)


def test_noisy_channel_is_interpolated_and_named_in_the_log(recordings, caplog):
    trial = pink(4000, 0)
    trial[INDEX["CZ"]] *= 40
    clip = recordings.add("a", trial)
    with caplog.at_level(logging.INFO, "mersuite.features.eeg"):
        data = extract(PLAIN, clip)["a"]["eeg"].data
    assert "a: interpolated CZ" in caplog.text
    assert data[:, INDEX["CZ"]].std() < 2 * data[:, INDEX["FZ"]].std()
    kept = extract(replace(PLAIN, bad_channels=False), clip)["a"]["eeg"].data
    assert kept[:, INDEX["CZ"]].std() > 10 * kept[:, INDEX["FZ"]].std()


def test_channel_flat_in_the_baseline_alone_is_interpolated_in_both(recordings):
    trial, baseline = pink(4000, 0), pink(2000, 1)
    baseline[INDEX["F3"]] = 1e-5
    clip = recordings.add("a", trial, baseline)
    bands = extract(EegConfig(), clip)["a"]["eeg_bands"].data.reshape(4, 64, 5)
    assert np.abs(bands[:, INDEX["F3"]]).max() < 3


def test_subject_scope_judges_by_the_medians_over_trials(recordings, caplog):
    loose = pink(4000, 0)
    loose[INDEX["CZ"]] *= 40
    clips = [recordings.add("a", loose), recordings.add("b", pink(4000, 1)), recordings.add("c", pink(4000, 2))]
    with caplog.at_level(logging.INFO, "mersuite.features.eeg"):
        extract(replace(PLAIN, bad_scope="subject"), *clips)
    assert "interpolated" not in caplog.text


def test_scalp_mean_is_zero_after_average_reference(recordings):
    data = extract(PLAIN, recordings.add("a", pink(4000, 0)))["a"]["eeg"].data
    scalp = [INDEX[name] for name in SCALP]
    assert np.abs(data[:, scalp].mean(axis=1)).max() < 1e-4 * data.std()
    kept = extract(replace(PLAIN, reference="none"), recordings.add("a", pink(4000, 0)))["a"]["eeg"].data
    assert np.abs(kept[:, scalp].mean(axis=1)).max() > 0.1 * kept.std()


def test_baseline_features_are_subtracted(recordings):
    trial, baseline = pink(4000, 0), pink(3000, 1)
    clip = recordings.add("a", trial, baseline)
    gap = extract(EegConfig(), clip)["a"]["eeg_bands"].data
    alone = extract(EegConfig(baseline="none"), clip)["a"]["eeg_bands"].data
    calm = extract(EegConfig(baseline="none"), recordings.add("b", baseline))["b"]["eeg_bands"].data
    np.testing.assert_allclose(gap, alone - calm.mean(axis=0), atol=1e-4)


def test_amplitude_of_a_person_leaves_baseline_corrected_bands_unchanged(recordings):
    trial, baseline = pink(4000, 0), pink(3000, 1)
    small = extract(EegConfig(), recordings.add("a", trial, baseline))["a"]
    large = extract(EegConfig(), recordings.add("b", 3 * trial, 3 * baseline))["b"]
    np.testing.assert_allclose(small["eeg_bands"].data, large["eeg_bands"].data, atol=1e-4)
    np.testing.assert_allclose(small["eeg"].data, large["eeg"].data, atol=1e-3)


def test_missing_baseline_names_clip_and_cure(recordings):
    clip = recordings.add("test_1/video_03", pink(2000, 0))
    with pytest.raises(DataError, match=r"test_1/video_03: there is no eeg_baseline.*features\.eeg\.baseline=none"):
        extract(EegConfig(), clip)


def test_robust_scale_gives_unit_deviation_and_keeps_topography(recordings):
    trial = pink(10_000, 0)
    trial[INDEX["OZ"]] *= 2
    clip = recordings.add("a", trial)
    by_subject = extract(replace(PLAIN, scale="subject"), clip)["a"]["eeg"].data
    by_channel = extract(replace(PLAIN, scale="channel"), clip)["a"]["eeg"].data
    assert np.median(by_subject.std(axis=0)) == pytest.approx(1, abs=0.1)
    assert by_subject[:, INDEX["OZ"]].std() > 1.5
    np.testing.assert_allclose(by_channel.std(axis=0), 1, atol=0.15)


def test_artefacts_end_at_the_clamp(recordings):
    trial = pink(10_000, 0)
    trial[:, 5000:5010] += np.linspace(-1e-2, 1e-2, 64)[:, None]
    data = extract(replace(PLAIN, scale="subject", clamp=8.0), recordings.add("a", trial))["a"]["eeg"].data
    assert np.abs(data).max() == 8.0


def test_euclidean_alignment_whitens_the_scalp(recordings):
    clips = [recordings.add(name, pink(10_000, seed)) for seed, name in enumerate("abc")]
    found = extract(replace(PLAIN, alignment="euclidean"), *clips)
    scalp = [INDEX[name] for name in SCALP]
    mean = np.mean([np.cov(streams["eeg"].data[:, scalp], rowvar=False) for streams in found.values()], axis=0)
    values = np.linalg.eigvalsh(mean)
    assert values[0] < 1e-3
    np.testing.assert_allclose(values[1:], 1.0, atol=0.02)


def test_trial_alone_equals_the_trial_in_company(recordings):
    clips = [recordings.add(name, pink(6000, seed), pink(2000, 9)) for seed, name in enumerate("abc")]
    config = EegConfig(scale="none", hjorth=True)
    together, alone = extract(config, *clips)["b"], extract(config, clips[1])["b"]
    for name in together:
        np.testing.assert_array_equal(together[name].data, alone[name].data)


def test_same_input_gives_the_same_bytes(recordings):
    clips = [recordings.add(name, pink(6000, seed), pink(2000, 9)) for seed, name in enumerate("ab")]
    config = EegConfig(hjorth=True, asymmetry=True, alignment="euclidean", low_hz=1.0)
    first, second = extract(config, *clips), extract(config, *clips)
    for clip_id, streams in first.items():
        for name, signal in streams.items():
            assert signal.data.tobytes() == second[clip_id][name].data.tobytes()


def test_all_band_features_stand_side_by_side(recordings):
    kinds = ("log_power", "de", "relative_log_power", "filtered_de")
    clip = recordings.add("a", pink(4000, 0))
    signal = extract(replace(PLAIN, band_features=kinds), clip)["a"]["eeg_bands"]
    values = signal.data.reshape(4, 64, 4, 5)
    np.testing.assert_allclose(values[:, :, 1], 0.5 * (values[:, :, 0] + np.log(2 * np.pi * np.e)), atol=1e-4)
    assert np.abs(values[:, :, 3] - values[:, :, 1]).mean() < 1
    assert signal.ch_names[5] == "FP1 de_delta"


def test_asymmetry_is_the_difference_of_the_first_band_feature(recordings):
    streams = extract(replace(PLAIN, asymmetry=True), recordings.add("a", pink(3000, 0)))["a"]
    bands = dict(zip(streams["eeg_bands"].ch_names, streams["eeg_bands"].data.T, strict=True))
    sides = dict(zip(streams["eeg_asymmetry"].ch_names, streams["eeg_asymmetry"].data.T, strict=True))
    np.testing.assert_allclose(sides["F3-F4 de_alpha"], bands["F3 de_alpha"] - bands["F4 de_alpha"], atol=1e-5)


def test_slower_recordings_keep_their_rate_unless_asked(recordings, caplog):
    names = ("FP1", "FP2", "F3", "F4", "C3", "C4", "O1", "O2")
    facts = {"rate_hz": 80.0, "ch_names": names}
    clip = recordings.add("a", pink(800, 0, rate_hz=160.0, num_channels=8), **facts)
    streams = extract(PLAIN, clip)["a"]
    assert streams["eeg"].rate_hz == 80.0
    assert streams["eeg_bands"].data.shape == (10, 40)
    assert "the band gamma ends at 40 Hz" in caplog.text
    assert extract(replace(PLAIN, upsample=True), clip)["a"]["eeg"].data.shape == (2000, 8)


def test_band_above_nyquist_names_the_cure(recordings):
    clip = recordings.add("a", pink(500, 0, rate_hz=100.0), rate_hz=50.0)
    with pytest.raises(
        DataError, match=r"a: the band gamma \(31\.0, 50\.0\) Hz lies above 25 Hz.*features\.eeg\.bands"
    ):
        extract(PLAIN, clip)


def test_filter_that_does_not_fit_the_rate_names_the_cure(recordings):
    clip = recordings.add("a", pink(500, 0, rate_hz=200.0), rate_hz=80.0)
    with pytest.raises(DataError, match=r"a: need 0 < low_hz < high_hz < 40 .*set features\.eeg\.low_hz"):
        extract(replace(PLAIN, high_hz=45.0), clip)


def test_low_pass_that_cuts_the_top_band_is_warned_of(caplog):
    EegExtractor(EegConfig(low_hz=0.5, high_hz=45.0))
    assert "features.eeg.high_hz=45 cuts the bands, which reach up to 50 Hz" in caplog.text


def test_filter_longer_than_the_recording_is_warned_of(recordings, caplog):
    extract(replace(PLAIN, low_hz=0.1), recordings.add("a", pink(5000, 0)))
    assert "a: eeg is shorter than half a filter" in caplog.text


def test_channels_of_other_types_are_left_out(recordings):
    types = ("eeg",) * 62 + ("eog", "stim")
    streams = extract(PLAIN, recordings.add("a", pink(3000, 0), ch_types=types))["a"]
    assert streams["eeg"].data.shape == (600, 62)
    with pytest.raises(DataError, match=r"b: eeg has no channel of type eeg, only \['eog'\]"):
        extract(PLAIN, recordings.add("b", pink(3000, 0), ch_types=("eog",) * 64))


def test_unknown_names_are_refused_unless_positions_are_not_needed(recordings):
    names = tuple(f"ch-{index}" for index in range(64))
    clip = recordings.add("a", pink(3000, 0), ch_names=names)
    with pytest.raises(DataError, match=r"a: of the channels ch-0, .* 0 have a name of the 10-05 system"):
        extract(PLAIN, clip)
    free = replace(PLAIN, reference="none", bad_channels=False)
    assert extract(free, clip)["a"]["eeg_bands"].data.shape == (3, 320)


def test_unknown_unit_is_refused(recordings):
    with pytest.raises(DataError, match=r"a: eeg has the unit '', need one of V, mV, uV"):
        extract(PLAIN, recordings.add("a", pink(3000, 0), unit=""))


def test_microvolts_called_volts_are_refused(recordings):
    with pytest.raises(
        DataError, match=r"a: the channels deviate by .* uV within a second \(FP1.*microvolts were read as"
    ):
        extract(PLAIN, recordings.add("a", 1e6 * pink(3000, 0)))


def test_wholly_flat_recording_is_refused(recordings):
    with pytest.raises(DataError, match=r"a: all 64 channels are flat \(FP1: 0 uV"):
        extract(PLAIN, recordings.add("a", np.zeros((64, 3000))))


def test_recording_with_mostly_bad_channels_is_refused(recordings):
    trial = pink(3000, 0)
    trial[:40] = 0
    with pytest.raises(
        DataError, match=r"a: \d+% of the scalp channels are bad \(FP1, .*features\.eeg\.bad_channels=false"
    ):
        extract(PLAIN, recordings.add("a", trial))


def test_less_than_a_second_is_refused(recordings):
    with pytest.raises(DataError, match=r"a: eeg lasts 0\.50 s, need 1 s or more"):
        extract(PLAIN, recordings.add("a", pink(500, 0)))


def test_recordings_of_two_devices_in_one_group_are_refused(recordings):
    clips = [recordings.add("a", pink(3000, 0)), recordings.add("b", pink(3000, 0)[:32], ch_names=EEG_CH_NAMES[:32])]
    with pytest.raises(
        DataError, match=r"b: eeg has 32 channels at 1000 Hz, the group's first recording 64 at 1000 Hz"
    ):
        extract(PLAIN, *clips)


def test_no_clips_give_nothing():
    assert extract(PLAIN) == {}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"bands": {"alpha": [14, 8]}}, r"bands\.alpha: need 0 < low < high, got \(14\.0, 8\.0\)"),
        ({"low_hz": 45, "high_hz": 1}, r"need low_hz < high_hz, got 45\.0 and 1\.0"),
        ({"low_hz": -1}, "low_hz: need a frequency above 0, or null"),
        ({"rate_hz": 1}, "rate_hz: need 2 Hz or more"),
        ({"bad_max_share": 1.0}, "bad_max_share: need a share between 0 and 1"),
        ({"clamp": 0}, "clamp: need a value above 0"),
        ({"flat_uv": -1}, "flat_uv: need 0 or more"),
        ({"band_features": []}, "bands and band_features: need one entry or more"),
        ({"scale": "zscore"}, "scale: got 'zscore'"),
    ],
)
def test_config_faults_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        build(EegConfig, values)


def test_nan_in_a_file_names_clip_file_and_channel(tmp_path):
    array = pink(3000, 0)
    array[INDEX["CZ"], 100] = np.nan
    path = tmp_path / "EEG_videos.mat"
    scipy.io.savemat(path, {"video_1": array})
    media = Media(path=path, key="video_1", rate_hz=1000.0, ch_names=EEG_CH_NAMES, ch_types=("eeg",) * 64, unit="V")
    clip = Clip(clip_id="test_1/video_01", dataset="d", media={"eeg": media}, groups={})
    with pytest.raises(DataError, match=r"test_1/video_01: eeg: .*EEG_videos\.mat: video_1: NaN .*\(CZ\)"):
        extract(PLAIN, clip)


def test_stream_that_is_not_there_is_named():
    clip = Clip(clip_id="a", dataset="d", media={"text": "hello"}, groups={})
    with pytest.raises(DataError, match="a: there is no recording 'eeg'; the streams that are there: text"):
        extract(PLAIN, clip)


def test_eeglab_recording_of_32_channels_at_128_hz():
    folder = os.environ.get("MERSUITE_TEST_DATA")
    if not folder:
        pytest.skip("MERSUITE_TEST_DATA is not set")
    path = Path(folder) / "recordings" / "eeglab_data.set"
    media = Media(path=path, start_s=10.0, duration_s=20.0)
    clip = Clip(clip_id="own", dataset="d", media={"eeg": media}, groups={"subject": "s"})
    streams = extract(replace(PLAIN, low_hz=0.5, scale="subject"), clip)["own"]
    assert streams["eeg"].data.shape == (2560, 32)
    assert streams["eeg_bands"].data.shape == (20, 160)
    assert np.isfinite(streams["eeg_bands"].data).all()


BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"mne", "pandas", "einops", "omegaconf", "sklearn", "h5py", "matplotlib"}:
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Block())
from pathlib import Path
from mersuite.clip import Clip, Media
from mersuite.features.eeg import EegConfig, EegExtractor
from mersuite.features.fnirs import FnirsConfig, FnirsExtractor
from tracks.ps.layout import EEG_CH_NAMES, FNIRS_CH_NAMES, FNIRS_CH_TYPES
root = Path(sys.argv[1])
def media(stem, rate_hz, names, types, unit):
    return Media(path=root / (stem + ".mat"), key="video_1", rate_hz=rate_hz, ch_names=names, ch_types=types, unit=unit)
streams = {}
for stream, stem in (("eeg", "EEG_videos"), ("eeg_baseline", "EEG_baselines")):
    streams[stream] = media(stem, 1000.0, EEG_CH_NAMES, ("eeg",) * 64, "V")
for stream, stem in (("fnirs", "fNIRS_videos"), ("fnirs_baseline", "fNIRS_baselines")):
    streams[stream] = media(stem, 1000 / 21, FNIRS_CH_NAMES, FNIRS_CH_TYPES, "")
clip = Clip(clip_id="c", dataset="d", media=streams, groups={"subject": "s"})
config = EegConfig(hjorth=True, asymmetry=True, low_hz=0.5, notch_hz=(50.0,), alignment="euclidean")
found = {}
for extractor in (EegExtractor(config), FnirsExtractor(FnirsConfig(low_hz=0.01))):
    for clip_id, signals in extractor.extract([clip]):
        found |= signals
print(*(f"{name}:{signal.data.shape}" for name, signal in sorted(found.items())), sep=" ")
"""


def test_both_extractors_run_with_numpy_and_scipy_alone(tmp_path):
    generator = np.random.default_rng(0)
    trial = pink(6000, 0)
    trial[INDEX["CZ"]] *= 40
    scipy.io.savemat(tmp_path / "EEG_videos.mat", {"video_1": trial}, do_compression=True)
    scipy.io.savemat(tmp_path / "EEG_baselines.mat", {"video_1": pink(5000, 1)})
    for name, num_samples in (("fNIRS_videos", 286), ("fNIRS_baselines", 238)):
        blood = generator.standard_normal((6, 51, num_samples)).cumsum(axis=-1) * 1e-7
        scipy.io.savemat(tmp_path / f"{name}.mat", {"video_1": blood})
    done = subprocess.run([sys.executable, "-c", BLOCKED, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        "eeg:(1200,", "64)", "eeg_asymmetry:(6,", "130)", "eeg_bands:(6,", "320)", "eeg_hjorth:(6,", "192)",
        "fnirs:(30,", "102)", "fnirs_stats:(6,", "306)",
    ]  # fmt: skip
