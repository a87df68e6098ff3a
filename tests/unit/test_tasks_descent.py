"""Our descent against torch's own optimizer."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from flowerpress.simulations.tasks.descent import Descent


def model() -> nn.Sequential:
    torch.manual_seed(1)
    layers = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3), nn.Linear(3, 2))
    next(layers[2].parameters()).requires_grad_(False)
    return layers


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_same_bits_as_torch(momentum: float, weight_decay: float) -> None:
    ours, theirs = model(), model()
    descent = Descent(ours.parameters(), 0.1, momentum, weight_decay)
    optimizer = torch.optim.SGD(
        theirs.parameters(), lr=0.1, momentum=momentum, weight_decay=weight_decay
    )
    for step in range(6):
        inputs = torch.randn(4, 5, generator=torch.Generator().manual_seed(step))
        # In the first steps the last layer is not used and has no gradient.
        used = slice(0, 3 if step < 2 else 4)
        descent.forget_gradients()
        ours[used](inputs).square().sum().backward()
        descent.step()
        optimizer.zero_grad()
        theirs[used](inputs).square().sum().backward()
        optimizer.step()
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(a, b)
    assert not torch.equal(ours[3].weight, model()[3].weight)  # type: ignore[arg-type]


def test_training_does_not_import_torchs_compiler() -> None:
    code = """
import sys, torch
from flowerpress.simulations.tasks import load_task, Samples
task = load_task("digits")
samples = Samples(torch.zeros(3, 8, 8, dtype=torch.uint8), torch.arange(3))
model = task.build()
task.train(model, samples, task.training, torch.Generator())
task.evaluate(model, samples)
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
