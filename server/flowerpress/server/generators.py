"""The process's global generators, which strategies and apps draw from."""

from __future__ import annotations

import random
import sys

import numpy as np

from flowerpress.protos.store import Snapshot

__all__ = ["Generators"]


class Generators:
    """Python's ``random``, NumPy's global generator and, where it is in use, torch's on the CPU."""

    def state(self) -> Snapshot:
        """Return where each of them stands."""
        version, words, spare = random.getstate()
        kind, key, place, has_gauss, gauss = np.random.get_state(legacy=True)
        arrays = {"python": np.array(words, np.uint32), "numpy": np.array(key, np.uint32)}
        if torch := sys.modules.get("torch"):
            arrays["torch"] = torch.get_rng_state().numpy()
        facts = {
            "python": [version, None if spare is None else float(spare).hex()],
            "numpy": [kind, int(place), int(has_gauss), float(gauss).hex()],
        }
        return Snapshot(facts, arrays)

    def restore(self, snapshot: Snapshot) -> None:
        """Set them to where they stood."""
        arrays = snapshot.arrays
        version, spare = snapshot.facts["python"]
        words = tuple(int(word) for word in arrays["python"])
        random.setstate((version, words, None if spare is None else float.fromhex(spare)))
        kind, place, has_gauss, gauss = snapshot.facts["numpy"]
        np.random.set_state((kind, arrays["numpy"], place, has_gauss, float.fromhex(gauss)))
        if "torch" in arrays:
            import torch

            torch.set_rng_state(torch.from_numpy(arrays["torch"].copy()))
