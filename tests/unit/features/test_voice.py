import itertools
import runpy
import wave
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mersuite.catalog import find
from mersuite.clip import Clip, Media, Signal
from mersuite.errors import ConfigError, DataError
from mersuite.features import voice
from mersuite.features.voice import VoiceConfig, VoiceExtractor, band_statistics, pool_frames
from mersuite.signal.mel import log_mel, mel_filters, power_spectrum
from mersuite.signal.prosody import PROSODY
from mersuite.store_entry import StoreKey, check_signal

sounds = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "synthetic_speech.py")))
RATE_HZ = sounds.RATE_HZ


def clip_of(folder: Path, sound: np.ndarray, *, stream: str = "voice.speaker", **facts) -> Clip:
    path = folder / "a.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(np.round(np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())
    return Clip(clip_id="clip_1", dataset="d", media={stream: Media(path=path, **facts)}, groups={})


def streams_of(clip: Clip, **knobs) -> dict[str, Signal]:
    ((clip_id, streams),) = VoiceExtractor(VoiceConfig(**knobs)).extract([clip])
    for name, signal in streams.items():
        check_signal(StoreKey("d", clip_id, name, "f"), signal)
        assert len(signal.ch_names) == len(set(signal.ch_names)) == signal.data.shape[1]
    return dict(streams)


def prosody_of(clip: Clip, **knobs) -> dict[str, float]:
    return dict(zip(PROSODY, streams_of(clip, **knobs)["prosody_speaker"].data[0].tolist(), strict=True))


def test_catalog_finds_the_extractor():
    assert find("extractor", "voice") is VoiceExtractor


@pytest.mark.parametrize(
    ("stream", "wanted"),
    [
        ("voice.speaker", ("prosody_speaker", "logmel_speaker", "logmel_frames_speaker")),
        ("video", ("prosody", "logmel", "logmel_frames")),
    ],
)
def test_streams_are_named_for_whose_voice_it_is(stream, wanted):
    with_frames = VoiceExtractor(VoiceConfig(stream=stream, frames=True))
    assert with_frames.inputs == (stream,)
    assert with_frames.outputs() == wanted
    assert VoiceExtractor(VoiceConfig(stream=stream)).outputs() == wanted[:2]


def test_a_file_gives_vectors_of_named_statistics(tmp_path):
    streams = streams_of(clip_of(tmp_path, sounds.voice(220, 2.0)))
    assert streams["prosody_speaker"].data.shape == (1, 25)
    assert streams["prosody_speaker"].rate_hz == streams["logmel_speaker"].rate_hz == 0.0
    assert streams["logmel_speaker"].data.shape == (1, 120)
    assert streams["logmel_speaker"].ch_names[0].endswith("Hz mean")
    assert streams["logmel_speaker"].ch_names[-1].endswith("Hz change")


def test_estimate_is_what_vectors_take_and_unknown_for_frames(tmp_path):
    clip = clip_of(tmp_path, sounds.voice(220, 1.0))
    wanted = sum(signal.data.nbytes for signal in streams_of(clip).values())
    assert VoiceExtractor(VoiceConfig()).estimate_bytes([clip, clip]) == 2 * wanted
    assert VoiceExtractor(VoiceConfig(frames=True)).estimate_bytes([clip]) is None


def test_values_are_those_of_the_sound(tmp_path):
    sound = sounds.with_gaps(sounds.voice(220, 3.0, level_db=-23), [1.0], [0.5])
    found = prosody_of(clip_of(tmp_path, sound))
    assert found["pitch_median_st"] == pytest.approx(24, abs=0.17)
    assert found["pause_mean_s"] == pytest.approx(0.5, abs=0.06)
    assert found["pauses_per_s"] == pytest.approx(1 / 3, rel=0.01)
    assert found["loudness_mean_db"] == pytest.approx(-23, abs=1)


@pytest.mark.parametrize("num_bands", [40, 64])
@pytest.mark.parametrize("scale", ["htk", "slaney"])
def test_frames_are_the_bands_averaged(tmp_path, num_bands, scale):
    sound = sounds.with_noise(sounds.bursts(4, 2.03), 20)
    streams = streams_of(clip_of(tmp_path, sound), frames=True, num_bands=num_bands, scale=scale)
    signal = streams["logmel_frames_speaker"]
    assert signal.data.shape == (20, num_bands)
    assert (signal.rate_hz, signal.unit) == (10.0, "dB")
    bands = log_mel(power_spectrum(sound, RATE_HZ), mel_filters(num_bands, 257, RATE_HZ, scale))
    np.testing.assert_allclose(signal.data[3], bands[30:40].mean(axis=0), atol=0.1)  # 16 bits


def test_band_statistics_are_mean_deviation_and_change():
    bands = np.array([[0.0, 1.0], [2.0, 1.0], [1.0, 1.0]])
    np.testing.assert_allclose(band_statistics(bands), [1, 1, np.std([0, 2, 1]), 0, 1.5, 0])
    np.testing.assert_array_equal(band_statistics(bands[:1]), [0, 1, 0, 0, 0, 0])


@pytest.mark.parametrize("rate_hz", [1, 3, 7.5, 10, 25, 100])
@pytest.mark.parametrize("rows", [1, 9, 10, 14, 15, 16, 99, 100, 105, 301])
def test_pooling_averages_every_frame_once(rows, rate_hz):
    bands = np.random.default_rng(0).standard_normal((rows, 3)).astype(np.float32)
    pooled = pool_frames(bands, rate_hz)
    assert len(pooled) == max(1, round(rows * rate_hz / 100))
    starts = [int(index * 100 / rate_hz) for index in range(len(pooled))] + [rows]
    wanted = [bands[first:last].mean(axis=0) for first, last in itertools.pairwise(starts)]
    np.testing.assert_allclose(pooled, wanted, rtol=1e-4, atol=1e-6)


def test_digital_silence_gives_finite_values(tmp_path):
    streams = streams_of(clip_of(tmp_path, np.zeros(RATE_HZ)), frames=True)
    np.testing.assert_array_equal(streams["logmel_speaker"].data[0], [-100.0] * 40 + [0.0] * 80)
    found = dict(zip(PROSODY, streams["prosody_speaker"].data[0].tolist(), strict=True))
    assert found.pop("loudness_mean_db") == -100.0
    assert set(found.values()) == {0.0}


def test_a_tenth_of_a_second_is_enough(tmp_path):
    streams = streams_of(clip_of(tmp_path, sounds.voice(200, 0.1)), frames=True)
    assert streams["logmel_frames_speaker"].data.shape == (1, 40)


def test_a_stretch_of_a_file_is_what_is_measured(tmp_path):
    sound = np.concatenate((sounds.voice(110, 1.0), sounds.voice(220, 1.0), sounds.voice(330, 1.0)))
    found = prosody_of(clip_of(tmp_path, sound, start_s=1.0, duration_s=1.0))
    assert found["pitch_median_st"] == pytest.approx(24, abs=0.17)
    assert found["speech_s"] == pytest.approx(1.0)


def test_range_of_pitch_is_a_knob(tmp_path):
    clip = clip_of(tmp_path, sounds.voice(600, 1.0))
    assert prosody_of(clip, pitch_high_hz=800)["pitch_median_st"] == pytest.approx(12 * np.log2(600 / 55), abs=0.17)


def test_a_shorter_sound_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"clip_1: voice.speaker: .*a.wav: the sound lasts 0.090 s, need 0.1 s or more"):
        streams_of(clip_of(tmp_path, sounds.voice(200, 0.09)))


def test_a_missing_file_is_refused_with_clip_and_stream(tmp_path):
    clip = clip_of(tmp_path, sounds.voice(200, 1.0))
    (tmp_path / "a.wav").unlink()
    with pytest.raises(DataError, match=r"clip_1: voice.speaker: .*a.wav"):
        streams_of(clip)


def test_samples_that_are_not_finite_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(voice, "read_audio", lambda path, **stretch: np.full(RATE_HZ, np.nan, np.float32))
    with pytest.raises(DataError, match=r"clip_1: voice.speaker: .*a.wav: the sound holds NaN or infinite samples"):
        streams_of(clip_of(tmp_path, sounds.voice(200, 1.0)))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"stream": ""}, "stream: need the name of a sound stream"),
        ({"num_bands": 128}, "num_bands: need 8 to 80, got 128"),
        (
            {"pitch_low_hz": 400, "pitch_high_hz": 300},
            "need 55 <= pitch_low_hz < pitch_high_hz <= 2000, got 400 and 300",
        ),
        ({"pitch_low_hz": 30}, "got 30 and 500"),
        ({"rate_hz": 200}, "rate_hz: need a rate above 0 and up to 100 Hz, got 200"),
    ],
)
def test_knobs_out_of_range_are_refused(knobs, message):
    with pytest.raises(ConfigError, match=message):
        VoiceConfig(**knobs)


def test_every_allowed_number_of_bands_works():
    for scale in ("htk", "slaney"):
        for num_bands in range(8, 81):
            assert mel_filters(num_bands, 257, RATE_HZ, scale).shape == (num_bands, 257)
