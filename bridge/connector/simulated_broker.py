"""The simulated broker: takes trade requests as a trade server does, fills them at the simulation's own quotes.

Market orders fill at once, at the ask or the bid; pending orders, stop losses and take profits when a quote reaches
them, at that quote. Netting and hedging accounts. No swaps, no commissions, no gaps in trading hours.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from bridge.connector.faults import OrderFaults
from bridge.connector.simulated_book import Book, load_book, save_book
from bridge.connector.simulated_checks import LEVERAGE, VOLUME_MIN, VOLUME_STEP, Fields, verdict
from bridge.connector.simulated_fills import close_at, fill, money_rate
from bridge.connector.terminal import AccountInfo, Quote, SymbolInfo
from bridge.connector.trades import (
    HEDGING_MARGIN_MODE,
    CheckResult,
    PlacedOrder,
    PlacedState,
    Reason,
    SendResult,
    TradeAction,
    TradeType,
)
from core.model.ticks import Ticks

OPENING_BALANCE: Final = 100_000.0
CHECK_SPAN_MS_MAX: Final = 3_600_000
"""Quotes that pending orders meet after a stop of the terminal; older ones have passed them by."""


class SimulatedBroker:
    """quote: the newest of a symbol; ticks: those of (symbol, from_ms, to_ms); now_ms: the server's clock."""

    def __init__(
        self,
        directory: Path,
        *,
        hedging: bool,
        infos: Mapping[str, SymbolInfo],
        quote: Callable[[str], Quote | None],
        ticks: Callable[[str, int, int], Ticks],
        now_ms: Callable[[], int],
        faults: OrderFaults,
    ) -> None:
        self._directory = directory
        self._hedging = hedging
        self._infos = infos
        self._quote = quote
        self._ticks = ticks
        self._now_ms = now_ms
        self._faults = faults
        self._book: Book | None = None

    @property
    def book(self) -> Book:
        """Loaded when it is first needed: who only reads ticks keeps none."""
        if self._book is None:
            self._book = load_book(self._directory, OPENING_BALANCE)
        return self._book

    def account(self, login: AccountInfo) -> AccountInfo:
        self.advance()
        floating, margin = 0.0, 0.0
        for position in self.book.positions:
            quote = self._quote(position.symbol)
            if quote is not None:
                leaving = quote.bid if position.type == TradeType.BUY else quote.ask
                sign = 1 if position.type == TradeType.BUY else -1
                size = position.volume * money_rate(position.symbol, leaving)
                floating += (leaving - position.price_open) * sign * size
                margin += size * leaving / LEVERAGE
        equity = self.book.balance + floating
        return msgspec.structs.replace(
            login,
            margin_mode=HEDGING_MARGIN_MODE if self._hedging else 0,
            currency="USD",
            balance=round(self.book.balance, 2),
            equity=round(equity, 2),
            margin=round(margin, 2),
            margin_free=round(equity - margin, 2),
        )

    def check(self, fields: Fields) -> CheckResult:
        retcode = self._verdict(fields)
        return CheckResult(retcode=retcode, comment="" if retcode else "Done")

    def send(self, fields: Fields) -> SendResult | None:
        """Carry a request out; None where a fault swallows the answer."""
        self.advance()
        if self._faults.too_many():
            return SendResult(retcode=10_024, comment="Too many requests")
        fault = self._faults.draw()
        if fault == "nothing":
            return None
        if fault == "die_before":
            self._faults.die()
        if fault == "reject":
            return SendResult(retcode=self._faults.reject_retcode, comment="Rejected")
        retcode = self._verdict(fields)
        if retcode:
            return SendResult(retcode=retcode)
        if fault == "fail_after_placed":
            return self._placed_and_failed(fields)
        result = self._carry_out(fields, half=fault == "partial")
        save_book(self._directory, self.book)
        return self._faults.spoil(fault, result)

    def _verdict(self, fields: Fields) -> int:
        quote = self._quote(fields.symbol) if fields.symbol in self._infos else None
        return verdict(fields, self.book, quote, self._now_ms(), known=fields.symbol in self._infos)

    def advance(self) -> None:
        """Let pending orders and stops meet the quotes since the last time."""
        book, now_ms = self.book, self._now_ms()
        from_ms = max(book.checked_ms + 1, now_ms - CHECK_SPAN_MS_MAX)
        waiting = {one.symbol for one in book.orders} | {one.symbol for one in book.positions}
        if not waiting or from_ms > now_ms:
            book.checked_ms = now_ms
            return
        before = book.next_ticket, len(book.orders)
        for symbol in sorted(waiting):
            for row in self._ticks(symbol, from_ms, now_ms):
                self._meet(symbol, float(row["bid"]), float(row["ask"]), int(row["time_msc"]))
        self._expire(now_ms)
        book.checked_ms = now_ms
        if before != (book.next_ticket, len(book.orders)):
            save_book(self._directory, book)

    # -- requests ------------------------------------------------------------------------------------

    def _carry_out(self, fields: Fields, *, half: bool) -> SendResult:
        if fields.action == TradeAction.REMOVE:
            order = next(one for one in self.book.orders if one.ticket == fields.order)
            self.book.end(order, state=PlacedState.CANCELED, time_done_msc=self._now_ms())
            return SendResult(retcode=10_009, order=fields.order)
        if fields.action == TradeAction.MODIFY:
            return self._modify(fields)
        if fields.action == TradeAction.SLTP:
            position = self.book.position(fields.position)
            assert position is not None, "the verdict looked"
            self.book.put(msgspec.structs.replace(position, sl=fields.sl, tp=fields.tp))
            return SendResult(retcode=10_009)
        self.book.executions[fields.comment] = self.book.executions.get(fields.comment, 0) + 1
        order = self._placed(fields)
        if fields.action == TradeAction.PENDING:
            self.book.orders = [*self.book.orders, order]
            return SendResult(retcode=10_009, order=order.ticket)
        return self._deal(order, fields, half=half)

    def _deal(self, order: PlacedOrder, fields: Fields, *, half: bool) -> SendResult:
        quote = self._quote(order.symbol)
        assert quote is not None, "the verdict looked"
        price = quote.ask if order.type == TradeType.BUY else quote.bid
        volume = order.volume_initial
        if half and volume >= 2 * VOLUME_MIN:
            volume = round(math.floor(volume / 2 / VOLUME_STEP) * VOLUME_STEP, 2)
        left = round(order.volume_initial - volume, 2)
        position = fields.position or None
        deal = fill(self.book, order, volume, price, self._now_ms(), position=position, hedging=self._hedging)
        state = PlacedState.CANCELED if left else PlacedState.FILLED
        self.book.end(
            order,
            state=state,
            volume_current=left,
            price_open=price,
            time_done_msc=self._now_ms(),
            position_id=deal.position_id,
        )
        retcode = 10_010 if left else 10_009
        return SendResult(retcode=retcode, deal=deal.ticket, order=order.ticket, volume=volume, price=price)

    def _modify(self, fields: Fields) -> SendResult:
        order = next(one for one in self.book.orders if one.ticket == fields.order)
        changed = msgspec.structs.replace(
            order,
            price_open=fields.price,
            price_stoplimit=fields.stoplimit,
            sl=fields.sl,
            tp=fields.tp,
            time_expiration=fields.expiration,
        )
        if changed == order:
            return SendResult(retcode=10_025, order=order.ticket)
        self.book.orders = [changed if one is order else one for one in self.book.orders]
        return SendResult(retcode=10_009, order=order.ticket)

    def _placed_and_failed(self, fields: Fields) -> SendResult:
        """Say "placed" of what the market then does not take."""
        order = self._placed(fields)
        self.book.end(order, state=PlacedState.REJECTED, time_done_msc=self._now_ms())
        save_book(self._directory, self.book)
        return SendResult(retcode=10_008, order=order.ticket)

    def _placed(self, fields: Fields) -> PlacedOrder:
        return PlacedOrder(
            ticket=self.book.ticket(),
            time_setup_msc=self._now_ms(),
            time_expiration=fields.expiration,
            type=fields.type,
            type_time=fields.type_time,
            type_filling=fields.type_filling,
            state=PlacedState.PLACED,
            magic=fields.magic,
            reason=Reason.EXPERT,
            volume_initial=fields.volume,
            volume_current=fields.volume,
            price_open=fields.price,
            sl=fields.sl,
            tp=fields.tp,
            price_stoplimit=fields.stoplimit,
            symbol=fields.symbol,
            comment=self._faults.comment(fields.comment),
        )

    # -- the market ----------------------------------------------------------------------------------

    def _meet(self, symbol: str, bid: float, ask: float, at_ms: int) -> None:
        for position in [one for one in self.book.positions if one.symbol == symbol]:
            leaving, sign = (bid, 1) if position.type == TradeType.BUY else (ask, -1)
            lost = position.sl and (position.sl - leaving) * sign >= 0
            won = position.tp and (leaving - position.tp) * sign >= 0
            if lost or won:
                close_at(self.book, position, leaving, at_ms, stop_loss=bool(lost))
        for order in [one for one in self.book.orders if one.symbol == symbol]:
            if order.time_setup_msc < at_ms:
                self._trigger(order, bid, ask, at_ms)

    def _trigger(self, order: PlacedOrder, bid: float, ask: float, at_ms: int) -> None:
        market, sign = (ask, 1) if order.type % 2 == 0 else (bid, -1)
        if order.type in (TradeType.BUY_LIMIT, TradeType.SELL_LIMIT):
            reached = (order.price_open - market) * sign >= 0
        else:
            reached = (market - order.price_open) * sign >= 0
        if not reached:
            return
        if order.type in (TradeType.BUY_STOP_LIMIT, TradeType.SELL_STOP_LIMIT):
            limit = TradeType.BUY_LIMIT if sign > 0 else TradeType.SELL_LIMIT
            turned = msgspec.structs.replace(
                order, type=int(limit), price_open=order.price_stoplimit, price_stoplimit=0.0
            )
            self.book.orders = [turned if one is order else one for one in self.book.orders]
            return
        deal = fill(
            self.book, order, order.volume_current, market, at_ms, position=None, hedging=self._hedging
        )
        self.book.end(
            order,
            state=PlacedState.FILLED,
            volume_current=0.0,
            time_done_msc=at_ms,
            position_id=deal.position_id,
        )

    def _expire(self, now_ms: int) -> None:
        for order in list(self.book.orders):
            if order.time_expiration and order.time_expiration * 1_000 <= now_ms:
                self.book.end(order, state=PlacedState.EXPIRED, time_done_msc=now_ms)
