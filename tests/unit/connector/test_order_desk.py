"""Commands carried out in a real terminal process that fails on purpose: never twice, and never a wrong answer."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bridge.connector.order_desk import QUEUE_MAX, VALID_MS_MAX, OrderDesk
from bridge.connector.order_journal import OrderJournal
from bridge.connector.simulated import UTC_OFFSET_S
from bridge.connector.terminal_process import TerminalProcess
from bridge.connector.trading import Trading
from core.messages.order_seals import (
    SIGNATURE_BYTES,
    CommandSigner,
    digest_of,
    opened_reply,
    reply_key,
    token_hash,
)
from core.messages.terminal_orders import (
    CommandKind,
    Outcome,
    TerminalCommand,
    TerminalReply,
    decode_reply,
    encode_command,
)
from core.model.orders import OrderState, OrderType, Side
from core.model.ticks import UTC_OFFSET_UNKNOWN
from core.model.venues import OrderChange, VenueReport
from core.settings import ConnectorSettings, Secret
from tests.bridges import TOKEN
from tests.connectors import SIMULATED
from tests.order_keys import KEYS, SIGNER, order_key
from tests.orders import SOURCE, make_command, make_order, truth

_S = OrderState
REPLY_KEY = reply_key(token_hash(TOKEN))


class Desk:
    """A connector's desk and its terminal, without the reading of ticks."""

    def __init__(self, directory: Path, options: dict[str, Any], **settings: Any) -> None:
        self.directory = directory
        self.offset_s = UTC_OFFSET_S
        configured = ConnectorSettings(
            **{"source": SOURCE, "orders": True, "token": Secret(TOKEN), **settings}
        )
        self.terminal = TerminalProcess(
            SIMULATED, {"rate": 50.0, **options}, directory, configured.call_timeout_s, lambda *_: None
        )
        self.journal = OrderJournal()
        trading = Trading(self.terminal, self.journal, configured, lambda: self.offset_s)
        self.desk = OrderDesk(trading, self.journal, configured, KEYS)

    async def ask(self, command: TerminalCommand, signer: CommandSigner = SIGNER) -> TerminalReply:
        sealed = signer.sealed(encode_command(command))
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.desk.take(sealed, future.set_result)
        async with asyncio.timeout(20):
            return decode_reply(opened_reply(REPLY_KEY, digest_of(sealed), await future))

    async def report(self, command: TerminalCommand) -> VenueReport:
        reply = await self.ask(command)
        assert reply.outcome is Outcome.DONE, reply
        assert reply.report is not None
        return reply.report

    async def view(self):
        reply = await self.ask(make_command(CommandKind.VIEW))
        assert reply.view is not None, reply
        return reply.view

    def executions(self, tag: str) -> int:
        return truth(self.directory).executions.get(tag, 0)


@asynccontextmanager
async def opened(
    directory: Path, options: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[Desk]:
    desk = Desk(directory, options or {}, **settings)
    await desk.journal.open(directory)
    running = asyncio.create_task(desk.desk.run())
    try:
        yield desk
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await desk.terminal.close()
        await desk.journal.close()


def faulty(**chances: Any) -> dict[str, Any]:
    return {"faults": {"orders": chances}}


async def test_a_market_order_is_filled_and_seen(tmp_path):
    async with opened(tmp_path) as desk:
        command = make_command()
        report = await desk.report(command)
        assert (report.state, report.retcode) == (_S.FILLED, 10_009)
        assert [(deal.tag, deal.volume) for deal in report.deals] == [(command.order.id, Decimal("0.1"))]
        assert abs(report.deals[0].at_ms - time.time() * 1_000) < 10_000
        view = await desk.view()
        assert [position.tag for position in view.positions] == [command.order.id]
        assert view.deals == report.deals
        assert desk.executions(command.order.id) == 1


FAULTS = [
    ({"timeout": 1.0}, _S.UNKNOWN, 10_012, 1),
    ({"disconnect": 1.0}, _S.UNKNOWN, 10_031, 1),
    ({"forget": 1.0}, _S.UNKNOWN, None, 1),
    ({"nothing": 1.0}, _S.UNKNOWN, None, 0),
    ({"hang": 1.0}, _S.UNKNOWN, None, 1),
    ({"die": 1.0}, _S.UNKNOWN, None, 1),
    ({"die_before": 1.0}, _S.UNKNOWN, None, 0),
    ({"reject": 1.0}, _S.REJECTED, 10_006, 0),
    ({"reject": 1.0, "reject_retcode": 10_018}, _S.REJECTED, 10_018, 0),
    ({"reject": 1.0, "reject_retcode": 20_001}, _S.UNKNOWN, 20_001, 0),
    ({"fail_after_placed": 1.0}, _S.REJECTED, 10_008, 0),
    ({"partial": 1.0}, _S.CANCELED, 10_010, 1),
    ({"delay": 1.0, "delay_ms": 200}, _S.FILLED, 10_009, 1),
    ({"rewrite_comment": 1.0}, _S.FILLED, 10_009, 1),
]


FAULT_NAMES = [f"{'-'.join(chances)}-{retcode}" for chances, _, retcode, _ in FAULTS]


@pytest.mark.parametrize(("chances", "state", "retcode", "executions"), FAULTS, ids=FAULT_NAMES)
async def test_whatever_the_terminal_does_it_is_asked_once_and_told_truly(
    tmp_path, chances, state, retcode, executions
):
    async with opened(tmp_path, faulty(**chances), call_timeout_s=2.0) as desk:
        command = make_command()
        report = await desk.report(command)
        assert (report.state, report.retcode) == (state, retcode)
        assert bool(report.code) == (state in {_S.UNKNOWN, _S.REJECTED})
        # The same command again changes nothing and gets the same answer.
        assert await desk.report(command) == report
        assert desk.executions(command.order.id) == executions
        view = await desk.view()
        found = [one for one in (*view.orders, *view.ended) if one.tag == command.order.id]
        assert len(found) == (1 if executions or (state is _S.REJECTED and retcode == 10_008) else 0)
        assert sum(deal.volume for deal in view.deals if deal.tag == command.order.id) == (
            0 if not executions else Decimal("0.05") if "partial" in chances else Decimal("0.1")
        )


async def test_an_order_sent_again_after_an_unknown_outcome_is_looked_for_first(tmp_path):
    async with opened(tmp_path, faulty(timeout=1.0)) as desk:
        asked = make_order()
        assert (await desk.report(make_command(order=asked))).state is _S.UNKNOWN
        again = await desk.report(make_command(order=asked))
        assert (again.state, [deal.tag for deal in again.deals]) == (_S.FILLED, [asked.id])
        assert desk.executions(asked.id) == 1


async def test_an_order_that_never_arrived_may_be_sent_again(tmp_path):
    asked = make_order()
    async with opened(tmp_path, faulty(nothing=1.0)) as desk:
        assert (await desk.report(make_command(order=asked))).state is _S.UNKNOWN
    async with opened(tmp_path) as desk:
        assert (await desk.report(make_command(order=asked))).state is _S.FILLED
        assert desk.executions(asked.id) == 1


async def test_a_restarted_connector_answers_a_known_command_as_before(tmp_path):
    async with opened(tmp_path) as desk:
        command = make_command()
        before = await desk.report(command)
    async with opened(tmp_path) as desk:
        assert await desk.report(command) == before
        assert desk.executions(command.order.id) == 1


async def test_a_command_found_unanswered_is_answered_unknown_and_not_carried_out(tmp_path):
    async with opened(tmp_path, faulty(hang=1.0), call_timeout_s=30.0) as desk:
        command = make_command()
        asking = asyncio.create_task(desk.ask(command))
        async with asyncio.timeout(15):
            while not desk.executions(command.order.id):
                await asyncio.sleep(0.02)
        asking.cancel()
    async with opened(tmp_path) as desk:
        reply = await desk.ask(command)
        assert (reply.outcome, reply.code) == (Outcome.UNKNOWN, "ASKED_ALREADY")
        assert desk.executions(command.order.id) == 1
        view = await desk.view()
        assert [deal.tag for deal in view.deals] == [command.order.id]


async def test_a_rewritten_comment_is_found_after_a_restart_by_ticket_and_by_magic(tmp_path):
    async with opened(tmp_path, faulty(rewrite_comment=1.0)) as desk:
        answered = make_command()
        await desk.report(answered)
    async with opened(tmp_path, faulty(rewrite_comment=1.0, timeout=1.0)) as desk:
        unanswered = make_command()
        assert (await desk.report(unanswered)).state is _S.UNKNOWN
    async with opened(tmp_path) as desk:
        assert {deal.tag for deal in (await desk.view()).deals} == {answered.order.id, unanswered.order.id}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"valid_until_ms": 1}, "TOO_LATE"),
        ({"source": "other"}, "WRONG_SOURCE"),
        ({"order": make_order(symbol="NOTHING")}, "TERMINAL_REFUSED"),
    ],
)
async def test_what_is_refused_was_not_asked(tmp_path, changes, code):
    async with opened(tmp_path) as desk:
        command = make_command(**changes)
        reply = await desk.ask(command)
        assert (reply.outcome, reply.code) == (Outcome.REFUSED, code)
        assert desk.executions(command.order.id) == 0


@pytest.mark.parametrize(
    ("changes", "code", "retcode"),
    [
        ({"volume": Decimal("0.015")}, "VOLUME_STEP", None),
        ({"stop_loss": Decimal("2.00000")}, "INVALID_STOPS", 10_016),
        ({"volume": Decimal("99")}, "NO_MONEY", 10_019),
        ({"side": Side.SELL, "position": "123"}, "POSITION_CLOSED", 10_036),
    ],
)
async def test_what_the_checks_find_is_rejected_and_not_sent(tmp_path, changes, code, retcode):
    async with opened(tmp_path) as desk:
        command = make_command(order=make_order(**changes))
        report = await desk.report(command)
        assert (report.state, report.code, report.retcode) == (_S.REJECTED, code, retcode)
        assert await desk.journal.find(command.id) is None


async def test_time_that_runs_out_while_it_waits_for_the_terminal_is_too_late(tmp_path):
    slow = {"faults": {"delay": 1.0, "delay_ms": 700}}
    async with opened(tmp_path, slow) as desk:
        await desk.view()
        reading = asyncio.create_task(desk.terminal.call("copy_ticks_from", "EURUSD", 1, 1, -1))
        await asyncio.sleep(0)
        command = make_command(valid_until_ms=time.time_ns() // 1_000_000 + 300)
        reply = await desk.ask(command)
        assert (reply.outcome, reply.code) == (Outcome.REFUSED, "TOO_LATE")
        await reading
        assert desk.executions(command.order.id) == 0


async def test_a_killed_terminal_is_started_again_and_has_kept_its_positions(tmp_path):
    async with opened(tmp_path) as desk:
        await desk.report(make_command())
        os.kill(desk.terminal.pid, signal.SIGKILL)
        # The first question may find it dead: surely nothing was asked then.
        reply = await desk.ask(make_command(CommandKind.VIEW))
        view = reply.view or await desk.view()
        assert len(view.positions) == 1


@pytest.mark.parametrize("symbol", ["EURUSD", "GBPUSD", "USDJPY", "XAUUSD"])
async def test_every_symbols_filling_is_found(tmp_path, symbol):
    async with opened(tmp_path) as desk:
        report = await desk.report(make_command(order=make_order(symbol=symbol)))
        assert report.state is _S.FILLED


def limit(**changes: Any):
    fields = {"type": OrderType.LIMIT, "price": Decimal("0.90000"), **changes}
    return make_order(**fields)


async def test_a_resting_order_is_placed_changed_and_taken_back(tmp_path):
    async with opened(tmp_path) as desk:
        command = make_command(order=limit())
        placed = await desk.report(command)
        assert (placed.state, placed.deals) == (_S.ACCEPTED, ())
        change = OrderChange(price=Decimal("0.91000"), stop_loss=Decimal("0.90000"))
        changed = await desk.report(make_command(CommandKind.MODIFY, ticket=placed.order, change=change))
        assert (changed.state, changed.code) == (_S.ACCEPTED, "")
        (seen,) = (await desk.view()).orders
        assert (seen.price, seen.stop_loss, seen.tag) == (Decimal("0.91"), Decimal("0.9"), command.order.id)
        taken_back = await desk.report(make_command(CommandKind.CANCEL, ticket=placed.order))
        assert (taken_back.state, taken_back.code) == (_S.CANCELED, "")
        again = await desk.report(make_command(CommandKind.CANCEL, ticket=placed.order))
        assert again.state is _S.CANCELED
        assert (await desk.view()).orders == ()


@pytest.mark.parametrize("fault", ["timeout", "forget", "die", "hang"])
async def test_a_cancellation_whose_answer_is_lost_is_looked_up_or_unknown(tmp_path, fault):
    async with opened(tmp_path) as desk:
        placed = await desk.report(make_command(order=limit()))
    async with opened(tmp_path, faulty(**{fault: 1.0}), call_timeout_s=2.0) as desk:
        report = await desk.report(make_command(CommandKind.CANCEL, ticket=placed.order))
        assert report.state is (_S.CANCELED if fault == "timeout" else _S.UNKNOWN)
        # Asked again it is seen to have happened.
        report = await desk.report(make_command(CommandKind.CANCEL, ticket=placed.order))
        assert report.state is _S.CANCELED


async def test_a_refused_cancellation_leaves_the_order_working(tmp_path):
    async with opened(tmp_path) as desk:
        placed = await desk.report(make_command(order=limit()))
    async with opened(tmp_path, faulty(reject=1.0, reject_retcode=10_029)) as desk:
        report = await desk.report(make_command(CommandKind.CANCEL, ticket=placed.order))
        assert (report.state, report.code, report.retcode) == (_S.ACCEPTED, "FROZEN", 10_029)


async def test_what_cannot_be_changed_says_so_and_stays(tmp_path):
    async with opened(tmp_path) as desk:
        placed = await desk.report(make_command(order=limit()))
        change = OrderChange(volume=Decimal("0.2"))
        report = await desk.report(make_command(CommandKind.MODIFY, ticket=placed.order, change=change))
        assert (report.state, report.code) == (_S.ACCEPTED, "VOLUME_UNCHANGEABLE")


async def test_a_filled_orders_levels_are_its_positions(tmp_path):
    async with opened(tmp_path) as desk:
        bought = await desk.report(make_command())
        change = OrderChange(stop_loss=Decimal("0.90000"), take_profit=Decimal("1.90000"))
        report = await desk.report(make_command(CommandKind.MODIFY, ticket=bought.order, change=change))
        assert (report.state, report.code) == (_S.FILLED, "")
        (held,) = (await desk.view()).positions
        assert (held.stop_loss, held.take_profit) == (Decimal("0.9"), Decimal("1.9"))


async def test_an_order_nobody_knows_is_unknown(tmp_path):
    async with opened(tmp_path) as desk:
        report = await desk.report(make_command(CommandKind.CANCEL, ticket="999999"))
        assert (report.state, report.code) == (_S.UNKNOWN, "NOT_AT_VENUE")


async def test_closing_a_hedged_position_closes_it(tmp_path):
    async with opened(tmp_path, {"hedging": True}) as desk:
        first = await desk.report(make_command())
        await desk.report(make_command())
        assert len((await desk.view()).positions) == 2
        closing = make_order(side=Side.SELL, position=first.deals[0].position, reduce_only=True)
        closed = await desk.report(make_command(order=closing))
        assert closed.deals[0].position == first.deals[0].position
        (left,) = (await desk.view()).positions
        assert left.ticket != first.deals[0].position


async def test_an_opposite_order_turns_a_netting_position(tmp_path):
    async with opened(tmp_path) as desk:
        await desk.report(make_command())
        await desk.report(make_command(order=make_order(side=Side.SELL, volume=Decimal("0.30"))))
        (held,) = (await desk.view()).positions
        assert (held.side, held.volume) == (Side.SELL, Decimal("0.2"))


async def test_while_the_clock_is_unknown_nothing_is_dated(tmp_path):
    async with opened(tmp_path) as desk:
        desk.offset_s = UTC_OFFSET_UNKNOWN
        reply = await desk.ask(make_command(CommandKind.VIEW))
        assert (reply.outcome, reply.code) == (Outcome.REFUSED, "CLOCK_UNKNOWN")
        report = await desk.report(make_command())
        assert (report.state, report.deals) == (_S.FILLED, ())


async def test_more_than_can_wait_are_refused(tmp_path):
    async with opened(tmp_path, faulty(delay=1.0, delay_ms=1_500)) as desk:
        first = asyncio.create_task(desk.ask(make_command()))
        await asyncio.sleep(0.5)
        waiting = [asyncio.create_task(desk.ask(make_command(CommandKind.VIEW))) for _ in range(QUEUE_MAX)]
        await asyncio.sleep(0)
        reply = await desk.ask(make_command())
        assert (reply.outcome, reply.code) == (Outcome.REFUSED, "TERMINAL_BUSY")
        for task in (first, *waiting):
            task.cancel()
        await asyncio.gather(first, *waiting, return_exceptions=True)


async def test_a_connector_that_carries_out_no_orders_says_so(tmp_path):
    settings = ConnectorSettings(source=SOURCE, token=Secret(TOKEN))
    desk = OrderDesk(None, None, settings, KEYS)
    sealed, replies = SIGNER.sealed(encode_command(make_command())), []
    desk.take(sealed, replies.append)
    reply = decode_reply(opened_reply(REPLY_KEY, digest_of(sealed), replies[0]))
    assert reply.code == "ORDERS_DISABLED"


async def test_a_connector_that_stops_finishes_one_order_and_refuses_the_others(tmp_path):
    async with opened(tmp_path, faulty(delay=1.0, delay_ms=400)) as desk:
        await desk.view()
        first, second = make_command(), make_command()
        asking = [asyncio.create_task(desk.ask(command)) for command in (first, second)]
        async with asyncio.timeout(10):
            while await desk.journal.find(first.id) is None:
                await asyncio.sleep(0.01)
        await desk.desk.finish()
        late = await desk.ask(make_command())
        done, refused = await asyncio.gather(*asking)
        assert done.report.state is _S.FILLED
        assert {refused.code, late.code} == {"SHUTTING_DOWN"}
        assert desk.executions(second.order.id) == 0


async def test_a_command_that_breaks_something_is_unknown_and_the_next_is_carried_out(tmp_path, monkeypatch):
    async with opened(tmp_path) as desk:

        def broken(*_):
            raise ZeroDivisionError

        with monkeypatch.context() as patched:
            patched.setattr("bridge.connector.trading.send_requests", broken)
            reply = await desk.ask(make_command())
        assert (reply.outcome, reply.code) == (Outcome.UNKNOWN, "DEFECT")
        assert (await desk.report(make_command())).state is _S.FILLED


async def test_an_order_nobody_of_ours_has_signed_is_not_executed(tmp_path):
    async with opened(tmp_path) as desk:
        forged = make_command()
        reply = await desk.ask(forged, CommandSigner(order_key("somebody else")))
        assert (reply.outcome, reply.code) == (Outcome.REFUSED, "BAD_SIGNATURE")
        assert desk.executions(forged.order.id) == 0
        # Nor has it used up the id of the order it pretends to be.
        assert (await desk.report(forged)).state is _S.FILLED


async def test_an_order_that_was_changed_on_its_way_is_not_executed(tmp_path):
    async with opened(tmp_path) as desk:
        await desk.view()
        command, replies = make_command(), []
        sealed = SIGNER.sealed(encode_command(command).replace(b"0.10", b"9.10"))
        changed = sealed[:SIGNATURE_BYTES] + encode_command(command)
        desk.desk.take(changed, replies.append)
        reply = decode_reply(opened_reply(REPLY_KEY, digest_of(changed), replies[0]))
        assert (reply.outcome, reply.code) == (Outcome.REFUSED, "BAD_SIGNATURE")
        assert desk.executions(command.order.id) == 0


async def test_what_was_refused_is_not_executed_when_it_is_given_again(tmp_path):
    async with opened(tmp_path) as desk:
        refused = make_command(login=2)
        assert (await desk.ask(refused)).outcome is Outcome.REFUSED
        again = await desk.ask(refused)
        assert (again.outcome, again.code) == (Outcome.UNKNOWN, "ASKED_ALREADY")
        assert desk.executions(refused.order.id) == 0


@pytest.mark.parametrize(
    ("dates", "code"),
    [
        ({"made_at_ms": -60_000, "valid_until_ms": 5_000}, "BEFORE_START"),
        ({"valid_until_ms": 10 * VALID_MS_MAX}, "CLOCKS_DIFFER"),
        ({"valid_until_ms": -1}, "TOO_LATE"),
    ],
    ids=["made before the connector began", "good for ever", "too late"],
)
async def test_an_order_is_carried_out_in_its_time_alone(tmp_path, dates, code):
    now_ms = time.time_ns() // 1_000_000
    async with opened(tmp_path) as desk:
        command = make_command(**{name: now_ms + ms for name, ms in dates.items()})
        reply = await desk.ask(command)
        assert (reply.outcome, reply.code) == (Outcome.REFUSED, code)
        assert desk.executions(command.order.id) == 0


@pytest.mark.parametrize("elsewhere", [{"login": 2}, {"server": "another"}], ids=["login", "server"])
@pytest.mark.parametrize("kind", list(CommandKind))
async def test_a_terminal_that_is_signed_in_elsewhere_does_nothing(tmp_path, kind, elsewhere):
    meant = {"login": 1, "server": "simulation", **elsewhere}
    ticket = {"ticket": "7"} if kind in (CommandKind.CANCEL, CommandKind.MODIFY) else {}
    async with opened(tmp_path) as desk:
        command = make_command(kind, **meant, **ticket)
        reply = await desk.ask(command)
        assert (reply.outcome, reply.code) == (Outcome.REFUSED, "WRONG_ACCOUNT")
        assert not truth(desk.directory).executions


async def test_a_server_that_is_asked_too_often_is_asked_less_often_and_no_order_is_lost_or_doubled(tmp_path):
    async with opened(tmp_path, faulty(per_second_max=2)) as desk:
        commands = [make_command() for _ in range(6)]
        reports = await asyncio.gather(*(desk.report(command) for command in commands))
        assert [report.state for report in reports] == [_S.FILLED] * 6
        assert [desk.executions(command.order.id) for command in commands] == [1] * 6


async def test_an_order_whose_turn_never_comes_is_surely_not_executed(tmp_path):
    async with opened(tmp_path, faulty(per_second_max=1)) as desk:
        await desk.report(make_command())
        hasty = make_command(valid_until_ms=time.time_ns() // 1_000_000 + 300)
        report = await desk.report(hasty)
        assert (report.state, report.retcode, report.code) == (_S.REJECTED, 10_024, "TOO_MANY_REQUESTS")
        assert desk.executions(hasty.order.id) == 0


async def test_a_cancellation_whose_turn_never_comes_may_be_asked_for_again(tmp_path):
    async with opened(tmp_path, faulty(per_second_max=1)) as desk:
        resting = make_order(type=OrderType.LIMIT, price=Decimal("1.00000"))
        placed = await desk.report(make_command(order=resting))
        soon_ms = time.time_ns() // 1_000_000 + 300
        reply = await desk.ask(make_command(CommandKind.CANCEL, ticket=placed.order, valid_until_ms=soon_ms))
        assert (reply.outcome, reply.code) == (Outcome.REFUSED, "TOO_MANY_REQUESTS")
        report = await desk.report(make_command(CommandKind.CANCEL, ticket=placed.order))
        assert report.state is _S.CANCELED
