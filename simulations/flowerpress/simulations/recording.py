"""From what ``Pressed`` measured and how the model does to the records of a run."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, MetricRecord, RecordDict
from safetensors import SafetensorError
from safetensors.numpy import save_file
from torch import nn

from flowerpress.compression.errors import ConfigError, StorageError
from flowerpress.protos.store import Snapshot
from flowerpress.server import Pressed
from flowerpress.simulations.client_bytes import client_bytes
from flowerpress.simulations.engines.errors import EngineError
from flowerpress.simulations.engines.linked import LinkedGrid
from flowerpress.simulations.judging import judge
from flowerpress.simulations.loaded import Loaded
from flowerpress.simulations.record import LeftOut, RoundRecord, Summary, TensorInfo
from flowerpress.simulations.treated import Treated

__all__ = ["Recorder", "TrainLoss", "save_model"]


class TrainLoss:
    """The clients' mean training loss of a round, weighted by examples.

    Given to a strategy as the function that aggregates metrics, since that is where Flower shows
    them while a run goes on.
    """

    def __init__(self) -> None:
        self._last: float | None = None

    def __call__(self, contents: list[RecordDict], weighted_by: str) -> MetricRecord:
        """Aggregate as Flower asks for, and remember."""
        records = [next(iter(content.metric_records.values())) for content in contents]
        pairs = [
            (float(loss), float(str(record[weighted_by])))
            for record in records
            # What a client says may be anything, as long as most say the same.
            if isinstance(loss := record.get("train-loss"), int | float)
        ]
        if not pairs:
            return MetricRecord()
        self._last = sum(loss * weight for loss, weight in pairs) / sum(w for _, w in pairs)
        return MetricRecord({"train-loss": self._last})

    def take(self) -> float | None:
        """Return the last round's loss and forget it; None if no client trained."""
        last, self._last = self._last, None
        return last


class Recorder:
    """The central evaluation of a run, called by the strategy after each round.

    ``model`` makes the whole network of the arrays that the strategy averages.
    ``partitions`` maps node ids to partitions: by those clients go into the records. Each record
    is handed to ``emit``. ``linked`` knows the simulated times, if there are any. ``before`` are
    the records of a run that goes on.
    """

    def __init__(
        self,
        loaded: Loaded,
        model: Callable[[ArrayRecord], nn.Module],
        pressed: Pressed,
        train_loss: TrainLoss,
        partitions: Mapping[int, int],
        emit: Callable[[RoundRecord], None],
        linked: LinkedGrid | None = None,
        before: Sequence[RoundRecord] = (),
    ) -> None:
        self.records = list(before)
        self._loaded = loaded
        self._model = model
        self._pressed = pressed
        self._train_loss = train_loss
        self._partitions = partitions
        self._emit = emit
        self._linked = linked
        plans = [record.plan for record in self.records if record.plan is not None]
        self._plan = plans[-1] if plans else None
        self._started = self._before = time.monotonic()

    def state(self) -> Snapshot:
        """Return how many rounds were recorded; the records themselves are in the run's folder."""
        return Snapshot({"round": self.records[-1].round})

    def restore(self, snapshot: Snapshot) -> None:
        """Check that the records given are those of the rounds until then.

        Raises:
            ConfigError: they are not.
        """
        last = self.records[-1].round if self.records else -1
        if last != snapshot.facts["round"]:
            raise ConfigError(
                f"rounds up to {last} are recorded, and the server's state is that after round "
                f"{snapshot.facts['round']}; begin the run anew"
            )

    def __call__(self, server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        """Evaluate if it is due, and record the round.

        Raises:
            EngineError: in the first round, no client at all could do its part.
        """
        config = self._loaded.config
        due = server_round % config.evaluate_every == 0 or server_round == config.rounds
        judged: dict[str, Any] = {}
        if due:
            judgement = judge(self._loaded, self._model(arrays))
            judged = {name: getattr(judgement, name) for name in vars(judgement)}
        moved = self._pressed.meter.of(server_round)
        left_out = self._left_out(server_round)
        asked = len(moved.downlink.by_client)
        if server_round == 1 and asked and len({left.client for left in left_out}) == asked:
            first = left_out[0]
            raise EngineError(
                f"all {asked} clients of the first round failed; client {first.client} with "
                f"{first.error}: {first.message}"
            )
        times = self._linked.of(server_round) if self._linked else None
        now = time.monotonic()
        targets = self._pressed.targets.values()
        record = RoundRecord(
            round=server_round,
            seconds=now - self._before,
            train_loss=self._train_loss.take(),
            clients=asked,
            bytes_up=moved.uplink.total,
            bytes_down=moved.downlink.total,
            raw_bytes_up=moved.uplink.raw,
            raw_bytes_down=moved.downlink.raw,
            up_by_tensor=dict(moved.uplink.by_tensor),
            down_by_tensor=dict(moved.downlink.by_tensor),
            left_out=left_out,
            plan=self._changed_plan(),
            target_bytes=(min(targets), max(targets)) if targets else None,
            simulated_seconds=times.seconds if times else None,
            missed=len(times.missed) if times else 0,
            treated=self._treated(server_round),
            client_bytes=client_bytes(moved, self._pressed.traffic(server_round), self._partitions),
            owed=self._pressed.verdicts.owed,
            dropped=self._pressed.verdicts.dropped,
            orphaned=self._pressed.verdicts.orphaned(self._partitions),
            **judged,
        )
        self._before = now
        self.records.append(record)
        self._emit(record)
        # What is in the run's folder need not be in the memory, nor in every checkpoint.
        self._pressed.forget(server_round)
        if not due:
            return None
        return MetricRecord({"accuracy": judged["accuracy"], "loss": judged["loss"]})

    def _changed_plan(self) -> dict[str, str] | None:
        """Return the plan in force if it is not the one of the last record."""
        plan = self._pressed.plan_in_force
        changed = None if plan == self._plan else plan
        self._plan = plan
        return changed

    def summary(self, arrays: ArrayRecord) -> Summary:
        """Add up the run that ended with the model ``arrays``."""
        tensors = [
            TensorInfo(name, tuple(array.shape), array.dtype) for name, array in arrays.items()
        ]
        return Summary.of(
            self.records,
            config=json.loads(self._loaded.config.to_json()),
            versions=_versions(),
            tensors=tensors,
            classes=self._loaded.data.classes,
            seconds=time.monotonic() - self._started,
        )

    def _left_out(self, server_round: int) -> tuple[LeftOut, ...]:
        found = [
            LeftOut(self._partitions[r.node], r.error, r.field, r.message)
            for r in self._pressed.rejections
            if r.round == server_round
        ]
        return tuple(sorted(found, key=lambda left: (left.client, *asdict(left).values())))

    def _treated(self, server_round: int) -> tuple[Treated, ...]:
        found = [
            Treated(self._partitions[t.node], t.factor, t.claimed, t.counted, t.share)
            for t in self._pressed.treatments
            if t.round == server_round
        ]
        return tuple(sorted(found, key=lambda treated: treated.client))


def save_model(path: Path, arrays: ArrayRecord) -> None:
    """Write a model as safetensors.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        save_file({name: array.numpy() for name, array in arrays.items()}, path)
    except SafetensorError as error:
        raise StorageError(path, f"the model cannot be written: {error}") from error


def _versions() -> dict[str, str]:
    names = ("flowerpress", "flwr", "numpy", "torch")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
