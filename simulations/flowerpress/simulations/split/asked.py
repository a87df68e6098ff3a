"""What a comparison of split inference is asked for, and the folder that it has to itself."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from flowerpress.compression import ConfigError
from flowerpress.simulations.checkpoints.atomic import written_whole
from flowerpress.simulations.split.distill_settings import DistillSettings
from flowerpress.simulations.split.teacher import Schooling
from flowerpress.simulations.tasks import Task

__all__ = ["METHODS", "Inference", "claim"]

METHODS = {
    "teacher": "the whole network on the server, inputs as they are",
    "teacher, tuned": "the same, trained on for as long as pictures' networks",
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
    All bottlenecks that learn do so for as long: ``epochs`` epochs for the teacher's features,
    ``tail_epochs`` with their encoder as it is and ``joint_epochs`` with it. ``betas``: of the
    learned bottleneck, whose students have the first two stages in common, at the first beta;
    ``channels`` is its latent's. ``reductions``: channels. ``codes``: of vector quantization.
    ``axes``: of PCA. ``qualities``: of pictures;
    ``tuned_qualities``: those that the network is also trained on, for ``picture_epochs`` epochs.
    ``batch``: examples that share a stream. ``examples``: at most so many to learn from; None: all.

    Raises:
        ConfigError: a number out of range, or an unknown method.
    """

    at: str | None = None
    betas: tuple[float, ...] = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
    channels: int = 12
    epochs: int = 8
    tail_epochs: int = 2
    joint_epochs: int = 12
    picture_epochs: int = 12
    lr: float = 3e-3
    reductions: tuple[int, ...] = (1, 2, 4, 8)
    codes: tuple[int, ...] = (64, 256, 1024)
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
        if self.batch < 1 or min(self.picture_epochs, self.joint_epochs) < 0:
            raise ConfigError("batch must be at least 1, and epochs at least 0")
        if len(set(self.betas)) < len(self.betas):
            raise ConfigError("a beta stands twice")

    @property
    def learned(self) -> str:
        """The learned bottleneck, as ``bottleneck()`` takes it."""
        return f"entropic(channels={self.channels})"

    def behind(self, task: Task) -> str:
        """Return the part of the task's network behind which untrained bottlenecks stand."""
        return (self.at or task.cut_at or "").rpartition("-")[2]

    def settings(self, beta: float = 0.0) -> DistillSettings:
        """Return how a student is distilled, in three stages."""
        return replace(self.alone(beta), epochs_stage3=self.joint_epochs)

    def alone(self, beta: float) -> DistillSettings:
        """Return the first two stages: the bottleneck alone, then the server's side."""
        return DistillSettings(beta, self.epochs, self.tail_epochs, self.lr, self.batch_size)

    def joint(self, beta: float) -> DistillSettings:
        """Return the third stage."""
        return replace(self.settings(beta), epochs_stage1=0, epochs_stage2=0)


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
