"""The `tickgate` command: finds the command asked for, and lets no traceback reach its user."""

import importlib
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

from core.errors.exceptions import TickgateError

COMMANDS: Final[Mapping[str, str]] = {
    "up": "Start everything on this machine and say where it runs.",
    "down": "Stop everything, in order.",
    "status": "Show what runs.",
    "logs": "Show what the programs wrote.",
    "verify": "Prove that no tick is missing.",
    "backup": "Write all stores down while everybody works, or prove a backup.",
    "restore": "Bring a backup back.",
    "migrate": "Bring the stores' schemas forward.",
    "clients": "Add, list, disable API clients and rotate their secrets.",
    "keys": "Add, list, rotate and revoke API keys.",
    "sources": "Add, list and close sources of ticks; give them new tokens.",
    "orders": "List orders; show one with all that happened to it.",
    "jobs": "Show queues and dead letters; ask failed jobs again.",
    "audit": "Verify the audit trail, prove an event, write it out.",
    "halt": "Stop trading: everybody's, a tenant's, an account's, a strategy's.",
    "resume": "Release a kill switch.",
    "signing-keys": "Rotate and list the keys that sign access tokens.",
    "doctor": "Look for what could go wrong here, and say what to do.",
    "version": "Print the version.",
}
"""Every command and what it does; `core/cli/<name>.py`, dashes as underscores, holds it as `command`."""
INTERRUPTED: Final = 130


class LazyGroup(click.Group):
    """A group that imports a command's module only when that command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"core.cli.{cmd_name.replace('-', '_')}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def tickgate() -> None:
    """Every tick stored exactly once, and proof of it.

    `tickgate up` starts all of it on this machine; `tickgate COMMAND --help` explains a command.
    """


def main() -> None:
    """Run the command line and exit."""
    sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:  # noqa: PLR0911 - a table of endings
    if os.name == "nt":
        click.echo("error: tickgate runs on Linux and macOS; on Windows only the connector does", err=True)
        return 1
    try:
        result = tickgate.main(args=arguments, prog_name="tickgate", standalone_mode=False)
    except click.ClickException as e:
        e.show()
        return e.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except TickgateError as e:
        click.echo(f"error: {e.public}", err=True)
        return 1
    except BrokenPipeError:
        # The reader of our output left (`tickgate logs | head`): nothing more to say, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception:
        click.echo(f"error: unexpected; the details are in {_write_traceback()}", err=True)
        return 1
    return result if isinstance(result, int) else 0


def _write_traceback() -> Path:
    descriptor, name = tempfile.mkstemp(prefix=f"tickgate-{time.strftime('%Y%m%d-%H%M%S')}-", suffix=".log")
    with os.fdopen(descriptor, "w") as file:
        file.write(f"arguments: {sys.argv[1:]}\n")
        traceback.print_exc(file=file)
    return Path(name)


if __name__ == "__main__":
    main()
