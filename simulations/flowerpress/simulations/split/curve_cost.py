"""What the points of a comparison would cost a small device: work counted, the rest estimated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch

from flowerpress.compression import ConfigError
from flowerpress.simulations.human import percent
from flowerpress.simulations.links import Link
from flowerpress.simulations.split.asked import Inference
from flowerpress.simulations.split.curve import Mean
from flowerpress.simulations.split.estimates import estimate, multiply_adds
from flowerpress.simulations.split.networks import cut_task
from flowerpress.simulations.tasks import Data, Task

__all__ = ["COST_COLUMNS", "Work", "cost_cells", "works"]

COST_COLUMNS = (
    "method",
    "setting",
    "accuracy",
    "bytes alone",
    "device MMAC",
    "estimated ms",
    "estimated mJ",
)


@dataclass(frozen=True)
class Work:
    """Multiply-adds of an example on either side, and the bytes of its scores as float32."""

    device: int
    server: int
    answer: int


def works(
    task: Task, data: Data, wanted: Inference, keys: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], Work]:
    """Return the work of each (method, setting), counted on networks that have learned nothing.

    Pictures' coders are not counted: the device's work is then 0.

    Raises:
        ConfigError: the task cannot be cut as ``wanted`` says.
    """
    inputs = task.prepare(data.train.inputs[:1])

    @cache
    def whole() -> Work:
        model = task.build()
        with torch.no_grad():
            scores = model(inputs)
        return Work(0, multiply_adds(model, inputs), 4 * scores.numel())

    @cache
    def cut(at: str | None, text: str) -> Work:
        parts = cut_task(task, data, at=at, bottleneck=text)
        sample = task.prepare(data.train.inputs[:64])
        with torch.no_grad():
            parts.bottleneck.calibrate(parts.head(sample))
            latent = parts.device(inputs)
        device, server = multiply_adds(parts.device, inputs), multiply_adds(parts.server, latent)
        return Work(device, server, whole().answer)

    found = {}
    for method, setting in keys:
        where = _cut(task, wanted, method, setting)
        found[method, setting] = whole() if where is None else cut(*where)
    return found


def cost_cells(
    points: Sequence[Mean], work: Mapping[tuple[str, str], Work], link: Link
) -> list[list[str]]:
    """Return the rows of ``COST_COLUMNS``: an example sent by itself over ``link``."""
    rows = []
    for mean in points:
        own = work[mean.method, mean.setting]
        told = estimate(
            link,
            device_macs=own.device,
            server_macs=own.server,
            bytes_up=mean.bytes_alone,
            bytes_down=own.answer,
        )
        rows.append(
            [
                mean.method,
                mean.setting,
                percent(mean.accuracy, 2),
                f"{mean.bytes_alone:,.1f}",
                f"{own.device / 1e6:,.2f}",
                f"{1e3 * told.seconds:,.2f}",
                f"{1e3 * told.joules:,.3f}",
            ]
        )
    return rows


def _cut(task: Task, wanted: Inference, method: str, setting: str) -> tuple[str | None, str] | None:
    """Return where a point's network is cut and with what bottleneck; None: it is not cut."""
    match method.partition(",")[0]:
        case "entropic":
            return wanted.at, wanted.learned
        case "reduction" | "vq":
            return wanted.at, setting
        case "pca" | "plain":
            return wanted.behind(task), setting
        case "features":
            return wanted.behind(task), "none"
        case "teacher" | "jpeg" | "webp":
            return None
    raise ConfigError(f"points of an unknown method, {method!r}")
