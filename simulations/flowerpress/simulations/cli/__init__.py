"""The ``flowerpress`` command.

Help must answer at once, so this package imports nothing heavier than typer; each command imports
what it needs when it runs.
"""

from __future__ import annotations

import sys
from inspect import unwrap
from typing import Annotated, get_args, get_type_hints

import typer
from click import Context, HelpFormatter
from typer.core import TyperArgument, TyperCommand

from flowerpress.compression.errors import FlowerpressError
from flowerpress.simulations.cli.certs import COMMANDS as CERTS_COMMANDS
from flowerpress.simulations.cli.certs import HELP as CERTS_HELP
from flowerpress.simulations.cli.client import client
from flowerpress.simulations.cli.compare import compare
from flowerpress.simulations.cli.doctor import doctor
from flowerpress.simulations.cli.inspect import inspect
from flowerpress.simulations.cli.pack import pack
from flowerpress.simulations.cli.proxy import proxy
from flowerpress.simulations.cli.report import report
from flowerpress.simulations.cli.server import server
from flowerpress.simulations.cli.simulate import simulate
from flowerpress.simulations.cli.split import COMMANDS as SPLIT_COMMANDS
from flowerpress.simulations.cli.split import HELP as SPLIT_HELP
from flowerpress.simulations.cli.tune import COMMANDS as TUNE_COMMANDS
from flowerpress.simulations.cli.tune import HELP as TUNE_HELP
from flowerpress.simulations.cli.unpack import unpack

__all__ = ["app", "main"]


class _Command(TyperCommand):
    """Help as it should read, whatever versions of typer and click came together."""

    def get_help(self, ctx: Context) -> str:
        """Return the help of a command."""
        # With click 8.5, typer 0.20 loses what was said about an argument: it is put back.
        hints = get_type_hints(
            unwrap(self.callback) if self.callback else None, include_extras=True
        )
        for param in self.params:
            if isinstance(param, TyperArgument) and param.help is None:
                told = [info for info in get_args(hints[str(param.name)]) if hasattr(info, "help")]
                param.help = told[0].help if told else None
        # typer escapes brackets for an HTML page that nobody writes here.
        return super().get_help(ctx).replace("\\[", "[")

    def format_arguments(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write nothing: typer writes the arguments itself, beside the options."""


app = typer.Typer(
    name="flowerpress",
    epilog="Start with: flowerpress simulate. Each command explains itself with --help.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"flowerpress {version('flowerpress')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Federated training with compressed updates in both directions, measured."""


for _command, _short in (
    (simulate, "One federated run: bytes and accuracy."),
    (compare, "Several codecs and seeds: one chart."),
    (report, "Pages and pictures of runs made earlier."),
    (inspect, "What is in an update, or what a codec makes of tensors."),
    (pack, "A model file in a fraction of its bytes."),
    (unpack, "A packed model as a model file again."),
    (proxy, "A slow link that breaks, before any service."),
    (server, "A small deployment's server."),
    (client, "A device's part of a deployment."),
    (doctor, "Whether this machine has what a run needs."),
):
    app.command(cls=_Command, short_help=_short)(_command)

_tune = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
for _command, _short in TUNE_COMMANDS:
    _tune.command(cls=_Command, short_help=_short)(_command)
app.add_typer(
    _tune, name="tune", help=TUNE_HELP, short_help="A codec for each tensor, in a budget."
)
_certs = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
for _name, (_command, _short) in CERTS_COMMANDS.items():
    _certs.command(_name, cls=_Command, short_help=_short)(_command)
app.add_typer(_certs, name="certs", help=CERTS_HELP, short_help="Certificates and device keys.")
_split = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
for _name, (_command, _short) in SPLIT_COMMANDS.items():
    _split.command(_name, cls=_Command, short_help=_short)(_command)
app.add_typer(
    _split, name="split", help=SPLIT_HELP, short_help="A network cut between device and server."
)


def main() -> None:
    """Run the command line; errors of flowerpress end it with a message, most with status 2."""
    try:
        app()
    except FlowerpressError as error:
        print(f"flowerpress: {error}", file=sys.stderr)
        sys.exit(_code(error))


def _code(error: FlowerpressError) -> int:
    from flowerpress.simulations.deploy.exits import DeploymentError
    from flowerpress.simulations.engines.errors import StoppedError

    if isinstance(error, DeploymentError):
        return error.code
    return 130 if isinstance(error, StoppedError) else 2
