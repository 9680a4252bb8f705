"""What the commands that change a machine have in common."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from forestall.admin.errors import NotPermitted
from forestall.cli import exits
from forestall.cli.console import out, safe, styled
from forestall.cli.scenes import plain_text

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
dry_run = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
yes = click.option("--yes", is_flag=True, help="Do not ask.")
root_folder = click.option(
    "--root",
    default="/",
    type=click.Path(file_okay=False, path_type=Path),
    help="Look and write below this folder (for images and tests).",
)


def needs_rights(command: Callable[P, R]) -> Callable[P, R]:
    """Turn a missing right, and a machine that is otherwise in the way, into an exit code.

    A full disk or an image without /proc is no mistake of ours, and nothing to report.
    """

    @functools.wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except NotPermitted as error:
            click.echo(f"forestall: {safe(error)}", err=True)
            raise click.exceptions.Exit(exits.KERNEL.code) from None
        except PermissionError as error:
            click.echo(f"forestall: {safe(_where(error))}; try sudo", err=True)
            raise click.exceptions.Exit(exits.KERNEL.code) from None
        except BrokenPipeError:
            raise
        except OSError as error:
            click.echo(f"forestall: {safe(_where(error))}", err=True)
            raise click.exceptions.Exit(exits.PROBLEM.code) from None

    return guarded


def _where(error: OSError) -> str:
    what = error.strerror or str(error)
    return f"{error.filename}: {what}" if error.filename is not None else what


def print_json(plain: Any, *, as_is: frozenset[str] = frozenset()) -> None:  # noqa: ANN401
    """Print plain data, whatever JSON holds; names in it are as harmless as on a terminal.

    Args:
        as_is: Keys of texts of our own that have lines.
    """
    click.echo(json.dumps(_harmless(plain, as_is), indent=2))


def _harmless(plain: Any, as_is: frozenset[str]) -> Any:  # noqa: ANN401
    # Escaped by JSON alone, a name would be itself again behind jq -r; and a lone surrogate,
    # which stands for a byte that is no UTF-8, is what many readers of JSON refuse.
    if isinstance(plain, str):
        return plain_text(plain)
    if isinstance(plain, dict):
        return {
            _harmless(key, as_is): held if key in as_is else _harmless(held, as_is)
            for key, held in plain.items()
        }
    if isinstance(plain, list | tuple):
        return [_harmless(one, as_is) for one in plain]
    return plain


def say(line: str, style: str = "") -> None:
    """Print a line of foreign text, made harmless."""
    out().print(styled(line, style) if style else safe(line))


def confirm(question: str, *, yes: bool) -> None:
    """Ask unless told not to; without a terminal nobody is asked.

    Raises: click.UsageError where nobody can answer; click.Abort on a no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("There is no terminal to ask on; --yes goes ahead without.")
    click.confirm(question, abort=True, err=True)
