"""Made-up runs for the tests of records, tables, pictures and reports. Nothing was trained here."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

from flowerpress.simulations.record import (
    LeftOut,
    RoundRecord,
    Run,
    RunWriter,
    Summary,
    TensorInfo,
    WorstClient,
    read_run,
)

CODECS = {"none": 1.0, "int8": 3.97, "stc": 320.0, "fedzip": 41.0}
"""Label -> made-up ratio."""


def made_up_records(
    *,
    ratio: float = 40.0,
    seed: int = 0,
    rounds: int = 12,
    clients: int = 5,
    tensors: Sequence[tuple[str, int]] = (("conv1.weight", 800), ("fc.weight", 40_000), ("b", 10)),
    classes: int = 10,
    every: int = 1,
    bad_rounds: Sequence[int] = (),
    final: float = 0.95,
    linked: bool = False,
) -> list[RoundRecord]:
    """Return records of a smooth made-up learning curve, evaluated in each ``every``-th round.

    With ``linked``, rounds take simulated time, client 2 is late in the bad ones, and the plan
    changes in every third.
    """
    noise = random.Random(seed)
    records = []
    for number in range(rounds + 1):
        sent = number > 0
        reached = (
            final - 0.85 * math.exp(-4 * number / rounds) + noise.uniform(-0.012, 0.012) * sent
        )
        shown = number % every == 0
        bad = tuple(
            LeftOut(2, "NonFiniteError", "frames[1].scale", "holds NaN; train with a lower rate")
            for _ in range(number in bad_rounds)
        )
        size = {name: int(4 * count * clients / ratio) + 9 for name, count in tensors}
        raw = 4 * clients * sum(count for _, count in tensors)
        records.append(
            RoundRecord(
                round=number,
                seconds=0.4 + noise.random() / 10,
                accuracy=reached if shown else None,
                loss=2.3 * (1.02 - reached) if shown else None,
                recall=tuple(
                    min(1.0, max(0.0, reached + noise.gauss(0, 0.05))) for _ in range(classes)
                )
                if shown
                else None,
                worst_client=WorstClient(3, max(0.0, reached - 0.11)) if shown else None,
                client_accuracy=tuple([reached] * clients) if shown else None,
                train_loss=2.2 * (1 - reached) if sent else None,
                clients=clients if sent else 0,
                bytes_up=(sum(size.values()) + 60 * clients) if sent else 0,
                bytes_down=(sum(size.values()) + 90 * clients) if sent else 0,
                raw_bytes_up=raw if sent else 0,
                raw_bytes_down=raw if sent else 0,
                up_by_tensor=size if sent else {},
                down_by_tensor={name: count + 5 for name, count in size.items()} if sent else {},
                left_out=bad,
                simulated_seconds=10.0 * sent if linked else None,
                missed=len(bad) if linked else 0,
                plan={name: f"rd(relative={number})" for name, _ in tensors}
                if linked and number % 3 == 1
                else None,
                target_bytes=(1000, 8000) if linked and sent else None,
            )
        )
    return records


def write_made_up_run(
    folder: Path,
    records: Sequence[RoundRecord],
    *,
    uplink: str = "stc",
    seed: int = 0,
    task: str = "made-up",
    classes: Sequence[str] = "0123456789",
    tensors: Sequence[str] = ("conv1.weight", "fc.weight", "b"),
    finish: bool = True,
) -> Run:
    """Write the records as a run's folder and read it back."""
    with RunWriter(folder) as writer:
        for record in records:
            writer.append(record)
        if finish:
            config = {
                "task": task,
                "uplink": uplink,
                "downlink": "same",
                "seed": seed,
                "partition": "dirichlet(alpha=0.5)",
                "training": {"lr": 0.1, "epochs": 1},
            }
            writer.finish(
                Summary.of(
                    records,
                    config=config,
                    versions={"flowerpress": "0.0.0 (made up)", "python": "3.11"},
                    tensors=[TensorInfo(name, (1,), "float32") for name in tensors],
                    classes=list(classes),
                    command=f"flowerpress simulate uplink={uplink} seed={seed}  # made up",
                )
            )
    return read_run(folder)


def made_up_comparison(folder: Path, seeds: int = 3, rounds: int = 15) -> list[Run]:
    """Write ``CODECS`` x seeds as a comparison's folder; the stronger the codec, the slower."""
    runs = []
    for label, ratio in CODECS.items():
        for seed in range(seeds):
            records = made_up_records(
                ratio=ratio, seed=seed, rounds=rounds, final=0.95 - 0.004 * math.log(ratio)
            )
            path = folder / label / f"seed-{seed}"
            runs.append(write_made_up_run(path, records, uplink=label, seed=seed))
    return runs
