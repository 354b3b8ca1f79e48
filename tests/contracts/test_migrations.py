"""Migrations of all stores: each step once whatever is killed, one at a time, and never a schema of another version."""

import asyncio
import itertools
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from joserfc.jwk import OKPKey

from core.adapters.clickhouse.client import connect
from core.adapters.clickhouse.schema import open_schema as open_clickhouse
from core.adapters.clickhouse.schema import statements
from core.adapters.postgres.pool import open_pool
from core.adapters.postgres.schema import open_schema as open_postgres
from core.adapters.redis.schema import STEPS_KEY
from core.errors.exceptions import Corrupt, Misconfigured, Unavailable
from core.infrastructure.central_hub import open_hub
from core.infrastructure.config_manager import write_settings_file
from core.infrastructure.import_manager import resolve
from core.infrastructure.migrator import Standing, migrate, plan
from core.infrastructure.providers import PROVIDERS
from core.infrastructure.schemas import STORES, steps
from core.settings import Secret, Settings
from tests.engines import PASSWORD, House, free_port
from tests.weaviate_servers import running_double

OURS = ("postgres", "clickhouse", "redis")
EVERY_STEP = [f"{store} {step.number:04} {step.name}" for store in OURS for step in steps(store)]
RUN_TIMEOUT_S = 60
ROOT = Path(__file__).parents[2]


@dataclass
class Stores:
    """Stores nobody has migrated, and how a command reaches them."""

    settings: Settings
    environment: dict[str, str]

    def run(self, *arguments: str, module: str = "core.cli.main") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_S,
            check=False,
        )

    def start(self, *arguments: str, module: str = "core.cli.main") -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env=self.environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def migrate(self) -> list[str]:
        """Return the steps `tickgate migrate` applied."""
        done = self.run("migrate")
        assert done.returncode == 0, done.stderr
        return [line.removeprefix("applied ") for line in done.stdout.splitlines() if "applied" in line]

    def killed(self, place: str) -> list[str]:
        """Migrate up to a place, kill -9 there, and return the steps that were applied before."""
        with self.start(place, module="tests.migrations") as process:
            assert process.stdout is not None
            done = list(itertools.takewhile(lambda line: line != "here\n", process.stdout))
            process.kill()
        return [line.strip() for line in done]


@pytest.fixture
def stores(house: House, queue_house: House, queue_valkey: redis.Redis, tmp_path: Path) -> Stores:
    name = f"t_{secrets.token_hex(6)}"
    replace = msgspec.structs.replace
    settings = replace(
        house.settings,
        postgres=replace(house.settings.postgres, database=name),
        clickhouse=replace(house.settings.clickhouse, database=name),
        redis=queue_house.settings.redis,
    )
    tree = json.loads(
        msgspec.json.encode(
            settings, enc_hook=lambda value: value.reveal() if isinstance(value, Secret) else None
        )
    )
    write_settings_file(tmp_path / "settings.json", tree)
    environment = {**os.environ, "TICKGATE_SETTINGS_FILE": str(tmp_path / "settings.json")}
    return Stores(settings, environment)


async def applied(settings: Settings) -> list[str]:
    return [step async for step in migrate(settings)]


async def noted(settings: Settings) -> dict[str, list[int]]:
    """Return the numbers that each store has noted, as often as it has."""
    async with open_hub(settings, set(OURS), checked=False) as hub:
        async with hub["postgres"].acquire() as connection:
            ledger = [row["number"] for row in await connection.fetch("select number from schema_steps")]
        ticks = [number for (number,) in await hub["clickhouse"].rows("select number from schema_steps")]
        keys = [int(number) for number in await hub["redis"].redis.hkeys(STEPS_KEY)]
    return {"postgres": sorted(ledger), "clickhouse": sorted(ticks), "redis": sorted(keys)}


EVERY_NOTE = {store: [step.number for step in steps(store)] for store in OURS}


async def test_every_step_is_applied_once_in_order(stores: Stores) -> None:
    assert await applied(stores.settings) == EVERY_STEP
    assert await noted(stores.settings) == EVERY_NOTE
    assert await applied(stores.settings) == []


def test_a_migration_killed_again_and_again_goes_on_where_it_was(stores: Stores) -> None:
    done: list[str] = []
    while before := stores.killed("after:4"):
        done += before
    assert done == EVERY_STEP
    assert asyncio.run(noted(stores.settings)) == EVERY_NOTE


async def test_a_migration_left_behind_any_step_goes_on_where_it_was(stores: Stores) -> None:
    done: list[str] = []
    while len(done) < len(EVERY_STEP):
        migration: Any = migrate(stores.settings)
        done.append(await anext(migration))
        await migration.aclose()
    assert done == EVERY_STEP
    assert await applied(stores.settings) == []


@pytest.mark.parametrize(
    ("store", "number"),
    [
        ("postgres", 1),
        ("postgres", steps("postgres")[-1].number),
        ("clickhouse", 1),
        ("clickhouse", 2),
        ("redis", 1),
    ],
)
def test_a_migration_killed_inside_a_step_does_all_of_it_the_next_time(
    stores: Stores, store: str, number: int
) -> None:
    before = stores.killed(f"inside:{store}:{number}")
    after = stores.migrate()
    assert before + after == EVERY_STEP
    assert after[0].startswith(f"{store} {number:04}")
    assert asyncio.run(noted(stores.settings)) == EVERY_NOTE


async def clickhouse_tables(settings: Settings) -> list[Any]:
    async with open_hub(settings, {"clickhouse"}, checked=False) as hub:
        found = await hub["clickhouse"].rows(
            "select name, replaceAll(create_table_query, currentDatabase(), '') from system.tables"
            " where database = currentDatabase() order by name"
        )
    return [list(row) for row in found]


async def test_every_statement_of_clickhouse_may_be_run_again_wherever_a_step_was_cut_off(
    stores: Stores,
) -> None:
    async with open_clickhouse(stores.settings) as schema:
        await schema.applied()
        for step in steps("clickhouse"):
            for count in range(len(statements(step)) + 1):
                client = await connect(stores.settings.clickhouse, stores.settings.clickhouse.database)
                for statement in statements(step)[:count]:
                    await client.command(statement)
                await client.close()
                # Behind the cut: all of it, from its beginning.
                for statement in statements(step):
                    await schema._command(statement)
            await schema.apply(step)
    cut = await clickhouse_tables(stores.settings)
    fresh = msgspec.structs.replace(
        stores.settings,
        postgres=msgspec.structs.replace(stores.settings.postgres, database=f"t_{secrets.token_hex(6)}"),
        clickhouse=msgspec.structs.replace(stores.settings.clickhouse, database=f"t_{secrets.token_hex(6)}"),
    )
    await applied(fresh)
    assert cut == await clickhouse_tables(fresh)


def test_a_plan_says_how_every_store_stands_and_writes_nothing(stores: Stores) -> None:
    planned = stores.run("migrate", "--plan")
    assert planned.returncode == 0, planned.stderr
    lines = planned.stdout.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == list(STORES)
    assert lines[0] == "postgres    is new"
    assert "            would apply 0001 identity_and_sources" in lines
    assert "weaviate    is not set up; postgres stands in" in lines
    assert "arango      is not set up; postgres stands in" in lines
    assert sum("would apply" in line for line in lines) == len(EVERY_STEP)
    with pytest.raises(Unavailable, match="STORE_NOT_MIGRATED"):
        asyncio.run(open_and_close(stores.settings))
    assert stores.migrate() == EVERY_STEP
    after = stores.run("migrate", "--plan").stdout.splitlines()
    assert after[0] == f"postgres    is at step {steps('postgres')[-1].number}"
    assert after[-1] == "nothing to apply"
    assert stores.run("migrate").stdout == "nothing to apply\n"


async def open_and_close(settings: Settings) -> None:
    async with open_pool(settings, {}):
        pass


async def test_of_two_migrations_one_waits(stores: Stores) -> None:
    async with open_postgres(stores.settings):
        other = stores.start("migrate")
        assert other.stderr is not None
        said = await asyncio.to_thread(other.stderr.readline)
        assert said == "another migration is running; waiting for it to end\n"
        assert other.poll() is None
    output, errors = await asyncio.to_thread(other.communicate, timeout=RUN_TIMEOUT_S)
    assert (other.returncode, errors) == (0, "")
    assert output.splitlines() == [f"applied {step}" for step in EVERY_STEP]


def test_two_migrations_at_once_apply_every_step_once(stores: Stores) -> None:
    both = [stores.start("migrate") for _ in range(2)]
    told = [process.communicate(timeout=RUN_TIMEOUT_S) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    lines = [line for output, _ in told for line in output.splitlines() if line != "nothing to apply"]
    assert lines == [f"applied {step}" for step in EVERY_STEP]
    assert asyncio.run(noted(stores.settings)) == EVERY_NOTE


async def test_a_migration_that_has_lost_its_lock_goes_no_further(stores: Stores) -> None:
    migration = migrate(stores.settings)
    assert await anext(migration) == EVERY_STEP[0]
    await cut_the_lock(stores.settings)
    with pytest.raises(Unavailable, match="LEDGER_UNAVAILABLE"):
        await anext(migration)
    assert await applied(stores.settings) == EVERY_STEP[1:]


async def cut_the_lock(settings: Settings) -> None:
    async with open_pool(settings, {}) as postgres, postgres.acquire() as connection:
        await connection.execute(
            "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory'"
            " and database = (select oid from pg_database where datname = current_database())"
        )


async def note(settings: Settings, store: str, number: int, checksum: str) -> None:
    """Note a step as whoever applied it would."""
    async with open_hub(settings, {store}, checked=False) as hub:
        if store == "postgres":
            async with hub[store].acquire() as connection:
                await connection.execute(
                    "insert into schema_steps (number, name, checksum) values ($1, 'x', $2)"
                    " on conflict (number) do update set checksum = $2",
                    number,
                    checksum,
                )
        elif store == "clickhouse":
            client = hub[store].client
            await client.command(
                f"alter table schema_steps delete where number = {number} settings mutations_sync = 1"
            )
            await client.command(
                f"insert into schema_steps (number, name, checksum) values ({number}, 'x', '{checksum}')"
            )
        else:
            await hub[store].redis.hset(STEPS_KEY, str(number), checksum)


@pytest.mark.parametrize("store", OURS)
async def test_an_edited_step_is_refused(stores: Stores, store: str) -> None:
    await applied(stores.settings)
    await note(stores.settings, store, 1, "edited")
    for refused in (applied, plan):
        with pytest.raises(Corrupt, match="SCHEMA_EDITED"):
            await refused(stores.settings)


@pytest.mark.parametrize("store", OURS)
async def test_a_newer_schema_is_refused_before_anything_is_applied(stores: Stores, store: str) -> None:
    await applied(stores.settings)
    await note(stores.settings, store, 999, "newer")
    if store != "redis":
        queue = redis.Redis(port=stores.settings.redis.port, password=PASSWORD)
        queue.delete(STEPS_KEY)
        queue.close()
    for refused in (applied, plan):
        with pytest.raises(Misconfigured, match="SCHEMA_NEWER"):
            await refused(stores.settings)
    assert (await noted(stores.settings))["redis"] == ([1, 999] if store == "redis" else [])


@pytest.mark.parametrize("arguments", [["migrate"], ["migrate", "--plan"]])
def test_what_is_refused_is_told_in_a_line(stores: Stores, arguments: list[str]) -> None:
    asyncio.run(applied(stores.settings))
    asyncio.run(note(stores.settings, "redis", 1, "edited"))
    edited = stores.run(*arguments)
    assert (edited.returncode, edited.stdout) == (1, "")
    assert edited.stderr == "error: redis step 0001 key_layout was edited after it had been applied\n"
    asyncio.run(note(stores.settings, "redis", 999, "newer"))
    newer = stores.run(*arguments)
    assert (newer.returncode, newer.stdout) == (1, "")
    known = steps("redis")[-1].number
    assert newer.stderr == f"error: redis is at step 999, this version knows {known}; run the newer version\n"


PROCESSES = {
    "gateway": ["gateway"],
    "bridge": ["bridge"],
    "worker": ["workers", "database"],
    "trading": ["workers", "trading"],
}
OPENED = {
    "gateway": ("postgres", "redis"),
    "bridge": OURS,
    "worker": OURS,
    "trading": ("redis",),
}
"""The stores each opens, and is checked against."""


@pytest.fixture
def process_settings(stores: Stores, tmp_path: Path) -> Stores:
    key = OKPKey.generate_key("Ed25519", {"use": "sig"}, auto_kid=True)
    write_settings_file(tmp_path / "key.json", {"keys": [key.as_dict(private=True)]})
    write_settings_file(tmp_path / "jwks.json", {"keys": [key.as_dict(private=False)]})
    more = {
        "TICKGATE_AUTH_KEY_FILE": str(tmp_path / "key.json"),
        "TICKGATE_AUTH_JWKS_FILE": str(tmp_path / "jwks.json"),
        "TICKGATE_GATEWAY_PORT": str(free_port()),
        "TICKGATE_BRIDGE_PORT": str(free_port()),
        "TICKGATE_WORKER_HEALTH_PORT": str(free_port()),
    }
    return Stores(stores.settings, {**stores.environment, **more})


@pytest.mark.parametrize(
    ("process", "store"), [(process, store) for process, opened in OPENED.items() for store in opened]
)
def test_a_process_refuses_to_start_on_a_newer_schema(
    process_settings: Stores, process: str, store: str
) -> None:
    asyncio.run(applied(process_settings.settings))
    asyncio.run(note(process_settings.settings, store, 999, "newer"))
    module, *arguments = PROCESSES[process]
    done = process_settings.run(*arguments, module=module)
    known = steps(store)[-1].number
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"error: SCHEMA_NEWER: {store} is at step 999, this version knows {known}; run the newer version"
    )
    assert "Traceback" not in done.stdout + done.stderr


async def test_a_hub_waits_for_a_migration_and_says_so(stores: Stores) -> None:
    async with open_postgres(stores.settings) as schema:
        await schema.applied()
        for step in steps("postgres")[:-2]:
            await schema.apply(step)
    with pytest.raises(Unavailable) as behind:
        async with open_hub(stores.settings, {"postgres"}):
            pass
    assert (behind.value.code, behind.value.public) == (
        "SCHEMA_OLDER",
        "postgres is 2 steps behind; run `tickgate migrate`",
    )

    async def open_patiently() -> None:
        async with open_hub(stores.settings, {"postgres"}, patience_s=30):
            pass

    opening = asyncio.create_task(open_patiently())
    await applied(stores.settings)
    await opening


async def test_an_emptied_redis_is_new_and_no_reason_to_wait(
    stores: Stores, queue_valkey: redis.Redis
) -> None:
    await applied(stores.settings)
    queue_valkey.flushall()
    async with open_hub(stores.settings, {"redis"}) as hub:
        await hub["redis"].ping()
    assert await applied(stores.settings) == ["redis 0001 key_layout"]


@pytest.fixture
def with_weaviate(stores: Stores, tmp_path: Path) -> Iterator[Stores]:
    """The same, with a Weaviate of its own."""
    with running_double() as weaviate:
        variables = {
            "TICKGATE_WEAVIATE_HOST": weaviate.host,
            "TICKGATE_WEAVIATE_PORT": str(weaviate.port),
            "TICKGATE_WEAVIATE_GRPC_PORT": str(weaviate.grpc_port),
        }
        settings = msgspec.structs.replace(stores.settings, weaviate=weaviate)
        yield Stores(settings, {**stores.environment, **variables})


def test_a_weaviate_that_is_set_up_has_steps_of_its_own(with_weaviate: Stores) -> None:
    theirs = [f"weaviate {step.number:04} {step.name}" for step in steps("weaviate")]
    assert with_weaviate.killed("inside:weaviate:1") == EVERY_STEP
    assert standing_of_weaviate(with_weaviate.settings) == Standing(
        store="weaviate", missing=steps("weaviate")
    )
    assert asyncio.run(applied(with_weaviate.settings)) == theirs
    assert standing_of_weaviate(with_weaviate.settings) == Standing(
        store="weaviate", at=steps("weaviate")[-1].number
    )
    assert asyncio.run(applied(with_weaviate.settings)) == []


def standing_of_weaviate(settings: Settings) -> Standing:
    (found,) = [one for one in asyncio.run(plan(settings)) if one.store == "weaviate"]
    return found


def test_every_store_with_steps_is_checked_when_it_is_opened() -> None:
    with_steps = {file.parent.name for file in (ROOT / "core" / "adapters").glob("*/migrations")}
    assert with_steps <= set(STORES)
    for store in with_steps:
        assert PROVIDERS[store].schema == f"core.adapters.{store}.schema:applied_steps"
        assert callable(resolve(PROVIDERS[store].schema))
        assert callable(resolve(f"core.adapters.{store}.schema:open_schema"))
