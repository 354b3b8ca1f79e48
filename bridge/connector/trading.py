"""Carry out one command in the terminal: gather facts, check, ask once, look what came of it."""

from collections.abc import Callable, Sequence
from typing import Final

from bridge.connector.asking import Asking, done, now_ms
from bridge.connector.order_journal import OrderJournal
from bridge.connector.terminal import TerminalCode, TerminalRefused
from bridge.connector.terminal_process import TerminalProcess
from bridge.connector.trade_requests import (
    levels_request,
    magic_of,
    modify_request,
    remove_request,
    send_requests,
    ticket_of,
)
from bridge.connector.trade_sight import Meant, Sight
from bridge.connector.trade_view import Sent
from bridge.connector.trades import Request, SendResult
from core.errors.exceptions import Invalid, Unavailable
from core.messages.terminal_orders import CommandKind, Outcome, TerminalCommand, TerminalReply
from core.model.orders import Order, OrderState
from core.model.venues import OrderChange, VenueReport
from core.settings import ConnectorSettings
from core.trading.retcodes import INVALID_FILL, Meaning, RetcodeClass, meaning_of

DAY_MS: Final = 86_400_000
FINE: Final = 0
"""What order_check answers when nothing is wrong."""
UNCHECKED: Final = frozenset({TerminalCode.UNSUPPORTED})
"""A terminal that has no order_check says so; every other error of it is one."""

_S = OrderState


class Trading:
    """One terminal's orders. utc_offset_s: of the trade server's clock, as measured by now."""

    def __init__(
        self,
        terminal: TerminalProcess,
        journal: OrderJournal,
        settings: ConnectorSettings,
        utc_offset_s: Callable[[], int],
    ) -> None:
        self._terminal = terminal
        self._settings = settings
        self._sight = Sight(terminal, utc_offset_s)
        self._asking = Asking(terminal, journal, self._sight.tags)
        self._filling: dict[tuple[str, int], int] = {}

    async def recall(self) -> None:
        """Remember what was sent before this process began. Raises: Unavailable, Corrupt."""
        await self._asking.recall()

    async def carry_out(self, command: TerminalCommand) -> TerminalReply:
        """Raises: TickgateError, and then the terminal surely was not asked to change anything."""
        meant = Meant(login=command.login, server=command.server)
        if command.kind is CommandKind.VIEW:
            view = await self._sight.view(command.since_ms, meant)
            return TerminalReply(id=command.id, outcome=Outcome.DONE, view=view)
        if command.kind is CommandKind.SEND and command.order is not None:
            return await self._send(command, command.order, meant)
        ticket = ticket_of(command.ticket)
        if command.kind is CommandKind.CANCEL:
            return await self._cancel(command, ticket, meant)
        return await self._modify(command, ticket, command.change or OrderChange(), meant)

    # -- sending -------------------------------------------------------------------------------------

    async def _send(self, command: TerminalCommand, order: Order, meant: Meant) -> TerminalReply:
        facts = await self._sight.facts(order.symbol, meant)
        try:
            requests = send_requests(order, facts, self._settings.deviation_points)
        except Invalid as e:
            return done(command, VenueReport(state=_S.REJECTED, code=e.code, reason=e.public))
        there = await self._there_already(order, meant)
        if there is not None:
            return done(command, there)
        request, refusal = await self._checked(order.symbol, requests)
        if refusal is not None:
            return done(command, refusal)
        sent = Sent(tag=order.id, magic=magic_of(order), symbol=order.symbol, side=order.side, at_ms=now_ms())
        answer = await self._asking.ask(command, request, sent)
        if isinstance(answer, TerminalReply):
            return answer
        report = await self._sent_report(answer)
        return await self._asking.finished(command, report, sent)

    async def _there_already(self, order: Order, meant: Meant) -> VenueReport | None:
        """Look for an order that was asked for before, perhaps with success: it is never executed twice."""
        asked_at_ms = self._asking.asked_at_ms(order.id)
        if asked_at_ms is None:
            return None
        view = await self._sight.view(asked_at_ms - DAY_MS, meant)
        deals = tuple(deal for deal in view.deals if deal.tag == order.id)
        for found in (*view.orders, *view.ended):
            if found.tag == order.id:
                return VenueReport(state=found.state, order=found.ticket, deals=deals)
        if deals:
            return VenueReport(state=_S.ACCEPTED, order=deals[0].order, deals=deals)
        return None

    async def _checked(self, symbol: str, requests: Sequence[Request]) -> tuple[Request, VenueReport | None]:
        """Return the first request the terminal finds nothing wrong with, or what it finds wrong."""
        # Resting orders may want another filling than deals.
        key = (symbol, int(requests[0]["action"]))
        known = self._filling.get(key)
        ordered = sorted(requests, key=lambda request: request["type_filling"] != known)
        for request in ordered:
            try:
                checked = await self._terminal.call("order_check", request)
            except TerminalRefused as e:
                if e.error_code in UNCHECKED:
                    return request, None
                raise
            meaning = meaning_of(checked.retcode)
            if checked.retcode == FINE or meaning.sort is RetcodeClass.SUCCESS:
                self._filling[key] = int(request["type_filling"])
                return request, None
            if checked.retcode != INVALID_FILL:
                break
        if meaning.sort is RetcodeClass.UNKNOWN:
            # Nothing was sent, so nothing is unknown.
            raise Unavailable(f"the terminal could not check it: {meaning.text}", code=meaning.code)
        return request, _report(meaning, checked.retcode)

    async def _sent_report(self, result: SendResult) -> VenueReport:
        """Return what became of an order that was sent: the answer, confirmed by orders and deals where they are."""
        meaning = meaning_of(result.retcode)
        report = _report(meaning, result.retcode, order=str(result.order or ""))
        if meaning.sort is not RetcodeClass.SUCCESS or not result.order:
            return report
        found, deals = await self._sight.found(result.order)
        state = found.state if found is not None and found.state is not _S.UNKNOWN else meaning.state
        told = {} if state is not _S.REJECTED else {"code": "VENUE_REFUSED", "reason": "taken, then rejected"}
        return VenueReport(state=state, order=report.order, retcode=result.retcode, deals=deals, **told)

    # -- cancelling and changing ---------------------------------------------------------------------

    async def _cancel(self, command: TerminalCommand, ticket: int, meant: Meant) -> TerminalReply:
        working, ended = await self._sight.placed(ticket, meant)
        if working is None:
            return done(command, self._sight.as_it_stands(ticket, ended))
        return await self._change(command, ticket, remove_request(ticket), _S.CANCELED)

    async def _modify(
        self, command: TerminalCommand, ticket: int, change: OrderChange, meant: Meant
    ) -> TerminalReply:
        working, ended = await self._sight.placed(ticket, meant)
        if working is not None:
            symbol = await self._terminal.call("symbol_info", working.symbol)
            try:
                request = modify_request(working, change, symbol)
            except Invalid as e:
                standing = self._sight.as_it_stands(ticket, working, working=True)
                return done(command, _with(standing, code=e.code, reason=e.public))
            return await self._change(command, ticket, request, _S.ACCEPTED)
        position = await self._sight.position_of(ticket)
        if position is None:
            standing = self._sight.as_it_stands(ticket, ended)
            return done(command, _with(standing, code="ORDER_ENDED", reason="the order has ended"))
        symbol = await self._terminal.call("symbol_info", position.symbol)
        try:
            request = levels_request(position, change, symbol)
        except Invalid as e:
            standing = self._sight.as_it_stands(ticket, ended)
            return done(command, _with(standing, code=e.code, reason=e.public))
        return await self._change(command, ticket, request, _S.FILLED)

    async def _change(
        self, command: TerminalCommand, ticket: int, request: Request, wished: OrderState
    ) -> TerminalReply:
        answer = await self._asking.ask(command, request, None)
        if isinstance(answer, TerminalReply):
            return answer
        meaning = meaning_of(answer.retcode)
        if meaning.sort is RetcodeClass.RATE:
            return await self._asking.not_looked_at(command, answer)
        found, deals = await self._sight.found(ticket)
        fine = meaning.sort is RetcodeClass.SUCCESS
        if found is not None and not (fine and wished is _S.CANCELED and found.state in _STILL_WORKING):
            state = found.state
        else:
            # Nothing to be seen, or the terminal shows it a moment longer than its server has it.
            state = wished if fine else _S.UNKNOWN
        report = VenueReport(
            state=state,
            order=str(ticket),
            retcode=answer.retcode,
            code="" if fine else meaning.code,
            reason="" if fine else meaning.text,
            deals=deals,
        )
        return await self._asking.finished(command, report, None)


_STILL_WORKING: Final = frozenset({_S.ACCEPTED, _S.PARTIALLY_FILLED})


def _report(meaning: Meaning, retcode: int, order: str = "") -> VenueReport:
    fine = meaning.sort is RetcodeClass.SUCCESS
    return VenueReport(
        state=meaning.state,
        order=order,
        retcode=retcode,
        code="" if fine else meaning.code,
        reason="" if fine else meaning.text,
    )


def _with(report: VenueReport, *, code: str, reason: str) -> VenueReport:
    return VenueReport(state=report.state, order=report.order, code=code, reason=reason)
