"""What the venues did, held against what callers were told and what the ledger says, and the ledger against itself."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from core.auditing.checkpoints import Keyring
from core.auditing.verification import verify
from core.infrastructure.central_hub import open_hub
from core.model.orders import OrderState, may_move
from tests.faults.trading_house import PAPER, PATIENCE_S, TERMINAL_ACCOUNT, TradingHouse
from tests.orders import truth

TAKEN_ON_PAPER: Final = (
    "select ended ->> 'tag' as tag, count(distinct ended ->> 'ticket') as times from paper_orders_ended"
    " group by ended ->> 'tag'"
)
BUYS: Final = {"buy": 1, "sell": -1}


@dataclass(frozen=True, kw_only=True)
class Executed:
    """A deal as its venue has it. tag: our order's id; signed: lots, below 0 where sold."""

    account: str
    ticket: str
    tag: str
    order: str
    signed: Decimal


@dataclass(frozen=True, kw_only=True)
class Judged:
    """problems: what is wrong, in words; ended: how many orders of an account and type did how."""

    problems: list[str]
    ended: Counter[str]


async def judge(house: TradingHouse, accepted: Mapping[str, str]) -> Judged:
    """Judge it all. accepted: order ids by the key they were accepted under."""
    settings, spool = house.settings, house.spool
    async with open_hub(settings, {"postgres", "audit_archive"}, patience_s=PATIENCE_S) as hub:
        async with hub["postgres"].acquire() as connection:
            orders = {row["id"]: dict(row) for row in await connection.fetch("select * from orders")}
            paper = [
                json.loads(row["deal"]) for row in await connection.fetch("select deal from paper_deals")
            ]
            taken = await connection.fetch(TAKEN_ON_PAPER)
            fills = await connection.fetch("select * from fills")
            events = await connection.fetch("select * from order_events order by order_id, seq")
            positions = await connection.fetch("select * from positions")
        trail = await hub["audit_archive"].entries("demo", after=0, limit=1_000_000)
    deals = [*_on_paper(paper), *_at_the_terminal(spool)]
    problems = [
        f"{key} was accepted as {one}, which is not there"
        for key, one in accepted.items()
        if one not in orders
    ]
    times = {**truth(spool).executions, **{row["tag"]: row["times"] for row in taken}}
    problems += [f"{tag} was taken {n} times" for tag, n in times.items() if n > 1]
    problems += _of_executions(orders, deals)
    problems += _of_moves(orders, [dict(event) for event in events])
    problems += _of_alerts(events, house.alerts())
    for name in (PAPER, TERMINAL_ACCOUNT):
        problems += _of_account(name, deals, fills, positions)
    verdict = verify("demo", trail, [], Keyring([]))
    if verdict.finding:
        problems.append(f"audit: {verdict.finding}")
    told = Counter(entry.type for entry in trail)
    if told["order.fill"] != len(fills):
        problems.append(f"{told['order.fill']} fills are audited, {len(fills)} are there")
    ended = Counter(f"{one['account']} {one['type']} {one['state']}" for one in orders.values())
    return Judged(problems=problems, ended=ended)


def _on_paper(deals: Iterable[Mapping[str, Any]]) -> list[Executed]:
    return [
        Executed(
            account=PAPER,
            ticket=deal["ticket"],
            tag=deal["tag"],
            order=deal["order"],
            signed=BUYS[deal["side"]] * Decimal(deal["volume"]),
        )
        for deal in deals
    ]


def _at_the_terminal(spool: Path) -> list[Executed]:
    return [
        Executed(
            account=TERMINAL_ACCOUNT,
            ticket=str(deal.ticket),
            tag=deal.comment,
            order=str(deal.order),
            signed=(1 if deal.type == 0 else -1) * Decimal(str(deal.volume)),
        )
        for deal in truth(spool).deals
        if deal.type in {0, 1}
    ]


def _of_account(
    name: str,
    deals: Sequence[Executed],
    fills: Iterable[Mapping[str, Any]],
    positions: Iterable[Mapping[str, Any]],
) -> list[str]:
    there = {deal.ticket for deal in deals if deal.account == name}
    here = {fill["deal"] for fill in fills if fill["account"] == name}
    problems = []
    if there != here:
        problems.append(f"{name}: not filled here {sorted(there - here)}, not there {sorted(here - there)}")
    signed = sum((deal.signed for deal in deals if deal.account == name), Decimal(0))
    held = sum((BUYS[p["side"]] * p["volume"] for p in positions if p["account"] == name), Decimal(0))
    if signed != held:
        problems.append(f"{name}: deals make {signed} lots, the position is {held}")
    return problems


def _of_executions(orders: Mapping[str, Any], deals: Sequence[Executed]) -> list[str]:
    problems = []
    tickets: dict[str, set[str]] = {}
    executed: dict[str, Decimal] = {}
    for deal in deals:
        tickets.setdefault(deal.tag, set()).add(deal.order)
        executed[deal.tag] = executed.get(deal.tag, Decimal(0)) + abs(deal.signed)
    problems += [f"{tag} was executed {len(ones)} times" for tag, ones in tickets.items() if len(ones) > 1]
    problems += [f"{tag} was executed, and nobody knows it" for tag in tickets.keys() - orders.keys()]
    for order_id, order in orders.items():
        volume = executed.get(order_id, Decimal(0))
        if volume != order["filled_volume"]:
            problems.append(
                f"{order_id} {order['state']}: {order['filled_volume']} filled, {volume} executed"
            )
        if (order["state"] == OrderState.FILLED) != (volume == order["volume"]):
            problems.append(f"{order_id} is {order['state']} with {volume} of {order['volume']} executed")
    return problems


def _of_alerts(events: Iterable[Mapping[str, Any]], alerts: str) -> list[str]:
    """Whatever was UNKNOWN for a while was told to somebody."""
    unknown = {e["order_id"] for e in events if e["new_state"] == OrderState.UNKNOWN}
    return [f"{order_id} was UNKNOWN without an alert" for order_id in unknown if order_id not in alerts]


def _of_moves(orders: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> list[str]:
    problems, last = [], {}
    for event in events:
        old, new = OrderState(event["old_state"]), OrderState(event["new_state"])
        before = last.get(event["order_id"], OrderState.CREATED)
        if old is not before or (old is not new and not may_move(old, new)):
            problems.append(f"{event['order_id']} went from {before} by {old} to {new}")
        last[event["order_id"]] = new
    problems += [
        f"{order_id} is {order['state']}, its events end with {last.get(order_id)}"
        for order_id, order in orders.items()
        if last.get(order_id) != order["state"]
    ]
    return problems
