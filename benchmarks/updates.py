"""Updates of many kinds, made from the project's own tasks: what codecs are then measured on.

    python benchmarks/updates.py --out FOLDER
    python benchmarks/updates.py --out FOLDER --data DATA --kinds cifar10_resnet_adam,mnist_cnn_sgd

An update is one .npz with an array per tensor, what one client changed in one round. Beside it,
where there was a round before, lies ``<name>_previous_global.npz``: the averaged change of that
round, which server and clients both know.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.files import PREVIOUS
from benchmarks.learning import Change, Recipe, rounds
from benchmarks.models import Characters, ManyCharacters, PooledCifar10, WideCifar10, Words
from flowerpress.compression.errors import FlowerpressError
from flowerpress.simulations.tasks.mnist import Mnist

__all__ = ["KINDS"]

KINDS = MappingProxyType(
    {
        "cifar10_resnet_sgd_skewed": Recipe(
            WideCifar10, "dirichlet(alpha=0.3)", saved=(0, 8), steps=20, fresh=640
        ),
        "cifar10_resnet_adam": Recipe(WideCifar10, optimizer="adam", lr=1e-3, steps=31, fresh=992),
        "cifar10_pooled_sgd_skewed": Recipe(
            PooledCifar10, "dirichlet(alpha=0.3)", saved=(0, 8), steps=20, fresh=640
        ),
        "cifar10_pooled_adam": Recipe(
            PooledCifar10, optimizer="adam", lr=1e-3, steps=31, fresh=992
        ),
        "cifar10_pooled_sgd_iid_2epochs": Recipe(PooledCifar10, steps=156, fresh=2496),
        "char_transformer_adamw_100": Recipe(
            Characters, saved=(0,), optimizer="adamw", lr=1e-3, batch=16, steps=100
        ),
        "char_transformer_adamw_400": Recipe(
            Characters, saved=(0,), optimizer="adamw", lr=1e-3, batch=16, steps=400
        ),
        "char_transformer_sgd_100": Recipe(Characters, saved=(0,), lr=0.1, batch=16, steps=100),
        "words_embedding_sgd": Recipe(
            Words, "natural", saved=(0, 2), optimizer="plain", lr=1.0, batch=8, steps=50
        ),
        "mnist_cnn_sgd": Recipe(Mnist, lr=0.03, steps=19, fresh=608),
        "mnist_cnn_adam": Recipe(Mnist, optimizer="adam", lr=1e-3, steps=19, fresh=608),
        "cifar10_resnet_sgd_iid_2epochs": Recipe(WideCifar10, steps=156, fresh=2496),
        "large_transformer_adamw_10": Recipe(
            ManyCharacters, saved=(0,), optimizer="adamw", lr=5e-4, batch=16, steps=10
        ),
        "char_transformer_adamw_100_late": Recipe(
            Characters, optimizer="adamw", lr=5e-4, batch=16, steps=100, warmup=600, clients=3
        ),
        "char_transformer_sgd_100_late": Recipe(
            Characters, lr=0.1, batch=16, steps=100, warmup=600, clients=3
        ),
    }
)
"""Name -> how it is made. Names of files add the round, ``_round8``."""


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for kind in arguments.kinds:
        started = time.perf_counter()
        try:
            for number, update, previous in rounds(KINDS[kind], arguments.data, arguments.seed):
                stem = f"{kind}_round{number}"
                _write(arguments.out / f"{stem}.npz", update)
                if previous is not None:
                    _write(arguments.out / f"{stem}{PREVIOUS}.npz", previous)
                size = sum(change.size for change in update.values())
                took = time.perf_counter() - started
                print(f"{stem}: {size:,} parameters, {took:.0f} s", flush=True)
        except FlowerpressError as error:
            raise SystemExit(f"{kind}: {error}") from error


def _write(path: Path, change: Change) -> None:
    """Write the file under another name first: whoever reads it finds all of it or nothing."""
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        np.savez(file, allow_pickle=False, **change)
    unfinished.replace(path)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=__doc__,
        epilog="kinds:\n  " + "\n  ".join(KINDS),
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument("--data", type=Path, help="folder of the data (default FLOWERPRESS_DATA)")
    parser.add_argument("--kinds", type=_kinds, default=list(KINDS), help="separated by commas")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _kinds(text: str) -> list[str]:
    chosen = text.split(",")
    unknown = sorted(set(chosen) - set(KINDS))
    if unknown:
        raise argparse.ArgumentTypeError(
            f"there is no {', '.join(unknown)}; the kinds are {', '.join(KINDS)}"
        )
    return chosen


if __name__ == "__main__":
    main()
