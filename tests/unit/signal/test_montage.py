import mne
import numpy as np
import pytest

from mersuite.signal.montage import (
    mirror_pairs,
    neighbours,
    on_scalp,
    plain_name,
    positions,
    sphere_origin,
    standard_positions,
)

mne.set_log_level("ERROR")


@pytest.fixture(scope="module")
def standard():
    names = mne.channels.get_builtin_montages()
    montage = mne.channels.make_standard_montage("colin27_1005" if "colin27_1005" in names else "standard_1005")
    info = mne.create_info(montage.ch_names, 200.0, "eeg")
    info.set_montage(montage)
    return {ch["ch_name"]: ch["loc"][:3] for ch in info["chs"]}


def test_table_holds_every_position_of_mne(standard):
    table = standard_positions()
    assert table.keys() == {name.upper() for name in standard}
    for name, place in standard.items():
        np.testing.assert_allclose(table[name.upper()], place, atol=1e-7)


def test_sphere_origin_is_the_automatic_one_of_mne(standard):
    names = ["Fp1", "Fp2", "F7", "F8", "Cz", "T7", "T8", "O1", "O2", "Pz", "F9", "P10"]
    info = mne.create_info(names, 200.0, "eeg")
    info.set_montage(mne.channels.make_dig_montage({name: standard[name] for name in names}, coord_frame="head"))
    _, origin, _ = mne.bem.fit_sphere_to_headshape(info, units="m")
    np.testing.assert_allclose(sphere_origin(positions(names)), origin, atol=1e-6)


def test_mastoids_and_unknown_names_are_off_the_scalp():
    names = ["FP1", "M1", "CB2", "EOG1", "EEG Cz-REF", "A2"]
    np.testing.assert_array_equal(on_scalp(names), [True, False, False, False, True, False])
    assert np.isnan(positions(names)).any(axis=1).tolist() == [False, False, False, True, False, False]


def test_neighbours_are_the_nearest_and_never_the_electrode_itself():
    names = ["CZ", "C1", "C2", "FP1", "OZ"]
    near = neighbours(positions(names), 2)
    assert set(near[0]) == {1, 2}
    assert all(index not in row for index, row in enumerate(near))


def test_the_full_cap_has_26_mirror_pairs():
    from tracks.ps.layout import EEG_CH_NAMES

    pairs = mirror_pairs(EEG_CH_NAMES)
    assert len(pairs) == 26
    assert all(EEG_CH_NAMES[left][-1] in "13579" and EEG_CH_NAMES[right][-1] in "2468" for left, right in pairs)


@pytest.mark.parametrize(
    ("given", "plain"), [("Fp1", "FP1"), ("EEG F3-LE", "F3"), ("Fcz.", "FCZ"), (" Oz ", "OZ"), ("EEG T3-REF", "T3")]
)
def test_plain_name_drops_what_formats_add(given, plain):
    assert plain_name(given) == plain
