"""A torch model in bfloat16 trains under ``press()``; it travels as float32, as Flower needs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, Result

from flowerpress.client import press
from flowerpress.server import Pressed
from flowerpress.simulations.engines.inline import InlineGrid

Start = Callable[..., Result]


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(12, 40), torch.nn.Tanh(), torch.nn.Linear(40, 3)).to(
        torch.bfloat16
    )


def record_of(net: torch.nn.Module) -> ArrayRecord:
    """What docs/codecs.md advises: NumPy, and so Flower, has no bfloat16."""
    return ArrayRecord({name: tensor.float() for name, tensor in net.state_dict().items()})


def make_app() -> ClientApp:
    app = ClientApp(mods=[press()])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        net = model()
        net.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
        assert {p.dtype for p in net.parameters()} == {torch.bfloat16}
        noise = torch.Generator().manual_seed(int(context.node_config["partition-id"]))
        inputs = torch.randn(64, 12, generator=noise)
        labels = inputs[:, :3].argmax(dim=1)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
        for _ in range(5):
            loss = torch.nn.functional.cross_entropy(net(inputs.bfloat16()).float(), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        metrics = MetricRecord({"num-examples": 64, "loss": loss.item()})
        content = RecordDict({"arrays": record_of(net), "metrics": metrics})
        return Message(content, reply_to=message)

    return app


def test_flower_itself_takes_no_bfloat16() -> None:
    """If it ever does, record_of and what the pages say of it can go."""
    with pytest.raises(TypeError, match="BFloat16"):
        ArrayRecord(model().state_dict())


@pytest.mark.parametrize("codec", ["none", "int8", "stc(density=0.1)"])
def test_a_model_in_bfloat16_learns(codec: str, start: Start) -> None:
    strategy = Pressed(FedAvg(fraction_evaluate=0.0), uplink=codec, seed=0)
    first = {name: array.numpy() for name, array in record_of(model()).items()}
    result = start(strategy, rounds=8, grid=InlineGrid(make_app(), 3), arrays=first)
    assert not strategy.rejections
    losses = [float(str(m["loss"])) for m in result.train_metrics_clientapp.values()]
    assert losses[-1] < 0.75 * losses[0]
