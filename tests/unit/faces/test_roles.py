import numpy as np
import pytest

from mersuite.faces.config import FacesConfig
from mersuite.faces.roles import Decision, decide
from mersuite.faces.sound import Voice, standardised
from tests.unit.faces.composited import loudness

RATE_HZ = 25.0
CONFIG = FacesConfig()


def voice_of_opening(opening: np.ndarray) -> Voice:
    drive = standardised(opening) + standardised(np.abs(np.gradient(opening)))
    return Voice(level=opening, drive=drive, active=opening > 0.25)


def motion_of(rng: np.random.Generator, opening: np.ndarray, noise: float = 0.05) -> np.ndarray:
    return np.abs(np.diff(opening, prepend=0.0)) + noise * rng.random(len(opening))


def judged(motions: list[np.ndarray], voice: Voice | None, **knobs) -> Decision:
    num_frames = len(motions[0]) if motions else 75
    return decide(motions, voice, np.arange(num_frames) / RATE_HZ, FacesConfig(**knobs))


def said(rng: np.random.Generator, duration_s: float = 4.0) -> np.ndarray:
    return loudness(rng, duration_s)(np.arange(round(duration_s * RATE_HZ)) / RATE_HZ)


@pytest.mark.parametrize("speaker", [0, 1])
@pytest.mark.parametrize("seed", range(5))
def test_the_mouth_that_follows_the_voice_speaks(speaker: int, seed: int):
    rng = np.random.default_rng(seed)
    opening = said(rng)
    motions = [motion_of(rng, said(rng)), motion_of(rng, said(rng))]
    motions[speaker] = motion_of(rng, opening)
    decision = judged(motions, voice_of_opening(opening))
    assert (decision.speaker, decision.listener) == (speaker, 1 - speaker)
    assert decision.confidence > 0.6
    assert decision.agreements[speaker] > decision.agreements[1 - speaker]


def test_swapping_people_swaps_roles_and_keeps_the_confidence(rng: np.random.Generator):
    opening = said(rng)
    motions = [motion_of(rng, opening), motion_of(rng, said(rng))]
    one, other = judged(motions, voice_of_opening(opening)), judged(motions[::-1], voice_of_opening(opening))
    assert (one.speaker, other.speaker) == (0, 1)
    assert one.confidence == other.confidence
    assert one.agreements == pytest.approx(other.agreements[::-1])


def test_confidence_is_calibrated_where_no_mouth_has_to_do_with_the_voice():
    confidences = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        motions = [motion_of(rng, said(rng)), motion_of(rng, said(rng))]
        confidences.append(judged(motions, voice_of_opening(said(rng))).confidence)
    values = np.array(confidences)
    for level in (0.5, 0.8, 0.9):  # at most 1 - level, within three standard errors
        bound = 1 - level + 3 * np.sqrt(level * (1 - level) / len(values))
        assert np.mean(values >= level) <= bound, level
    assert values.mean() < 0.5


@pytest.mark.parametrize("num_people", [1, 3])
def test_confidence_is_calibrated_for_other_numbers_of_people(num_people: int):
    values = []
    for seed in range(200):
        rng = np.random.default_rng(1000 + seed)
        motions = [motion_of(rng, said(rng)) for _ in range(num_people)]
        values.append(judged(motions, voice_of_opening(said(rng))).confidence)
    assert np.mean(np.array(values) >= 0.9) <= 0.1 + 3 * np.sqrt(0.09 / 200)


def test_mouths_that_move_alike_are_uncertain():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        opening = said(rng)
        motions = [motion_of(rng, opening), motion_of(rng, opening)]
        decision = judged(motions, voice_of_opening(opening))
        assert decision.uncertain, seed
        assert min(decision.agreements) > 0.5
        assert decision.reason == "no mouth clearly agrees with the voice better than the others"


def test_a_still_mouth_does_not_agree_however_well_its_noise_correlates(rng: np.random.Generator):
    opening = said(rng)
    motion = motion_of(rng, opening)
    decision = judged([motion, 0.03 * motion], voice_of_opening(opening))
    assert decision.agreements[0] > 0.8
    assert decision.agreements[1] < 0.15
    assert (decision.speaker, decision.uncertain) == (0, False)


def test_mouths_that_move_no_more_than_noise_are_not_judged(rng: np.random.Generator):
    opening = said(rng)
    decision = judged([0.01 * motion_of(rng, opening), 0.005 * rng.random(100)], voice_of_opening(opening))
    assert (decision.confidence, decision.uncertain) == (0.0, True)
    assert decision.reason.startswith("no mouth moves; who moves the mouth most is taken")


@pytest.mark.parametrize("lag_frames", [-5, 5])
def test_sound_may_be_early_or_late_by_max_lag(lag_frames: int, rng: np.random.Generator):
    opening = said(rng)
    motions = [motion_of(rng, said(rng)), np.roll(motion_of(rng, opening), lag_frames)]
    assert judged(motions, voice_of_opening(opening)).agreements[1] > 0.8
    narrow = judged(motions, voice_of_opening(opening), max_lag_s=0.04)
    assert narrow.agreements[1] < 0.6


def test_frames_where_a_face_is_away_do_not_count(rng: np.random.Generator):
    opening = said(rng)
    motions = [motion_of(rng, opening), motion_of(rng, said(rng))]
    motions[0][20:45] = np.nan
    decision = judged(motions, voice_of_opening(opening))
    assert decision.speaker == 0
    assert decision.agreements[0] > 0.7


def test_agreements_stay_below_one_where_a_face_is_seen_only_while_the_voice_sounds():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        opening = said(rng, 6.0) * (np.arange(150) < 50)
        motions = [motion_of(rng, opening, 0.01), motion_of(rng, said(rng, 6.0))]
        motions[0][50:] = np.nan
        decision = judged(motions, voice_of_opening(opening))
        assert max(decision.agreements) <= 1.0, seed
        assert decision.speaker == 0, seed


def test_confidence_is_calibrated_where_faces_are_seen_only_while_the_voice_sounds():
    values = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        motions = [motion_of(rng, said(rng, 6.0)), motion_of(rng, said(rng, 6.0))]
        for motion in motions:
            motion[75:] = np.nan
        values.append(judged(motions, voice_of_opening(said(rng, 6.0) * (np.arange(150) < 75))).confidence)
    for level in (0.5, 0.8, 0.9):
        bound = 1 - level + 3 * np.sqrt(level * (1 - level) / len(values))
        assert np.mean(np.array(values) >= level) <= bound, level


def test_without_sound_or_voice_the_confidence_is_zero_and_the_reason_says_so(rng: np.random.Generator):
    motions = [motion_of(rng, np.zeros(75)), motion_of(rng, said(rng, 3.0))]
    silent = Voice(level=np.zeros(75), drive=np.zeros(75), active=np.zeros(75, bool))
    for voice, reason in ((None, "the clip has no sound; who moves"), (silent, "no voice in the sound; who moves")):
        decision = judged(motions, voice)
        assert (decision.confidence, decision.uncertain, decision.speaker, decision.listener) == (0.0, True, 1, 0)
        assert decision.reason.startswith(reason)
        assert np.isnan(decision.agreements).all()


def test_one_face_that_agrees_speaks_and_one_that_does_not_is_taken_for_the_listener(rng: np.random.Generator):
    opening = said(rng)
    speaks = judged([motion_of(rng, opening)], voice_of_opening(opening))
    assert (speaks.speaker, speaks.listener, speaks.uncertain) == (0, None, False)
    assert speaks.reason.startswith("one face only: its mouth agrees")
    listens = judged([rng.random(100)], voice_of_opening(opening), min_confidence=0.99)
    assert (listens.speaker, listens.listener, listens.uncertain) == (None, 0, True)
    assert listens.reason.startswith("one face only, and its mouth does not clearly agree")


def test_no_face_is_said():
    decision = judged([], None)
    assert (decision.speaker, decision.listener, decision.reason) == (None, None, "no face was found")


def test_too_short_clips_and_faces_seen_too_rarely_are_said(rng: np.random.Generator):
    opening = said(rng)
    short = judged([rng.random(20), rng.random(20)], voice_of_opening(opening[:20]))
    assert (short.confidence, short.reason[:28]) == (0.0, "too short to tell (20 frames")
    rare = np.full(100, np.nan)
    rare[:4] = 1.0
    decision = judged([motion_of(rng, opening), rare], voice_of_opening(opening))
    assert (decision.confidence, decision.uncertain) == (0.0, True)
    assert decision.reason.startswith("a face is seen in too few frames")


def test_of_three_people_the_best_speaks_and_the_largest_other_listens(rng: np.random.Generator):
    opening = said(rng)
    motions = [motion_of(rng, said(rng)), motion_of(rng, said(rng)), motion_of(rng, opening)]
    decision = judged(motions, voice_of_opening(opening))
    assert (decision.speaker, decision.listener) == (2, 0)
