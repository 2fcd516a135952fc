import sys
import wave
from pathlib import Path

import av
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from clip_files import Sound, steady, write_clip, write_sound

from mersuite.errors import DataError
from mersuite.media import audio
from mersuite.media.audio import has_audio, read_audio
from mersuite.media.video import read_frames

CLICKS_S = (0.5, 1.25, 3.0)
SOUNDS = {
    "s16.wav": ("pcm_s16le", 16000, 1),
    "s16_stereo.wav": ("pcm_s16le", 44100, 2),
    "s24.wav": ("pcm_s24le", 48000, 2),
    "u8.wav": ("pcm_u8", 8000, 1),
    "float.wav": ("pcm_f32le", 22050, 1),
    "odd_rate.wav": ("pcm_s16le", 11025, 2),
    "f.flac": ("flac", 44100, 2),
    "f.mp3": ("libmp3lame", 44100, 2),
    "f.m4a": ("aac", 44100, 2),
    "mono.m4a": ("aac", 16000, 1),
    "surround.m4a": ("aac", 48000, 6),
    "f.ogg": ("libopus", 48000, 2),
    "f.mka": ("aac", 44100, 2),
}


def tone(hz: float, rate_hz: int, duration_s: float, channels: int = 1, level: float = 0.5) -> np.ndarray:
    times = np.arange(round(duration_s * rate_hz)) / rate_hz
    return np.tile(level * np.sin(2 * np.pi * hz * times), (channels, 1))


def clicks(rate_hz: int, channels: int, *, duration_s: float = 4.0, shift_s: float = 0.0) -> np.ndarray:
    """Gives 4 ms bumps around CLICKS_S."""
    line = np.zeros(round(duration_s * rate_hz))
    for time_s in CLICKS_S:
        middle, half = round((time_s - shift_s) * rate_hz), round(0.002 * rate_hz)
        line[middle - half : middle + half + 1] += 0.8 * np.hanning(2 * half + 1)
    return np.tile(line, (channels, 1))


def assert_clicks_in_place(found: np.ndarray, rate_hz: int = 16000, start_s: float = 0.0) -> None:
    for time_s in (time - start_s for time in CLICKS_S if time - start_s > 0.1):
        first = round((time_s - 0.05) * rate_hz)
        piece = np.abs(found[first : first + round(0.1 * rate_hz)])
        assert abs((first + int(piece.argmax())) / rate_hz - time_s) < 1e-3
        assert piece.max() > 0.6


def made(folder: Path, name: str) -> Path:
    codec, rate_hz, channels = SOUNDS[name]
    return write_sound(folder / name, Sound(wave=clicks(rate_hz, channels), rate_hz=rate_hz, codec=codec))


# ---- numbers


@pytest.mark.parametrize("channels", [1, 2])
def test_a_16_bit_wav_at_the_wanted_rate_comes_back_exactly(tmp_path: Path, channels: int):
    values = np.random.default_rng(0).integers(-32768, 32768, (16000, channels)).astype("<i2")
    values[:2] = [[-32768] * channels, [32767] * channels]
    with wave.open(str(tmp_path / "f.wav"), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(values.tobytes())
    found = read_audio(tmp_path / "f.wav")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, (values / 32768).mean(axis=1).astype(np.float32))
    stretch = read_audio(tmp_path / "f.wav", start_s=0.25, duration_s=0.5)
    np.testing.assert_array_equal(stretch, found[4000:12000])


@pytest.mark.parametrize(
    ("codec", "steps"),
    [("pcm_u8", 2**7), ("pcm_s16le", 2**15), ("pcm_s24le", 2**23), ("pcm_s32le", 2**31), ("pcm_f32le", 2**24)],
)
def test_every_sample_format_has_the_same_scale(tmp_path: Path, codec: str, steps: int):
    line = np.round(tone(440, 16000, 0.5, level=0.9) * 2**7) / 2**7
    path = write_sound(tmp_path / "f.wav", Sound(wave=line, rate_hz=16000, codec=codec))
    np.testing.assert_allclose(read_audio(path), line[0], atol=1.01 / steps)


def test_channels_are_averaged(tmp_path: Path):
    both = np.concatenate([tone(440, 16000, 1.0, level=0.6), tone(1000, 16000, 1.0, level=0.2)])
    path = write_sound(tmp_path / "f.wav", Sound(wave=both, rate_hz=16000, codec="pcm_f32le"))
    np.testing.assert_allclose(read_audio(path), both.mean(axis=0), atol=1e-6)
    opposite = np.concatenate([both[:1], -both[:1]])
    path = write_sound(tmp_path / "g.wav", Sound(wave=opposite, rate_hz=16000, codec="pcm_f32le"))
    np.testing.assert_array_equal(read_audio(path), 0)


# ---- change of rate


@pytest.mark.parametrize("source_hz", [8000, 11025, 22050, 24000, 32000, 44100, 48000, 96000])
def test_a_tone_keeps_its_frequency_phase_and_level(tmp_path: Path, source_hz: int):
    line = tone(1000, source_hz, 2.0, 2)
    path = write_sound(tmp_path / "f.wav", Sound(wave=line, rate_hz=source_hz, codec="pcm_f32le"))
    found = read_audio(path)
    assert len(found) == 32000
    np.testing.assert_allclose(found[400:-400], tone(1000, 16000, 2.0)[0, 400:-400], atol=5e-4)


@pytest.mark.parametrize("hz", [100.0, 3000.0, 7000.0, 7300.0])
def test_all_that_speech_needs_passes(tmp_path: Path, hz: float):
    path = write_sound(tmp_path / "f.wav", Sound(wave=tone(hz, 44100, 1.0), rate_hz=44100, codec="pcm_f32le"))
    np.testing.assert_allclose(read_audio(path)[400:-400], tone(hz, 16000, 1.0)[0, 400:-400], atol=1e-3)


@pytest.mark.parametrize("hz", [8050.0, 9000.0, 12000.0, 15900.0, 20000.0])
def test_tones_above_half_the_rate_do_not_come_back_as_others(tmp_path: Path, hz: float):
    path = write_sound(tmp_path / "f.wav", Sound(wave=tone(hz, 44100, 1.0), rate_hz=44100, codec="pcm_f32le"))
    assert np.abs(read_audio(path)[400:-400]).max() < 0.5 * 10 ** (-70 / 20)


def test_raising_the_rate_adds_no_mirror_tones(tmp_path: Path):
    path = write_sound(tmp_path / "f.wav", Sound(wave=tone(3000, 8000, 1.0), rate_hz=8000, codec="pcm_f32le"))
    spectrum = np.abs(np.fft.rfft(read_audio(path)[1000:15000] * np.hanning(14000)))
    hz = np.fft.rfftfreq(14000, 1 / 16000)
    assert spectrum[np.abs(hz - 3000) > 20].max() < 1e-3 * spectrum.max()


def test_another_rate_can_be_asked_for(tmp_path: Path):
    path = write_sound(tmp_path / "f.wav", Sound(wave=tone(500, 44100, 1.0), rate_hz=44100, codec="pcm_f32le"))
    np.testing.assert_allclose(read_audio(path, rate_hz=22050)[400:-400], tone(500, 22050, 1.0)[0, 400:-400], atol=5e-4)


# ---- time


@pytest.mark.parametrize("name", SOUNDS)
def test_clicks_stay_in_place_and_the_length_is_right(tmp_path: Path, name: str):
    found = read_audio(made(tmp_path, name))
    assert found.dtype == np.float32
    assert abs(len(found) - 64000) <= (
        400 if name == "f.mka" else 1
    )  # mkv files do not say how far the last block counts
    assert_clicks_in_place(found)


@pytest.mark.parametrize("name", SOUNDS)
@pytest.mark.parametrize("start_s", [0.3, 2.0003, 2.7])
def test_a_stretch_equals_the_same_part_of_the_whole(tmp_path: Path, name: str, start_s: float):
    path = made(tmp_path, name)
    found = read_audio(path, start_s=start_s, duration_s=1.2)
    assert len(found) == 19200
    first = round(start_s * 16000)
    np.testing.assert_allclose(found, read_audio(path)[first : first + 19200], atol=1e-6)
    if start_s > 1.9:  # the earlier one holds the second click alone
        assert_clicks_in_place(found, start_s=start_s)


def test_a_stretch_does_not_decode_what_lies_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sound = Sound(wave=tone(300, 16000, 60.0), rate_hz=16000)
    path = write_clip(tmp_path / "f.mp4", steady(60, 1.0), rate_hz=1.0, sound=sound)
    num_samples = 0
    mono = audio._mono

    def counted(frame: av.AudioFrame) -> np.ndarray:
        nonlocal num_samples
        num_samples += frame.samples
        return mono(frame)

    monkeypatch.setattr(audio, "_mono", counted)
    assert len(read_audio(path, start_s=50.0, duration_s=1.0)) == 16000
    assert num_samples < 3 * 16000


FILMS = {
    "f.mp4": ("libx264", "aac", 44100),
    "f.mkv": ("libx264", "aac", 44100),
    "f.webm": ("libvpx", "libopus", 48000),
    "f.avi": ("mpeg4", "pcm_s16le", 22050),
    "f.mov": ("mpeg4", "pcm_s16le", 48000),
}


@pytest.mark.parametrize("name", FILMS)
def test_sound_of_films_is_in_time_with_their_pictures(tmp_path: Path, name: str):
    codec, sound_codec, rate_hz = FILMS[name]
    sound = Sound(wave=clicks(rate_hz, 2), rate_hz=rate_hz, codec=sound_codec)
    path = write_clip(tmp_path / name, steady(100), codec=codec, sound=sound)
    assert has_audio(path)
    assert_clicks_in_place(read_audio(path))
    assert_clicks_in_place(read_audio(path, start_s=2.2, duration_s=1.5), start_s=2.2)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_sound_that_begins_late_comes_after_silence(tmp_path: Path, suffix: str):
    sound = Sound(wave=clicks(44100, 1, duration_s=3.7, shift_s=0.3), rate_hz=44100, start_s=0.3)
    path = write_clip(tmp_path / f"f.{suffix}", steady(100), sound=sound)
    found = read_audio(path)
    assert_clicks_in_place(found)
    np.testing.assert_array_equal(found[: round(0.25 * 16000)], 0)
    np.testing.assert_array_equal(read_audio(path, duration_s=0.2), np.zeros(3200, np.float32))


def test_sound_and_picture_of_a_transport_stream_have_one_clock(tmp_path: Path):
    sound = Sound(wave=clicks(44100, 1), rate_hz=44100)
    path = write_clip(tmp_path / "f.ts", steady(100), sound=sound)  # its clock begins with the coder's first block
    found = read_audio(path)
    click_s = int(np.abs(found[: round(0.9 * 16000)]).argmax()) / 16000
    first_picture_s = read_frames(path).times_s[0]  # it was written at 0
    assert abs(click_s - first_picture_s - 0.5) < 1e-3


def test_a_gap_in_the_sound_is_silence(tmp_path: Path):
    path = tmp_path / "f.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000)
        stream.layout = "mono"
        for start in (0, 32000):  # 1 s of sound, 1 s of nothing, 1 s of sound
            for first in range(0, 16000, 1600):
                frame = av.AudioFrame.from_ndarray(np.full((1, 1600), 8000, np.int16), format="s16", layout="mono")
                frame.rate, frame.pts = 16000, start + first
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    found = read_audio(path)
    assert len(found) == 48000
    np.testing.assert_array_equal(found != 0, np.repeat([True, False, True], 16000))


# ---- what cannot be used


def test_a_film_without_sound_is_refused(tmp_path: Path):
    path = write_clip(tmp_path / "f.mp4", steady(10))
    assert not has_audio(path)
    with pytest.raises(
        DataError, match=r"f\.mp4: has no sound track \(it holds: picture\); give a file with sound, or"
    ):
        read_audio(path)


@pytest.mark.parametrize("read", [read_audio, has_audio])
def test_missing_empty_and_foreign_files_are_refused(tmp_path: Path, read):
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("no sound\n" * 100)
    for name, message in (
        ("none", "no such file"),
        ("empty", r"is empty \(0 bytes\)"),
        ("text", "not a readable film"),
    ):
        with pytest.raises(DataError, match=rf"{name}\.wav: {message}"):
            read(tmp_path / f"{name}.wav")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
@pytest.mark.parametrize("name", ["s16.wav", "f.flac", "f.m4a", "f.mka"])
def test_a_cut_off_file_is_refused(tmp_path: Path, name: str, share: float):
    path = made(tmp_path, name)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=rf"{name}: (is cut off: it holds|not a readable|the sound at .* cannot be)"):
        read_audio(path)


def test_a_wav_without_samples_is_refused(tmp_path: Path):
    with wave.open(str(tmp_path / "f.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
    with pytest.raises(DataError, match=r"f\.wav: (its sound track holds no samples|not a readable)"):
        read_audio(tmp_path / "f.wav")


def test_a_damaged_packet_is_named_with_its_time(tmp_path: Path):
    path = write_sound(tmp_path / "f.flac", Sound(wave=tone(440, 16000, 4.0), rate_hz=16000, codec="flac"))
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(audio=0) if packet.size][7]
    content = bytearray(path.read_bytes())
    content[packet.pos + 20 : packet.pos + 60] = bytes(range(40))
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"f\.flac: (the sound at \d\.\d\d s cannot be decoded|is cut off)"):
        read_audio(path)


@pytest.mark.parametrize(
    ("start_s", "duration_s"), [(4.0, None), (9.0, 1.0), (3.5, 1.0), (-1.0, None), (0.0, 0.0), (1.0, float("nan"))]
)
@pytest.mark.parametrize("name", ["s16.wav", "f.m4a", "f.mp3", "f.flac"])
def test_a_stretch_outside_the_sound_is_refused(tmp_path: Path, name: str, start_s: float, duration_s: float | None):
    path = made(tmp_path, name)
    with pytest.raises(
        DataError, match=rf"{name}: start_s={start_s:g}, .*(beyond the end, which is at 4\.0|need start_s)"
    ):
        read_audio(path, start_s=start_s, duration_s=duration_s)


def test_a_stretch_in_the_picture_after_the_sound_gives_what_is_there(tmp_path: Path):
    sound = Sound(wave=tone(440, 16000, 1.0), rate_hz=16000, codec="pcm_s16le")
    path = write_clip(tmp_path / "f.mov", steady(50), sound=sound)
    assert len(read_audio(path, start_s=0.5, duration_s=1.5)) == 8000
    with pytest.raises(DataError, match="the stretch lies beyond the end, which is at 2"):
        read_audio(path, start_s=1.5, duration_s=0.4)


def test_sound_that_changes_its_rate_is_refused(tmp_path: Path):
    parts = []
    for rate_hz in (44100, 22050):
        sound = Sound(wave=tone(440, rate_hz, 1.0), rate_hz=rate_hz)
        parts.append(write_sound(tmp_path / f"{rate_hz}.aac", sound).read_bytes())
    (tmp_path / "f.aac").write_bytes(b"".join(parts))
    with pytest.raises(DataError, match=r"f\.aac: its sound changes from 44100 to 22050 samples a second at 1\.\d\d s"):
        read_audio(tmp_path / "f.aac")


def test_a_rate_below_one_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="rate_hz=0: need at least 1 sample a second"):
        read_audio(made(tmp_path, "s16.wav"), rate_hz=0)
