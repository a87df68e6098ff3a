"""What clients hold between rounds, in files, under every engine.

A run whose server died begins its last round again, so its clients must begin it with what they
held before that round. A state is therefore kept for each of the last rounds that a client took
part in, and a new process takes the newest one from before the round that it is asked for. Training
depends on nothing else, so a repeated round is the same to the bit.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable, Mod
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict

from flowerpress.compression import StorageError
from flowerpress.protos import Instruction

__all__ = ["keeping"]

# The server's last two states may be gone on from, and a third round may be under way.
_ROUNDS = 3
_NAME = re.compile(r"round-(\d+)")
_DIGEST = 32


def keeping(folder: Path) -> Mod:
    """Return a mod, the outermost one, that keeps ``Context.state`` in ``folder``.

    Args:
        folder: of one run; each client has a folder in it, by its partition.
    """

    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        instruction = Instruction.read(message.content)
        if instruction is None:
            return call_next(message, context)
        own = folder / str(context.node_config["partition-id"])
        if not context.state:
            _recall(context, own, instruction.round)
        try:
            return call_next(message, context)
        finally:
            # A client that fails holds something else than before, too.
            _keep(context, own, instruction.round)

    return mod


def _recall(context: Context, folder: Path, server_round: int) -> None:
    """Put the newest state from before a round into ``context``, if there is one."""
    earlier = [path for number, path in _states(folder) if number < server_round]
    if not earlier:
        return
    body = earlier[-1].read_bytes()
    if hashlib.sha256(body[_DIGEST:]).digest() != body[:_DIGEST]:
        raise StorageError(
            earlier[-1],
            "it is not what was written. The run cannot go on to the bit; begin it anew",
        )
    state = recorddict_from_proto(ProtoRecordDict.FromString(body[_DIGEST:]))
    for name, record in state.items():
        context.state[name] = record


def _keep(context: Context, folder: Path, server_round: int) -> None:
    """Write the state after a round, whole or not at all, and let go of what is not needed."""
    body = recorddict_to_proto(context.state).SerializeToString()
    path = folder / f"round-{server_round}"
    temporary = folder / f".{path.name}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            stream.write(hashlib.sha256(body).digest())
            stream.write(body)
        os.replace(temporary, path)  # noqa: PTH105 - the one call that is atomic by contract
    except OSError as error:
        raise StorageError(path, f"cannot write it: {error.strerror or error}") from error
    # Newer ones belong to a life of this run that ended; they are written again, to the bit.
    past = [path for number, path in _states(folder) if number <= server_round]
    for old in past[:-_ROUNDS]:
        old.unlink(missing_ok=True)


def _states(folder: Path) -> list[tuple[int, Path]]:
    """Return the rounds after which a state was kept, and their files, in order."""
    if not folder.is_dir():
        return []
    found = [(_NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    return sorted((int(match[1]), path) for match, path in found if match)
