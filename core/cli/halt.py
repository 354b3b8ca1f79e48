"""`tickgate halt`: stop trading, now."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import click

from core.cli.options import data_dir_option, json_option, when
from core.cli.settings import deployed_settings
from core.cli.terminal import table
from core.errors.exceptions import Invalid
from core.infrastructure import halting
from core.model.risk import KillSwitch, SwitchScope


@click.command(short_help="Stop trading: everybody's, a tenant's, an account's, a strategy's.")
@click.option("--reason", default="", help="Why; for whoever asks later. Without one, show what is halted.")
@click.option("--tenant", default="", help="Only this tenant's trading.")
@click.option("--account", default="", help="Only this account of the tenant.")
@click.option("--strategy", default="", help="Only this strategy of the tenant.")
@data_dir_option
@json_option
def command(
    *, reason: str, tenant: str, account: str, strategy: str, data_dir: Path | None, as_json: bool
) -> int:
    """Engage a kill switch: what comes is denied, what waits is not sent, what works is taken back.

    Without --tenant it halts everybody. `tickgate resume ID` releases it.
    """
    settings = deployed_settings(data_dir)
    if not reason:
        if tenant or account or strategy:
            raise Invalid("say why: --reason TEXT", code="BAD_ARGUMENTS")
        _show(asyncio.run(halting.engaged(settings)), as_json=as_json)
        return 0
    scope, target = _place(tenant, account, strategy)
    switch = asyncio.run(halting.halt(settings, tenant, scope, target, reason))
    _show([switch], as_json=as_json)
    return 0


def _place(tenant: str, account: str, strategy: str) -> tuple[SwitchScope, str]:
    if account and strategy:
        raise Invalid("--account and --strategy exclude each other", code="BAD_ARGUMENTS")
    if (account or strategy) and not tenant:
        raise Invalid("say whose: --tenant NAME", code="BAD_ARGUMENTS")
    if account:
        return SwitchScope.ACCOUNT, account
    if strategy:
        return SwitchScope.STRATEGY, strategy
    return (SwitchScope.TENANT, "") if tenant else (SwitchScope.GLOBAL, "")


def _show(found: Sequence[KillSwitch], *, as_json: bool) -> None:
    if as_json:
        rows = [
            {"id": one.id, "tenant": one.tenant, "scope": one.scope, "target": one.target} for one in found
        ]
        click.echo(json.dumps({"kill_switches": rows}))
    elif found:
        click.echo(
            table(
                ("id", "tenant", "scope", "target", "since", "by", "reason"),
                [
                    (
                        one.id,
                        one.tenant or "(everybody)",
                        one.scope,
                        one.target,
                        when(one.engaged_at_ms),
                        one.engaged_by,
                        one.reason,
                    )
                    for one in found
                ],
            )
        )
    else:
        click.echo("nothing is halted")
