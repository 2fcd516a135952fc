import numpy as np
import pytest

from mersuite.faces.config import FacesConfig
from mersuite.faces.detectors import Detection
from mersuite.faces.tracks import Track, choose, link

RATE_HZ = 25.0
CONFIG = FacesConfig()


def face(x: float, y: float = 50.0, side: float = 40.0, **options: float) -> Detection:
    return Detection(box=(x, y, side, side), confidence=0.8, **options)


def linked(
    detections: dict[int, list[Detection]], num_frames: int, scenes: np.ndarray | None = None, **knobs
) -> list[Track]:
    times_s = np.arange(num_frames) / RATE_HZ
    scenes = np.zeros(num_frames, int) if scenes is None else scenes
    return link(detections, times_s, scenes, FacesConfig(**knobs))


def test_two_faces_give_two_tracks_whatever_the_order_of_detections(rng: np.random.Generator):
    detections = {}
    for frame in range(0, 100, 5):
        both = [face(20 + 0.2 * frame), face(200 - 0.3 * frame)]
        detections[frame] = both if rng.random() < 0.5 else both[::-1]
    tracks = linked(detections, 100)
    assert [track.num_detections for track in tracks] == [20, 20]
    starts = sorted(track.boxes[track.seen][0, 0] for track in tracks)
    np.testing.assert_allclose(starts, [20, 200], atol=1.5)


def test_faces_that_pass_each_other_keep_their_tracks():
    detections = {frame: [face(20 + 1.2 * frame), face(140 - 1.2 * frame, 62, 44)] for frame in range(0, 100, 5)}
    tracks = linked(detections, 100)
    assert len(tracks) == 2
    for track in tracks:
        assert np.ptp(track.boxes[track.seen, 2]) < 1  # sizes 40 and 44 are not mixed


def test_boxes_between_detections_are_interpolated():
    tracks = linked({frame: [face(2.0 * frame)] for frame in range(0, 51, 5)}, 51, smooth_s=0.0)
    assert tracks[0].seen.all()
    np.testing.assert_allclose(tracks[0].boxes[:, 0], 2.0 * np.arange(51), atol=1e-9)


def test_jitter_is_smoothed(rng: np.random.Generator):
    jitter = rng.normal(0, 2, 101)
    tracks = linked({frame: [face(50 + jitter[frame])] for frame in range(101)}, 101)
    assert tracks[0].boxes[:, 0].std() < 0.5 * jitter.std()


def test_short_gap_is_bridged_and_long_gap_is_one_track_that_is_not_seen_between():
    frames = [*range(0, 40, 5), *range(55, 100, 5)]  # 0.8 s apart
    searched = {frame: [face(50)] if frame in frames else [] for frame in range(0, 100, 5)}
    (bridged,) = linked(searched, 100, max_gap_s=1.0)
    assert bridged.seen.all() or bridged.seen[:98].all()
    (broken,) = linked(searched, 100, max_gap_s=0.5)
    assert broken.num_detections == bridged.num_detections == len(frames)
    assert not broken.seen[38:53].any()
    assert broken.seen[36] and broken.seen[55]


def test_a_face_that_comes_back_elsewhere_after_a_long_gap_is_another_track():
    searched = {frame: [face(50)] if frame < 40 else [face(200)] if frame > 75 else [] for frame in range(0, 120, 5)}
    assert len(linked(searched, 120)) == 2


@pytest.mark.parametrize("num_frames", [1, 2, 8])
def test_in_clips_shorter_than_min_track_s_faces_that_stay_are_kept(num_frames: int):
    there = [face(20), face(200)]
    assert len(linked({0: there, num_frames - 1: there}, num_frames)) == 2


def test_in_short_clips_faces_of_a_moment_are_dropped():
    both = {frame: [face(20)] if frame > 2 else [face(20), face(200)] for frame in range(9)}
    assert len(linked(both, 9)) == 1


def test_no_track_goes_on_over_a_scene_cut():
    scenes = (np.arange(100) >= 50).astype(int)
    tracks = linked({frame: [face(50)] for frame in [*range(0, 50, 5), 49, *range(50, 100, 5), 99]}, 100, scenes)
    assert sorted(track.scene for track in tracks) == [0, 1]
    for track in tracks:
        np.testing.assert_array_equal(track.seen, scenes == track.scene)


def test_short_tracks_are_dropped():
    searched = {frame: [face(50)] for frame in range(0, 100, 5)}
    searched[40] = [face(50), face(250)]
    searched[45] = [face(50), face(250)]
    assert len(linked(searched, 100)) == 1
    assert len(linked(searched, 100, min_track_s=0.1)) == 2


def test_a_much_larger_box_does_not_continue_a_track():
    searched = {frame: [face(50, side=40.0 if frame < 50 else 120.0)] for frame in range(0, 100, 5)}
    assert len(linked(searched, 100)) == 2


def test_nothing_found_gives_no_tracks():
    assert linked({0: [], 5: []}, 10) == []


def test_openings_are_kept_where_they_were_measured():
    (track,) = linked({frame: [face(50, opening=0.1)] for frame in range(0, 50, 5)}, 50)
    assert np.flatnonzero(np.isfinite(track.opening)).tolist() == list(range(0, 50, 5))


def track(scene: int, first: int, last: int, side: float) -> Track:
    boxes = np.full((100, 4), np.nan)
    boxes[first:last] = (0, 0, side, side)
    seen = np.isfinite(boxes[:, 0])
    return Track(boxes=boxes, seen=seen, opening=np.full(100, np.nan), confidence=1.0, num_detections=5, scene=scene)


def by_weight(*tracks: Track) -> list[Track]:
    return sorted(tracks, key=lambda each: -each.weight)


def test_the_largest_and_longest_tracks_are_kept():
    long_small, long_large, short_large = track(0, 0, 90, 40), track(0, 0, 90, 80), track(0, 0, 30, 80)
    assert choose(by_weight(long_small, long_large, short_large), 2) == [long_large, long_small]


def test_people_come_from_one_scene_and_a_pair_is_preferred_to_a_larger_single_face():
    close_up = track(0, 0, 60, 200)
    left, right = track(1, 60, 100, 50), track(1, 60, 100, 45)
    assert choose(by_weight(close_up, left, right), 2) == [left, right]
    assert choose(by_weight(close_up, left, right), 1) == [close_up]


@pytest.mark.parametrize("num_people", [1, 2])
def test_no_tracks_give_no_people(num_people: int):
    assert choose([], num_people) == []
