"""The downlink: what every client holds, and the shortest way there for each of them.

The server keeps, beside its own model x, the model y that clients hold. Each version codes the
difference x - y and adds *what clients will decode* to y. The part that the codec lost stays in
x - y and is coded again with the next version: that is the server's own error feedback (Tang et
al., ICML 2019, DoubleSqueeze; Sattler et al., IEEE TNNLS 2020, algorithm 2), without a second
residual. All clients of a version hold the same bits, so the server remembers one model and a
short chain of changes, however many clients there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression import (
    EncodeError,
    Frame,
    Manifest,
    ManifestError,
    Preset,
    apply_frames,
    difference,
    encode_frames,
    model_digest,
    warmth,
)
from flowerpress.protos import MAX_UPDATES, Kind, Update, pack
from flowerpress.protos.store import Snapshot
from flowerpress.server.snapshots import joined, manifest_of, pack_manifest, part

__all__ = ["Broadcast", "Packed"]

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Packed:
    """One update as bytes: its version, and how many bytes each tensor's frame takes."""

    version: int
    blob: bytes
    by_tensor: dict[str, int]


class Broadcast:
    """Versions of one model on their way to clients; version 0 means nothing is held.

    Args:
        run: identity of the run, 64 bits.
        downlink: the codec of changes. A lossless one sends the model itself each time.
        first: the codec of the first model that a client without any gets. Lossy is fine: what
            it loses is part of the next difference. Where a weight does not fit, ``whole``.
        whole: a lossless codec, for clients whose version is too far back.
        seed: root of the generators of stochastic codecs.
        keep_change: whether ``change`` is set, what led from the version before to this one as
            clients know it: empty for the first version.
    """

    def __init__(
        self,
        run: int,
        downlink: Preset,
        first: Preset,
        whole: Preset,
        seed: int,
        *,
        keep_change: bool = False,
    ) -> None:
        self.run = run
        self.version = 0
        self.held: Arrays = {}
        self.change: Arrays = {}
        self._keep_change = keep_change
        self.digest = b""
        self._downlink = downlink
        self._first = first
        self._whole = whole
        self._seed = seed
        self._manifest: Manifest | None = None
        self._source = b""
        self._warm: dict[str, NDArray[np.float32]] = {}
        self._changes: deque[Packed] = deque()
        self._model: Packed | None = None
        self._round = 0
        self._lossless = False

    @property
    def manifest(self) -> Manifest:
        """The tensors of the model; available once something was published."""
        if self._manifest is None:
            raise RuntimeError("nothing has been published yet")
        return self._manifest

    def publish(self, server_round: int, model: Mapping[str, NDArray[Any]]) -> None:
        """Make ``model`` the newest version, unless it already is.

        Raises:
            ManifestError: another model than the one before.
            EncodeError: NaN, infinity or overflow.
        """
        manifest = self._manifest or Manifest.of(model)
        model = manifest.match(model)
        source = model_digest(manifest, model)
        if source == self._source:
            return
        self._round = server_round
        plan = self._downlink.plan(manifest)
        self._lossless = plan.lossless
        rng = np.random.default_rng([self._seed, self.version, 1 << 32])
        if plan.lossless or not self.version:
            frames = self._model_frames(manifest, model, rng)
            held = apply_frames(manifest, {}, frames, change=False)
            self._follow(manifest, held)
            self._advance(manifest, held)
            self._model = self._pack(Kind.MODEL, frames, b"", with_manifest=True)
        else:
            change = difference(manifest, model, self.held)
            frames, _ = encode_frames(manifest, plan, change, rng, warm=self._warm)
            self._warm = warmth(manifest, frames)
            base = self.digest
            held = apply_frames(manifest, self.held, frames, change=True)
            self._follow(manifest, held)
            self._advance(manifest, held)
            self._changes.append(self._pack(Kind.DELTA, frames, base))
            # Beyond the size of a model, sending one is shorter than the chain.
            while (
                len(self._changes) >= MAX_UPDATES
                or sum(len(change.blob) for change in self._changes) > manifest.nbytes
            ):
                self._changes.popleft()
        self._source = source

    def _model_frames(
        self, manifest: Manifest, model: Arrays, rng: np.random.Generator
    ) -> list[Frame]:
        if self._lossless:
            return encode_frames(manifest, self._downlink.plan(manifest), model, rng)[0]
        try:
            return encode_frames(manifest, self._first.plan(manifest), model, rng)[0]
        except EncodeError:
            # A weight beyond what the first codec (fp16) holds; NaN is refused here, too.
            return encode_frames(manifest, self._whole.plan(manifest), model, rng)[0]

    def state(self) -> Snapshot:
        """Return the newest version, and all that later ones are coded and sent with."""
        packed = [*self._changes, *([self._model] if self._model else [])]
        facts = {
            "run": self.run,
            "seed": self._seed,
            "version": self.version,
            "digest": self.digest.hex(),
            "source": self._source.hex(),
            "round": self._round,
            "lossless": self._lossless,
            "manifest": pack_manifest(self._manifest) if self._manifest else None,
            "changes": len(self._changes),
            "packed": [[each.version, each.by_tensor] for each in packed],
        }
        arrays = {"held": self.held, "change": self.change, "warm": self._warm}
        own = Snapshot(facts, blobs={str(i): each.blob for i, each in enumerate(packed)})
        return joined({"own": own, **{name: Snapshot(arrays=a) for name, a in arrays.items()}})

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from what ``state()`` returned.

        Raises:
            ManifestError: what clients hold is not what its digest says.
        """
        own = part(snapshot, "own")
        facts = own.facts
        manifest = None if facts["manifest"] is None else manifest_of(facts["manifest"])
        held, digest = dict(part(snapshot, "held").arrays), bytes.fromhex(facts["digest"])
        if manifest is not None and model_digest(manifest, held) != digest:
            raise ManifestError("checkpoint.held", "it is not the model that its digest names")
        packed = [
            Packed(version, own.blobs[str(i)], by_tensor)
            for i, (version, by_tensor) in enumerate(facts["packed"])
        ]
        self.run, self._seed = facts["run"], facts["seed"]
        self.version, self.digest, self.held = facts["version"], digest, held
        self.change = dict(part(snapshot, "change").arrays)
        self._warm = dict(part(snapshot, "warm").arrays)
        self._manifest = manifest
        self._source = bytes.fromhex(facts["source"])
        self._round, self._lossless = facts["round"], facts["lossless"]
        changes = facts["changes"]
        self._changes = deque(packed[:changes])
        self._model = packed[changes] if len(packed) > changes else None

    def path(self, version: int) -> tuple[int, list[Packed]]:
        """Return the version to start from (0: none needed) and the updates that lead to now.

        Args:
            version: what the client holds, 0 if nothing.
        """
        if version == self.version:
            return version, []
        if self._lossless:
            assert self._model is not None
            if not version:
                return 0, [self._model]
            return version, [self._whole_model(self._downlink, with_manifest=False)]
        model = self._snapshot()
        afresh = [model, *self._since(model.version)]
        if version < self._oldest() or not version:
            return 0, afresh
        chain = self._since(version)
        if sum(len(p.blob) for p in chain) > sum(len(p.blob) for p in afresh):
            return 0, afresh
        return version, chain

    def _snapshot(self) -> Packed:
        """Return a model from which the kept changes lead to now; code one if there is none."""
        if self._model is None or self._model.version < self._oldest():
            self._model = self._whole_model(self._whole, with_manifest=True)
        return self._model

    def _whole_model(self, preset: Preset, *, with_manifest: bool) -> Packed:
        frames, _ = encode_frames(self.manifest, preset.plan(self.manifest), self.held, None)
        return self._pack(Kind.MODEL, frames, b"", with_manifest=with_manifest)

    def _oldest(self) -> int:
        """The oldest version from which the kept changes lead to now."""
        return self._changes[0].version - 1 if self._changes else self.version

    def _since(self, version: int) -> list[Packed]:
        return [change for change in self._changes if change.version > version]

    def _follow(self, manifest: Manifest, held: Arrays) -> None:
        if self._keep_change and self.held:
            self.change = difference(manifest, held, self.held)

    def _advance(self, manifest: Manifest, held: Arrays) -> None:
        self._manifest = manifest
        self.held = held
        self.digest = model_digest(manifest, held)
        self.version += 1

    def _pack(
        self, kind: Kind, frames: list[Frame], base: bytes, *, with_manifest: bool = False
    ) -> Packed:
        update = Update(
            kind=kind,
            run=self.run,
            round=self._round,
            client=0,
            sequence=self.version,
            manifest_digest=self.manifest.digest,
            frames=frames,
            base=base,
            result=self.digest,
            manifest=self.manifest if with_manifest else None,
        )
        names = [self.manifest.specs[frame.tensor].name for frame in frames]
        sizes = {name: len(frame.body) for name, frame in zip(names, frames, strict=True)}
        return Packed(self.version, pack(update), sizes)
