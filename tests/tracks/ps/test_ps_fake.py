import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from scipy.signal import periodogram
from scipy.stats import norm

from mersuite.data import fake_files
from mersuite.errors import ConfigError, DataError
from mersuite.schema import build
from tracks.ps import fake, fake_effect, layout
from tracks.ps.fake import FakeConfig, write_fake
from tracks.ps.fake_effect import HISTORY_S, bayes_errors, draw_clips, draw_trial
from tracks.ps.fake_recorded import read_carrier
from tracks.ps.fake_signals import CARRIER_V, EEG_STEP_V, PinkCarrier, draw_person, make_eeg, make_fnirs

TINY = FakeConfig(num_subjects=2, num_leaderboard_subjects=1, num_clips=2, min_clip_s=4, max_clip_s=6, rate_hz=200.0)
CARRIER = PinkCarrier(max_s=60.0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fake") / "ps"
    write_fake(TINY, root)
    return root


def load(path: Path) -> dict[str, np.ndarray]:
    return {key: array for key, array in scipy.io.loadmat(path).items() if not key.startswith("__")}


def contents(root: Path) -> dict[str, bytes | dict[str, bytes]]:
    """What files hold; of MATLAB files the variables, for their header tells the time of writing."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        str(path.relative_to(root)): {key: array.tobytes() for key, array in load(path).items()}
        if path.suffix == ".mat"
        else path.read_bytes()
        for path in files
    }


# ---- layout


def test_layout_has_the_organisers_names_keys_shapes_and_units(tiny: Path):
    lengths = draw_clips(TINY).lengths_s
    for subject in ("test_1", "test_2", "predict1"):
        folder = tiny / "data" / subject
        eeg, fnirs = load(folder / "EEG_videos.mat"), load(folder / "fNIRS_videos.mat")
        assert list(eeg) == list(fnirs) == ["video_1", "video_2"]
        assert [array.shape for array in eeg.values()] == [(64, length * 200) for length in lengths]
        assert [array.shape for array in fnirs.values()] == [(6, 51, int(length * 1000 / 21)) for length in lengths]
        assert load(folder / "EEG_baselines.mat")["video_1"].shape == (64, 1000)
        assert load(folder / "fNIRS_baselines.mat")["video_1"].shape == (6, 51, 238)
        assert 1e-6 < eeg["video_1"].std() < 1e-4, "volts"
        labels = load(tiny / "annotations" / f"{subject}_label.mat")
        assert [sorted(array.shape) for array in labels.values()] == [[2, length] for length in lengths]
    names = {path.name for path in tiny.iterdir()}
    tables = {"SAM_score.csv", "PANAS_score.csv", "Metadata.csv", "Targeted_emotions.txt", "README.md"}
    assert names == tables | {
        "data", "annotations", "fNIRS_coordinates.csv", "fNIRS_reservations.csv", "sample_ids.csv", "targets.csv",
        "bayes.json", "fake.json",
    }  # fmt: skip


def test_mat_files_are_compressed_version_5(tiny: Path):
    path = tiny / "data/test_1/EEG_videos.mat"
    content = path.read_bytes()
    assert content[126:128] == b"IM"
    assert int.from_bytes(content[128:132], "little") == 15
    assert path.stat().st_size < 0.6 * sum(array.nbytes for array in load(path).values())


def test_eeg_is_a_multiple_of_the_amplifier_step(tiny: Path):
    steps = load(tiny / "data/test_1/EEG_videos.mat")["video_1"] / EEG_STEP_V
    np.testing.assert_array_equal(steps, np.rint(steps))


def test_haemoglobin_total_is_the_sum_of_both(tiny: Path):
    hb = load(tiny / "data/test_1/fNIRS_videos.mat")["video_1"]
    np.testing.assert_allclose(hb[2], hb[0] + hb[1], atol=1e-5)


def test_clips_have_unequal_lengths_for_everybody_alike():
    lengths = draw_clips(FakeConfig(num_clips=10, seed=3)).lengths_s
    assert len(set(lengths)) == 10
    assert min(lengths) >= 12
    assert max(lengths) <= 24


def test_same_seed_gives_the_same_data_and_another_seed_does_not(tiny: Path, tmp_path: Path):
    write_fake(TINY, tmp_path / "again")
    write_fake(replace(TINY, seed=1), tmp_path / "other")
    first, again, other = contents(tiny), contents(tmp_path / "again"), contents(tmp_path / "other")
    assert first == again
    assert first["targets.csv"] != other["targets.csv"]
    assert first["data/test_1/EEG_videos.mat"] != other["data/test_1/EEG_videos.mat"]


def test_more_subjects_leave_the_first_ones_as_they_are(tiny: Path, tmp_path: Path):
    write_fake(replace(TINY, num_subjects=3), tmp_path / "more")
    for name in ("data/test_2/fNIRS_videos.mat", "annotations/predict1_label.mat"):
        assert contents(tiny)[name] == contents(tmp_path / "more")[name]


def test_interrupted_writing_is_completed(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out, calls = tmp_path / "ps", []
    original = fake.make_fnirs

    def killed(*arguments: object) -> np.ndarray:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(fake, "make_fnirs", killed)
    with pytest.raises(KeyboardInterrupt):
        write_fake(TINY, out)
    assert not list(out.rglob("*.part"))
    monkeypatch.setattr(fake, "make_fnirs", original)
    write_fake(TINY, out)
    assert contents(out) == contents(tiny)


def test_repeating_adds_nothing_and_other_options_are_refused(tiny: Path):
    before = {path: path.stat().st_mtime_ns for path in tiny.glob("data/*/*.mat")}
    write_fake(TINY, tiny)
    assert before == {path: path.stat().st_mtime_ns for path in tiny.glob("data/*/*.mat")}
    with pytest.raises(
        DataError, match=r"was made with num_clips=2 \(ps\), asked for num_clips=3; repeat with the same"
    ):
        write_fake(replace(TINY, num_clips=3), tiny)


def test_folder_of_another_track_takes_our_files_for_the_same_seed_only(tmp_path: Path):
    fake_files.claim_folder(tmp_path, "cross", {"seed": 4, "num_clips": 9})
    with pytest.raises(DataError, match=r"was made with seed=4 \(cross\), asked for seed=0"):
        fake_files.claim_folder(tmp_path, "ps", {"seed": 0})
    fake_files.claim_folder(tmp_path, "ps", {"seed": 4})
    assert set(json.loads((tmp_path / "fake.json").read_text())) == {"cross", "ps"}


def test_folder_with_foreign_files_is_refused_and_left_alone(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="holds files that `mersuite fake` did not write"):
        write_fake(TINY, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(DataError, match="is a file, need a folder"):
        write_fake(TINY, tmp_path / "thesis.txt")


def test_full_disk_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fake.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(DataError, match=r"need about 0\.0 GB, 0\.0 GB are free"):
        write_fake(TINY, tmp_path / "ps")
    assert not (tmp_path / "ps").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_subjects": 0}, "num_subjects: need 1 or more, got 0"),
        ({"num_leaderboard_subjects": -1}, "num_leaderboard_subjects: need 0 or more"),
        ({"num_clips": 100}, "num_clips: need 1 to 99, got 100"),
        ({"min_clip_s": 30}, "need 4 <= min <= max <= 999, got 30 and 24"),
        ({"rate_hz": 333.0}, "rate_hz: need one of 100, 125"),
        ({"snr": -1.0}, "snr: need 0 or more"),
        ({"own_strength": -1.0}, "own_strength: need 0 or more"),
        ({"label_mean": (0.0, 100.0)}, "label_mean: need 1 to 255"),
        ({"onset_points": -1.0}, "onset_points: need 0 to 127, got -1.0"),
        ({"label_lag_s": 31}, "label_lag_s: need 0 to 30 s"),
        ({"seed": -1}, "seed: need 0 or more"),
        ({"num_subject": 3}, "did you mean 'num_subjects'"),
    ],
)
def test_odd_options_are_refused(options: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        build(FakeConfig, options)


# ---- effect


def draws(config: FakeConfig, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Ratings and latents of the first clip for many people: two (person, second, 2)."""
    clips = draw_clips(config)
    trials = [draw_trial(config, clips, 0, np.random.default_rng([9, person])) for person in range(num)]
    return np.stack([ratings for ratings, _ in trials]), np.stack([latent for _, latent in trials])


@pytest.mark.parametrize("snr", [0.0, 1.0, 4.0])
def test_latent_explains_the_promised_share_of_the_own_part(snr: float):
    config = FakeConfig(snr=snr, own_strength=15.0, label_mean=(128.0, 128.0), clip_strength=10.0)
    ratings, latent = draws(config, 3000)
    own, now = ratings - ratings.mean(axis=0), latent[:, HISTORY_S:]
    assert np.abs(latent.std(axis=0) - 1).max() < 0.06
    slope = (own * now).mean(axis=(0, 1))
    np.testing.assert_allclose(slope, 15.0 * np.sqrt(snr / (1 + snr)), atol=0.6)
    # Context adds nothing: what is left is uncorrelated with the latent at every other second.
    rest = own - 15.0 * np.sqrt(snr / (1 + snr)) * now
    others = np.einsum("ntd,nud->tud", rest, now) / len(rest) / 15.0
    assert np.abs(others).max() < 0.1


def test_lagged_ratings_follow_the_latent_by_whole_seconds():
    config = FakeConfig(snr=50.0, label_lag_s=3, own_strength=15.0, label_mean=(128.0, 128.0), clip_strength=1.0)
    ratings, latent = draws(config, 1500)
    own, now = ratings - ratings.mean(axis=0), latent[:, HISTORY_S:]
    strength = [np.mean(own[:, shift:] * now[:, : own.shape[1] - shift]) / 15.0 for shift in range(6)]
    assert int(np.argmax(strength)) == 3
    assert strength[3] > 0.95


def test_signals_do_not_depend_on_clip_curves_or_label_means(tmp_path: Path):
    config = replace(TINY, num_leaderboard_subjects=0, num_subjects=1, snr=0.0)
    write_fake(config, tmp_path / "a")
    write_fake(replace(config, clip_strength=5.0, label_mean=(200.0, 60.0), own_strength=3.0), tmp_path / "b")
    a, b = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert a["annotations/test_1_label.mat"] != b["annotations/test_1_label.mat"]
    for name in layout.STREAM_FILES.values():
        assert a[f"data/test_1/{name}"] == b[f"data/test_1/{name}"]


def test_onset_lowers_the_ratings_of_the_first_ten_seconds_alone():
    plain = FakeConfig(num_clips=6, min_clip_s=30, max_clip_s=60)
    risen = draw_clips(replace(plain, onset_points=40.0))
    for before, after in zip(draw_clips(plain).curves, risen.curves, strict=True):
        gap = after - before
        assert np.allclose(gap[0], -40.0) and (np.diff(gap[:10], axis=0) > 0).all()
        assert np.abs(gap[12:]).max() < 1.5
    errors = [bayes_errors(replace(plain, onset_points=points), draw_clips(plain)) for points in (0.0, 40.0)]
    assert errors[0]["prior"] == errors[1]["prior"]


def test_ratings_use_the_whole_path_to_integers_in_range():
    ratings, _ = draws(FakeConfig(clip_strength=150.0), 50)
    assert ratings.min() == 1
    assert ratings.max() == 255
    assert ratings.dtype == np.int64


def expected_error(mean: np.ndarray, sd: float, answer: np.ndarray) -> float:
    """E|label - answer| of a rounded, clipped normal label, from its exact probabilities."""
    values = np.arange(1, 256)
    edges = np.concatenate([[-np.inf], values[:-1] + 0.5, [np.inf]])
    share = np.diff(norm.cdf((edges - mean[..., None]) / sd), axis=-1)
    return float((share * np.abs(values - answer[..., None])).sum(axis=-1).mean())


def on_scale(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 1, 255)


def test_bayes_errors_agree_with_exact_probabilities():
    config = FakeConfig(snr=2.0)
    clips = draw_clips(config)
    common = np.concatenate(clips.curves) + np.array(config.label_mean)
    errors = bayes_errors(config, clips)
    assert errors["constant"]["mae"] == pytest.approx(
        expected_error(common, 32.0, np.full(common.shape, 128.0)), rel=3e-3
    )
    assert errors["prior"]["mae"] == pytest.approx(expected_error(common, 32.0, on_scale(common)), rel=3e-3)
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    shift, left = 32.0 * np.sqrt(2 / 3), 32.0 * np.sqrt(1 / 3)
    fused = sum(
        weight * expected_error(common + shift * node, left, on_scale(common + shift * node))
        for node, weight in zip(nodes, weights / weights.sum(), strict=True)
    )
    assert errors["fused"]["mae"] == pytest.approx(fused, rel=3e-3)
    best = [
        min(expected_error(column, 32.0, np.full(len(column), float(value))) for value in range(1, 256))
        for column in common.T
    ]
    assert errors["median"]["mae"] == pytest.approx(np.mean(best), rel=3e-3)


def test_no_constant_shift_improves_the_optimal_signal_system():
    config = FakeConfig(snr=1.0)
    clips = draw_clips(config)
    rng = np.random.default_rng(5)
    common = np.concatenate(clips.curves) + np.array(config.label_mean)
    own, noise = rng.standard_normal((2, 2000, *common.shape)) * 32.0
    truth = np.clip(np.rint(common + own), 1, 255)
    latent = (own + noise) / 2
    tried = {
        (factor, shift): np.abs(
            np.clip(np.rint(factor * latent + np.median(common, axis=0) + shift), 1, 255) - truth
        ).mean()
        for factor in (0.8, 1.0, 1.2)
        for shift in range(-30, 31, 3)
    }
    assert bayes_errors(config, clips)["signal"]["mae"] <= min(tried.values()) * 1.002


def test_without_snr_signals_are_worth_nothing_and_with_it_systems_are_ordered():
    config = FakeConfig(snr=0.0)
    errors = bayes_errors(config, draw_clips(config))
    mae = {name: values["mae"] for name, values in errors.items()}
    assert mae["signal"] == pytest.approx(mae["median"], abs=0.02)
    assert mae["fused"] == pytest.approx(mae["prior"], abs=1e-9)
    config = FakeConfig(snr=1.0)
    mae = {name: values["mae"] for name, values in bayes_errors(config, draw_clips(config)).items()}
    assert mae["fused"] < 0.8 * mae["prior"] < mae["signal"] < 0.95 * mae["median"] < mae["constant"]
    assert mae["signal"] <= mae["unseen_clips"] + 1e-9


def test_bayes_file_has_a_number_of_each_metric_and_a_sentence_for_each_system(tiny: Path):
    document = json.loads((tiny / "bayes.json").read_text())
    assert set(document) == {"constant", "median", "signal", "prior", "fused", "unseen_clips", "model"}
    for name in set(document) - {"model"}:
        values = document[name]
        assert values["mae"] == pytest.approx((values["mae_valence"] + values["mae_arousal"]) / 2)
        assert len(values["how"]) > 10


# ---- signals


def band_power(data: np.ndarray, rate_hz: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Log power per second of (channel, time): (second, channel)."""
    frequencies, power = periodogram(data.reshape(len(data), -1, rate_hz), rate_hz, window="hann", axis=-1)
    return np.log(power[..., (frequencies >= low_hz) & (frequencies < high_hz)].sum(axis=-1)).T


def smooth_latent(rng: np.random.Generator, num: int) -> np.ndarray:
    return fake_effect._unit_process(HISTORY_S + num, rng)


def test_alpha_asymmetry_and_frontal_beta_regain_the_latent():
    rng = np.random.default_rng(0)
    latent = smooth_latent(rng, 60)
    data = make_eeg(latent, 60.0, 200.0, draw_person(rng), CARRIER, rng)
    place = layout.EEG_CH_NAMES.index
    alpha, beta = band_power(data, 200, 8, 14), band_power(data, 200, 14, 31)
    asymmetry = np.mean([alpha[:, place(f"{n}4")] - alpha[:, place(f"{n}3")] for n in ("F", "FC", "C", "P")], axis=0)
    frontal = beta[:, [place(name) for name in ("FZ", "FCZ", "CZ", "F1", "F2", "FC1", "FC2")]].mean(axis=1)
    now = latent[HISTORY_S:]
    assert np.corrcoef(asymmetry, now[:, 0])[0, 1] > 0.95
    assert np.corrcoef(frontal, now[:, 1])[0, 1] > 0.95
    assert abs(np.corrcoef(asymmetry, frontal)[0, 1] - np.corrcoef(now.T)[0, 1]) < 0.15


def test_fnirs_follows_the_latent_seconds_later():
    rng = np.random.default_rng(1)
    latent = smooth_latent(rng, 60)
    person = draw_person(rng)
    hb = make_fnirs(latent, 60.0, person, CARRIER, rng)
    rate_hz = 1000 / 21
    kept = [channel for channel in range(17) if person.kept[channel]]
    course = hb[0, kept].mean(axis=0) - hb[0, 34:][person.kept[34:]].mean(axis=0)
    seconds = np.array([course[int(t * rate_hz) : int((t + 1) * rate_hz)].mean() for t in range(60)])
    strength = [np.corrcoef(seconds, latent[HISTORY_S - lag : HISTORY_S + 60 - lag, 0])[0, 1] for lag in range(12)]
    assert 3 <= int(np.argmax(strength)) <= 7
    assert max(strength) > 0.7


def test_baselines_carry_a_latent_of_zero():
    person = draw_person(np.random.default_rng(2))
    zero = make_eeg(np.zeros((HISTORY_S + 5, 2)), 5.0, 200.0, person, CARRIER, np.random.default_rng(3))
    np.testing.assert_array_equal(make_eeg(None, 5.0, 200.0, person, CARRIER, np.random.default_rng(3)), zero)


def test_length_and_time_do_not_show_in_the_signals():
    """Power of short and long trials, and of the first and last second, agree when the latent is the same law."""
    first, last, short, long = [], [], [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        person, carrier = draw_person(np.random.default_rng(0)), PinkCarrier(max_s=20.0)
        for length, powers in ((5, short), (20, long)):
            latent = smooth_latent(rng, length)
            power = band_power(make_eeg(latent, length, 200.0, person, carrier, rng), 200, 1, 50).mean(axis=1)
            powers.append(power.mean())
            hb = make_fnirs(latent, length, person, carrier, rng)[0]
            first.append(np.log(hb[:, :47].mean(axis=1).std()))
            last.append(np.log(hb[:, -47:].mean(axis=1).std()))
    for one, other in ((short, long), (first, last)):
        gap = np.mean(one) - np.mean(other)
        error = np.hypot(np.std(one), np.std(other)) / np.sqrt(len(one))
        assert abs(gap) < 4 * error


def test_neighbours_share_background():
    data = CARRIER.eeg(np.random.default_rng(0), 4000, 200.0)
    place = layout.EEG_CH_NAMES.index
    correlation = np.corrcoef(data)
    assert correlation[place("C3"), place("C5")] > 0.5
    assert abs(correlation[place("F7"), place("PO8")]) < 0.3
    assert data.std() == pytest.approx(CARRIER_V, rel=0.1)


# ---- recordings as carrier


def save_recording(folder: Path, seconds: float = 20.0, kind: str = "eeg", change: float = 1.0) -> None:
    import mne

    data = np.random.default_rng(0).standard_normal((3, int(seconds * 100))) * 1e-5
    data[2] *= change
    info = mne.create_info(["C3", "XY", "Cz"], 100.0, kind)
    mne.io.RawArray(data, info, verbose="ERROR").save(folder / "own_raw.fif", verbose="ERROR")


def test_recordings_give_random_stretches_at_plausible_size(tmp_path: Path):
    save_recording(tmp_path)
    carrier = read_carrier(tmp_path, 200.0, CARRIER)
    rng = np.random.default_rng(0)
    one, other = carrier.eeg(rng, 1000, 200.0), carrier.eeg(rng, 1000, 200.0)
    assert one.shape == (64, 1000)
    np.testing.assert_allclose(one.std(axis=1), CARRIER_V, rtol=0.3)
    assert abs(np.corrcoef(one[26], other[26])[0, 1]) < 0.5, "stretches differ"
    assert np.abs(np.corrcoef(one) - np.eye(64)).max() < 0.999, "no channel is a copy of another"
    assert carrier.haemoglobin(rng, 100).shape == (2, 51, 100)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (None, "no recording; expected a folder with files such as"),
        ({"seconds": 5.0}, r"own_raw\.fif has 5\.0 s, need 10 s or more"),
        ({"kind": "misc"}, "no EEG or fNIRS channel in own_raw.fif"),
        ({"change": 0.0}, "holds NaN or a flat channel"),
    ],
)
def test_unfit_recordings_are_refused(tmp_path: Path, options: dict | None, message: str):
    if options is not None:
        save_recording(tmp_path, **options)
    with pytest.raises(DataError, match=message):
        read_carrier(tmp_path, 200.0, CARRIER)
    with pytest.raises(DataError):
        write_fake(replace(TINY, signals=tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_flat_haemoglobin_is_refused(tmp_path: Path):
    import mne

    raw = mne.io.RawArray(np.zeros((2, 2000)), mne.create_info(["S1_D1 hbo", "S1_D1 hbr"], 100.0, ["hbo", "hbr"]))
    raw.save(tmp_path / "own_raw.fif", verbose="ERROR")
    with pytest.raises(DataError, match="holds NaN or a flat channel"):
        read_carrier(tmp_path, 200.0, CARRIER)


def test_real_recordings_carry_the_effect(tmp_path: Path):
    folder = os.environ.get("MERSUITE_TEST_DATA")
    if not folder:
        pytest.skip("MERSUITE_TEST_DATA is not set")
    carrier = read_carrier(Path(folder) / "recordings", 200.0, CARRIER)
    assert len(carrier.eeg_pool) == len(carrier.hb_pool) == 1
    rng = np.random.default_rng(0)
    latent = smooth_latent(rng, 60)
    data = make_eeg(latent, 60.0, 200.0, draw_person(rng), carrier, rng)
    place = layout.EEG_CH_NAMES.index
    beta = band_power(data, 200, 14, 31)[:, [place(name) for name in ("FZ", "FCZ", "CZ", "F1", "F2")]].mean(axis=1)
    assert np.corrcoef(beta, latent[HISTORY_S:, 1])[0, 1] > 0.85
    assert make_fnirs(latent, 60.0, draw_person(rng), carrier, rng).shape == (6, 51, 2857)
