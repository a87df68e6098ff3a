"""One distillation from a task's name to a folder: what ``flowerpress split distill`` does."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from flowerpress.compression import ConfigError
from flowerpress.simulations.config import SimulationConfig
from flowerpress.simulations.loaded import Loaded, load
from flowerpress.simulations.split.batches import Batches, in_colour
from flowerpress.simulations.split.distill import Tick, distill
from flowerpress.simulations.split.distill_settings import DistillSettings
from flowerpress.simulations.split.federated import Federation, Traffic, distill_federated
from flowerpress.simulations.split.lesson import Judgement, judge_cut, lesson
from flowerpress.simulations.split.stored import CutRecipe, save_cut
from flowerpress.simulations.split.teacher import Schooling, train_teacher

__all__ = ["Distillation", "Distilled", "distil"]

STATE = "state"
"""Folder beside the results, for what a distillation that was stopped goes on from."""


@dataclass(frozen=True)
class Distillation:
    """What to distill.

    ``config`` says task, data and seed; with ``federated`` also the clients, how their updates are
    coded, and the engine's workers. ``teacher``: a safetensors file of the task's network; None:
    one is trained on all the data for ``teacher_epochs`` epochs.
    """

    config: SimulationConfig
    at: str | None
    bottleneck: str
    mode: str = "vanilla"
    settings: DistillSettings = field(default_factory=DistillSettings)
    teacher: Path | None = None
    teacher_epochs: int = 10
    federated: bool = False


@dataclass(frozen=True)
class Distilled:
    """What came of it: accuracies on the test examples, bytes of an example as they were coded.

    ``traffic``: of the clients' updates; None where there were no clients.
    """

    teacher: float
    student: Judgement
    traffic: Traffic | None


def distil(wanted: Distillation, folder: Path, progress: Tick | None = None) -> Distilled:
    """Distill, judge with real bytes, and write the cut network to ``folder``.

    What is there already of the same distillation is not done again: one that was stopped goes on
    from its last epoch.

    Raises:
        ConfigError: task, teacher, place or bottleneck cannot be used, the engine is not
            ``inline``, or the folder holds another distillation.
        EngineError: no client could do its part.
    """
    config = wanted.config
    if config.engine != "inline":
        raise ConfigError(
            f"engine = {config.engine!r}: a distillation runs in this process and, with clients, "
            "in as many more as --workers says; leave the engine out"
        )
    loaded = load(config)
    task = loaded.task
    torch.set_num_threads(config.threads)
    teacher = _teacher(wanted, loaded, folder / STATE, progress)
    torch.manual_seed(config.seed)
    taught = lesson(task, loaded.data, teacher, wanted.at, wanted.bottleneck, wanted.mode)
    recipe = CutRecipe(task.name, wanted.at or task.cut_at or "", wanted.bottleneck, wanted.mode)
    traffic = None
    if wanted.federated:
        federation = Federation(config, recipe, wanted.settings)
        traffic = distill_federated(federation, taught, folder / STATE, progress)
    else:
        batches = Batches(task, loaded.data.train, wanted.settings.batch_size)
        distill(
            taught.cut,
            teacher,
            taught.features,
            batches,
            wanted.settings,
            config.seed,
            progress,
            folder / STATE,
        )
    save_cut(taught.cut, recipe, folder)
    test = loaded.data.test
    return Distilled(
        task.evaluate(teacher, test).accuracy, judge_cut(taught.cut, task, test), traffic
    )


def _teacher(
    wanted: Distillation, loaded: Loaded, folder: Path, progress: Tick | None
) -> nn.Module:
    task, data, seed = loaded.task, loaded.data, wanted.config.seed
    if wanted.teacher is None:
        schooling = Schooling(epochs=wanted.teacher_epochs)
        if not in_colour(task.prepare(data.train.inputs[:2])):
            # The defaults are for photographs: other tasks say themselves how they are learned.
            own = task.training
            schooling = replace(
                schooling, batch_size=own.batch_size, lr=own.lr, augment=False, smoothing=0.0
            )
        return train_teacher(task, data, schooling, seed, folder=folder, tick=progress)
    model = task.build()
    try:
        model.load_state_dict(load_file(wanted.teacher))
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"cannot read the teacher {wanted.teacher}: {error}") from error
    except RuntimeError as error:
        raise ConfigError(
            f"{wanted.teacher}: is no network of task {task.name}: {error}"
        ) from error
    return model.eval()
