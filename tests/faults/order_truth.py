"""What must hold in an order world: always, once everything is quiet, and once every order has ended.

Each rule says in words what is broken. What the venue did is held against the ledger, and the ledger against itself.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from core.auditing.checkpoints import Keyring
from core.auditing.verification import verify
from core.model.orders import TERMINAL, Order, OrderState, OrderType, Side, may_move
from tests.faults.order_world import HEDGING, PATIENCE, OrderWorld
from tests.trading_floors import SYMBOL

Row = Mapping[str, Any]
Problems = Iterator[str]
_S = OrderState
SIGNS: Final = {"buy": 1, "sell": -1}
WORKS_ON: Final = frozenset({_S.ACCEPTED, _S.PARTIALLY_FILLED})
TABLES: Final = {
    "orders": "*, extract(epoch from clock_timestamp() - sent_at) as sent_ago_s from orders where tenant = $1",
    "events": "* from order_events where tenant = $1 order by order_id, seq",
    "fills": "* from fills where tenant = $1",
    "positions": "* from positions where tenant = $1",
    "audited": "type, order_id, convert_from(event, 'utf8')::json #>> '{facts,deal}' as deal from audit_events"
    " where tenant = $1",
    "breaks": "* from breaks where tenant = $1",
    "outbox": "* from order_outbox where tenant = $1",
}
_ALL: Final = "select " + ", ".join(
    f"(select coalesce(json_agg(t), '[]') from (select {rows}) t) as {name}" for name, rows in TABLES.items()
)
"""One statement: it is looked at after every step."""


class BrokenPromise(AssertionError):
    """Something that must hold does not."""


@dataclass(frozen=True, kw_only=True)
class Books:
    """All of a tenant's rows at one moment."""

    orders: Sequence[Row]
    events: Sequence[Row]
    fills: Sequence[Row]
    positions: Sequence[Row]
    audited: Sequence[Row]
    breaks: Sequence[Row]
    outbox: Sequence[Row]


async def books_of(world: OrderWorld) -> Books:
    async with world.hub["postgres"].acquire() as connection:
        row = await connection.fetchrow(_ALL, world.tenant)
    return Books(**{name: json.loads(row[name], parse_float=Decimal) for name in TABLES})


# -- always ----------------------------------------------------------------------------------------------


def nothing_executes_twice(world: OrderWorld, _books: Books) -> Problems:
    for tag, count in world.venue.executions.items():
        if count > 1:
            yield f"{tag} was executed {count} times"
    yield from world.venue.offences


def no_order_is_lost(world: OrderWorld, books: Books) -> Problems:
    for missing in world.submitted - {one["id"] for one in books.orders}:
        yield f"{missing} was answered 202, and is not there"
    ours = [one for one in books.orders if not one["external"]]
    if len(ours) > len(world.submitted):
        yield f"{len(ours)} orders are there, {len(world.submitted)} were asked for"


def fills_are_what_is_filled(world: OrderWorld, books: Books) -> Problems:
    """Each fill is a deal of its order at the venue, and an order is filled as far as its fills say."""
    deals = {deal.ticket: deal for book in world.venue.books.values() for deal in book.deals}
    filled: dict[str, Decimal] = defaultdict(Decimal)
    for fill in books.fills:
        deal = deals.get(fill["deal"])
        if deal is None or (deal.tag and deal.tag != fill["order_id"]) or deal.volume != fill["volume"]:
            yield f"fill {fill['deal']} of {fill['order_id']} is not {deal}"
        filled[fill["order_id"] or ""] += fill["volume"]
    for order in books.orders:
        if order["filled_volume"] != filled[order["id"]] and not order["external"]:
            yield f"{order['id']} is filled {order['filled_volume']}, its fills are {filled[order['id']]}"


def fills_make_the_positions(_world: OrderWorld, books: Books) -> Problems:
    """One position a symbol on a netting account, one a ticket on a hedging account."""
    made: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for fill in books.fills:
        made[_position(fill["account"], fill["position"])] += SIGNS[fill["side"]] * fill["volume"]
    held: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for one in books.positions:
        held[_position(one["account"], one["ticket"])] += SIGNS[one["side"]] * one["volume"]
    for place in made.keys() | held.keys():
        if made[place] != held[place]:
            yield f"{place}: fills make {made[place]} lots, the position is {held[place]}"


def moves_are_legal(_world: OrderWorld, books: Books) -> Problems:
    last: dict[str, OrderState] = {}
    external = {one["id"] for one in books.orders if one["external"]}
    for event in books.events:
        name = event["order_id"]
        old, new = OrderState(event["old_state"]), OrderState(event["new_state"])
        adopted = name in external and old is _S.CREATED
        if old is not last.get(name, _S.CREATED) or not (old is new or adopted or may_move(old, new)):
            yield f"{name} went from {last.get(name)} by {old} to {new}"
        last[name] = new
    for order in books.orders:
        if last.get(order["id"]) != order["state"]:
            yield f"{order['id']} is {order['state']}, its events end with {last.get(order['id'])}"


def everything_is_audited_once(_world: OrderWorld, books: Books) -> Problems:
    """Every event of an order and every fill is one event of the audit trail, of the same transaction."""
    told = Counter((one["type"], one["order_id"], one["deal"] or "") for one in books.audited)
    due = Counter((one["what"], one["order_id"], "") for one in books.events)
    due += Counter(("order.fill", one["order_id"] or "", one["deal"]) for one in books.fills)
    for event in (told - due) + (due - told):
        yield f"audited {told[event]} times, happened {due[event]} times: {event}"


def whatever_is_unknown_is_told(world: OrderWorld, books: Books) -> Problems:
    """Each time an order became UNKNOWN an error names it."""
    alerts = Counter(
        one["order"]
        for one in world.alerts.entries
        if (one["event"], one["log_level"]) == ("order.unknown", "error")
    )
    became = Counter(
        one["order_id"]
        for one in books.events
        if one["new_state"] == _S.UNKNOWN and one["old_state"] != _S.UNKNOWN
    )
    for order_id in became:
        # One that is told may have been taken back with its transaction; one that is there is told.
        if alerts[order_id] < became[order_id]:
            yield f"{order_id} became UNKNOWN {became[order_id]} times, with {alerts[order_id]} alerts"


def breaks_are_explained(world: OrderWorld, books: Books) -> Problems:
    """Only what the venue lost is missing, only strangers' orders are external; no other break is ever found."""
    lost = {one["id"] for one in books.orders if world.venue.losses & {one["id"], one["venue_order"]}}
    for found in books.breaks:
        explained = {"missing": lost, "external": world.venue.strangers}
        if found["subject"] not in explained.get(found["sort"], set()):
            yield f"a break: {found['sort']} {found['subject']} {found['detail']}"


def asked_changes_are_kept(world: OrderWorld, books: Books) -> Problems:
    """A cancellation stands until its venue refuses it, and no order has a price its venue never had of it."""
    for event in books.events:
        forgotten = event["old_state"] == _S.PENDING_CANCEL and event["new_state"] in WORKS_ON
        if forgotten and event["order_id"] not in world.venue.refusals:
            yield f"{event['order_id']}: its cancellation was forgotten"
    for order in books.orders:
        if order["id"] in world.venue.prices and order["price"] not in world.venue.prices[order["id"]]:
            yield f"{order['id']} has the price {order['price']}, which its venue never heard of"


ALWAYS: Final[Sequence[Callable[[OrderWorld, Books], Problems]]] = (
    nothing_executes_twice,
    no_order_is_lost,
    fills_are_what_is_filled,
    fills_make_the_positions,
    moves_are_legal,
    everything_is_audited_once,
    whatever_is_unknown_is_told,
    breaks_are_explained,
    asked_changes_are_kept,
)


# -- after a look at the venue ---------------------------------------------------------------------------


def no_dead_sender_is_waited_for(_world: OrderWorld, books: Books) -> Problems:
    """Once its account was looked at, whether its venue could be seen or not, it is UNKNOWN, and told."""
    for order in books.orders:
        if order["state"] == _S.SENDING and order["sent_ago_s"] > 2 * PATIENCE.sending_s:
            yield f"{order['id']} was sent {order['sent_ago_s']} s ago, and nobody was told that it hangs"


# -- once it is quiet ------------------------------------------------------------------------------------


def ledger_and_venue_agree(world: OrderWorld, books: Books) -> Problems:
    """What works there works here, at the same price, and nothing else does; what was to be done is done."""
    theirs = {
        one.ticket: (one.price, one.volume - one.volume_left)
        for book in world.venue.books.values()
        for one in book.working.values()
    }
    ours = {
        one["venue_order"] or one["id"]: (one["price"], one["filled_volume"])
        for one in books.orders
        if OrderState(one["state"]) not in TERMINAL
    }
    if theirs != ours:
        yield f"the venue works on {theirs}, the ledger knows of {ours}"
    for row in books.outbox:
        yield f"nobody does what is to be done: {row['command']} {row['order_id']}"
    for order in books.orders:
        works = order["state"] not in TERMINAL
        if works and order["id"] in world.cancels - world.venue.refusals:
            yield f"{order['id']} was taken back, and still works"


# -- once all has ended ----------------------------------------------------------------------------------


def every_order_has_ended_as_it_did(world: OrderWorld, books: Books) -> Problems:
    deals = [deal for book in world.venue.books.values() for deal in book.deals]
    executed: dict[str, Decimal] = defaultdict(Decimal)
    for deal in deals:
        executed[deal.tag] += deal.volume
    for order in books.orders:
        state, volume = OrderState(order["state"]), executed[order["id"]]
        if state not in TERMINAL:
            yield f"{order['id']} is {state}: it has neither ended nor is it known"
        if not order["external"] and (state is _S.FILLED) != (volume == order["volume"]):
            yield f"{order['id']} is {state} with {volume} of {order['volume']} executed"
        if order["type"] == OrderType.MARKET and world.venue.sends[order["id"]] > 1:
            yield f"{order['id']} was sent again, and its market had gone"
    for ticket in {deal.ticket for deal in deals} ^ {fill["deal"] for fill in books.fills}:
        yield f"deal {ticket} is known to one side alone"


def ledger_holds_what_the_venue_does(world: OrderWorld, books: Books) -> Problems:
    for name, book in world.venue.books.items():
        theirs = {ticket: signed for ticket, (_, signed) in book.held().items()}
        ours = {
            one["ticket"]: SIGNS[one["side"]] * one["volume"]
            for one in books.positions
            if one["account"] == name
        }
        if theirs != ours:
            yield f"{name}: the venue holds {theirs}, the ledger {ours}"


async def nothing_is_reserved(world: OrderWorld) -> list[str]:
    """What orders take of margin and exposure they give back when they have ended."""
    problems = []
    for account in world.accounts.values():
        asked = Order(
            id="0" * 26,
            tenant=world.tenant,
            account=account.id,
            symbol=SYMBOL,
            side=Side.BUY,
            type=OrderType.MARKET,
            volume=Decimal("0.1"),
        )
        async with world.ledger.work(world.tenant) as work:
            facts = await world.ledger.facts(work, asked, account, 0)
        signed = sum(one for _, one in world.venue.books[account.id].held().values())
        seen = (facts.margin_moving, facts.notional_moving, facts.exposure.working_buys)
        if any(seen) or facts.exposure.working_sells or facts.exposure.position != signed:
            problems.append(f"{account.id}: {facts.exposure} and {seen} are reserved, {signed} is held")
    return problems


async def audit_verifies(world: OrderWorld) -> list[str]:
    trail = await world.hub["audit_archive"].entries(world.tenant, after=0, limit=1_000_000)
    finding = verify(world.tenant, trail, [], Keyring([])).finding
    return [] if finding is None else [f"the audit does not verify: {finding}"]


def require(problems: Sequence[str]) -> None:
    """Raises: BrokenPromise."""
    if problems:
        raise BrokenPromise("\n".join(problems))


def _position(account: str, ticket: str) -> tuple[str, str]:
    return account, ticket if account == HEDGING else ""
