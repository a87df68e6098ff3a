"""The ``flowerpress`` command.

Help must answer at once, so this package imports nothing heavier than typer; each command imports
what it needs when it runs.
"""

from __future__ import annotations

import sys

import typer

from flowerpress.compression.errors import FlowerpressError
from flowerpress.simulations.cli.compare import compare
from flowerpress.simulations.cli.doctor import doctor
from flowerpress.simulations.cli.inspect import inspect
from flowerpress.simulations.cli.report import report
from flowerpress.simulations.cli.simulate import simulate

__all__ = ["app", "main"]

app = typer.Typer(
    name="flowerpress",
    help="Federated training with compressed updates in both directions, measured.",
    epilog="Start with: flowerpress simulate. Each command explains itself with --help.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in (simulate, compare, report, inspect, doctor):
    app.command()(command)


def main() -> None:
    """Run the command line; errors of flowerpress end it with a message and status 2."""
    try:
        app()
    except FlowerpressError as error:
        print(f"flowerpress: {error}", file=sys.stderr)
        sys.exit(130 if type(error).__name__ == "StoppedError" else 2)
