"""Modalities and roles of the transformer fusion."""

import json

import pytest
import torch

from mersuite.errors import ConfigError
from mersuite.models.base import BuildContext, Encoded
from mersuite.models.fusion.transformer import TransformerConfig, TransformerFusion, split_role
from mersuite.schema import build, plain


def make(widths, *, token_rate=None, **knobs):
    torch.manual_seed(0)
    context = BuildContext(streams={}, token_rate_hz=token_rate)
    return TransformerFusion(build(TransformerConfig, knobs), widths, context).eval()


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        ("face.listener", ("face", "listener")),
        ("prosody_speaker", ("prosody", "speaker")),
        ("text.partner", ("text", "partner")),
        ("ngrams_speaker_zh", ("ngrams_zh", "speaker")),
        ("eeg", ("eeg", "")),
        ("speaker", ("speaker", "")),
        ("loudspeaker", ("loudspeaker", "")),
        ("face.speakers", ("face.speakers", "")),
    ],
)
def test_role_is_a_whole_word_behind_the_first(stream, expected):
    assert split_role(stream) == expected


def test_streams_of_one_modality_share_its_embedding_and_differ_by_role():
    widths = {"face.speaker": 4, "face.listener": 4, "voice.speaker": 4}
    fusion = make(widths)
    assert fusion.modality.shape == fusion.role.shape == (2, fusion.width)
    assert fusion.places == [(0, 0), (0, 1), (1, 0)]
    fusion.inputs[1].load_state_dict(fusion.inputs[0].state_dict())
    tokens, mask = torch.randn(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)
    speaker, listener = (fusion._embed(i, Encoded(tokens, mask)).tokens for i in (0, 1))
    torch.testing.assert_close(listener - speaker, (fusion.role[1] - fusion.role[0]).expand(2, 3, -1))


@pytest.mark.parametrize("token_rate", [1.0, None], ids=["in time", "a clip"])
def test_without_roles_parameters_are_what_they_were(token_rate):
    widths = {"eeg": 6, "fnirs": 4}
    fusion, bare = (make(widths, token_rate=token_rate, role_embedding=value) for value in (True, False))
    assert fusion.role is None
    assert fusion.modality.shape == (2, fusion.width)
    assert not [name for name in fusion.state_dict() if "role" in name]
    bare.load_state_dict(fusion.state_dict())
    torch.manual_seed(0)
    for width in widths.values():
        torch.nn.Linear(width, fusion.width)
    assert torch.equal(fusion.modality, torch.randn(2, fusion.width) * 0.02)  # drawn at the place that it always had


def test_role_embedding_can_be_turned_off_and_roles_given_by_hand():
    widths = {"face.speaker": 4, "face.listener": 4}
    off = make(widths, role_embedding=False)
    assert (off.places, off.role) == ([(0, None), (1, None)], None)
    config = build(TransformerConfig, {"roles": {"a": ["face", "s1"], "b": "face,s2", "c": ["scene", ""]}})
    assert build(TransformerConfig, json.loads(json.dumps(plain(config)))) == config
    given = make({"a": 4, "b": 4, "c": 3}, roles=plain(config)["roles"])
    assert given.places == [(0, 0), (0, 1), (1, None)]


def test_role_of_a_stream_without_encoder_is_refused():
    message = r"roles: there is no encoder for the stream 'fcae'; did you mean 'face'\?"
    with pytest.raises(ConfigError, match=message):
        make({"face": 4, "eeg": 3}, roles={"fcae": ["face", "s1"]})
