"""``forestall completion``: what makes a shell complete our commands and options."""

from __future__ import annotations

import click
from click.shell_completion import ShellComplete, get_completion_class

from forestall.cli.main import command as root

PROGRAM = "forestall"
SHELLS = {
    "bash": "/usr/local/share/bash-completion/completions/forestall",
    "zsh": "/usr/local/share/zsh/site-functions/_forestall",
    "fish": "/usr/local/share/fish/vendor_completions.d/forestall.fish",
}
"""Where each looks for what a machine's administrator installed."""


def completion_script(shell: str) -> str:
    """Return what a shell has to read."""
    made = get_completion_class(shell)
    assert made is not None, shell
    one = made(root, {}, PROGRAM, "_FORESTALL_COMPLETE")
    # Bash's own source() starts a bash to look how old it is; we may be installing an image.
    return ShellComplete.source(one).strip("\n") + "\n"


@click.command()
@click.argument("shell", type=click.Choice(list(SHELLS)))
def command(shell: str) -> None:
    """Print what makes a shell complete commands, options and process numbers.

    Install puts it where bash, zsh and fish look. Without an installation:

    \b
    bash: eval "$(forestall completion bash)"      in ~/.bashrc
    zsh:  eval "$(forestall completion zsh)"       in ~/.zshrc, after compinit
    fish: forestall completion fish | source       in ~/.config/fish/config.fish
    """  # noqa: D301 - click keeps the lines below this sign as they are
    click.echo(completion_script(shell), nl=False)
