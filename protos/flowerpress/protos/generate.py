"""Regenerates the committed protobuf code: ``python -m flowerpress.protos.generate [FOLDER]``.

Needs grpcio-tools 1.81.x (extra ``dev``): newer generators write code that Flower's protobuf
cannot load. Without a folder the code goes beside the ``.proto`` files.
"""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["generate"]

HERE = Path(__file__).parent


def generate(folder: Path = HERE) -> list[Path]:
    """Write ``*_pb2.py`` and ``*_pb2.pyi`` for every ``.proto`` file here and return their paths.

    Raises:
        RuntimeError: the generator refused a file.
    """
    from grpc_tools import protoc

    written = []
    for proto in sorted(HERE.glob("*.proto")):
        status = protoc.main(
            ["protoc", f"-I{HERE}", f"--python_out={folder}", f"--pyi_out={folder}", str(proto)]
        )
        if status:
            raise RuntimeError(f"protoc ended with {status} on {proto.name}")
        written += [folder / f"{proto.stem}_pb2.py", folder / f"{proto.stem}_pb2.pyi"]
    return written


if __name__ == "__main__":
    for path in generate(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE):
        print(path)
