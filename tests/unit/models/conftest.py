import sys
import types

import pytest
import torch


class FakeNet(torch.nn.Module):
    """A network with the constructor of braindecode's models, in place of that package."""

    def __init__(self, n_chans, n_times, n_outputs, sfreq, hidden=4, chs_info=None):
        super().__init__()
        self.ch_names = [item["ch_name"] for item in chs_info or ()]
        self.n_times = n_times
        self.body = torch.nn.Conv1d(n_chans, hidden, 5)
        self.dropout = torch.nn.Dropout(0.5)
        self.final_layer = torch.nn.Linear(hidden, n_outputs)

    def forward(self, windows):
        if windows.shape[-1] != self.n_times:
            raise ValueError(f"need {self.n_times} samples")
        return self.final_layer(self.dropout(torch.tanh(self.body(windows)).mean(-1)))


class LoudNet(FakeNet):
    """A network that gives two tensors."""

    def forward(self, windows):
        return super().forward(windows), windows


class PickyNet(FakeNet):
    """A network that takes no window."""

    def forward(self, windows):
        raise ValueError("need 3 channels")


@pytest.fixture(autouse=True)
def fake_package(monkeypatch):
    """Makes braindecode.fake_for_tests importable, whether or not braindecode is installed."""
    module = types.ModuleType("braindecode.fake_for_tests")
    module.FakeNet, module.LoudNet, module.PickyNet = FakeNet, LoudNet, PickyNet
    module.answer = 42
    monkeypatch.setitem(sys.modules, module.__name__, module)
