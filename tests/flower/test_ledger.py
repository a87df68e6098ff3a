"""Nothing that a client has a record of is lost, and nothing is in the model twice."""

from __future__ import annotations

import json
import logging
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, RecordDict

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.ledger import CLIENT, METHODS, SERVER, Ledger, drawn, played
from flowerpress.client.answer import kept_records, repeated
from flowerpress.client.held import Held
from flowerpress.client.settle import settle
from flowerpress.compression import DEFAULT_LIMITS, Manifest, WireError, encode_frames, preset
from flowerpress.compression.mass import mass
from flowerpress.protos import Instruction, Kind, Update, pack, to_record, unpack
from flowerpress.server.intake import Intake

ROOT = Path(__file__).resolve().parents[2]
EXACT = 1e-12


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: no test here turns the power off."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as name:
        yield Path(name)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


def schedule(seed: int, folder: Path, method: str = "journal") -> Ledger:
    """Three clients, six rounds, and a fault at every fifth chance; every other one evaluates."""
    faults = drawn(seed, clients=3, rounds=6, probability=0.2)
    return played(faults, 3, 6, method, folder / str(seed), evaluate=float(seed % 2))


def test_seeded_schedules_conserve_mass(folder: Path) -> None:
    """A part of a thousand: ``python benchmarks/ledger.py --schedules 1000`` runs them all."""
    happened: Counter[str] = Counter()
    for seed in range(1, 51):
        ledger = schedule(seed, folder)
        assert ledger.error <= EXACT, (seed, ledger)
        happened.update(ledger.happened)
    assert {kind for kind in happened if kind} == {*CLIENT, *(f"server {kind}" for kind in SERVER)}


@pytest.mark.slow
def test_a_thousand_schedules_conserve_mass(folder: Path) -> None:
    assert max(schedule(seed, folder).error for seed in range(1, 1001)) <= EXACT


@pytest.mark.parametrize("method", [name for name in METHODS if name != "journal"])
def test_the_ledger_notices_what_other_ways_lose(folder: Path, method: str) -> None:
    assert max(schedule(seed, folder, method).error for seed in range(1, 6)) > 0.01


def test_processes_that_are_killed_at_any_point_of_the_journal(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.flower.killed", str(folder), "1", "4"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert max(each["error"] for each in found) <= EXACT
    assert min(each["trained"] for each in found) > 0
    deaths = sum((Counter(each) for each in found), Counter())
    assert deaths["before sending"] > 20
    assert deaths["after sending"] > 3


# Replays: a network that keeps, repeats and reorders messages in both directions

RUN, NODE = 5, 9
MANIFEST = Manifest.of({"w": np.zeros(4, np.float32)})
MODEL = to_record({"w": np.zeros(4, np.float32)})
FRAMES, _ = encode_frames(
    MANIFEST, preset("topk(density=0.5)").plan(MANIFEST), {"w": np.ones(4, np.float32)}, None
)
RECORDS = kept_records(RecordDict({"arrays": ArrayRecord()}), "arrays")


@cache
def update(number: int, client: int, sequence: int, base: bytes) -> bytes:
    """Return an update; what it holds is noted beside it."""
    return pack(Update(Kind.DELTA, RUN, number, client, sequence, MANIFEST.digest, FRAMES, base))


@dataclass
class Server:
    """An ``Intake``, and how often each training is in the model that was written down."""

    intake: Intake = field(default_factory=lambda: Intake(RUN, DEFAULT_LIMITS))
    round: int = 0
    model: Counter[int] = field(default_factory=Counter)
    staged: Counter[int] = field(default_factory=Counter)

    def base(self) -> bytes:
        return sum(self.model.values()).to_bytes(16, "little")

    def ask(self, client: int) -> Instruction:
        return Instruction(
            run=RUN,
            round=self.round,
            client=client,
            version=1,
            held=1,
            digest=self.base(),
            watermark=self.intake.watermarks.get(client, 0),
            arrays="arrays",
            uplink="int8",
            carrier="message",
            seed=0,
            verdict=self.intake.verdicts.of(client),
        )

    def take(self, client: int, blob: bytes, holds: frozenset[int]) -> None:
        try:
            opened = self.intake.open(blob, client, self.round, self.base(), MANIFEST)
        except WireError:
            return
        self.intake.stage(client, opened.sequence)
        self.staged.update(holds)


@dataclass
class Device:
    """A client's record, and which trainings are in its residual and its update."""

    held: Held = field(default_factory=lambda: Held(RUN, 1, b"", 0, MODEL))
    owed: frozenset[int] = frozenset()
    sent: frozenset[int] = frozenset()
    trainings: int = 0

    def answer(self, asked: Instruction, at: float, rng: random.Random) -> None:
        """Do what the mod does, with ``at`` as the time of the instruction."""
        if repeated(self.held, asked) is not None:
            return
        after = settle(self.held, asked, at)
        if asked.watermark > self.held.sequence:
            self.owed = frozenset()
        elif after.owed > self.held.owed:
            self.owed |= self.sent
        self.trainings += 1
        everything = self.owed | {self.trainings}
        self.sent = frozenset(each for each in everything if rng.random() < 0.7)
        self.owed = everything - self.sent
        residuals = {"w": np.full(4, len(self.owed), np.float32)}
        sequence = max(after.sequence, asked.watermark) + 1
        self.held = replace(
            after,
            sequence=sequence,
            pending=update(asked.round, asked.client, sequence, asked.digest),
            records=RECORDS,
            residuals=residuals,
            owed=mass(residuals),
            asked_at=max(after.asked_at, at),
        )


def reordered(seed: int) -> Counter[int]:
    """Let thirty things happen in an order that a seed draws; return what is in the model."""
    rng = random.Random(seed)
    server, device, client, clock = Server(), Device(), NODE, 0.0
    down: list[tuple[Instruction, float]] = []
    up: list[tuple[int, bytes, frozenset[int]]] = []
    kept = server.intake.state()

    def begin() -> None:
        nonlocal clock
        clock += 1.0
        server.round += 1
        server.intake.begin()
        server.staged = Counter()
        down.append((server.ask(client), clock))

    begin()
    for _ in range(30):
        event = rng.random()
        if event < 0.35 and down:
            place = rng.randrange(len(down))
            asked, at = down[place] if rng.random() < 0.4 else down.pop(place)
            device.answer(asked, at, rng)
            up.append((asked.client, device.held.pending, device.sent))
        elif event < 0.75 and up:
            place = rng.randrange(len(up))
            server.take(*(up[place] if rng.random() < 0.4 else up.pop(place)))
        elif event < 0.9:
            if rng.random() < 0.8:
                server.intake.commit()
                server.model.update(server.staged)
            else:
                server.intake.discard()
            kept = server.intake.state()
            begin()
        elif event < 0.97:  # the server dies, and begins the round anew from what it wrote down
            server.intake = Intake(RUN, DEFAULT_LIMITS)
            server.intake.restore(kept)
            server.round -= 1
            begin()
        else:  # the node comes back with another identity
            client += 1
    return server.model


def test_ten_thousand_reorderings_apply_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    # The same few envelopes are opened a hundred thousand times.
    opened = cache(lambda blob: unpack(blob, MANIFEST))
    for module in ("client.answer", "client.settle", "server.intake"):
        monkeypatch.setattr(f"flowerpress.{module}.unpack", lambda blob, *_: opened(blob))
    applied = 0
    for seed in range(10_000):
        model = reordered(seed)
        assert max(model.values(), default=0) <= 1, seed
        applied += len(model)
    assert applied > 10_000
