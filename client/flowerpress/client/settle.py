"""What the server's verdict does to what a client owes, and the books of what it gave up.

Four cases, told apart by the watermark in the next instruction to train:

- the update before is settled: it is in the model, or was clipped or rejected on purpose. It is
  forgotten, and what was dropped of it is counted. The residual of a rejected one stays: to send
  the update again would only make the next one larger, and rejected, too.
- it is not (lost, late, damaged): it goes back into the residual and is sent again.
- this client is another node to the server than when it sent it, or the instruction was made before
  the one that the update answers: nobody can tell, and an update is applied at most once. It is
  given up, and counted as orphaned.
- the server has an update that this state does not know, since an older one was restored: a part
  of the residual may be in that update. All of it is given up, for the same reason.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.client.held import Held
from flowerpress.compression import Manifest, decode_frames
from flowerpress.compression.mass import mass, mass_of_update
from flowerpress.protos import Instruction, Kind, to_numpy, unpack

__all__ = ["decayed", "settle", "sound"]

Arrays = dict[str, NDArray[Any]]


def settle(held: Held, instruction: Instruction, asked_at: float) -> Held:
    """Return ``held`` with nothing pending any more.

    To be done before the downlink is applied, and only for instructions to train: between them the
    server may know of an update that it has not written down yet.

    Args:
        held: the state before.
        instruction: the server's.
        asked_at: when the server made it, in seconds since the epoch, by its own clock.
    """
    if instruction.watermark > held.sequence:
        given_up = held.orphaned + mass(held.residuals)
        return replace(held, residuals={}, owed=0.0, orphaned=given_up, pending=b"", records=b"")
    if not held.pending:
        return held
    manifest = Manifest.of(to_numpy(held.model))
    update = unpack(held.pending, manifest)
    settled = replace(held, pending=b"", records=b"", reference={})
    if instruction.watermark == held.sequence and not instruction.verdict.lost:
        return settled
    if update.kind is Kind.MODEL:  # the next model holds all that this one does
        return settled
    decoded = list(decode_frames(manifest, update.frames, held.reference))
    if instruction.watermark == held.sequence:
        lost = instruction.verdict.lost * mass_of_update(manifest, decoded)
        return replace(settled, dropped=held.dropped + lost)
    if update.client != instruction.client or asked_at < held.asked_at:
        given_up = held.orphaned + mass_of_update(manifest, decoded)
        return replace(settled, orphaned=given_up)
    residuals = dict(held.residuals)
    for index, values in decoded:
        spec = manifest.specs[index]
        if spec.is_float:
            rest = residuals.get(spec.name, np.zeros(spec.shape, np.float32)).reshape(-1).copy()
            with np.errstate(over="ignore"):
                values.add_to(rest)
            residuals[spec.name] = rest.reshape(spec.shape)
    residuals, lost = sound(residuals)
    return replace(settled, residuals=residuals, owed=mass(residuals), dropped=held.dropped + lost)


def decayed(held: Held, server_round: int, factor: float) -> Held:
    """Return ``held`` with its residual multiplied by ``factor`` for each round since it was made.

    Under partial participation a residual answers to an older model the longer it waits.
    """
    if factor == 1.0 or not held.round or server_round <= held.round:
        return held
    scale = np.float32(factor ** (server_round - held.round))
    residuals = {name: array * scale for name, array in held.residuals.items()}
    owed = mass(residuals)
    dropped = held.dropped + max(0.0, held.owed - owed)
    return replace(held, residuals=residuals, owed=owed, dropped=dropped, round=server_round)


def sound(residuals: Arrays) -> tuple[Arrays, float]:
    """Return the residuals that are finite, and the mass of the others.

    No codec encodes infinity: a residual that overflowed would keep its client out for good.
    """
    kept = {name: array for name, array in residuals.items() if np.isfinite(array).all()}
    lost = {n: np.nan_to_num(array) for n, array in residuals.items() if n not in kept}
    return kept, mass(lost)
