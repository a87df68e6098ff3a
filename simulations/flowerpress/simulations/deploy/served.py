"""What ``flowerpress server`` hands to the ServerApp that Flower starts for it.

The two are different processes with Flower's between them, and what an app's bundle holds goes to
every device. So the server's own settings lie in its state folder, in a file that an environment
variable names.
"""

from __future__ import annotations

import os
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.app import Surroundings, serve
from flowerpress.simulations.config import SimulationConfig

__all__ = ["VARIABLE", "Served", "make_served_app"]

VARIABLE = "FLOWERPRESS_SERVED"


class Served(BaseModel):
    """A run as its ServerApp needs it.

    ``run_id`` binds updates to this run, through its restarts; ``deadline``: seconds of a round.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    config: SimulationConfig
    run_id: int = Field(ge=0, lt=2**64)
    deadline: float = Field(gt=0)

    def write(self, path: Path) -> None:
        """Write it where ``read`` finds it."""
        path.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Served:
        """Read what ``write`` wrote.

        Raises:
            ConfigError: the file cannot be read or is another.
        """
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error
        except ValidationError as error:
            raise ConfigError(f"{path}: is not a run of flowerpress server: {error}") from error


def make_served_app() -> ServerApp:
    """Return the ServerApp of ``flowerpress server``; its settings are read when it runs."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        served = Served.read(Path(os.environ[VARIABLE]))
        serve(served.config, grid, None, _surroundings(served))

    return app


def _surroundings(served: Served) -> Surroundings:
    return Surroundings(run_id=served.run_id, timeout=served.deadline)
