"""What tests of backups share: filled stores, empty ones, and what is in them."""

import asyncio
import secrets
from pathlib import Path
from typing import Any

import msgspec
import redis

from core.infrastructure.backups.making import back_up
from core.infrastructure.backups.manifest import Manifest
from core.infrastructure.backups.restoring import require_fit, restore
from core.infrastructure.backups.vaults import Vault, vault_at
from core.infrastructure.central_hub import Hub, open_hub
from core.infrastructure.provisioning import NewClient, NewSource, provision
from core.market.checksum import checksum
from core.market.completeness import certify
from core.model.records import Annotation, RecordKind, Watchlist
from core.model.ticks import Tally
from core.settings import Secret, Settings
from tests.bridges import SOURCE, TENANT, TOKEN
from tests.contracts.test_tick_store import make_block, put
from tests.engines import House

MAY_MS = 1_714_557_600_000
JUNE_MS = 1_717_200_000_000
DAY_MS = 86_400_000


class Quiet:
    """Tells nobody, and remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def begun(self, text: str) -> None:
        pass

    def done(self, text: str) -> None:
        self.lines.append(text)


def empty_databases(house: House, redis_database: int) -> Settings:
    """Return settings of databases that do not exist yet, and of a Redis database that is emptied for it."""
    name = f"t_{secrets.token_hex(6)}"
    ours = house.settings.redis
    with redis.Redis(port=ours.port, password=ours.password.reveal(), db=redis_database) as client:
        client.flushdb()
    return msgspec.structs.replace(
        house.settings,
        postgres=msgspec.structs.replace(house.settings.postgres, database=name),
        clickhouse=msgspec.structs.replace(house.settings.clickhouse, database=name),
        redis=msgspec.structs.replace(house.settings.redis, database=redis_database),
    )


async def fill(settings: Settings) -> None:
    """Put something of every kind into every store: two months of ticks with their tallies, records, a client."""
    client = NewClient(client_id="c", secret=Secret("s" * 40), tenant=TENANT, scopes=("market:read",))
    await provision(settings, [client], [NewSource(name=SOURCE, token=Secret(TOKEN), tenant=TENANT)])
    needs = {"tick_store", "sources", "tick_records", "brief_records", "postgres"}
    async with open_hub(settings, needs) as hub:
        await hub["sources"].epoch_of(SOURCE, "install-1")
        for first_seq, start_ms in ((1, MAY_MS), (1_001, JUNE_MS), (2_001, MAY_MS + 3_600_000)):
            block = make_block(1_000, first_seq=first_seq, start_msc=start_ms)
            await put(hub["tick_store"], block)
            half = block.rows[:500]
            if start_ms == JUNE_MS:
                await hub["sources"].record_tallies(SOURCE, 1, [_tally("EURUSD", half, first_seq)])
        mark = Annotation(
            symbol="EURUSD", start_ms=MAY_MS, stop_ms=None, label="note", text='tab\t"line"\nend ünï'
        )
        await hub["tick_records"].create(RecordKind.ANNOTATIONS, TENANT, "a-1", mark, version="v1")
        await hub["tick_records"].update(
            RecordKind.ANNOTATIONS, TENANT, "a-1", mark, expected="v1", version="v2"
        )
        await hub["tick_records"].create(RecordKind.ANNOTATIONS, TENANT, "a-2", mark, version="v1")
        await hub["tick_records"].delete(RecordKind.ANNOTATIONS, TENANT, "a-2", expected=None)
        watched = Watchlist(title="mine", symbols=["EURUSD", "XAUUSD"])
        await hub["brief_records"].create(RecordKind.WATCHLISTS, TENANT, "w-1", watched, version="v1")
        async with hub["postgres"].acquire() as connection:
            await connection.execute(
                "insert into dead_letters (id, job_id, queue, function, tenant, job, attempts, category, code, public,"
                " fingerprint, traceparent, first_failed_at, last_failed_at) select lpad(to_hex(n), 27, '0'), 'j',"
                " 'database', 'f', $1, decode('00ff0a0d5c09', 'hex'), 1, 'DEFECT', 'C', e'a\\tb\\nc\\\\N', 'f', 't',"
                " now(), now() from generate_series(1, 50) n",
                TENANT,
            )


def _tally(symbol: str, rows: Any, first_seq: int) -> Tally:
    return Tally(
        symbol=symbol,
        day=int(rows["time_msc"][0]) // DAY_MS,
        rows=len(rows),
        first_seq=first_seq,
        last_seq=first_seq + len(rows) - 1,
        checksum=checksum(rows, first_seq),
    )


async def contents(settings: Settings) -> dict[str, tuple[int, Any]]:
    """Return, by table, how many rows there are and a hash of them all, whatever their order."""
    found: dict[str, tuple[int, Any]] = {}
    async with open_hub(settings, {"postgres", "clickhouse", "brief_records"}) as hub:
        async with hub["postgres"].acquire() as connection:
            tables = await connection.fetch(
                "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'"
                " and relname not in ('schema_steps', 'restores')"
            )
            for (table,) in tables:
                row = await connection.fetchrow(
                    f"select count(*), md5(string_agg(md5(t::text), '' order by md5(t::text))) from {table} t"
                )
                found[f"postgres/{table}"] = tuple(row)
        for table in ("ticks", "annotations"):
            rows = await hub["clickhouse"].rows(
                f"select count(), sum(cityHash64(tuple(*))) from {table} {'final' if table != 'ticks' else ''}"
            )
            found[f"clickhouse/{table}"] = tuple(rows[0])
        lists = await _watchlists(hub)
        found["redis/watchlists"] = (len(lists), lists)
    return found


async def _watchlists(hub: Hub) -> list[Any]:
    page = await hub["brief_records"].page(RecordKind.WATCHLISTS, TENANT, after=None, limit=100, where={})
    return list(page)


def make(settings: Settings, vault: Vault, secret: Secret | None = None) -> Manifest:
    return asyncio.run(back_up(settings, vault, secret, None, Quiet()))


def bring_back(
    settings: Settings, vault: Vault, secret: Secret | None = None, *, replace: bool = False
) -> None:
    async def both() -> None:
        backup = await require_fit(settings, vault, secret, Quiet())
        await restore(settings, backup, Quiet(), replace=replace)

    asyncio.run(both())


def vault_in(directory: Path) -> Vault:
    return vault_at(str(directory))


def problems(settings: Settings) -> list[str]:
    """What certificates complain about."""

    async def check() -> list[str]:
        async with open_hub(settings, {"certifier", "sources"}) as hub:
            certificates = await certify(hub["certifier"], hub["sources"], [SOURCE])
        assert certificates
        return [problem for certificate in certificates for problem in certificate.problems]

    return asyncio.run(check())
