"""A backup in an S3 bucket is the same as one in a directory, over S3's own protocol."""

import asyncio
from collections.abc import Iterator

import httpx
import pytest

from core.errors.exceptions import Conflict, Corrupt, NotFound, Unavailable
from core.infrastructure.backups.vaults import vault_at
from core.settings import Secret, Settings
from tests.backups import bring_back, contents, empty_databases, fill, make
from tests.buckets import running_bucket
from tests.engines import House, new_databases

KEY = Secret("k" * 32)
BUCKET = "backups"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with running_bucket(BUCKET) as address:
        yield address


def test_what_is_restored_from_a_bucket_is_what_was_there(house: House, s3: str) -> None:
    settings: Settings = new_databases(house)
    asyncio.run(fill(settings))
    vault = vault_at(f"s3://{BUCKET}/first/one")
    make(settings, vault, KEY)
    with pytest.raises(Conflict, match="not empty"):
        make(settings, vault, KEY)
    target = empty_databases(house, 14)
    bring_back(target, vault, KEY)
    assert asyncio.run(contents(target)) == asyncio.run(contents(settings))

    part = f"{s3}/{BUCKET}/first/one/clickhouse/ticks.202405.zst"
    whole = httpx.get(part).content
    httpx.put(part, content=whole[:-100])
    with pytest.raises(Corrupt):
        bring_back(target, vault, KEY, replace=True)
    assert asyncio.run(contents(target)) == asyncio.run(contents(settings)), "nothing was touched"


def test_a_bucket_without_a_backup_and_no_bucket_are_told_apart_from_one(house: House, s3: str) -> None:
    target = empty_databases(house, 15)
    with pytest.raises(NotFound, match="no whole backup"):
        bring_back(target, vault_at(f"s3://{BUCKET}/nothing"))
    with pytest.raises((NotFound, Unavailable)):
        make(new_databases(house), vault_at("s3://no-such-bucket/b"))
