"""``millrace completion``: the script that has a shell complete commands, options and topics."""

from __future__ import annotations

import click

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print the script that teaches SHELL to complete `millrace`.

    \b
    bash: millrace completion bash > ~/.local/share/bash-completion/completions/millrace
    zsh:  millrace completion zsh > ~/.zfunc/_millrace    (with fpath+=~/.zfunc before compinit)
    fish: millrace completion fish > ~/.config/fish/completions/millrace.fish
    """
    from click.shell_completion import get_completion_class

    from millrace.cli.main import cli

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(cli, {}, "millrace", "_MILLRACE_COMPLETE").source())
