"""The arena's command line.

Exit status: 0 all passed, 1 something failed or was lost, 2 usage, 4 the host
cannot; ``shell`` gives the command's own status, or 125 when the guest was lost.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from arena import host, image, shell
from arena.errors import ArenaError, HostError

_suite = click.option(
    "--guest", "suite", type=click.Choice(list(image.SUITES)), default="bookworm", show_default=True
)
_extra = click.option(
    "--extra-packages",
    default="",
    help="Debian packages beyond the usual, by comma; another image.",
)


def _packages(text: str) -> tuple[str, ...]:
    return tuple(sorted(word for word in text.replace(",", " ").split() if word))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def root() -> None:
    """Prove memory guards on real kernels in small guests."""


@root.command()
@_suite
@_extra
def build(suite: str, extra_packages: str) -> None:
    """Build a guest, or find that it is fresh."""
    guest = image.ensure(
        suite, cache=host.cache_folder(), extra_packages=_packages(extra_packages), say=click.echo
    )
    click.echo(f"{guest.folder}: Linux {guest.release}")


@root.command("shell")
@click.argument("command")
@_suite
@_extra
@click.option(
    "--put",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="File or folder to have in /run/put (the command's working folder).",
)
@click.option("--get", multiple=True, help="Path in the guest to bring back to the current folder.")
@click.option("--source/--no-source", default=False, help="Project and dependencies in /run/src.")
@click.option("--multi-user", is_flag=True, help="Boot the whole of Debian, not only the job.")
@click.option("--mem", "memory_mib", default=1024, show_default=True, help="MiB")
@click.option("--cpus", default=2, show_default=True)
@click.option("--swap", "swap_mib", default=0, help="MiB of disk swap, switched on.")
@click.option("--timeout", "timeout_s", default=180.0, show_default=True, help="seconds")
@click.option("--append", "kernel_words", default="", help="More words on the kernel command line.")
def shell_command(  # noqa: PLR0913, PLR0917 - one parameter per option
    command: str,
    suite: str,
    extra_packages: str,
    put: tuple[Path, ...],
    get: tuple[str, ...],
    source: bool,  # noqa: FBT001 - click passes flags
    multi_user: bool,  # noqa: FBT001
    memory_mib: int,
    cpus: int,
    swap_mib: int,
    timeout_s: float,
    kernel_words: str,
) -> None:
    """Run COMMAND (a sh script) as root in a fresh guest; its output and status come out."""
    request = shell.Request(
        command=command,
        suite=suite,
        put=put,
        get=get,
        source=source,
        extra_packages=_packages(extra_packages),
        multi_user=multi_user,
        memory_mib=memory_mib,
        cpus=cpus,
        swap_mib=swap_mib,
        timeout_s=timeout_s,
        kernel_words=kernel_words,
    )
    sys.exit(shell.run(request))


def main() -> int:
    """Run the command line; every error of ours becomes a sentence and a status."""
    try:
        root(prog_name="python -m arena")
    except HostError as error:
        click.echo(f"arena: {error}", err=True)
        return 4
    except ArenaError as error:
        click.echo(f"arena: {error}", err=True)
        return shell.LOST_STATUS if "shell" in sys.argv[1:2] else 1
    return 0
