"""Real faces whose mouths move with a voice: who speaks is known."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from mersuite.clip import Clip, Media
from mersuite.errors import DataError
from mersuite.faces.analysis import FaceAnalysis, analyse
from mersuite.faces.config import FacesConfig
from tests.unit.faces.composited import SOUND_HZ, Speech, pair_frames, speech, write_clip

RATE_HZ = 25.0
DURATION_S = 3.0
NUM_FRAMES = round(DURATION_S * RATE_HZ)
STILL = np.zeros(NUM_FRAMES)


@cache
def voices(seed: int) -> tuple[Speech, Speech, Speech]:
    rng = np.random.default_rng(seed)
    return tuple(speech(rng, DURATION_S, RATE_HZ) for _ in range(3))  # type: ignore[return-value]


@cache
def frames(seed: int, left: int | None, right: int | None, sways: tuple[float, float] = (2.0, 2.0)) -> np.ndarray:
    """Left and right person move the mouth with a voice of that number; None is still."""
    openings = [STILL if number is None else voices(seed)[number].opening for number in (left, right)]
    return pair_frames((openings[0], openings[1]), seed=seed, rate_hz=RATE_HZ, sways=sways)


def clip_of(folder: Path, images: np.ndarray, sound: np.ndarray | None) -> Clip:
    path = write_clip(folder / "clip.mp4", images, RATE_HZ, sound)
    return Clip(clip_id="clip", dataset="t", media={"video": Media(path=path)}, groups={})


def judged(folder: Path, images: np.ndarray, sound: np.ndarray | None, **knobs) -> FaceAnalysis:
    return analyse(clip_of(folder, images, sound), FacesConfig(**knobs))


def side_of(analysis: FaceAnalysis, person: int | None) -> str:
    if person is None:
        return "none"
    boxes = analysis.people[person].boxes
    centre = np.nanmean(boxes[:, 0] + boxes[:, 2] / 2)
    return "left" if centre < analysis.found.size[1] / 2 else "right"


def roles(analysis: FaceAnalysis) -> tuple[str, str]:
    return side_of(analysis, analysis.decision.speaker), side_of(analysis, analysis.decision.listener)


def test_who_moves_the_mouth_with_the_voice_speaks_and_swapping_swaps_the_roles(tmp_path: Path):
    sound = voices(0)[0].sound
    left = judged(tmp_path, frames(0, 0, None), sound)
    right = judged(tmp_path, frames(0, None, 0), sound)
    assert (roles(left), roles(right)) == (("left", "right"), ("right", "left"))
    assert min(left.decision.confidence, right.decision.confidence) > 0.9
    assert not left.decision.uncertain


def test_the_one_whose_mouth_follows_the_sound_speaks_when_both_mouths_move(tmp_path: Path):
    images = frames(3, 0, 1)
    assert roles(judged(tmp_path, images, voices(3)[0].sound)) == ("left", "right")
    assert roles(judged(tmp_path, images, voices(3)[1].sound)) == ("right", "left")


def test_a_voice_of_neither_lowers_the_confidence_clearly(tmp_path: Path):
    images = frames(3, 0, 1)
    own = judged(tmp_path, images, voices(3)[0].sound).decision
    wrong = judged(tmp_path, images, voices(3)[2].sound).decision
    assert own.confidence > 0.9
    assert wrong.confidence < 0.6
    assert wrong.uncertain


def test_mouths_that_move_alike_are_uncertain(tmp_path: Path):
    decision = judged(tmp_path, frames(0, 0, 0), voices(0)[0].sound).decision
    assert decision.uncertain
    assert decision.confidence < 0.5
    assert min(decision.agreements) > 0.6


def test_a_listener_who_moves_the_head_does_not_become_the_speaker(tmp_path: Path):
    analysis = judged(tmp_path, frames(0, None, 0, (14.0, 2.0)), voices(0)[0].sound)
    assert roles(analysis) == ("right", "left")
    assert analysis.decision.confidence > 0.9


def test_without_sound_nothing_is_claimed(tmp_path: Path):
    decision = judged(tmp_path, frames(0, 0, None), None).decision
    assert (decision.confidence, decision.uncertain) == (0.0, True)
    assert decision.reason.startswith("the clip has no sound")


def test_a_voice_file_goes_before_the_sound_of_the_video(tmp_path: Path):
    import scipy.io.wavfile

    clip = clip_of(tmp_path, frames(3, 0, 1), voices(3)[0].sound)
    wav = tmp_path / "voice.wav"
    scipy.io.wavfile.write(wav, SOUND_HZ, voices(3)[1].sound)
    media = {**clip.media, "voice.speaker": Media(path=wav)}
    both = Clip(clip_id="clip", dataset="t", media=media, groups={})
    assert roles(analyse(both, FacesConfig())) == ("right", "left")


def test_a_face_that_leaves_for_some_frames_keeps_its_track(tmp_path: Path):
    images = frames(0, 0, None).copy()
    empty = pair_frames((STILL, np.full(NUM_FRAMES, np.nan)), seed=0, rate_hz=RATE_HZ)
    images[30:42, :, 160:] = empty[30:42, :, 160:]
    analysis = judged(tmp_path, images, voices(0)[0].sound)
    assert (len(analysis.people), analysis.num_tracks) == (2, 2)
    assert all(track.seen.all() for track in analysis.people)
    apart = judged(tmp_path, images, voices(0)[0].sound, max_gap_s=0.3)
    listener = apart.people[apart.decision.listener or 0]
    assert not listener.seen[33:39].any()
    assert roles(analysis) == roles(apart) == ("left", "right")
    np.testing.assert_array_equal(apart.crops[apart.decision.listener or 0, 36], apart.crops[1, 36])


def test_no_track_goes_on_over_a_scene_cut(tmp_path: Path):
    images = frames(0, 0, None).copy()
    other = np.ascontiguousarray(frames(3, 0, 1)[..., ::-1] // 2)
    images[:25] = other[:25]
    analysis = judged(tmp_path, images, voices(0)[0].sound)
    assert np.flatnonzero(np.diff(analysis.found.scenes)).tolist() == [24]
    assert analysis.num_tracks == 4
    for track in analysis.people:
        np.testing.assert_array_equal(track.seen, np.arange(NUM_FRAMES) >= 25)
    assert roles(analysis) == ("left", "right")


def test_no_track_goes_on_over_a_cut_to_people_who_changed_places_before_the_same_wall(tmp_path: Path):
    images = frames(0, 0, None).copy()
    images[40:] = images[40:, :, ::-1]
    analysis = judged(tmp_path, images, voices(0)[0].sound)
    assert np.flatnonzero(np.diff(analysis.found.scenes)).tolist() == [39]
    assert [track.seen.sum() for track in analysis.people] == [40, 40]
    assert roles(analysis) == ("left", "right")


def test_faces_in_a_clip_of_a_moment_are_cut_and_said_to_be_too_short(tmp_path: Path):
    analysis = judged(tmp_path, frames(0, 0, None)[:8], voices(0)[0].sound[: SOUND_HZ // 3])
    assert analysis.crops.shape[:2] == (2, 8)
    assert analysis.decision.reason.startswith("too short to tell (8 frames)")


def test_faces_that_were_seen_too_shortly_are_not_said_to_be_absent(tmp_path: Path):
    images = pair_frames((STILL, np.full(NUM_FRAMES, np.nan)), seed=0, rate_hz=RATE_HZ)
    images[8:] = pair_frames((np.full(NUM_FRAMES, np.nan),) * 2, seed=0, rate_hz=RATE_HZ)[8:]
    decision = judged(tmp_path, images, voices(0)[0].sound).decision
    assert decision.reason == "no face was seen for min_track_s=0.5 s"


def test_one_face_and_no_face_are_said(tmp_path: Path):
    alone = pair_frames((voices(3)[0].opening, None), seed=3, rate_hz=RATE_HZ)
    analysis = judged(tmp_path, alone, voices(3)[0].sound)
    assert (len(analysis.people), roles(analysis)) == (1, ("left", "none"))
    assert analysis.decision.reason.startswith("one face only")
    nobody = np.full((NUM_FRAMES, 180, 320, 3), 90, np.uint8)
    empty = judged(tmp_path, nobody, voices(0)[0].sound)
    assert (len(empty.people), empty.crops.shape[0]) == (0, 0)
    assert empty.decision.reason == "no face was found"


def test_a_stretch_of_a_longer_file_is_judged_as_that_stretch(tmp_path: Path):
    images = np.concatenate([frames(3, 0, 1)[:50], frames(0, 0, None)])
    sound = np.concatenate([voices(3)[2].sound[: 2 * SOUND_HZ], voices(0)[0].sound])
    clip = clip_of(tmp_path, images, sound)
    media = clip.media["video"]
    assert isinstance(media, Media)
    stretch = Media(path=media.path, start_s=2.0, duration_s=3.0)
    analysis = analyse(Clip(clip_id="clip", dataset="t", media={"video": stretch}, groups={}), FacesConfig())
    assert len(analysis.found.times_s) == NUM_FRAMES
    assert abs(analysis.found.times_s[0]) < 0.021
    assert roles(analysis) == ("left", "right")
    assert analysis.decision.confidence > 0.9


def test_most_frames_are_not_searched_and_few_in_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from mersuite.faces.detectors import CascadeDetector

    searched = []
    detect = CascadeDetector.detect

    def noted(self, image, time_s, near):
        searched.append(near is None)
        return detect(self, image, time_s, near)

    monkeypatch.setattr(CascadeDetector, "detect", noted)
    judged(tmp_path, frames(0, 0, None), None)
    assert len(searched) == 16  # five a second, and the last frame
    assert 3 <= sum(searched) <= 4


def test_broken_video_names_the_clip(tmp_path: Path):
    (tmp_path / "clip.mp4").write_bytes(b"nothing")
    clip = Clip(clip_id="sample_1", dataset="t", media={"video": Media(path=tmp_path / "clip.mp4")}, groups={})
    with pytest.raises(DataError, match=r"^sample_1: .*clip\.mp4"):
        analyse(clip, FacesConfig())


def judged_by_openface(folder: Path, left: np.ndarray, right: np.ndarray) -> FaceAnalysis:
    """Left and right: distance of the inner lips, (frame,), of faces whose eyes and mouth are 46 apart."""
    from tests.unit.faces.test_detectors import landmarks

    names = [f"{axis}_{index}" for axis in "xy" for index in range(68)]
    lines = ["frame, face_id, timestamp, confidence, success, " + ", ".join(names)]
    for frame in range(NUM_FRAMES):
        for face, (corner, gap) in enumerate([(20.0, left[frame]), (200.0, right[frame])]):
            cells = landmarks(scale=0.6, gap=gap) + np.array([corner, 60.0])
            lines.append(f"{frame + 1}, {face}, {frame / RATE_HZ}, 0.9, 1, " + ", ".join(map(str, cells.T.ravel())))
    (folder / "clip.csv").write_text("\n".join(lines) + "\n")
    blank = np.full((NUM_FRAMES, 180, 320, 3), 90, np.uint8)
    return judged(folder, blank, voices(0)[0].sound, detector="openface", openface_root=folder)


def test_openings_of_landmarks_decide_where_openface_gives_them(tmp_path: Path):
    analysis = judged_by_openface(tmp_path, STILL, 10 * voices(0)[0].opening)
    assert roles(analysis) == ("right", "left")
    assert analysis.decision.confidence > 0.9


def test_jitter_of_landmarks_is_no_motion_of_a_mouth(tmp_path: Path, rng: np.random.Generator):
    jitter = np.abs(rng.normal(0, 0.3, (2, NUM_FRAMES)))
    decision = judged_by_openface(tmp_path, *jitter).decision
    assert decision.reason.startswith("no mouth moves")
    loud = 0.3 + 0.3 * voices(0)[0].opening  # in step with the voice, but as small as jitter
    analysis = judged_by_openface(tmp_path, loud, 10 * voices(0)[0].opening)
    assert roles(analysis) == ("right", "left")
    assert min(analysis.decision.agreements) < 0.3


@pytest.mark.slow
def test_on_many_clips_certain_answers_are_right_and_wrong_voices_are_rarely_certain(tmp_path: Path):
    right, certain, wrong_certain, wrong_means = 0, 0, 0, []
    num_clips = 40
    for seed in range(num_clips):
        images = pair_frames(
            (voices(seed)[0].opening, voices(seed)[1].opening), seed=seed, rate_hz=RATE_HZ, sways=(6.0, 3.0)
        )
        own = judged(tmp_path, images, voices(seed)[0].sound)
        right += roles(own) == ("left", "right")
        certain += not own.decision.uncertain
        wrong = judged(tmp_path, images, voices(seed)[2].sound).decision
        wrong_certain += not wrong.uncertain
        wrong_means.append(wrong.confidence)
    assert right >= 38
    assert certain >= 24
    assert wrong_certain <= 0.1 * num_clips + 3 * np.sqrt(0.09 * num_clips)
    assert np.mean(wrong_means) < 0.5
