"""What a comparison of split inference is asked for, and the folder that it has to itself."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from flowerpress.compression import ConfigError
from flowerpress.simulations.checkpoints.atomic import written_whole
from flowerpress.simulations.split.distill import DistillSettings
from flowerpress.simulations.split.teacher import Schooling
from flowerpress.simulations.tasks import Task

__all__ = ["METHODS", "Inference", "claim"]

METHODS = {
    "teacher": "the whole network on the server, inputs as they are",
    "entropic": "a learned bottleneck with a prior",
    "reduction": "few channels of 8 bits, entropy-coded",
    "reduction, packed": "few channels of 8 bits, packed",
    "vq": "numbers of codes, entropy-coded",
    "pca": "principal axes of the features, without training",
    "plain": "features at a few bits, entropy-coded, without training",
    "features": "features as int8, float16 or float32",
    "jpeg": "inputs as JPEG, the network as it is",
    "webp": "inputs as WebP, the network as it is",
    "jpeg, tuned": "inputs as JPEG, the network trained on such",
    "webp, tuned": "inputs as WebP, the network trained on such",
}
"""What is compared, by name."""

_SETTINGS = "settings.json"


@dataclass(frozen=True)
class Inference:
    """What is compared.

    ``at``: where the learned bottlenecks stand; the untrained ones stand behind the same part.
    ``betas``: of the learned bottleneck, each trained on from the one before, ``epochs`` epochs for
    the first and ``more_epochs`` for the others, then ``tail_epochs`` with its encoder as it is and
    ``joint_epochs`` with it; ``channels`` is its latent's. A rival that learns, too, has
    ``rival_epochs`` in the place of ``joint_epochs``: it should learn for as long as the students
    that it is compared with, which go on from each other. ``reductions``: channels. ``codes``: of
    vector quantization. ``axes``: of PCA. ``qualities``: of pictures;
    ``tuned_qualities``: those that the network is also trained on, for ``picture_epochs`` epochs.
    ``batch``: examples that share a stream. ``examples``: at most so many to learn from; None: all.

    Raises:
        ConfigError: a number out of range, or an unknown method.
    """

    at: str | None = None
    betas: tuple[float, ...] = (1e-5, 5e-5, 1e-4, 3e-4, 1e-3, 3e-3)
    channels: int = 12
    epochs: int = 8
    more_epochs: int = 0
    tail_epochs: int = 2
    joint_epochs: int = 4
    rival_epochs: int = 12
    picture_epochs: int = 3
    lr: float = 3e-3
    reductions: tuple[int, ...] = (1, 2, 4, 8)
    codes: tuple[int, ...] = (16, 64, 256)
    axes: tuple[int, ...] = (2, 4, 8, 16)
    bits: tuple[int, ...] = (2, 3, 4, 6, 8)
    qualities: tuple[int, ...] = (1, 5, 10, 20, 30, 50, 70, 85, 95)
    tuned_qualities: tuple[int, ...] = (1, 10, 30, 60)
    methods: tuple[str, ...] = tuple(METHODS)
    batch: int = 100
    batch_size: int = 64
    examples: int | None = None
    schooling: Schooling = field(default_factory=Schooling)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.methods) - METHODS.keys())
        if unknown:
            raise ConfigError(
                f"unknown methods: {', '.join(unknown)}; there are {', '.join(METHODS)}"
            )
        epochs = (self.more_epochs, self.picture_epochs, self.joint_epochs, self.rival_epochs)
        if self.batch < 1 or min(epochs) < 0:
            raise ConfigError("batch must be at least 1, and epochs at least 0")
        if len(set(self.betas)) < len(self.betas):
            raise ConfigError("a beta stands twice: each student goes on from the one before")

    def settings(self, beta: float, *, first: bool = True) -> DistillSettings:
        """Return how one student is distilled; one that is not the ``first`` is another beta's."""
        epochs = self.epochs if first else self.more_epochs
        # Where the features are not learned anew, the tail knows them already.
        tail_epochs = self.tail_epochs if first or epochs else 0
        return DistillSettings(
            beta,
            epochs,
            tail_epochs,
            self.lr,
            self.batch_size,
            epochs_stage3=self.joint_epochs,
        )

    def rival(self) -> DistillSettings:
        """Return how a bottleneck without a beta is distilled."""
        return replace(self.settings(0.0), epochs_stage3=self.rival_epochs)


def claim(folder: Path, task: Task, wanted: Inference, seed: int) -> None:
    """Make the folder this comparison's, or see that it is.

    Raises:
        ConfigError: it is another's, or cannot be written.
    """
    # More points of the same kinds may be asked for later; how each is made may not change.
    settings = asdict(wanted)
    for name in ("methods", "betas", "reductions", "codes", "axes", "bits", "qualities"):
        del settings[name]
    del settings["tuned_qualities"]
    told = {"task": task.name, "seed": seed, **settings}
    path = folder / _SETTINGS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            if json.loads(path.read_bytes()) != told:
                raise ConfigError(
                    f"{path}: is of another comparison; name another folder, or remove this one"
                )
            return
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot use the folder {folder}: {error}") from error
    with written_whole(path, force=True) as stream:
        stream.write(json.dumps(told, indent=1).encode() + b"\n")
