"""A client with a journal loses nothing with its process, sends nothing twice, and says what it
gave up."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable, Mod
from flwr.serverapp.strategy import FedAvg, Result
from numpy.typing import NDArray

from flowerpress.client import press
from flowerpress.client.held import Held, load, save
from flowerpress.client.journal import Journal, state_folder
from flowerpress.client.settle import decayed, settle, sound
from flowerpress.compression import ConfigError, StorageError
from flowerpress.compression.mass import mass
from flowerpress.protos import (
    APPLIED,
    UNDECIDED,
    Instruction,
    MessageCarrier,
    Outcome,
    Receipt,
    Status,
    Verdict,
    to_numpy,
    to_record,
)
from flowerpress.server import Pressed
from flowerpress.simulations.engines.grid import FIRST_NODE
from flowerpress.simulations.engines.inline import InlineGrid

RUN = 3
SHAPE = (20, 30)
Start = Callable[..., Result]


def change(number: int, partition: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng([number, partition])
    return rng.integers(1, 8, SHAPE).astype(np.float32) / np.float32(8)


def app_of(mods: list[Mod], trained: list[tuple[int, int]]) -> ClientApp:
    app = ClientApp(mods=mods)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        number = int(str(message.content.config_records["config"]["server-round"]))
        partition = int(context.node_config["partition-id"])
        trained.append((number, partition))
        w = message.content.array_records["arrays"]["w"].numpy() + change(number, partition)
        metrics = MetricRecord({"num-examples": 1, "loss": float(number)})
        content = RecordDict({"arrays": ArrayRecord({"w": Array(w)}), "metrics": metrics})
        return Message(content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        content = RecordDict({"metrics": MetricRecord({"num-examples": 1})})
        return Message(content, reply_to=message)

    return app


def fed_avg(evaluate: float = 0.0) -> FedAvg:
    return FedAvg(
        fraction_evaluate=evaluate,
        min_train_nodes=1,
        min_evaluate_nodes=1,
        min_available_nodes=1,
    )


def pressed(uplink: str = "topk(density=0.1)", **options: float) -> Pressed:
    inner = fed_avg(evaluate=1.0)
    return Pressed(inner, uplink=uplink, downlink="none", seed=0, run_id=RUN, **options)  # type: ignore[arg-type]


def forget(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A SuperNode that was restarted since the last message."""
    context.state = RecordDict()
    return call_next(message, context)


def journal_of(folder: Path, partition: int = 0) -> Held:
    journal = Journal(folder / f"partition-{partition}", RUN, sync=False)
    journal.close()
    assert journal.held is not None
    return journal.held


def model_of(result: Result) -> NDArray[np.float32]:
    return np.asarray(result.arrays["w"].numpy())


FIRST = {"w": np.zeros(SHAPE, np.float32)}


@pytest.mark.parametrize("uplink", ["topk(density=0.1)", "int8", "none", "powersgd(rank=2)"])
def test_a_restart_before_every_message_changes_no_bit(
    start: Start, tmp_path: Path, uplink: str
) -> None:
    def run(mods: list[Mod]) -> tuple[NDArray[np.float32], Pressed]:
        strategy = pressed(uplink)
        grid = InlineGrid(app_of(mods, []), 3)
        return model_of(start(strategy, grid=grid, rounds=5, arrays=FIRST)), strategy

    without, first = run([press()])
    within, second = run([forget, press(journal=tmp_path)])
    np.testing.assert_array_equal(without, within)
    assert (first.meter.up, first.meter.down) == (second.meter.up, second.meter.down)
    assert second.rejections == []
    # Flower is given nothing big to keep.
    seen: list[Context] = []

    def watch(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        reply = call_next(message, context)
        seen.append(context)
        return reply

    run([watch, press(journal=tmp_path / "more")])
    assert all(not context.state for context in seen)


def test_the_folder_may_stand_in_the_configuration_of_the_node(
    start: Start, tmp_path: Path
) -> None:
    def configure(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        context.node_config["state-folder"] = str(tmp_path / "device")
        return call_next(message, context)

    strategy = pressed()
    start(strategy, grid=InlineGrid(app_of([configure, press()], []), 2), rounds=2, arrays=FIRST)
    assert journal_of(tmp_path / "device", 1).sequence == 2
    context = Context(RUN, 2, {"state-folder": 7}, RecordDict(), {})
    with pytest.raises(ConfigError, match="state-folder of the node is 7; it must be a path"):
        state_folder(None, context)
    assert state_folder(None, Context(RUN, 2, {}, RecordDict(), {})) is None


def test_a_state_of_flowers_context_is_taken_over(start: Start, tmp_path: Path) -> None:
    """A journal may be switched on within a run."""
    inside, outside = press(), press(journal=tmp_path)

    def either(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        number = int(str(message.content.config_records["config"]["server-round"]))
        return (inside if number < 3 else outside)(message, context, call_next)

    plain = start(pressed(), grid=InlineGrid(app_of([press()], []), 2), rounds=5, arrays=FIRST)
    mixed = start(pressed(), grid=InlineGrid(app_of([either], []), 2), rounds=5, arrays=FIRST)
    np.testing.assert_array_equal(model_of(plain), model_of(mixed))


class Recording(InlineGrid):
    """Keeps every instruction and every reply, as they crossed."""

    def __init__(self, app: ClientApp, clients: int) -> None:
        super().__init__(app, clients)
        self.instructions: list[Message] = []
        self.replies: list[Message] = []

    def _accept(self, message: Message) -> None:
        self.instructions.append(self._stamped(message, message.metadata.message_id))
        super()._accept(message)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        for reply in super().pull_messages(message_ids):
            self.replies.append(self._stamped(reply, reply.metadata.message_id))
            yield reply


def blob_of(reply: Message) -> bytes:
    blob = MessageCarrier().detach(reply.content, "arrays", None)
    assert blob is not None
    return blob


@pytest.mark.parametrize("uplink", ["topk(density=0.1)", "qsgd", "none"])
def test_the_same_instruction_gets_the_same_answer_without_training(
    start: Start, tmp_path: Path, uplink: str
) -> None:
    trained: list[tuple[int, int]] = []
    app = app_of([press(journal=tmp_path)], trained)
    grid = Recording(app, 2)
    start(pressed(uplink), grid=grid, rounds=3, arrays=FIRST)
    before = journal_of(tmp_path)
    number = len(trained)
    training = [m for m in grid.instructions if m.metadata.message_type == "train"]
    replies = [r for r in grid.replies if r.metadata.message_type == "train"]
    again = training[-2]  # to partition 0 in round 3: the server died before it wrote that down
    assert again.metadata.dst_node_id == FIRST_NODE
    (fresh,) = InlineGrid(app, 2).send_and_receive([again])
    assert len(trained) == number
    assert blob_of(fresh) == blob_of(replies[-2])
    assert dict(fresh.content.metric_records["metrics"]) == {"num-examples": 1, "loss": 3.0}
    assert Receipt.read(fresh.content) == Receipt.read(replies[-2].content)
    assert journal_of(tmp_path).pending == before.pending
    # Another base, another round, or a settled update: that is another instruction.
    said = Instruction.read(again.content)
    assert said is not None
    assert said.watermark == 2


def test_another_process_in_the_same_folder_is_refused_in_words(
    start: Start, tmp_path: Path
) -> None:
    held = Journal(tmp_path / "partition-1", RUN, sync=False)
    strategy = pressed()
    start(
        strategy, grid=InlineGrid(app_of([press(journal=tmp_path)], []), 2), rounds=1, arrays=FIRST
    )
    held.close()
    left_out = {(r.node, r.error) for r in strategy.rejections}
    assert left_out == {(FIRST_NODE + 1, "StorageError")}
    assert "another process has it open" in strategy.rejections[0].message


def test_a_disk_that_takes_nothing_costs_the_round_and_nothing_else(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be written down is not sent."""
    trained: list[tuple[int, int]] = []
    full = [False]
    write = os.write

    def limited(descriptor: int, data: memoryview) -> int:
        if full[0]:
            raise OSError(28, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", limited)

    def fill(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        number = int(str(message.content.config_records["config"]["server-round"]))
        full[0] = number == 2 and message.metadata.message_type == "train"
        reply = call_next(message, context)
        if full[0]:
            assert Receipt.read(reply.content).status is Status.REFUSED
            assert not reply.content.array_records
        full[0] = False
        return reply

    strategy = pressed()
    app = app_of([fill, press(journal=tmp_path)], trained)
    result = start(strategy, grid=InlineGrid(app, 1), rounds=4, arrays=FIRST)
    assert [(r.round, r.error) for r in strategy.rejections] == [(2, "StorageError")]
    assert "No space left" in strategy.rejections[0].message
    held = journal_of(tmp_path)
    kept = [number for number, _ in trained if number != 2]
    assert kept == [1, 3, 4]
    total = sum(change(number).astype(np.float64) for number in kept)
    np.testing.assert_array_equal(model_of(result) + held.residuals["w"].astype(np.float64), total)


def test_a_damaged_record_costs_one_generation(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The server has an update that the older record does not know: what it owed may be in that."""

    def damage(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        number = int(str(message.content.config_records["config"]["server-round"]))
        if number == 3 and message.metadata.message_type == "train":
            path = max(tmp_path.rglob("*.safetensors"))
            path.write_bytes(path.read_bytes()[:-1] + b"?")
        return call_next(message, context)

    strategy = Pressed(
        fed_avg(),
        uplink="topk(density=0.1)",
        downlink="none",
        seed=0,
        run_id=RUN,
    )
    app = app_of([damage, press(journal=tmp_path)], [])
    result = start(strategy, grid=InlineGrid(app, 1), rounds=4, arrays=FIRST)
    assert "is skipped" in caplog.text
    held = journal_of(tmp_path)
    # After round 1 the residual had a mass, all of which counts as orphaned: it is in no model
    # twice, and what the second update brought of it is in the model once.
    first = change(1)
    kept = np.sort(first.ravel())[::-1][: SHAPE[0] * SHAPE[1] // 10].sum()
    assert held.orphaned == pytest.approx(float(first.sum()) - float(kept))
    account = strategy.verdicts.accounts[FIRST_NODE]
    assert account.orphaned == held.orphaned
    applied = model_of(result).astype(np.float64).sum()
    trained = sum(float(change(number).sum()) for number in range(1, 5))
    assert applied + mass(held.residuals) <= trained
    assert strategy.verdicts.orphaned([FIRST_NODE]) == held.orphaned


def test_where_no_record_is_sound_the_client_says_so(start: Start, tmp_path: Path) -> None:
    def damage(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        number = int(str(message.content.config_records["config"]["server-round"]))
        for path in tmp_path.rglob("*.safetensors") if number == 3 else ():
            path.write_bytes(b"")
        return call_next(message, context)

    strategy = pressed()
    app = app_of([damage, press(journal=tmp_path)], [])
    start(strategy, grid=InlineGrid(app, 1), rounds=3, arrays=FIRST)
    assert {(r.round, r.error) for r in strategy.rejections} == {(3, "StorageError")}
    assert "move it away to begin anew" in strategy.rejections[0].message


def test_another_run_leaves_what_was_owed_where_it_is(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = app_of([press(journal=tmp_path)], [])
    start(pressed(), grid=InlineGrid(app, 1), rounds=2, arrays=FIRST)
    before = journal_of(tmp_path)
    assert before.owed > 0
    other = Pressed(fed_avg(), uplink="int8", seed=0, run_id=RUN + 1)
    with caplog.at_level(logging.WARNING):
        start(other, grid=InlineGrid(app, 1), rounds=2, arrays=FIRST)
    said = [r.getMessage() for r in caplog.records if "other runs" in r.getMessage()]
    assert len(said) == 1
    assert f"run-{RUN:016x}" in said[0]
    assert f"mass {before.owed:g}" in said[0]
    after = journal_of(tmp_path)
    np.testing.assert_array_equal(after.residuals["w"], before.residuals["w"])
    folder = tmp_path / "partition-0"
    (folder / f"run-{RUN:016x}").rename(folder / f"run-{RUN + 2:016x}")
    with pytest.raises(StorageError, match="not the journal of this run"):
        Journal(folder, RUN + 2)


# What a verdict does to what is owed


def sent(start: Start, folder: Path, uplink: str = "topk(density=0.1)") -> Held:
    """A client's record right after its first update."""
    strategy = Pressed(fed_avg(), uplink=uplink, downlink="none", seed=0, run_id=RUN)
    start(strategy, grid=InlineGrid(app_of([press(journal=folder)], []), 1), rounds=1, arrays=FIRST)
    return journal_of(folder)


def instruct(watermark: int, verdict: Verdict = UNDECIDED, **changes: int) -> Instruction:
    said = Instruction(
        run=RUN,
        round=2,
        client=FIRST_NODE,
        version=2,
        held=1,
        digest=b"",
        watermark=watermark,
        arrays="arrays",
        uplink="int8",
        carrier="message",
        seed=0,
        verdict=verdict,
    )
    return replace(said, **changes)  # type: ignore[arg-type]


def test_the_books_balance_after_every_verdict(start: Start, tmp_path: Path) -> None:
    held = sent(start, tmp_path)
    whole = float(change(1).sum())
    update = whole - held.owed
    assert 0 < update < whole
    told = [
        (instruct(1, APPLIED), held.owed, 0.0, 0.0),
        (instruct(1, Verdict(Outcome.CLIPPED, 0.25)), held.owed, 0.0, 0.75 * update),
        (instruct(1, Verdict(Outcome.REJECTED, reason="r")), held.owed, 0.0, update),
        (instruct(0, Verdict(Outcome.NOT_COUNTED, reason="late")), whole, 0.0, 0.0),
        (instruct(0), whole, 0.0, 0.0),
        # Another identity, or an instruction from before that of the update: nobody knows.
        (instruct(0, client=FIRST_NODE + 1), held.owed, update, 0.0),
        # The server knows of more than this record.
        (instruct(2, APPLIED), 0.0, held.owed, 0.0),
    ]
    cases = [(*case, held.asked_at + 1.0) for case in told]
    cases.append((instruct(0), held.owed, update, 0.0, held.asked_at - 1.0))
    for instruction, owed, orphaned, dropped, asked_at in cases:
        after = settle(held, instruction, asked_at)
        assert (after.pending, after.records, after.reference) == (b"", b"", {})
        assert mass(after.residuals) == after.owed == owed
        assert (after.orphaned, after.dropped) == (orphaned, dropped)
        assert after.sequence == held.sequence


def test_what_overflows_on_its_way_back_is_dropped_and_counted(
    start: Start, tmp_path: Path
) -> None:
    held = sent(start, tmp_path)
    biggest = np.finfo(np.float32).max
    full = {"w": np.full(SHAPE, biggest, np.float32)}
    pending_adds = settle(
        replace(held, residuals=full, owed=mass(full)), instruct(0), held.asked_at
    )
    # The largest float32 absorbs small numbers; nothing overflows, and nothing is infinite.
    assert np.isfinite(pending_adds.residuals["w"]).all()
    kept, lost = sound({"a": np.array([np.inf, -1.0], np.float32), "b": np.ones(2, np.float32)})
    assert list(kept) == ["b"]
    assert lost == float(biggest) + 1.0


def test_decay_counts_rounds_and_what_it_takes() -> None:
    model = to_record({"w": np.zeros(4, np.float32)})
    residuals = {"w": np.full(4, 8.0, np.float32)}
    held = Held(RUN, 1, b"", 1, model, residuals, round=3, owed=32.0)
    assert decayed(held, 9, 1.0) is held
    after = decayed(held, 5, 0.5)
    assert (after.owed, after.dropped, after.round) == (8.0, 24.0, 5)
    assert decayed(after, 5, 0.5) is after
    np.testing.assert_array_equal(after.residuals["w"], np.full(4, 2.0, np.float32))


@pytest.mark.parametrize("side", ["client", "server"])
def test_decay_may_be_set_on_either_side(start: Start, tmp_path: Path, side: str) -> None:
    strategy = pressed(decay=0.5 if side == "server" else 1.0)
    mod = press(journal=tmp_path, decay=0.5 if side == "client" else None)
    result = start(strategy, grid=InlineGrid(app_of([mod], []), 1), rounds=6, arrays=FIRST)
    held = journal_of(tmp_path)
    assert held.dropped > 0
    total = sum(float(change(number).sum()) for number in range(1, 7))
    assert model_of(result).sum(dtype=np.float64) + held.owed + held.dropped == pytest.approx(total)


@pytest.mark.parametrize("decay", [0.0, -1.0, 1.5, float("nan")])
def test_a_decay_that_is_none(decay: float) -> None:
    with pytest.raises(ConfigError, match="must be above 0 and up to 1"):
        press(decay=decay)
    with pytest.raises(ConfigError, match="must be above 0 and up to 1"):
        pressed(decay=decay)


def test_state_in_a_context_keeps_the_books() -> None:
    context = Context(RUN, 2, {}, RecordDict(), {})
    held = Held(
        RUN,
        1,
        b"d" * 16,
        2,
        to_record({"w": np.ones(3, np.float32)}),
        round=4,
        owed=1.5,
        orphaned=0.5,
        dropped=0.25,
        reference={"w": np.ones(3, np.float32)},
    )
    save(context, held)
    again = load(context, RUN)
    assert again is not None
    assert (again.round, again.owed, again.orphaned, again.dropped) == (4, 1.5, 0.5, 0.25)
    assert list(again.reference) == ["w"]
    assert list(to_numpy(again.model)) == ["w"]


def test_a_journal_opens_without_torch_and_without_a_compiler(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nimport flowerpress.client\n"
        "flowerpress.client.press()\nfrom flowerpress.client.journal import Journal\n"
        f"Journal(Path({str(tmp_path)!r}), 1).close()\n"
        "print([name for name in ('torch', 'numba', 'llvmlite', 'ray') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]", done.stderr
