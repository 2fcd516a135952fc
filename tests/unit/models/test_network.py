"""Input statistics of the rows that are asked, in place of the training rows'."""

from __future__ import annotations

import torch

from mersuite.clip import Batch, WindowKey
from mersuite.models.backbone import Backbone
from mersuite.models.base import BuildContext, StreamInfo
from mersuite.models.encoders.mlp import MlpConfig, MlpEncoder
from mersuite.models.fusion.concat import ConcatConfig, ConcatFusion
from mersuite.models.network import Network, run_windows, with_statistics_of

WIDTHS = {"face": 4, "voice": 3}
CPU = torch.device("cpu")


class Head(torch.nn.Linear):
    def forward(self, fused, batch):
        return {"logits": super().forward(fused.pooled)}


def network_of() -> Network:
    torch.manual_seed(0)
    infos = {name: StreamInfo(num_channels=width, rate_hz=0.0) for name, width in WIDTHS.items()}
    context = BuildContext(streams=infos)
    config = MlpConfig(width=8, hidden=8, input_dropout=0.0, dropout=0.0)
    encoders = {name: MlpEncoder(config, info, context) for name, info in infos.items()}
    backbone = Backbone(encoders, ConcatFusion(ConcatConfig(width=8), dict.fromkeys(WIDTHS, 8), context), 0.0)
    return Network(backbone, Head(8, 2))


def batches_of(rows: dict[str, torch.Tensor], *, there: bool = True, size: int = 16) -> list[Batch]:
    count = len(rows["face"])
    return [
        Batch(
            keys=[WindowKey(str(i), 0.0, 0.0) for i in range(start, min(start + size, count))],
            streams={name: values[start : start + size].unsqueeze(1) for name, values in rows.items()},
            masks={
                name: torch.full((len(values[start : start + size]), 1), there or name == "face")
                for name, values in rows.items()
            },
        )
        for start in range(0, count, size)
    ]


def rows_of(count: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(count, width, generator=generator) for name, width in WIDTHS.items()}


def trained(rows: dict[str, torch.Tensor]) -> Network:
    """A network whose norms have seen the rows."""
    network = network_of().train()
    for batch in batches_of(rows):
        network(batch)
    return network.eval()


def answers(network: Network, batches: list[Batch]) -> torch.Tensor:
    return torch.stack([torch.from_numpy(item.values["logits"]) for item in run_windows(network, batches, CPU)])


def test_rows_that_are_moved_and_stretched_as_a_whole_are_answered_as_if_they_were_not():
    seen = rows_of(64, 1)
    network = trained(seen)
    asked = {name: values[:48] * 3.0 + 5.0 for name, values in seen.items()}
    adapted = with_statistics_of(network, batches_of(asked), CPU)
    plain = {name: (values - values.mean(0)) / values.std(0, correction=0) for name, values in asked.items()}
    for encoder in adapted.backbone.encoders.values():
        assert int(encoder.norm.num_rows) == 48
    found = answers(adapted, batches_of(asked))
    for encoder in network.backbone.encoders.values():
        encoder.norm.mean.zero_()
        encoder.norm.variance.fill_(1.0)
    torch.testing.assert_close(found, answers(network, batches_of(plain)), rtol=1e-4, atol=1e-5)


def test_the_trained_network_stays_as_it_is():
    network = trained(rows_of(64, 1))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    adapted = with_statistics_of(network, batches_of(rows_of(60, 2)), CPU)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not adapted.training and not any(module.training for module in adapted.modules())


def test_a_feature_that_was_constant_in_training_stays_left_out():
    seen = rows_of(64, 1)
    seen["face"][:, 2] = 7.0
    network = trained(seen)
    asked = rows_of(60, 3)
    adapted = with_statistics_of(network, batches_of(asked), CPU)
    moved = {**asked, "face": asked["face"].clone()}
    moved["face"][:, 2] += 100.0
    torch.testing.assert_close(answers(adapted, batches_of(asked)), answers(adapted, batches_of(moved)))


def test_a_stream_that_nobody_has_keeps_its_statistics():
    network = trained(rows_of(64, 1))
    adapted = with_statistics_of(network, batches_of(rows_of(60, 2), there=False), CPU)
    voice = (item.backbone.encoders["stream_voice"].norm for item in (network, adapted))
    assert torch.equal(*(norm.mean for norm in voice))
