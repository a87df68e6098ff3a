"""A whole run in which clients misbehave: it ends, and its report says who was left out and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from safetensors.numpy import load_file

from flowerpress.compression import Manifest, encode_frames, preset
from flowerpress.protos import Kind, MessageCarrier, pack, unpack
from flowerpress.simulations.app import make_client_app, make_server_app
from flowerpress.simulations.config import SimulationConfig
from flowerpress.simulations.engines.grid import FIRST_NODE, server_identity
from flowerpress.simulations.engines.inline import InlineGrid
from flowerpress.simulations.loaded import load
from flowerpress.simulations.record import read_run
from flowerpress.simulations.recording import TrainLoss
from flowerpress.simulations.report import write_report

CLIENTS = 7
ROUND = 2


def test_the_run_goes_on_and_the_report_lists_them(tmp_path: Path) -> None:
    config = SimulationConfig(clients=CLIENTS, rounds=3, uplink="stc", out=tmp_path / "run")
    model = load(config).task.build()
    manifest = Manifest.of({k: v.numpy() for k, v in model.state_dict().items()})

    def not_finite(blob: bytes) -> bytes:
        update = unpack(blob, manifest)
        plan = preset("none").plan(manifest)
        zeros = {s.name: np.zeros(s.shape, s.dtype) for s in manifest.specs}
        frames, _ = encode_frames(manifest, plan, zeros, None)
        bodies = [replace(f, body=b"\xff" * len(f.body)) for f in frames]
        return pack(replace(update, kind=Kind.MODEL, frames=bodies))

    def of_another_model(blob: bytes) -> bytes:
        other = Manifest.of({"w": np.zeros(2, np.float32)})
        return pack(replace(unpack(blob, manifest), manifest_digest=other.digest))

    attacks: dict[int, tuple[Callable[[bytes], bytes], str, str]] = {
        0: (lambda b: b[:-1], "ChecksumError", "checksum"),
        1: (lambda b: bytes([*b[:40], b[40] ^ 1, *b[41:]]), "ChecksumError", "checksum"),
        2: (lambda b: b"PK\x03\x04" + b, "FormatError", "magic"),
        3: (lambda b: b + bytes(manifest.nbytes + (1 << 20)), "LimitError", "arrays"),
        4: (not_finite, "NonFiniteError", "frame["),
        5: (of_another_model, "ManifestError", "manifest_digest"),
    }

    class Tampered(InlineGrid):
        """Changes what clients 0 to 5 answer in one round."""

        def _reply(self, message_id: str, patience: float | None) -> Message | None:
            message = self._waiting[message_id]
            settings = message.content.config_records.get("config", ConfigRecord())
            reply = super()._reply(message_id, patience)
            client = message.metadata.dst_node_id - FIRST_NODE
            if reply and settings.get("server-round") == ROUND and client in attacks:
                blob = MessageCarrier().detach(reply.content, "arrays", None)
                assert blob is not None
                MessageCarrier().attach(reply.content, "arrays", attacks[client][0](blob))
            return reply

    grid = Tampered(make_client_app(config), CLIENTS)
    with server_identity(1):
        make_server_app(config)(grid, Context(1, 1, {}, RecordDict(), {}))

    run = read_run(tmp_path / "run")
    assert [record.round for record in run.records] == [0, 1, 2, 3]
    assert [len(record.left_out) for record in run.records] == [0, 0, 6, 0]
    page = write_report(tmp_path / "run").read_text()
    for left_out in run.records[ROUND].left_out:
        _, error, field = attacks[left_out.client]
        assert left_out.error == error
        assert left_out.field.startswith(field)
        assert left_out.error in page
    assert {left_out.client for left_out in run.records[ROUND].left_out} == set(attacks)
    assert run.summary is not None
    assert run.summary.left_out == 6
    final = load_file(tmp_path / "run" / "model.safetensors")
    assert all(np.isfinite(array).all() for array in final.values())


@pytest.mark.parametrize("loss", [None, [1.0, 2.0]])
def test_a_client_without_a_loss_of_its_own_does_not_end_a_run(loss: list[float] | None) -> None:
    odd = MetricRecord({"num-examples": 5})
    if loss is not None:
        odd["train-loss"] = loss
    usual = MetricRecord({"num-examples": 10, "train-loss": 0.5})
    contents = [RecordDict({"metrics": metrics}) for metrics in (usual, odd)]
    told = TrainLoss()
    assert told(contents, "num-examples")["train-loss"] == 0.5
    assert told.take() == 0.5
    assert told(contents[1:], "num-examples") == {}
    assert told.take() is None
