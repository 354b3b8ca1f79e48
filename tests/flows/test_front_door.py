"""The whole path through the front door: what `tickgate up --replay` was given is what HTTP answers, tick for tick."""

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyarrow
import pyarrow.parquet
import pytest

from tests.engines import free_ports
from tests.recordings import (
    DAY_2014_MS,
    MT5_FILE,
    RecordedTick,
    mt5_ticks,
    needs_recordings,
    oanda_file,
    oanda_ticks,
)

pytestmark = needs_recordings
TICKGATE = Path(sys.executable).parent / "tickgate"
PAGE = 20_000


@dataclass(frozen=True, slots=True)
class FrontDoor:
    """A running deployment and a client that is let in."""

    data_dir: Path
    client: httpx.Client

    def pages(self, **parameters: Any) -> list[dict[str, Any]]:
        """Follow `next_cursor` to the end."""
        items: list[dict[str, Any]] = []
        while True:
            answer = self.client.get("/v1/ticks", params={"limit": PAGE, **parameters})
            assert answer.status_code == 200, answer.text
            page = answer.json()
            items += page["items"]
            if page["next_cursor"] is None:
                return items
            parameters["cursor"] = page["next_cursor"]


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    data_dir = tmp_path_factory.mktemp("door")
    base = free_ports(10)
    where = ["--data-dir", str(data_dir)]
    files = [MT5_FILE, *map(oanda_file, DAY_2014_MS)]
    replays = [part for file in files for part in ("--replay", str(file))]
    subprocess.run(
        [TICKGATE, "up", "--detach", "--speed", "max", "--port-base", str(base), *where, *replays],
        check=True,
        timeout=100,
        stdout=subprocess.DEVNULL,
    )
    try:
        credentials = json.loads((data_dir / "credentials.json").read_bytes())
        with httpx.Client(base_url=f"http://127.0.0.1:{base}", timeout=30) as client:
            token = client.post(
                "/oauth/token",
                data={"grant_type": "client_credentials"},
                auth=(credentials["client_id"], credentials["client_secret"]),
            ).json()["access_token"]
            client.headers["Authorization"] = f"Bearer {token}"
            yield FrontDoor(data_dir, client)
    finally:
        subprocess.run([TICKGATE, "down", *where], check=False, timeout=60, stdout=subprocess.DEVNULL)


def recorded(item: dict[str, Any]) -> RecordedTick:
    return RecordedTick(
        item["time_msc"],
        float(item["bid"]),
        float(item["ask"]),
        float(item["last"]),
        item["volume"],
        item["flags"],
    )


def test_an_mt5_recording_comes_out_as_it_went_in(door: FrontDoor) -> None:
    offset_s, expected = mt5_ticks()
    items = door.pages(symbol="WIN$N")
    assert len(items) == 1_500
    assert [recorded(item) for item in items] == expected
    assert all(item["utc_ms"] == item["time_msc"] - offset_s * 1_000 for item in items)
    assert [item["seq"] for item in items] == list(range(1, 1_501))


def test_three_days_of_quotes_come_out_as_they_went_in(door: FrontDoor) -> None:
    expected = [tick for day in DAY_2014_MS for tick in oanda_ticks(day)]
    assert [recorded(item) for item in door.pages(symbol="EURUSD")] == expected


@pytest.mark.parametrize("day", list(DAY_2014_MS))
def test_a_day_asked_for_is_that_day(door: FrontDoor, day: str) -> None:
    expected = oanda_ticks(day)
    iso = f"{day[:4]}-{day[4:6]}-{day[6:]}"
    items = door.pages(**{"symbol": "EURUSD", "from": f"{iso}T00:00:00Z", "to": f"{iso}T23:59:59.999Z"})
    assert [recorded(item) for item in items] == expected


def test_every_format_holds_the_same_ticks(door: FrontDoor) -> None:
    expected = [recorded(item) for item in door.pages(symbol="WIN$N")]
    names = ("time_msc", "bid", "ask", "last", "volume", "flags")

    def answer(accept: str) -> bytes:
        found = door.client.get(
            "/v1/ticks", params={"symbol": "WIN$N", "limit": PAGE}, headers={"Accept": accept}
        )
        assert found.status_code == 200, found.text
        return found.content

    parquet = pyarrow.parquet.read_table(io.BytesIO(answer("application/vnd.apache.parquet")))
    arrow = pyarrow.ipc.open_stream(answer("application/vnd.apache.arrow.stream")).read_all()
    for table in (parquet, arrow):
        columns = [table.column(name).to_pylist() for name in names]
        assert [RecordedTick(*row) for row in zip(*columns, strict=True)] == expected
    lines = answer("text/csv").decode().strip().splitlines()
    assert len(lines) == 1_501


def test_bars_are_what_the_ticks_make(door: FrontDoor) -> None:
    ticks = oanda_ticks("20140507")
    day = {"from": "2014-05-07T00:00:00Z", "to": "2014-05-07T23:59:59.999Z"}
    answer = door.client.get("/v1/bars", params={"symbol": "EURUSD", "interval": "1h", **day}).json()
    assert answer["next_cursor"] is None
    hours: dict[int, list[float]] = {}
    for tick in ticks:
        hours.setdefault(tick.time_msc // 3_600_000 * 3_600_000, []).append(tick.bid)
    expected = [(at, bids[0], max(bids), min(bids), bids[-1], len(bids)) for at, bids in hours.items()]
    found = [
        (bar["time_ms"], bar["open"], bar["high"], bar["low"], bar["close"], bar["tick_volume"])
        for bar in answer["items"]
    ]
    assert found == expected


def test_the_certificates_are_green_over_http_and_on_the_command_line(door: FrontDoor) -> None:
    certificates = door.client.get("/v1/completeness").json()["items"]
    assert len(certificates) == 4
    assert all(certificate["green"] and not certificate["uncertified"] for certificate in certificates)
    verified = subprocess.run(
        [TICKGATE, "verify", "--data-dir", str(door.data_dir)], capture_output=True, text=True, timeout=60
    )
    assert verified.returncode == 0, verified.stdout
    assert "(4 of 4 certificates hold)" in verified.stdout


def test_symbols_and_quotes_know_the_newest_tick(door: FrontDoor) -> None:
    symbols = {item["symbol"] for item in door.client.get("/v1/symbols").json()["items"]}
    assert symbols == {"WIN$N", "EURUSD"}
    (quote,) = door.client.get("/v1/quotes", params={"symbols": "WIN$N"}).json()["items"]
    assert recorded(quote) == mt5_ticks()[1][-1]
