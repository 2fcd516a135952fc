from __future__ import annotations

import pytest

from mersuite.errors import ConfigError
from mersuite.schema import build, plain
from tracks.ps.options import LAG_CANDIDATES_S, SMOOTHING_CANDIDATES_S, PsConfig


@pytest.mark.parametrize(
    ("system", "prior", "offset", "correction"),
    [
        ("constant", True, "constant", "none"),
        ("median", True, "median", "none"),
        ("ridge", True, "median", "ridge"),
        ("signal", True, "median", "network"),
        ("prior", True, "prior", "none"),
        ("fused", True, "prior", "network"),
        ("constant", False, "constant", "none"),
        ("ridge", False, "median", "ridge"),
        ("signal", False, "median", "network"),
        ("prior", False, "median", "none"),
        ("fused", False, "median", "network"),
    ],
)
def test_system_is_an_offset_plus_a_correction(system: str, prior: bool, offset: str, correction: str):
    options = build(PsConfig, {"system": system, "prior": prior})
    assert (options.offset_kind, options.correction_kind) == (offset, correction)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("smoothing_s", 4, r"^ps\.smoothing_s: need an odd number of seconds or auto, got 4$"),
        ("smoothing_s", 0, r"^ps\.smoothing_s: need an odd number of seconds or auto, got 0$"),
        ("smoothing_s", -3, r"^ps\.smoothing_s: need an odd number of seconds or auto, got -3$"),
        ("prior_smoothing_s", 2, r"^ps\.prior_smoothing_s: need an odd number of seconds or auto, got 2$"),
        ("smoothing_s", "atuo", r"^ps\.smoothing_s: need a whole number or auto, got 'atuo'$"),
        ("target_lag_s", 31, r"^ps\.target_lag_s: need 0 to 30 s or auto, got 31$"),
        ("target_lag_s", -1, r"^ps\.target_lag_s: need 0 to 30 s or auto, got -1$"),
        ("head_scale", 0, r"^ps\.head_scale: need a value above 0, got 0\.0$"),
        ("head_scale", float("nan"), r"^ps\.head_scale: need a value above 0, got nan$"),
        ("head_dropout", 1, r"^ps\.head_dropout: need 0 <= rate < 1, got 1\.0$"),
        ("system", "fusd", r"^ps\.system: got 'fusd'; did you mean 'fused'\?$"),
        ("prior", "off", r"^ps\.prior: need true or false, got 'off'$"),
        ("loss", {"name": "l2"}, r"^ps\.loss\.name: got 'l2'; "),
        ("loss", {"quantile": 1}, r"^ps\.loss\.quantile: need 0 < quantile < 1, got 1\.0$"),
    ],
)
def test_option_that_does_not_fit_is_refused(key: str, value: object, message: str):
    with pytest.raises(ConfigError, match=message):
        build(PsConfig, {key: value}, where="ps")


def test_all_options_that_do_not_fit_are_listed():
    with pytest.raises(ConfigError) as caught:
        build(PsConfig, {"smoothing_s": 2, "prior_smoothing_s": 4, "target_lag_s": 99, "head_scale": -1})
    assert str(caught.value).count("need") == 4


def test_every_candidate_is_an_allowed_option():
    for width in SMOOTHING_CANDIDATES_S:
        assert build(PsConfig, {"smoothing_s": width, "prior_smoothing_s": width}).smoothing_s == width
    for lag_s in LAG_CANDIDATES_S:
        assert build(PsConfig, {"target_lag_s": lag_s}).target_lag_s == lag_s
    assert SMOOTHING_CANDIDATES_S[0] == 1 and LAG_CANDIDATES_S[0] == 0


def test_options_build_again_from_their_plain_form():
    options = build(PsConfig, {"system": "ridge", "target_lag_s": 3, "ridge_streams": "a,b", "loss": {"name": "huber"}})
    assert build(PsConfig, plain(options)) == options
