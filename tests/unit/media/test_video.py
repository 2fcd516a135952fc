import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from clip_files import Sound, picture, read_index, read_indices, steady, write_clip, write_sound

from mersuite.errors import DataError
from mersuite.media import decoding, packets, video
from mersuite.media.sampling import uniform_indices
from mersuite.media.video import frames_at, iter_frames, probe, read_frames, sample_frames

X264 = {"g": "12", "bf": "3", "b-pyramid": "normal"}
CODECS = {
    "h264.mp4": {"options": X264},
    "h264_open_gop.mp4": {"options": {"x264-params": "keyint=10:bframes=3:open-gop=1:log=-1"}},
    "h265.mp4": {"codec": "libx265", "options": {"x265-params": "keyint=10:bframes=3:log-level=none"}},
    "h264.mkv": {"options": X264},
    "h264.ts": {"options": X264},
    "vp8.webm": {"codec": "libvpx", "options": {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "10"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "10"}},
    "mpeg4.mp4": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
    "h264.avi": {"options": X264},
    "ffv1.mkv": {"codec": "ffv1"},
}
VARIABLE = [0.0, 0.04, 0.1, 0.5, 0.54, 1.7, 1.73, 1.76, 2.0, 2.9]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Writes each clip of CODECS once: 50 frames at 25 a second."""
    folder = tmp_path_factory.mktemp("clips")

    def clip(name: str) -> Path:
        path = folder / name
        return path if path.exists() else write_clip(path, steady(50), **CODECS[name])

    return clip


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 s at 10 frames a second, a key frame every 2 s."""
    options = {"g": "20", "keyint_min": "20", "sc_threshold": "0", "bf": "2"}
    return write_clip(tmp_path_factory.mktemp("long") / "long.mp4", steady(600, 10.0), rate_hz=10.0, options=options)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Counts packets that are decoded and jumps."""
    counts = {"decoded": 0, "jumps": 0}
    decode, seek = decoding._decode, packets.PacketReader._seek

    def counted_decode(track, packet):
        counts["decoded"] += packet is not None
        return decode(track, packet)

    def counted_seek(self, time):
        counts["jumps"] += 1
        return seek(self, time)

    monkeypatch.setattr(decoding, "_decode", counted_decode)
    monkeypatch.setattr(packets.PacketReader, "_seek", counted_seek)
    return counts


def nearest_frames(times_s: np.ndarray, wanted_s: list[float]) -> list[int]:
    return [int(np.abs(times_s - time).argmin()) for time in wanted_s]


# ---- frames and their times


@pytest.mark.parametrize("name", CODECS)
def test_every_frame_comes_once_in_order_with_its_time(clips, name: str):
    found = read_frames(clips(name))
    assert read_indices(found.images) == list(range(50))
    np.testing.assert_allclose(found.times_s, steady(50), atol=5e-4)
    assert found.images.dtype == np.uint8
    assert found.images.shape == (50, 48, 64, 3)


@pytest.mark.parametrize("name", CODECS)
def test_picked_frames_equal_those_of_a_full_decode_to_the_bit(clips, name: str):
    every = read_frames(clips(name))
    wanted = [0.0, 0.13, 0.37, 0.399, 0.44, 0.45, 1.0, 1.19, 1.21, 1.5, 1.93, 1.98]
    found = frames_at(clips(name), wanted)
    index = nearest_frames(every.times_s, wanted)
    assert read_indices(found.images) == index
    np.testing.assert_array_equal(found.images, every.images[index])
    np.testing.assert_array_equal(found.times_s, every.times_s[index])


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_variable_frame_rate_keeps_exact_times(tmp_path: Path, suffix: str):
    path = write_clip(tmp_path / f"f.{suffix}", VARIABLE, options=X264)
    np.testing.assert_allclose(read_frames(path).times_s, VARIABLE, atol=1e-9)
    wanted = [0.06, 0.08, 0.29, 0.31, 1.1, 1.13, 2.44, 2.46]
    assert read_indices(frames_at(path, wanted).images) == nearest_frames(np.array(VARIABLE), wanted)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_picture_that_begins_after_the_sound_keeps_its_place(tmp_path: Path, suffix: str):
    sound = Sound(wave=np.zeros((1, 32000)), rate_hz=16000)
    path = write_clip(tmp_path / f"f.{suffix}", steady(25, start_s=0.52), sound=sound)
    found = read_frames(path)
    np.testing.assert_allclose(found.times_s, steady(25, start_s=0.52), atol=1e-9)
    assert read_indices(frames_at(path, [0.0, 0.6]).images) == [0, 2]
    assert read_indices(read_frames(path, start_s=1.0, duration_s=0.2).images) == [12, 13, 14, 15, 16]


@pytest.mark.parametrize("size", [(66, 50), (65, 49), (130, 98)])
def test_odd_sizes_are_read(tmp_path: Path, size: tuple[int, int]):
    path = write_clip(tmp_path / "f.mkv", steady(3), size=size, codec="ffv1", pixels="yuv444p")
    found = read_frames(path)
    assert found.images.shape == (3, size[1], size[0], 3)
    assert read_indices(found.images) == [0, 1, 2]
    info = probe(path)
    assert (info.width, info.height) == size


def test_a_still_lasts_until_the_next_frame(tmp_path: Path):
    path = write_clip(tmp_path / "f.mp4", VARIABLE)
    found = read_frames(path, start_s=0.7, duration_s=0.5)  # frame 4 is on show from 0.54 s to 1.7 s
    assert read_indices(found.images) == [4]
    assert found.times_s.tolist() == [0.0]


# ---- stretches, rates, sizes


@pytest.mark.parametrize("name", CODECS)
def test_stretches_side_by_side_hold_every_frame_once(clips, name: str):
    parts = [read_frames(clips(name), start_s=start, duration_s=0.4) for start in (0.0, 0.4, 0.8, 1.2, 1.6)]
    assert [index for part in parts for index in read_indices(part.images)] == list(range(50))
    for part in parts:
        np.testing.assert_allclose(part.times_s, steady(10), atol=6e-4)


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "h264.avi", "vp8.webm", "h265.mp4"])
@pytest.mark.parametrize("rate_hz", [2.0, 5.0, 7.3, 12.5, 20.0, 25.0, 100.0])
def test_a_rate_gives_the_first_frame_of_each_part(clips, name: str, rate_hz: float):
    found = read_frames(clips(name), start_s=0.24, rate_hz=rate_hz)
    times = np.array(steady(50))[6:] - 0.24
    part = np.floor((times + 6e-4) * rate_hz)
    expected = [6 + int(index) for index in np.unique(part, return_index=True)[1]]
    assert read_indices(found.images) == expected
    assert len(found.images) <= np.ceil((2.0 - 0.24) * rate_hz)


def test_frames_come_one_by_one_without_decoding_the_rest(long_clip: Path, work: dict[str, int]):
    frames = iter_frames(long_clip)
    assert [read_index(next(frames)[1]) for _ in range(5)] == [0, 1, 2, 3, 4]
    frames.close()
    assert work["decoded"] < 15


@pytest.mark.parametrize("height", [24, 30, 96])
def test_height_scales_and_keeps_the_shape(clips, height: int):
    found = read_frames(clips("h264.mp4"), height=height)
    assert found.images.shape == (50, height, round(64 * height / 48), 3)
    assert read_indices(found.images) == list(range(50))


def test_colours_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    colours = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (128, 128, 128)]

    def flat(index: int, size: tuple[int, int]) -> np.ndarray:
        return np.broadcast_to(np.array(colours[index], np.uint8), (size[1], size[0], 3)).copy()

    monkeypatch.setitem(write_clip.__globals__, "picture", flat)
    found = read_frames(write_clip(tmp_path / "f.mp4", steady(4), options={"crf": "5"}))
    np.testing.assert_allclose(found.images.mean(axis=(1, 2)), colours, atol=4)


TURNS = {
    "none": ((1, 0, 0, 1), lambda image: image),
    "clockwise": ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
    "half": ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
    "counterclockwise": ((0, -1, 1, 0), lambda image: np.rot90(image)),
    "mirror": ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda image: image[::-1]),
    "transposed": ((0, 1, 1, 0), lambda image: image.transpose(1, 0, 2)),
}


@pytest.mark.parametrize("turn", TURNS)
def test_pictures_are_turned_as_the_file_asks(tmp_path: Path, turn: str):
    matrix, expected = TURNS[turn]
    path = write_clip(tmp_path / "f.mp4", steady(60)[:2], size=(64, 48))
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 44  # where the film's display matrix begins
    values = np.array([matrix[0], matrix[1], 0, matrix[2], matrix[3], 0, 0, 0, 1 << 14]) << 16
    content[place : place + 36] = values.astype(">i4").tobytes()
    path.write_bytes(content)
    found = read_frames(path)
    wanted = expected(picture(1, (64, 48)))
    assert found.images[1].shape == wanted.shape
    assert np.abs(found.images[1].astype(int) - wanted).mean() < 8
    info = probe(path)
    assert (info.height, info.width) == wanted.shape[:2]
    half = read_frames(path, height=wanted.shape[0] // 2).images
    assert half.shape[1:3] == (wanted.shape[0] // 2, wanted.shape[1] // 2)


# ---- picking


def test_times_may_come_in_any_order_and_more_than_once(clips):
    found = frames_at(clips("h264.mp4"), [1.4, 0.2, 1.4, 0.0, 1.96])
    assert read_indices(found.images) == [35, 5, 35, 0, 49]
    np.testing.assert_allclose(found.times_s, [1.4, 0.2, 1.4, 0.0, 1.96])


def test_times_count_from_the_start_of_the_stretch(clips):
    found = frames_at(clips("h264.mp4"), [0.0, 0.39], start_s=0.5)
    assert read_indices(found.images) == [12, 22]
    np.testing.assert_allclose(found.times_s, [-0.02, 0.38])


def test_of_two_frames_equally_near_the_earlier_is_taken(tmp_path: Path):
    path = write_clip(tmp_path / "f.mp4", [0.0, 0.5, 1.0])
    assert read_indices(frames_at(path, [0.25, 0.75]).images) == [0, 1]


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("num_frames", [1, 16, 25, 50])
def test_samples_are_the_frames_on_show_in_the_middles_of_equal_parts(clips, name: str, num_frames: int):
    found = sample_frames(clips(name), num_frames)
    assert read_indices(found.images) == uniform_indices(num_frames, 50).tolist()  # as of an array of 50 faces


def test_samples_of_a_stretch_and_more_samples_than_frames(clips):
    assert read_indices(sample_frames(clips("h264.mp4"), 2, start_s=0.4, duration_s=0.8).images) == [15, 25]
    assert read_indices(sample_frames(clips("h264.mp4"), 6, start_s=1.88).images) == [47, 47, 48, 48, 49, 49]
    assert read_indices(sample_frames(clips("h264.mp4"), 4, height=24).images) == [6, 18, 31, 43]


def test_samples_of_frames_with_sound_that_lasts_longer_stay_in_the_picture(tmp_path: Path):
    sound = Sound(wave=np.zeros((1, 64000)), rate_hz=16000)
    for suffix in ("mp4", "mkv"):
        path = write_clip(tmp_path / f"f.{suffix}", steady(50), sound=sound)
        assert read_indices(sample_frames(path, 2).images) == [12, 37]
        assert read_indices(sample_frames(path, 2, duration_s=4.0).images) == [12, 37]


# ---- how much is decoded


def test_frames_far_apart_are_reached_by_jumps_without_decoding_the_clip(long_clip: Path, work: dict[str, int]):
    found = frames_at(long_clip, [1.0, 20.9, 45.3])
    assert read_indices(found.images) == [10, 209, 453]
    assert work["jumps"] == 2
    assert work["decoded"] <= 11 + 10 + 14 + 3


def test_frames_close_together_are_decoded_on_without_a_jump(long_clip: Path, work: dict[str, int]):
    assert read_indices(frames_at(long_clip, [30.0 + index / 10 for index in range(20)]).images) == [*range(300, 320)]
    assert work["jumps"] == 1
    assert work["decoded"] <= 23


def test_a_stretch_begins_at_the_key_frame_before_it(long_clip: Path, work: dict[str, int]):
    found = read_frames(long_clip, start_s=40.5, duration_s=1.0)
    assert read_indices(found.images) == [*range(405, 415)]
    assert work["decoded"] <= 5 + 10 + 5


def test_sampling_decodes_a_part_of_the_clip(long_clip: Path, work: dict[str, int]):
    assert len(sample_frames(long_clip, 16).images) == 16
    assert work["decoded"] < 0.5 * 600


def test_a_low_rate_decodes_key_frames_alone_where_they_are_what_is_wanted(long_clip: Path, work: dict[str, int]):
    assert read_indices(read_frames(long_clip, rate_hz=0.5).images) == [*range(0, 600, 20)]
    assert work["decoded"] == 30


def test_jumps_stop_where_there_are_no_key_frames_to_jump_to(tmp_path: Path, work: dict[str, int]):
    options = {"g": "600", "keyint_min": "600", "sc_threshold": "0", "bf": "2"}
    path = write_clip(tmp_path / "f.mp4", steady(600, 10.0), rate_hz=10.0, options=options)
    assert read_indices(frames_at(path, [5.0, 15.0, 25.0, 35.0, 45.0, 55.0]).images) == [*range(50, 600, 100)]
    assert work["jumps"] <= 3
    assert work["decoded"] <= 600


def test_hidden_frames_lead_to_a_full_decode(clips, work: dict[str, int], monkeypatch: pytest.MonkeyPatch):
    path = clips("h264.mp4")
    expected = frames_at(path, [0.3, 1.5]).images

    def fails(*_):
        raise packets.CannotPlanError
        yield

    monkeypatch.setattr(video, "plan", fails)
    np.testing.assert_array_equal(frames_at(path, [0.3, 1.5]).images, expected)
    assert work["decoded"] >= 38


# ---- probing


def test_probe_tells_size_rate_length_and_sound(clips, tmp_path: Path):
    info = probe(clips("h264.mp4"))
    assert (info.width, info.height, info.num_frames, info.has_audio) == (64, 48, 50, False)
    assert info.rate_hz == pytest.approx(25.0)
    assert info.duration_s == pytest.approx(2.0)
    sound = Sound(wave=np.zeros((1, 16000)), rate_hz=16000)
    assert probe(write_clip(tmp_path / "f.mkv", steady(50), sound=sound)).has_audio
    assert probe(tmp_path / "f.mkv").num_frames is None
    assert probe(tmp_path / "f.mkv").duration_s == pytest.approx(2.0)


@pytest.mark.parametrize("seed", range(6))
def test_any_clip_and_times_give_what_a_full_decode_gives(tmp_path: Path, seed: int):
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.choice([0.02, 0.04, 0.05, 0.3, 2.0, 6.0], 60, p=[0.3, 0.3, 0.2, 0.1, 0.05, 0.05]))
    suffix, codec = [("mp4", "libx264"), ("mkv", "libx264"), ("mkv", "libvpx-vp9")][seed % 3]
    options = {"g": str(rng.integers(1, 30)), "bf": str(rng.integers(0, 4))} if codec == "libx264" else {"g": "9"}
    path = write_clip(tmp_path / f"f.{suffix}", times.tolist(), codec=codec, options=options)
    every = read_frames(path)
    assert read_indices(every.images) == list(range(60))
    wanted = rng.uniform(0, every.times_s[-1], 25)
    found = frames_at(path, wanted)
    np.testing.assert_array_equal(found.images, every.images[nearest_frames(every.times_s, wanted)])
    rate_hz = float(rng.uniform(0.2, 10))
    part = np.floor((every.times_s + 6e-4) * rate_hz)
    expected = np.unique(part, return_index=True)[1].tolist()
    assert read_indices(read_frames(path, rate_hz=rate_hz).images) == expected


# ---- files that cannot be used

READERS = {
    "probe": probe,
    "read_frames": read_frames,
    "sample_frames": lambda path: sample_frames(path, 16),
    "frames_at": lambda path: frames_at(path, [0.1]),
    "iter_frames": lambda path: next(iter_frames(path)),
}


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest) -> Callable[[Path], object]:
    return READERS[request.param]


def damaged(path: Path, number: int) -> Path:
    """Overwrites the inside of one packet with noise."""
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][number]
        place, size = packet.pos, packet.size
    content = bytearray(path.read_bytes())
    noise = np.random.default_rng(1).integers(0, 256, size - 8, np.uint8)
    content[place + 8 : place + size] = noise.tobytes()
    path.write_bytes(content)
    return path


def test_missing_files_and_folders_are_named(tmp_path: Path, reader):
    with pytest.raises(DataError, match=r"none\.mp4: no such file"):
        reader(tmp_path / "none.mp4")
    with pytest.raises(DataError, match="is a folder, need a film or sound file"):
        reader(tmp_path)


def test_an_empty_file_is_refused(tmp_path: Path, reader):
    (tmp_path / "f.mp4").write_bytes(b"")
    with pytest.raises(DataError, match=r"f\.mp4: is empty \(0 bytes\); copy or download it again"):
        reader(tmp_path / "f.mp4")


@pytest.mark.parametrize("content", [b"hello, this is text\n" * 50, bytes(5000), b"\x89PNG\r\n\x1a\nbroken"])
def test_a_file_that_is_no_film_is_refused(tmp_path: Path, reader, content: bytes):
    (tmp_path / "f.mp4").write_bytes(content)
    with pytest.raises(DataError, match=r"f\.mp4: (not a readable film or sound file|is a picture or a text)"):
        reader(tmp_path / "f.mp4")


def test_a_text_and_a_picture_are_no_films(tmp_path: Path, reader):
    (tmp_path / "f.txt").write_text("hello\n" * 100)
    with av.open(str(tmp_path / "f.png"), "w") as container:
        stream = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(1, (64, 48)), format="rgb24")))
        container.mux(stream.encode(None))
    for name in ("f.txt", "f.png"):
        with pytest.raises(DataError, match=r"is a picture or a text .*, need a film or sound file"):
            reader(tmp_path / name)


def test_sound_alone_and_a_cover_are_no_picture(tmp_path: Path, reader):
    write_sound(tmp_path / "f.wav", Sound(wave=np.zeros((1, 1600)), rate_hz=16000, codec="pcm_s16le"))
    with pytest.raises(DataError, match=r"f\.wav: has no picture track \(it holds: sound\); give a file with picture"):
        reader(tmp_path / "f.wav")


@pytest.mark.parametrize("share", [0.3, 0.95])
@pytest.mark.parametrize("suffix", ["mp4", "fast.mp4", "mkv", "avi"])
def test_a_cut_off_file_is_refused(tmp_path: Path, reader, suffix: str, share: float):
    path = write_clip(
        tmp_path / f"f.{suffix}",
        steady(100),
        options={"g": "12", "crf": "1"},
        codec="mpeg4" if suffix == "avi" else "libx264",
        format_options={"movflags": "faststart"} if suffix == "fast.mp4" else None,
    )
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"is cut off: it holds \d+ of at least \d+ bytes; copy or download it again"):
        reader(path)


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "h265.mp4", "vp9.webm", "mpeg4.mp4", "mpeg4.avi"])
def test_a_damaged_packet_is_named_with_its_time(tmp_path: Path, name: str):
    options = CODECS[name] | ({"options": {"g": "50", "crf": "1"}} if name == "h264.mp4" else {})
    path = damaged(write_clip(tmp_path / name, steady(50), **options), 36 if name != "vp9.webm" else 30)
    with pytest.raises(DataError, match=rf"{name}: the picture at 1\.\d\d s cannot be decoded .*leave the clip out"):
        read_frames(path)
    assert read_indices(read_frames(path, duration_s=0.4).images) == list(range(10))


def test_frames_before_and_after_damage_can_still_be_picked(tmp_path: Path):
    path = damaged(write_clip(tmp_path / "f.mp4", steady(50), options={"g": "10", "bf": "0"}), 25)
    assert read_indices(frames_at(path, [0.4, 1.9]).images) == [10, 47]
    with pytest.raises(DataError, match=r"the picture at 1\.00 s cannot be decoded"):
        frames_at(path, [0.4, 1.04])


@pytest.mark.parametrize(
    ("start_s", "duration_s"), [(2.0, None), (7.0, 0.1), (1.5, 0.6), (0.0, 2.1), (-0.1, None), (0.0, 0.0), (0.5, -1.0)]
)
def test_a_stretch_outside_the_clip_is_refused(clips, start_s: float, duration_s: float | None):
    for read in (read_frames, lambda path, **stretch: sample_frames(path, 4, **stretch)):
        with pytest.raises(
            DataError, match=rf"h264\.mp4: start_s={start_s:g}, .*(beyond the end.* 2\.00 s|need start_s)"
        ):
            read(clips("h264.mp4"), start_s=start_s, duration_s=duration_s)


def test_a_stretch_may_end_a_little_after_the_clip(clips):
    assert read_indices(read_frames(clips("h264.mp4"), start_s=1.9, duration_s=0.13).images) == [48, 49]


@pytest.mark.parametrize("times", [[2.1], [0.5, -0.1], [], [np.nan]])
def test_times_outside_the_clip_are_refused(clips, times: list[float]):
    with pytest.raises(
        DataError, match=r"h264\.mp4: (asked for frames from .* 2\.00 s; give times inside|need at least)"
    ):
        frames_at(clips("h264.mp4"), times)


@pytest.mark.parametrize("values", [{"height": 0}, {"rate_hz": -1.0}, {"rate_hz": float("nan")}])
def test_sizes_and_rates_must_be_above_zero(clips, values: dict):
    with pytest.raises(DataError, match=rf"{next(iter(values))}=.*: need a number above 0"):
        read_frames(clips("h264.mp4"), **values)
    with pytest.raises(DataError, match="num_frames=0: need a number above 0"):
        sample_frames(clips("h264.mp4"), 0)
