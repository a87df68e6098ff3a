"""The committed protobuf code is what the generator makes of the committed ``.proto`` files."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import flowerpress.protos.generate as generator


def test_generated_code_is_up_to_date(tmp_path: Path) -> None:
    # Newer generators write code that refuses the protobuf runtime that Flower needs.
    assert version("grpcio-tools").startswith("1.81.")
    made = generator.generate(tmp_path)
    assert made
    committed = generator.HERE
    for path in made:
        name = path.name
        assert path.read_bytes() == (committed / name).read_bytes(), (
            f"{name} is out of date; run python -m flowerpress.protos.generate"
        )
    kept = {path.name for path in committed.glob("*_pb2*.py*")}
    assert kept == {path.name for path in made}
