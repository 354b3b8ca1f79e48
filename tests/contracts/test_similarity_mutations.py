"""The suite of similar records notices: each adapter is broken in many ways, one at a time, and fails it every time."""

import asyncio
import itertools
import secrets
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from core.errors.exceptions import TickgateError, Unavailable
from core.infrastructure.central_hub import Hub, open_hub
from core.ports.similarity import Similarity
from core.settings import Settings, WeaviateSettings
from tests.engines import House, new_databases
from tests.mutations import Mutation, broken
from tests.similarity_checks import (
    CHANGED_AT_ONCE,
    CHECKS,
    INCIDENTS,
    LIBRARY,
    incident,
    of_many_who_change_a_version_at_once_one_succeeds,
    version,
)
from tests.weaviate_servers import migrated, refuse, running_double

WEAVIATE = "core.adapters.weaviate."
POSTGRES = "core.adapters.postgres."
WEAVIATE_MODULES = [f"{WEAVIATE}{name}" for name in ("objects", "records", "similarity")]
POSTGRES_MODULES = [
    f"{POSTGRES}{name}" for name in ("record_tables", "records", "fusion", "similarity_tables", "similarity")
]


def weaviate(name: str, module: str, old: str, new: str) -> Mutation:
    return Mutation(name, f"{WEAVIATE}{module}", old, new)


def postgres(name: str, module: str, old: str, new: str) -> Mutation:
    return Mutation(name, f"{POSTGRES}{module}", old, new)


FILTERED = "named = [name for name in SHELVES[kind].filters if name in where]"
OF_WEAVIATE = [
    weaviate("filters-ignored", "objects", FILTERED, "named = []"),
    weaviate("only-one-filter-heeded", "objects", FILTERED, f"{FILTERED}[:1]"),
    weaviate("tenants-share-a-shard", "objects", 'return f"t-{tenant}"', 'return "t-all"'),
    weaviate("odd-tenants-share-a-shard", "objects", "blake2b(tenant.encode()", "blake2b(b''"),
    weaviate("cursor-includes-its-own", "objects", ".greater_than(", ".greater_or_equal("),
    weaviate("cursor-ignored", "objects", "if after is not None:", "if False:"),
    weaviate("sorted-without-case", "objects", "return record_id.encode().hex()", "return record_id"),
    weaviate("words-not-stored", "objects", '" ".join(words_of(record.body))', '""'),
    weaviate(
        "order-reversed",
        "records",
        "sort=Sort.by_property(SORT_KEY)",
        "sort=Sort.by_property(SORT_KEY, False)",
    ),
    weaviate("no-order", "records", "                sort=Sort.by_property(SORT_KEY),\n", ""),
    weaviate(
        "version-not-compared-by-an-update",
        "records",
        "            _compare(found, expected)\n            record",
        "            record",
    ),
    weaviate("version-not-compared-at-all", "records", "expected is not None and", "False and"),
    weaviate("taken-ids-given-again", "records", "if found is not None and found", "if False and found"),
    weaviate("repeated-creation-refused", "records", "not None and found.version != version:", "not None:"),
    weaviate("repeated-update-refused", "records", "if found.version == version:", "if False:"),
    weaviate("birth-forgotten", "records", "before.created_at_ms if before else now_ms", "now_ms"),
    weaviate(
        "vector-not-replaced",
        "records",
        "properties=properties(kind, record),\n                    vector=vector_of(body),\n                )\n"
        "            )\n            return record\n\n    async def delete",
        "properties=properties(kind, record),\n                    vector=vector_of(found.body),\n                )\n"
        "            )\n            return record\n\n    async def delete",
    ),
    weaviate("missing-deleted-silently", "records", "_compare(_there(await", "_compare((await"),
    weaviate("weight-swapped", "similarity", "alpha=likeness.weight", "alpha=1 - likeness.weight"),
    weaviate("fused-by-rank", "similarity", "HybridFusion.RELATIVE_SCORE", "HybridFusion.RANKED"),
    weaviate("weight-of-zero-ignored", "similarity", "if likeness.by_words else", "if True else"),
    weaviate(
        "words-of-the-query-not-cleaned", "similarity", '" ".join(asked(likeness.text))', "likeness.text"
    ),
    weaviate("distance-taken-for-a-score", "similarity", "else 1.0 - distance", "else distance"),
    weaviate("scores-not-relative", "similarity", "else score / best", "else score"),
    weaviate(
        "one-too-many-near",
        "similarity",
        "list(likeness.vector),\n                limit=likeness.limit",
        "list(likeness.vector),\n                limit=likeness.limit + 1",
    ),
    weaviate("one-of-a-batch-lost", "similarity", "start + LOADED_OBJECTS]", "start + LOADED_OBJECTS - 1]"),
    weaviate("only-the-first-batch", "similarity", "range(0, len(ids), LOADED_OBJECTS)", "range(0, 1)"),
    weaviate("repeated-load-writes", "similarity", "or known[key].version != version", "or True"),
    weaviate("birth-forgotten-by-a-load", "similarity", "version, known.get(key)", "version, None"),
    weaviate(
        "errors-of-a-batch-swallowed",
        "similarity",
        ".insert_many(objects)).errors",
        ".insert_many(objects)) and {}",
    ),
    weaviate("failure-of-a-batch-swallowed", "similarity", "return {0: e}", "return {}"),
]
OF_POSTGRES = [
    postgres("filters-ignored", "record_tables", "filters if name in where]", "filters if False]"),
    postgres("cursor-includes-its-own", "record_tables", "or id > $2)", "or id >= $2)"),
    postgres("order-reversed", "record_tables", "order by id limit", "order by id desc limit"),
    postgres("no-limit", "record_tables", "order by id limit $3", "order by id limit $3 + 1"),
    postgres(
        "version-not-compared-by-an-update",
        "record_tables",
        "and ($4::text is null or version = $4)",
        "and ($4::text is null or true)",
    ),
    postgres(
        "version-not-compared-by-a-deletion",
        "record_tables",
        "and ($3::text is null or version = $3)",
        "and ($3::text is null or true)",
    ),
    postgres(
        "second-creation-accepted",
        "records",
        'or row["version"] != version:\n            raise Conflict(f',
        "or False:\n            raise Conflict(f",
    ),
    postgres(
        "weight-swapped",
        "fusion",
        "(by_vector, weight), (by_words, 1 - weight)",
        "(by_vector, 1 - weight), (by_words, weight)",
    ),
    postgres("scores-not-stretched", "fusion", "(score - worst) / (best - worst)", "score"),
    postgres(
        "rarity-ignored",
        "similarity_tables",
        "sum(rare * often",
        "sum(often",
    ),
    postgres("found-beyond-the-filters", "similarity_tables", "where kept group by", "group by"),
    postgres("length-ignored", "similarity_tables", "BM25_B: Final = 0.75", "BM25_B: Final = 0"),
    postgres(
        "words-not-stored", "similarity_tables", "vector_of(body), _tsvector(words)", "vector_of(body), ''"
    ),
    postgres("load-leaves-what-is-there", "record_tables", ".version <> excluded.version", ".version = ''"),
    postgres("worst-first", "similarity", "(-scores[key], key)", "(scores[key], key)"),
    postgres("distance-taken-for-a-score", "similarity", '1.0 - row["distance"]', 'row["distance"]'),
    postgres("scores-not-relative", "similarity", "score / best for key", "score for key"),
    postgres("one-of-a-batch-lost", "similarity", "start + LOADED_ROWS]", "start + LOADED_ROWS - 1]"),
    postgres("only-the-first-batch", "similarity", "range(0, len(ids), LOADED_ROWS)", "range(0, 1)"),
]


assert len({mutation.name for mutation in OF_WEAVIATE}) == len(OF_WEAVIATE)


@pytest.fixture(scope="module")
def double() -> Iterator[WeaviateSettings]:
    with running_double() as settings:
        yield settings


@pytest.fixture(scope="module")
def settings(house: House, double: WeaviateSettings) -> Settings:
    return migrated(new_databases(house), double)


@pytest.fixture
async def hub(settings: Settings) -> AsyncIterator[Hub]:
    async with open_hub(settings, {"weaviate", "postgres", "locks", "similarity"}) as hub:
        yield hub


Check = Callable[[Similarity, str], Awaitable[None]]


def what_cannot_be_kept_is_said(double: WeaviateSettings) -> Check:
    """Return a check of what only the double can be made to do."""

    async def of_a_batch_that_fails_in_part_or_wholly(keeper: Similarity, tenant: str) -> None:
        refuse(double, "unkeepable")
        try:
            doomed = incident("an unkeepable one")
            for library in ({**LIBRARY, "doomed": doomed}, {"doomed": doomed}):
                with pytest.raises(Unavailable):
                    await keeper.load(INCIDENTS, tenant, library, version=version())
            kept = await keeper.page(INCIDENTS, tenant, after=None, limit=10, where={})
            assert {record.id for record in kept} == set(LIBRARY)
        finally:
            refuse(double, "")

    return of_a_batch_that_fails_in_part_or_wholly


async def first_failure(keeper: Similarity, checks: list[Check]) -> str:
    """Return the name of the first check that a keeper fails, nothing when it passes all."""
    for check in checks:
        try:
            await check(keeper, f"t{secrets.token_hex(6)}")
        except (AssertionError, pytest.fail.Exception, TickgateError, LookupError, TypeError, AttributeError):
            return check.__name__
    return ""


async def test_the_whole_adapter_passes(hub: Hub, double: WeaviateSettings) -> None:
    assert await first_failure(hub["similarity"], [*CHECKS, what_cannot_be_kept_is_said(double)]) == ""


@pytest.mark.parametrize("mutation", OF_WEAVIATE, ids=lambda mutation: mutation.name)
async def test_a_broken_weaviate_adapter_fails(
    hub: Hub, double: WeaviateSettings, monkeypatch: pytest.MonkeyPatch, mutation: Mutation
) -> None:
    module = broken(monkeypatch, WEAVIATE_MODULES, mutation)
    seconds = itertools.count(1_790_000_000)
    # No two moments are the same, however fast the test runs.
    records = sys.modules[f"{WEAVIATE}records"]
    clock = SimpleNamespace(time_ns=lambda: next(seconds) * 1_000_000_000, monotonic=time.monotonic)
    monkeypatch.setattr(records, "time", clock)
    keeper = module.WeaviateSimilarity(hub["weaviate"], hub["locks"])
    assert await first_failure(keeper, [*CHECKS, what_cannot_be_kept_is_said(double)])


@pytest.mark.parametrize("mutation", OF_POSTGRES, ids=lambda mutation: mutation.name)
async def test_a_broken_postgres_adapter_fails(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, mutation: Mutation
) -> None:
    module = broken(monkeypatch, POSTGRES_MODULES, mutation)
    assert await first_failure(module.PostgresSimilarity(hub["postgres"]), CHECKS)


async def test_a_weaviate_adapter_that_takes_no_lock_fails(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    unlocked = weaviate(
        "updates-not-locked",
        "records",
        "        async with self._locks.held(tenant, kind, record_id):\n            found = _there(",
        "        if True:\n            found = _there(",
    )
    keeper = broken(monkeypatch, WEAVIATE_MODULES, unlocked).WeaviateSimilarity(hub["weaviate"], hub["locks"])
    find, all_have_read = keeper.find, asyncio.Barrier(CHANGED_AT_ONCE)

    async def find_when_all_do(*asked: Any) -> Any:
        found = await find(*asked)
        if found is not None and found.version == "a" * 32:
            await all_have_read.wait()
        return found

    monkeypatch.setattr(keeper, "find", find_when_all_do)
    assert await first_failure(keeper, [of_many_who_change_a_version_at_once_one_succeeds])


async def test_without_its_filter_a_tenants_rows_are_still_its_own(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second wall: the suite cannot notice, because row-level security does."""
    forgetful = postgres(
        "tenant-ignored", "similarity_tables", "where tenant = $1{conditions", "where $1 <> ''{conditions"
    )
    module = broken(monkeypatch, POSTGRES_MODULES, forgetful)
    assert await first_failure(module.PostgresSimilarity(hub["postgres"]), CHECKS) == ""
