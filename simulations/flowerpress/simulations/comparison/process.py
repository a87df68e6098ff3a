"""The process behind one worker of a comparison: configurations in, rounds out, a line each."""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any

from flowerpress.compression.errors import FlowerpressError
from flowerpress.simulations.config import SimulationConfig
from flowerpress.simulations.engines import run
from flowerpress.simulations.quiet import hush_flower
from flowerpress.simulations.record import RoundRecord
from flowerpress.simulations.report import write_report
from flowerpress.simulations.resuming import can_go_on

__all__ = ["main"]


def main() -> None:
    """Run every configuration that comes in on standard input, until it ends."""
    # Whatever else prints must not get between the lines that the parent reads.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    hush_flower()

    def say(**what: Any) -> None:
        channel.write(json.dumps(what) + "\n")
        channel.flush()

    def show(record: RoundRecord) -> None:
        say(record=record.to_json())

    for line in sys.stdin:
        try:
            config = SimulationConfig.from_json(line)
            resume = config.out is not None and can_go_on(config.out)
            folder = run(config, show, resume=resume)
            write_report(folder)
        except BrokenPipeError:
            return  # the parent is gone: nobody waits for the rest
        except FlowerpressError as error:
            say(error=str(error))
        except Exception as error:  # noqa: BLE001 - the parent goes on with the other runs
            traceback.print_exc()
            say(error=f"{type(error).__name__}: {error}")
        else:
            say(done=True)


if __name__ == "__main__":
    main()
