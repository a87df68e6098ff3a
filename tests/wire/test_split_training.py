"""Split training over a connection is the training of the whole network, and nothing else."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from flowerpress.client.split import SplitRefusedError
from flowerpress.compression import UnknownNameError
from flowerpress.compression.features import Tables
from flowerpress.protos.split import Code
from flowerpress.server.split import Copies, Shared, SplitService
from tests.wire.splitting import (
    RUN,
    SECRET,
    adam,
    assert_same,
    batches,
    copies_of,
    elsewhere,
    linked,
    momentum,
    network,
    part_of,
    plain,
    port_of,
    serving,
    tails_of,
    train_u_shaped,
    train_vanilla,
    train_whole,
)

DATA = batches(5)


def optimizer_state(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    state = optimizer.state_dict()["state"]
    return [torch.as_tensor(v) for key in sorted(state) for v in state[key].values()]


@pytest.mark.parametrize("sharing", ["copies", "shared"])
@pytest.mark.parametrize("make", [momentum, adam])
def test_one_client_without_loss_trains_the_whole_network(sharing: str, make: Any) -> None:
    head, tail, last = network()
    served = nn.Sequential(tail, last)
    twins = copies_of([head, served])
    theirs = train_whole(twins, DATA, make)
    tails = tails_of(served, sharing, make)
    mine = make(head.parameters())
    with serving(tails) as service:
        with linked(service) as link:
            losses = train_vanilla(link, head, DATA, mine)
        report = service.end_round()
    assert_same(head, twins[0])
    assert_same(tails.module, twins[1])
    for optimizer, twin in zip((mine, part_of(tails).optimizer), theirs, strict=True):
        for value, other in zip(optimizer_state(optimizer), optimizer_state(twin), strict=True):
            torch.testing.assert_close(value, other, rtol=1e-6, atol=1e-6)
    assert report.clients[1].steps == len(DATA)
    assert report.clients[1].samples == 8 * len(DATA)
    assert report.clients[1].loss == pytest.approx(np.mean(losses))


@pytest.mark.parametrize("sharing", ["copies", "shared"])
def test_u_shaped_training_is_that_of_the_whole_network(sharing: str) -> None:
    head, tail, last = network()
    twins = copies_of([head, tail, last])
    train_whole(twins, DATA, momentum)
    tails = tails_of(tail, sharing)
    optimizer = momentum([*head.parameters(), *last.parameters()])
    with serving(tails, mode="u") as service:
        with linked(service) as link:
            assert link.mode == "u"
            train_u_shaped(link, head, last, DATA, optimizer)
        report = service.end_round()
    for module, twin in zip((head, tails.module, last), twins, strict=True):
        assert_same(module, twin)
    assert "labels" not in report.traffic[1].up.by_kind


def test_copies_with_plain_sgd_are_federated_averaging_of_the_whole_network() -> None:
    rounds, weights = 2, {1: 24.0, 2: 8.0}
    data = {1: batches(3, 1), 2: batches(1, 2)}
    head, tail, last = network()
    served = nn.Sequential(tail, last)

    def averaged(modules: list[nn.Module]) -> dict[str, torch.Tensor]:
        states = [module.state_dict() for module in modules]
        total = sum(weights.values())
        return {
            name: sum(w / total * s[name] for w, s in zip(weights.values(), states, strict=True))
            for name in states[0]
        }

    twin_head, twin_tail = copies_of([head, served])
    for _ in range(rounds):
        trained = {client: copies_of([twin_head, twin_tail]) for client in data}
        for client, modules in trained.items():
            train_whole(modules, data[client], plain)
        twin_head.load_state_dict(averaged([m[0] for m in trained.values()]))
        twin_tail.load_state_dict(averaged([m[1] for m in trained.values()]))

    tails = Copies(served, plain)
    with serving(tails, ()) as service:
        for number in range(1, rounds + 1):
            service.begin_round(number, list(data), SECRET)
            heads = {client: copies_of([head])[0] for client in data}

            def train(client: int, own: nn.Module, number: int = number) -> None:
                with linked(service, client, round=number) as link:
                    train_vanilla(link, own, data[client], plain(own.parameters()))

            threads = [threading.Thread(target=train, args=each) for each in heads.items()]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
            report = service.end_round()
            assert {c: r.samples for c, r in report.clients.items()} == weights
            head.load_state_dict(averaged(list(heads.values())))
    assert_same(head, twin_head)
    assert_same(tails.module, twin_tail)


def test_shared_clients_take_turns_in_the_rounds_order() -> None:
    head, tail, last = network()
    served = nn.Sequential(tail, last)
    twins = copies_of([served])
    order = [3, 1, 2]
    data = {client: batches(2, client) for client in order}
    optimizer = momentum(twins[0].parameters())
    for client in order:
        for inputs, labels in data[client]:
            optimizer.zero_grad()
            out = twins[0](head(inputs).detach())
            torch.autograd.backward(nn.functional.cross_entropy(out, labels))
            optimizer.step()
    tails = Shared(served, momentum)
    with serving(tails, order) as service:

        def train(client: int) -> None:
            with linked(service, client) as link:
                for inputs, labels in data[client]:
                    link.step(head(inputs).detach().numpy(), labels.numpy())

        threads = [threading.Thread(target=train, args=(client,)) for client in sorted(order)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        service.end_round()
    assert_same(tails.module, twins[0])


def test_a_silent_client_loses_its_turn_and_its_steps() -> None:
    head, tail, last = network()
    served = nn.Sequential(tail, last)
    (twin,) = copies_of([served])
    tails = Shared(served, plain, idle=0.3)
    (inputs, labels), (others, answers) = batches(2)
    optimizer = plain(twin.parameters())
    torch.autograd.backward(nn.functional.cross_entropy(twin(head(others).detach()), answers))
    optimizer.step()
    with serving(tails, [1, 2]) as service:
        vanishing = linked(service, 1).__enter__()
        vanishing.step(head(inputs).detach().numpy(), labels.numpy())
        vanishing.abandon()
        with linked(service, 2) as link:
            link.step(head(others).detach().numpy(), answers.numpy())
        with (
            pytest.raises(SplitRefusedError, match="passed over") as caught,
            linked(service, 1, restart=True),
        ):
            pass
        assert caught.value.code is Code.DEADLINE
        report = service.end_round([2])
    assert_same(tails.module, twin)
    assert report.clients[2].steps == 1


def test_a_client_that_does_not_count_leaves_no_trace() -> None:
    head, tail, last = network()
    served = nn.Sequential(tail, last)
    (before,) = copies_of([served])
    for sharing in ("copies", "shared"):
        tails = tails_of(copies_of([served])[0], sharing)
        with serving(tails) as service:
            with linked(service) as link:
                train_vanilla(link, head, DATA[:2], plain(head.parameters()))
            service.end_round([])
        assert_same(tails.module, before, 0.0)
        if isinstance(tails, Copies):
            assert not tails._parts[1].optimizer.state_dict()["state"]


def test_head_and_tail_in_two_processes(tmp_path: Path) -> None:
    twins = copies_of(network())
    train_whole(twins, DATA, momentum)
    paths = {mode: tmp_path / mode for mode in ("vanilla", "u")}
    with (
        elsewhere("0", "vanilla", str(paths["vanilla"])) as one,
        elsewhere("0", "u", str(paths["u"])) as other,
    ):
        for mode, process in (("vanilla", one), ("u", other)):
            head, tail, last = network()
            with linked(port_of(process), deadline=60.0) as link:
                if mode == "u":
                    both = momentum([*head.parameters(), *last.parameters()])
                    train_u_shaped(link, head, last, DATA, both)
                    assert_same(last, twins[2])
                else:
                    train_vanilla(link, head, DATA, momentum(head.parameters()))
            out, _ = process.communicate("end\n", timeout=60)
            assert out.strip() == str(len(DATA))
            assert_same(head, twins[0])
            served = tail if mode == "u" else nn.Sequential(tail, last)
            served.load_state_dict(torch.load(paths[mode], weights_only=True))
            assert_same(served, twins[1] if mode == "u" else nn.Sequential(twins[1], twins[2]))


def tables(version: int = 1, step: float = 0.25) -> Tables:
    rng = np.random.default_rng(version)
    symbols = np.rint(rng.normal(0, 3, (4, 2000))).astype(np.int32)
    return Tables.from_symbols(
        version, symbols, np.linspace(-1, 1, 4).astype(np.float32), np.full(4, step, np.float32)
    )


def test_what_a_device_sends_arrives_to_the_bit_and_small() -> None:
    y = np.random.default_rng(0).normal(size=(16, 4, 5, 5)).astype(np.float32)
    with serving(Copies(nn.Identity(), plain), ()) as service:
        service.publish(tables())
        with linked(service, round=0, token=b"") as link:
            assert link.tables is not None
            assert link.tables.digest == tables().digest
            seen = link.infer(y)
            expected = tables().restore(tables().quantize(y), y.shape)
            np.testing.assert_array_equal(seen, expected)
            ideal = tables().ideal_bits(tables().quantize(y)) / 8
            features = link.meter.up.payload
            assert features <= 1.005 * ideal + 8
            assert link.meter.up.message <= features + 120


def test_results_depend_on_the_seed_and_not_on_timing() -> None:
    def trained(seed: int) -> nn.Module:
        head, tail, last = network()
        tails = Copies(nn.Sequential(tail, last), momentum)
        lossy = "int8(stochastic=true)"
        with serving(tails, [1, 2], features=lossy, gradients=lossy, seed=seed) as service:

            def train(client: int) -> None:
                own = copies_of([head])[0]
                with linked(service, client, seed=seed) as link:
                    train_vanilla(link, own, batches(3, client), plain(own.parameters()))

            threads = [threading.Thread(target=train, args=(client,)) for client in (1, 2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
            service.end_round()
        return tails.module

    first = trained(1)
    assert_same(first, trained(1), 0.0)
    with pytest.raises(AssertionError):
        assert_same(first, trained(2), 0.0)


def test_wrong_settings_are_refused_at_once() -> None:
    tails = Copies(nn.Identity(), plain)
    with pytest.raises(UnknownNameError, match="mode"):
        SplitService(tails, run=RUN, mode="v")
    with pytest.raises(UnknownNameError):
        SplitService(tails, run=RUN, gradients="int9")
