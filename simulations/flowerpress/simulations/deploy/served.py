"""What ``flowerpress server`` hands to the ServerApp that Flower starts for it.

The two are different processes with Flower's between them, and what an app's bundle holds goes to
every device. So the server's own settings lie in its state folder, in a file that an environment
variable names.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flowerpress.compression.errors import ConfigError
from flowerpress.protos.store.disk import replace_file
from flowerpress.server.exchange import ExchangeService
from flowerpress.simulations.app import Surroundings, serve
from flowerpress.simulations.config import SimulationConfig

__all__ = ["VARIABLE", "Exchange", "Served", "make_served_app"]

VARIABLE = "FLOWERPRESS_SERVED"


_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
_FilePath = Annotated[Path, Field(strict=False)]


class Exchange(BaseModel):
    """Where blobs travel beside Flower: ``host:port`` to listen on, and as devices reach it."""

    model_config = _STRICT

    listen: str
    address: str
    key: _FilePath
    certificate: _FilePath
    authority: _FilePath

    def service(self) -> ExchangeService:
        """Return the service, to be entered."""
        return ExchangeService(
            self.listen,
            address=self.address,
            certificates=(self.key.read_bytes(), self.certificate.read_bytes()),
            root=self.authority.read_bytes(),
        )


class Served(BaseModel):
    """A run as its ServerApp needs it.

    ``run_id`` binds updates to this run, through its restarts. ``deadline``: seconds of a round;
    ``quorum``: updates that a round needs, a count or a share. ``exchange``: None for blobs in
    Flower's own messages.
    """

    model_config = _STRICT

    config: SimulationConfig
    run_id: int = Field(ge=0, lt=2**64)
    deadline: float = Field(gt=0)
    quorum: int | float = 1
    exchange: Exchange | None = None

    def write(self, path: Path) -> None:
        """Write it where ``read`` finds it; what was there before is replaced in one step.

        Raises:
            ConfigError: it cannot be written, and what was there before still is.
        """
        try:
            replace_file(path, f"{self.model_dump_json(indent=2)}\n".encode())
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror}") from error

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
        options = {"deadline": served.deadline, "quorum": served.quorum}
        exchange = served.exchange
        with nullcontext() if exchange is None else exchange.service() as carrier:
            serve(
                served.config,
                grid,
                surroundings=Surroundings(
                    served.run_id,
                    served.deadline,
                    sync=True,
                    options={**options, "carrier": carrier},
                ),
            )

    return app
