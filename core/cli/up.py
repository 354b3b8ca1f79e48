"""`tickgate up`: start everything on this machine, say where it runs, and stop it in order at the end."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final
from urllib.parse import quote

import click

from core.cli.options import data_dir_option
from core.cli.terminal import Progress, store_table, table
from core.errors.exceptions import Conflict, Invalid, Unavailable
from core.infrastructure.deployment import health, shutdown
from core.infrastructure.deployment.belongings import read_tree, remembered_port_base
from core.infrastructure.deployment.layout import Layout, create, default_data_dir, layout_of
from core.infrastructure.deployment.lock import exclusive
from core.infrastructure.deployment.ports import HOST, PORT_BASE, PORT_BASE_MAX
from core.infrastructure.deployment.startup import NotHealthy, Start, detach
from core.infrastructure.deployment.wish import (
    DEMO_SYMBOL,
    SPEED_MAX,
    Wish,
    check_recordings,
    recall,
    replays_of,
)

WATCH_S: Final = 0.5


def _speed(_ctx: click.Context, _parameter: click.Parameter, value: str) -> str:
    if value == SPEED_MAX:
        return value
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise click.BadParameter("must be a number above 0, or max")
    return value


@click.command(short_help="Start everything on this machine and say where it runs.")
@click.option(
    "--detach", "detached", is_flag=True, help="Return when all is healthy; stop with `tickgate down`."
)
@data_dir_option
@click.option(
    "--port-base",
    type=click.IntRange(1, PORT_BASE_MAX),
    help=f"Gateway's port; the others count from it.  [default: the last one used, {PORT_BASE} at first]",
)
@click.option(
    "--demo/--no-demo",
    default=None,
    help="Run a simulated terminal.  [default: yes, unless recordings are replayed]",
)
@click.option(
    "--replay",
    "recordings",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Replay a recording of ticks; may be given several times.",
)
@click.option(
    "--speed",
    default=SPEED_MAX,
    show_default=True,
    callback=_speed,
    help="Times real time, or max, which also waits until all is stored.",
)
def command(
    *,
    detached: bool,
    data_dir: Path | None,
    port_base: int | None,
    demo: bool | None,
    recordings: tuple[Path, ...],
    speed: str,
) -> int:
    """Start everything on this machine and say where it runs.

    Without --detach it stays in the foreground: Ctrl-C stops everything in order.
    """
    if demo and recordings:
        raise Invalid("--demo and --replay exclude each other: a replay runs without the simulated terminal")
    layout = layout_of(data_dir)
    create(layout)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    wish = Wish(
        port_base=port_base or remembered_port_base(layout) or PORT_BASE,
        demo=not recordings if demo is None else demo,
        replays=replays_of(recordings),
        speed=speed,
    )
    try:
        with exclusive(layout.lock_file):
            if _answers(layout):
                return _already(layout, wish)
            return _start(layout, wish, detached=detached)
    except Conflict as e:
        if e.code == "UP_RUNNING" and _answers(layout):
            return _already(layout, wish)
        raise


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _answers(layout: Layout) -> bool:
    return any(process.state not in {health.STOPPED, health.ORPHANED} for process in health.report(layout))


def _already(layout: Layout, wish: Wish) -> int:
    """Say that it runs. Raises: Conflict: it runs otherwise than asked. Unavailable: it is not well."""
    running = recall(layout)
    if running is None or not running.same_as(wish):
        raise Conflict(
            f"already running in {layout.root} with other options; run `tickgate down{_where(layout)}` first",
            code="RUNNING_OTHERWISE",
        )
    ill = [process for process in health.report(layout) if process.state != health.RUNNING]
    if ill:
        raise Unavailable(
            f"already running in {layout.root}, but {ill[0].name} is not well "
            f"({ill[0].problem or ill[0].state}); see `tickgate logs {ill[0].name}{_where(layout)}`",
            code="RUNNING_ILL",
        )
    click.echo(f"already running in {layout.root}")
    click.echo(_summary(layout))
    return 0


def _start(layout: Layout, wish: Wish, *, detached: bool) -> int:
    began = time.monotonic()
    with Progress() as progress:
        progress.begun("reading the recordings" if wish.replays else "starting")
        start = Start(layout, check_recordings(wish), progress)
        try:
            start.run()
        except NotHealthy as e:
            progress.close()
            _show_tail(e)
            raise
        except KeyboardInterrupt:
            progress.close()
            click.echo("interrupted; everything is stopped again", err=True)
            return 130
    click.echo(f"\nall healthy after {time.monotonic() - began:.1f} s\n")
    click.echo(_summary(layout))
    assert start.process is not None
    if detached:
        detach(start.process)
        return 0
    click.echo("\nCtrl-C stops everything in order.")
    sys.stdout.flush()
    return _watch(layout, start.process)


def _watch(layout: Layout, process: subprocess.Popen[bytes]) -> int:
    """Stay until told to stop or until somebody else stops it."""
    try:
        while process.poll() is None:
            time.sleep(WATCH_S)
    except KeyboardInterrupt:
        _stop(layout)
        return 0
    if process.returncode == 0:
        click.echo("stopped")
        return 0
    _stop(layout)
    raise Unavailable("the supervisor was killed; what it ran has been stopped", code="SUPERVISOR_GONE")


def _stop(layout: Layout) -> None:
    # A second Ctrl-C must not turn an orderly stop into a disorderly one.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    click.echo("\nstopping, in order")
    shutdown.stop(layout, click.echo)
    click.echo("stopped")


def _show_tail(error: NotHealthy) -> None:
    if error.log and error.tail:
        click.echo(f"the end of {error.log}:", err=True)
        for line in error.tail:
            click.echo(f"  {line}", err=True)


def _where(layout: Layout) -> str:
    """Return the option that names this data directory, empty when it is the default."""
    return "" if layout.root == default_data_dir() else f" --data-dir {shlex.quote(str(layout.root))}"


def _summary(layout: Layout) -> str:
    rows = [(report.name, report.pid, report.port, report.state) for report in health.report(layout)]
    return "\n".join(
        [
            table(("process", "pid", "port", "state"), rows),
            "",
            store_table(health.stores(layout)),
            "",
            f"data         {layout.root}",
            f"credentials  {layout.credentials_file}",
            f"logs         {layout.logs}",
            *([f"API          {_gateway(layout)}/docs"] if _documented(layout) else []),
            "",
            "try:",
            *(f"  {line}" for line in _commands(layout)),
        ]
    )


def _gateway(layout: Layout) -> str:
    return f"http://{HOST}:{read_tree(layout.settings_file)['gateway']['port']}"


def _documented(layout: Layout) -> bool:
    return bool(read_tree(layout.settings_file)["gateway"].get("docs"))


def _order(gateway: str) -> str:
    body = '{"account": "paper", "symbol": "EURUSD", "side": "buy", "type": "market", "volume": "0.1"}'
    return (
        'curl -s -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json"'
        f""" -H "Idempotency-Key: $(date +%s%N)" -d '{body}' {gateway}/v1/orders"""
    )


def _commands(layout: Layout) -> list[str]:
    """Return commands that work when they are pasted. The secret is read from a file, so no argument shows it."""
    gateway = _gateway(layout)
    secret = f"-K {shlex.quote(str(layout.curl_file))}"
    wish = recall(layout)
    symbol = quote(wish.example if wish else DEMO_SYMBOL)
    binary = Path(sys.executable).parent / "tickgate"
    tickgate = shlex.quote(str(binary)) if os.access(binary, os.X_OK) else "tickgate"
    return [
        f"TOKEN=$(curl -s {secret} -d grant_type=client_credentials {gateway}/oauth/token"
        """ | sed 's/.*"access_token": *"\\([^"]*\\)".*/\\1/')""",
        f'curl -s -H "Authorization: Bearer $TOKEN" "{gateway}/v1/ticks?symbol={symbol}&limit=3"',
        *([_order(gateway)] if wish and wish.demo else []),
        f"{tickgate} verify{_where(layout)}",
    ]
