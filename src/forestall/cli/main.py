"""The root of the command line. Rule: only this module turns errors into exit codes.

Importing it imports no command: each is loaded when it is called.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from forestall import __version__
from forestall.cli import exits
from forestall.cli.table import SECTIONS, all_rows, present
from forestall.config.errors import ConfigError, TrustError
from forestall.config.suggest import nearest
from forestall.control.errors import ControlError, Refused, Unreachable
from forestall.core.errors import ForestallError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from click.shell_completion import CompletionItem


class LazyGroup(click.Group):
    """A group that knows its commands' names and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Name all commands."""
        return [row.name for row in all_rows()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import one command."""
        for row in all_rows():
            if row.name == cmd_name:
                command: click.Command = importlib.import_module(
                    f"forestall.cli.{row.module}"
                ).command
                return command
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that was asked for, or say which one may have been meant."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            near = nearest(args[0], self.list_commands(ctx))
            hint = f" Did you mean {near}?" if near else ""
            raise click.UsageError(f"There is no command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Offer the commands to a shell, without importing them."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - only for a shell

        rows = [row for _title, listed in SECTIONS for row in present(listed)]
        found = [CompletionItem(r.name, help=r.help) for r in rows if r.name.startswith(incomplete)]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands by what they are for, without importing them."""
        for title, rows in SECTIONS:
            listed = [(row.name, row.help) for row in present(rows)]
            if listed:
                with formatter.section(title):
                    formatter.write_dl(listed)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", message="forestall %(version)s")
def command() -> None:
    """Keep this machine usable when memory runs out."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with a code of ``exits``."""
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Run the command line and return its exit code."""
    try:
        returned: Any = command.main(arguments, prog_name="forestall", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return exits.INTERRUPTED.code
    except BrokenPipeError:
        # Whoever read our output has seen enough; keep Python from complaining at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.FINE.code
    except ForestallError as error:
        return _complain(error)
    except Exception as error:
        if os.environ.get("FORESTALL_DEBUG"):
            raise
        click.echo(f"forestall: internal error: {type(error).__name__}: {_line(error)}", err=True)
        click.echo("Please report this; FORESTALL_DEBUG=1 shows where it happened.", err=True)
        return exits.INTERNAL.code
    return returned if isinstance(returned, int) else exits.FINE.code


def _complain(error: ForestallError) -> int:
    if isinstance(error, ConfigError):
        count = len(error.problems)
        what = f"{count} problem{'s' * (count != 1)} in the settings"
        if isinstance(error, TrustError):
            what = "root runs and obeys only what nobody else can change"
        click.echo(f"forestall: {what}:", err=True)
        for problem in error.problems:
            click.echo(f"  {_line(problem)}", err=True)
        return exits.SETTINGS.code
    click.echo(f"forestall: {_line(error)}", err=True)
    if isinstance(error, Unreachable):
        click.echo(
            "Is it running? See systemctl status forestall, or start one: forestall run", err=True
        )
        return exits.UNREACHABLE.code
    if isinstance(error, Refused):
        return exits.PROBLEM.code
    return exits.INTERNAL.code if isinstance(error, ControlError) else exits.PROBLEM.code


def _line(thing: object) -> str:
    # Names of files and processes may hold anything; one harmless line is printed.
    return "".join(char if char.isprintable() else "?" for char in str(thing))


if __name__ == "__main__":
    main()
