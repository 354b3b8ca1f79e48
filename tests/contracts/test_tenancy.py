"""The second wall alone: what a tenant's role can do when the SQL forgets every `where tenant = ...`.

The tables are read from PostgreSQL's own catalogue. One that holds a tenant's data is behind row-level security, or it
is not granted to the role at all; a new one without a row in ROWS fails here until somebody has thought about it.

What this wall does not hold off: SQL that an attacker writes himself. The service's own role is the connection's, and
`reset role` gives it back. No SQL is made of what a caller sends; the wall is there for a query that forgets a filter.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from core.adapters.postgres.pool import Postgres, open_pool
from core.errors.exceptions import Defect
from core.settings import Settings
from tests.engines import House, new_databases

HASH = "0" * 64
BYTES = "'\\x" + "00" * 32 + "'::bytea"
UNBOUND = frozenset({"schema_steps", "revocations", "restores", "audit_checkpoints"})
"""Tables of the whole house: no tenant's role may touch them."""

ROWS: dict[str, str] = {
    # table -> columns and values of one row of the tenant {tenant}, in an order that foreign keys allow
    "api_clients": "(client_id, tenant, secret_hash, scopes)"
    f" values ('{{tenant}}', '{{tenant}}', '{HASH}', '{{{{}}}}')",
    "sources": f"(name, tenant, token_hash) values ('{{tenant}}', '{{tenant}}', '{HASH}')",
    "source_epochs": "(source, epoch, install) values ('{tenant}', 1, 'i')",
    "source_drops": "(source, epoch, month, rows, last_seq) values ('{tenant}', 1, '202401', 1, 1)",
    "source_leases": "(source, holder, generation, expires_at) values ('{tenant}', 'h', 1, now())",
    "source_tallies": "(source, epoch, symbol, day, rows, first_seq, last_seq, checksum)"
    " values ('{tenant}', 1, 'S', 1, 1, 1, 1, 1)",
    "source_notices": "(source, epoch, code, symbol, detail, at_ms) values ('{tenant}', 1, 'C', 'S', 'd', 1)",
    "api_keys": "(id, tenant, owner_kind, subject, name, scopes, prefix, secret_hash, expires_at)"
    " values (gen_random_uuid(), '{tenant}', 'client', '{tenant}', 'k', '{{}}',"
    f" substr(md5('{{tenant}}'), 1, 12), {BYTES}, now() + interval '1 day')",
    "refresh_families": "(id, tenant, client_id, scopes, expires_at)"
    " values (md5('{tenant}')::uuid, '{tenant}', '{tenant}', '{{}}', now())",
    "refresh_tokens": "(token_hash, tenant, family, expires_at)"
    " values (sha256('{tenant}'::bytea), '{tenant}', md5('{tenant}')::uuid, now())",
    "dead_letters": "(id, job_id, queue, function, tenant, job, attempts, category, code, public, fingerprint,"
    " traceparent, first_failed_at, last_failed_at) values (substr(md5('{tenant}'), 1, 27), 'j', 'q', 'f', '{tenant}',"
    " '', 1, 'c', 'c', 'p', 'f', 't', now(), now())",
    "accounts": "(tenant, id, version, title, login, server, currency, leverage, trade_mode, margin_mode)"
    " values ('{tenant}', 'a', 'v', 't', 1, 's', 'EUR', 1, 'demo', 'netting')",
    "instruments": "(tenant, id, version, symbol, description, base_currency, profit_currency, margin_currency, digits,"
    " tick_size, contract_size, volume_min, volume_max, volume_step)"
    " values ('{tenant}', 'i', 'v', 's', '', 'EUR', 'USD', 'EUR', 5, '1', '1', '1', '1', '1')",
    "incidents": "(tenant, id, version, message, service, category, fingerprint, at_ms, resolution, vector, words,"
    " words_count) values ('{tenant}', 'i', 'v', 'm', 's', 'c', '', 1, '', array_fill(0::real, array[256]), '', 0)",
    "market_windows": "(tenant, id, version, symbol, interval, start_ms, label, closes, vector, words, words_count)"
    " values ('{tenant}', 'i', 'v', 's', '1m', 1, 'l', '{{}}', array_fill(0::real, array[65]), '', 0)",
    "services": "(tenant, id, version, title, sort, critical)"
    " values ('{tenant}', 'a', 'v', 't', 'store', true), ('{tenant}', 'b', 'v', 't', 'store', true)",
    "flows": "(tenant, id, version, origin, target, sort, required)"
    " values ('{tenant}', 'f', 'v', 'a', 'b', 'calls', true)",
    "account_books": "(tenant, account) values ('{tenant}', 'a')",
    "orders": "(tenant, id, account, symbol, side, type, time_in_force, volume, reduce_only, position, client_order_id,"
    " strategy, magic, state, submitted_by) values ('{tenant}', '01HZZZZZZZZZZZZZZZZZZZZZZZ', 'a', 's', 'buy',"
    " 'market', 'gtc', 1, false, '', '', '', 1, 'QUEUED', 'client:c')",
    "order_events": "(tenant, order_id, seq, old_state, new_state, what) values ('{tenant}', 'o', 1, 'A', 'B', 'w')",
    "order_outbox": "(tenant, account, order_id, command) values ('{tenant}', 'a', 'o', 'send')",
    "fills": "(tenant, account, deal, venue_order, position, symbol, side, volume, price, profit, commission, at_ms)"
    " values ('{tenant}', 'a', 'd', '1', '', 's', 'buy', 1, 1, 0, 0, 1)",
    "positions": "(tenant, account, ticket, symbol, side, volume, price_open, order_id, opened_at_ms)"
    " values ('{tenant}', 'a', 't', 's', 'buy', 1, 1, '', 1)",
    "audit_events": "(tenant, seq, type, account, order_id, event, hash)"
    " values ('{tenant}', 1, 't', '', '', '', sha256(''))",
    "audit_heads": "(tenant) values ('{tenant}')",
    "risk_limits": "(tenant, scope, target, limits, author) values ('{tenant}', 'tenant', '', '{{}}', 'a')",
    "trading_states": "(tenant, scope, target, state, reason, author)"
    " values ('{tenant}', 'tenant', '', 'ACTIVE', '', 'a')",
    "kill_switches": "(tenant, scope, target, reason, engaged_by) values ('{tenant}', 'tenant', '', 'r', 'a')",
    "order_approvals": "(tenant, order_id, reason, granted_by, expires_at)"
    " values ('{tenant}', '01HZZZZZZZZZZZZZZZZZZZZZZZ', '', 'a', now())",
    "paper_books": "(tenant, account) values ('{tenant}', 'a')",
    "paper_deals": "(tenant, account, at_ms, deal) values ('{tenant}', 'a', 1, '{{}}')",
    "paper_orders_ended": "(tenant, account, at_ms, ended) values ('{tenant}', 'a', 1, '{{}}')",
    "breaks": "(tenant, account, sort, subject, detail) values ('{tenant}', 'a', 'missing', 's', '{{}}')",
    "idempotency_keys": "(tenant, subject, key_hash, fingerprint, owner, lease_expires_at, expires_at)"
    f" values ('{{tenant}}', 's', {BYTES}, {BYTES}, gen_random_uuid(), now(), now())",
}
ROWS_EACH = {"services": 2}
"""A flow needs two."""
READ_BY_TENANTS = sorted(ROWS)
_TABLES = (
    "select relname, relrowsecurity, exists (select from pg_attribute where attrelid = c.oid and attname = 'tenant'"
    " and not attisdropped) as has_tenant,"
    " has_any_column_privilege('tickgate_tenant', c.oid, 'select, insert, update, references')"
    " or has_table_privilege('tickgate_tenant', c.oid, 'select, insert, update, delete, truncate') as granted"
    " from pg_class c where relkind in ('r', 'p', 'v', 'm') and relnamespace = 'public'::regnamespace"
)


@pytest.fixture(scope="module")
def settings(house: House) -> Settings:
    return new_databases(house)


@asynccontextmanager
async def filled(settings: Settings) -> AsyncIterator[Postgres]:
    """Yield a pool on tables that hold a row of the tenants demo and rival each."""
    async with open_pool(settings, {}) as postgres:
        async with postgres.acquire() as connection:
            await connection.execute("set session_replication_role = replica")
            await connection.execute(f"truncate {', '.join(ROWS)} cascade")
            await connection.execute("reset session_replication_role")
            for table, values in ROWS.items():
                for tenant in ("demo", "rival"):
                    await connection.execute(f"insert into {table} {values.format(tenant=tenant)}")
        yield postgres


async def columns(connection: asyncpg.Connection, table: str) -> list[str]:
    """Return the columns a tenant's role may read."""
    rows = await connection.fetch(
        "select attname from pg_attribute where attrelid = $1::text::regclass and attnum > 0 and not attisdropped"
        " and has_column_privilege('tickgate_tenant', attrelid, attname, 'select') order by attnum",
        table,
    )
    return [row["attname"] for row in rows]


async def test_every_table_is_behind_the_wall_or_out_of_reach(settings: Settings) -> None:
    async with open_pool(settings, {}) as postgres, postgres.acquire() as connection:
        tables = await connection.fetch(_TABLES)
    open_ = {row["relname"] for row in tables if row["granted"] and not row["relrowsecurity"]}
    unwalled = {row["relname"] for row in tables if row["has_tenant"] and not row["relrowsecurity"]}
    forgotten = {row["relname"] for row in tables} - UNBOUND - ROWS.keys()
    assert (open_, unwalled, forgotten) == (set(), set(), set())
    assert {row["relname"] for row in tables if row["relname"] in UNBOUND and row["granted"]} == set()


async def test_every_policy_binds_reading_and_writing_to_the_tenant(settings: Settings) -> None:
    async with open_pool(settings, {}) as postgres, postgres.acquire() as connection:
        policies = await connection.fetch("select * from pg_policies where schemaname = 'public'")
    for policy in policies:
        for rule in (policy["qual"], policy["with_check"]):
            assert rule is None or "current_tenant()" in rule or "is_own_source" in rule, policy["tablename"]
        assert policy["permissive"] == "PERMISSIVE"
        assert policy["roles"] == ["tickgate_tenant"], policy["tablename"]
    walled = [policy["tablename"] for policy in policies]
    assert sorted(walled) == sorted(set(walled)), "two permissive policies are as open as the wider one"


@pytest.mark.parametrize("table", READ_BY_TENANTS)
async def test_a_query_without_a_filter_shows_a_tenant_its_own_rows_only(
    settings: Settings, table: str
) -> None:
    async with filled(settings) as postgres:
        for tenant in ("demo", "rival"):
            async with postgres.of_tenant(tenant) as connection:
                names = await columns(connection, table)
                rows = await connection.fetch(f"select {', '.join(names)} from {table}")
            assert len(rows) == ROWS_EACH.get(table, 1)
            assert tenant in {row.get("tenant", row.get("source")) for row in rows}


@pytest.mark.parametrize("table", READ_BY_TENANTS)
async def test_without_a_tenant_there_are_no_rows(settings: Settings, table: str) -> None:
    async with filled(settings) as postgres, postgres.of_tenant("") as connection:
        names = await columns(connection, table)
        assert await connection.fetch(f"select {', '.join(names)} from {table}") == []


@pytest.mark.parametrize("table", READ_BY_TENANTS)
async def test_a_row_for_another_tenant_is_refused(settings: Settings, table: str) -> None:
    async with filled(settings) as postgres:
        with pytest.raises(Defect) as refused:
            async with postgres.of_tenant("rival") as connection:
                await connection.execute(f"insert into {table} {ROWS[table].format(tenant='third')}")
        assert isinstance(refused.value.__cause__, asyncpg.InsufficientPrivilegeError)


@pytest.mark.parametrize("table", ["api_keys", "idempotency_keys", "sources"])
async def test_another_tenants_row_is_neither_changed_nor_deleted(settings: Settings, table: str) -> None:
    column = {"api_keys": "revoked_at", "idempotency_keys": "lease_expires_at", "sources": "closed_at"}[table]
    async with filled(settings) as postgres:
        async with postgres.of_tenant("rival") as connection:
            changed = await connection.execute(f"update {table} set {column} = now()")
        assert changed == "UPDATE 1"
    async with filled(settings) as postgres:
        with pytest.raises(Defect) as refused:
            async with postgres.of_tenant("rival") as connection:
                await connection.execute(f"update {table} set tenant = 'demo'")
        assert isinstance(refused.value.__cause__, asyncpg.InsufficientPrivilegeError)


@pytest.mark.parametrize(
    ("table", "column"),
    [("api_clients", "secret_hash"), ("sources", "token_hash"), ("revocations", "credential")],
)
async def test_what_a_tenants_request_needs_not_it_cannot_read(
    settings: Settings, table: str, column: str
) -> None:
    async with filled(settings) as postgres:
        with pytest.raises(Defect) as refused:
            async with postgres.of_tenant("demo") as connection:
                await connection.execute(f"select {column} from {table}")
        assert isinstance(refused.value.__cause__, asyncpg.InsufficientPrivilegeError)


async def test_the_next_borrower_of_a_connection_is_the_service_again(settings: Settings) -> None:
    async with filled(settings) as postgres:
        async with postgres.of_tenant("demo") as connection:
            assert await connection.fetchval("select current_user") == "tickgate_tenant"
        async with postgres.acquire() as connection:
            assert await connection.fetchval("select current_user") != "tickgate_tenant"
            assert await connection.fetchval("select count(*) from sources") == 2


async def test_the_role_can_log_in_nowhere_and_owns_nothing(settings: Settings) -> None:
    async with open_pool(settings, {}) as postgres, postgres.acquire() as connection:
        role = await connection.fetchrow("select * from pg_roles where rolname = 'tickgate_tenant'")
        owned = await connection.fetchval(
            "select count(*) from pg_class where relowner = 'tickgate_tenant'::regrole"
        )
    dangerous = ("rolsuper", "rolcreaterole", "rolcreatedb", "rolcanlogin", "rolreplication", "rolbypassrls")
    assert [name for name in dangerous if role[name]] == []
    assert owned == 0


async def test_the_role_runs_no_function_with_another_ones_rights(settings: Settings) -> None:
    async with open_pool(settings, {}) as postgres, postgres.acquire() as connection:
        reachable = await connection.fetch(
            "select proname from pg_proc where pronamespace = 'public'::regnamespace and prosecdef"
            " and has_function_privilege('tickgate_tenant', oid, 'execute')"
        )
    assert [row["proname"] for row in reachable] == []
