"""Signals of pure noise tell nothing, so a network on them may not find out when a clip began, where ratings all rise.

The made-up data have no such rise: their common part is as likely to fall as to rise at any second.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from mersuite import api, registry
from mersuite.clip import Sample, Signal
from mersuite.data.datamodule import train_loader
from mersuite.inference import build_network, network_outputs
from mersuite.models.base import BuildContext, StreamInfo
from mersuite.signal.haemodynamics import context_statistics
from tracks.ps.head import TARGET
from tracks.ps.runtime import SubjectFeatures

NUM_CHANNELS, NUM_PEOPLE, NUM_TRAINED = 8, 26, 22
CH_NAMES = tuple(f"ch-{channel} {kind}" for channel in range(NUM_CHANNELS) for kind in ("mean", "slope", "std"))
RISE_S = 8.0


def make_data(rng: np.random.Generator) -> tuple[list[Sample], SubjectFeatures]:
    lengths_s = rng.choice(np.arange(60, 171), 15, replace=False)
    samples, signals = [], {}
    for person in range(NUM_PEOPLE):
        for clip, length_s in enumerate(lengths_s):
            noise = gaussian_filter1d(rng.standard_normal((length_s * 5, NUM_CHANNELS)), 6, axis=0)
            rows = context_statistics(noise / noise.std(), 5.0, int(length_s), 10.0).reshape(length_s, -1)
            name = f"p{person}/{clip}"
            signals[name, "fnirs_stats"] = Signal(data=rows, rate_hz=1.0, ch_names=CH_NAMES)
            rise = 60 * (1 - np.exp(-np.arange(length_s) / RISE_S))
            truth = np.repeat((rise + 5 * rng.standard_normal())[:, None], 2, axis=1).astype(np.float32)
            groups = {"subject": f"p{person}"}
            target = {TARGET: truth}
            samples.append(
                Sample(sample_id=name, clip_id=name, groups=groups, duration_s=float(length_s), target=target)
            )
    return samples, SubjectFeatures(signals)


@pytest.mark.slow
def test_noise_does_not_tell_a_temporal_network_when_a_clip_began() -> None:
    words = ["ps.system=signal", "runtime.accelerator=cpu", "model.encoders.eeg_bands=null"]
    config = api.config("ps", overrides=[*words, "model.encoders.fnirs_stats=masa_tcn"])
    samples, reader = make_data(np.random.default_rng(0))
    train = [item for item in samples if int(item.groups["subject"][1:]) < NUM_TRAINED]
    others = [item for item in samples if int(item.groups["subject"][1:]) >= NUM_TRAINED]
    median = np.median(np.concatenate([item.target[TARGET] for item in train]), axis=0)
    torch.manual_seed(0)
    info = StreamInfo(num_channels=len(CH_NAMES), rate_hz=1.0, ch_names=CH_NAMES)
    track = registry.load("ps")
    context = BuildContext(streams={"fnirs_stats": info}, window_s=config.data.window_s, token_rate_hz=1.0)
    fitted = track.fitted(config)
    network = build_network(track, config, context, fitted)
    assert network is not None
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    loader = train_loader(
        config, train, reader, lambda item: {TARGET: item.target[TARGET] - median}, seed=0, rank=0, world_size=1
    )
    for epoch in range(12):
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            output, fused = network.train()(batch)
            optimizer.zero_grad()
            sum(track.loss(config, output, fused, batch, fitted).values()).backward()
            optimizer.step()
    found = network_outputs(network, config, others, reader)
    answers = [found[item.sample_id].values[TARGET] for item in others]
    start = np.mean([answer[:10] for answer in answers])
    later = np.mean([answer[20:50] for answer in answers])
    assert abs(start - later) < 1.5, "the first ten seconds are answered otherwise: ratings there are 30 points lower"
