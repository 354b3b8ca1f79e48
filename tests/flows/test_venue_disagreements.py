"""Ledger and venue made to differ in every way at once, on real venues: paper and a terminal, netting and hedging.

What a venue holds is changed behind everybody's back; what follows is told by the table of breaks in docs/trading.md.
"""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from bridge.connector.simulated_book import save_book
from core.infrastructure.central_hub import open_hub
from tests.engines import House, wait_for
from tests.orders import truth
from tests.terminal_ways import Way, running_way
from tests.trading_floors import SYMBOL, put_quote

EXTERNAL = "424242"
LONG_S = 40.0
Edit = Callable[[Any], None]


@pytest.fixture(scope="module")
def way(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    with running_way(tmp_path_factory.mktemp("breaks"), house) as opened:
        yield opened


class Terminal:
    """The book of the simulated terminal is a file, which nobody holds while the connector is away."""

    def __init__(self, way: Way, *, hedging: bool) -> None:
        self.way, self.hedging = way, hedging
        self.name = "hedge" if hedging else "terminal"
        self.spool = way.directory / ("hedging" if hedging else "netting") / "spool"

    def running(self):
        return self.way.terminal(hedging=self.hedging)

    def edit(self, change: Edit) -> None:
        book = truth(self.spool)
        text = msgspec.to_builtins(book)
        change(text)
        save_book(self.spool, msgspec.convert(text, type(book)))

    def working(self) -> list[str]:
        return [str(one.ticket) for one in truth(self.spool).orders]

    @staticmethod
    def externally(order: dict[str, Any]) -> dict[str, Any]:
        return {**order, "ticket": int(EXTERNAL), "comment": "by hand", "magic": 0}

    @staticmethod
    def enlarged(position: dict[str, Any]) -> dict[str, Any]:
        return {**position, "volume": 0.3}


class Paper:
    """The book of a paper account is a row."""

    def __init__(self, way: Way, *, hedging: bool) -> None:
        self.way = way
        self.name = "hedged" if hedging else "paper"

    @contextmanager
    def running(self) -> Iterator[None]:
        yield

    def edit(self, change: Edit) -> None:
        book = self._book()
        change(book)
        query = "update paper_books set book = $2::text::jsonb, version = version + 1 where account = $1 returning 1"
        assert asyncio.run(asked(self.way, query, self.name, json.dumps(book))) == [1]

    def working(self) -> list[str]:
        return [one["ticket"] for one in self._book()["orders"]]

    def _book(self) -> dict[str, Any]:
        (text,) = asyncio.run(
            asked(self.way, "select book::text from paper_books where account = $1", self.name)
        )
        return dict(json.loads(text))

    @staticmethod
    def externally(order: dict[str, Any]) -> dict[str, Any]:
        return {**order, "ticket": EXTERNAL, "tag": ""}

    @staticmethod
    def enlarged(position: dict[str, Any]) -> dict[str, Any]:
        return {**position, "volume": "0.3"}


async def asked(way: Way, query: str, *args: Any) -> list[Any]:
    async with (
        open_hub(way.floor.door.settings, {"postgres"}) as hub,
        hub["postgres"].acquire() as connection,
    ):
        return [row[0] for row in await connection.fetch(query, *args)]


@pytest.mark.parametrize("hedging", [False, True], ids=["netting", "hedging"])
@pytest.mark.parametrize("venue", [Paper, Terminal], ids=["paper", "mt5"])
def test_each_way_to_differ_has_its_rule(way: Way, venue: type[Terminal | Paper], hedging: bool) -> None:
    there = venue(way, hedging=hedging)
    floor = way.floor
    with there.running():
        asyncio.run(put_quote(floor.door.settings, source="demo2"))
        assert floor.ended(way.submit(account=there.name))["state"] == "FILLED"
        resting = [
            way.submit(account=there.name, type="limit", price="1.05", volume=volume)
            for volume in ("0.2", "0.4")
        ]
        missing, matched = (floor.reaches(order_id, "ACCEPTED") for order_id in resting)
    kept: list[dict[str, Any]] = []

    def disagree(book: dict[str, Any]) -> None:
        kept.extend(one for one in book["orders"] if str(one["ticket"]) == missing["venue_order"])
        book["orders"] = [one for one in book["orders"] if one not in kept] + [there.externally(kept[0])]
        book["positions"] = [there.enlarged(one) for one in book["positions"]]

    there.edit(disagree)
    with there.running():
        lost = floor.ended(missing["id"])
        assert (lost["state"], lost["code"]) == ("CANCELED", "MISSING_AT_VENUE")
        wait_for(lambda: way.net(there.name) == Decimal("0.3"), "the venue's position being taken")
        orders = floor.http.get("/v1/orders", params={"account": there.name}).json()["items"]
        (adopted,) = [one for one in orders if one["external"]]
        assert (adopted["venue_order"], adopted["state"]) == (EXTERNAL, "ACCEPTED")
        assert floor.order(matched["id"])["version"] == matched["version"], "what matches is left alone"
    there.edit(lambda book: book["orders"].append(kept[0]))
    with there.running():
        wait_for(lambda: floor.order(missing["id"])["code"] == "WORKING_AT_VENUE", "it being noticed", LONG_S)
        wait_for(lambda: missing["venue_order"] not in there.working(), "it being taken back there")
        assert matched["venue_order"] in there.working()
        assert floor.order(missing["id"])["state"] == "CANCELED"
    breaks = asyncio.run(
        asked(way, "select sort || ' ' || subject from breaks where account = $1 order by id", there.name)
    )
    assert sorted(breaks) == sorted(
        [
            f"missing {missing['id']}",
            f"external {EXTERNAL}",
            f"quantity {SYMBOL}",
            f"resurfaced {missing['id']}",
        ]
    )
