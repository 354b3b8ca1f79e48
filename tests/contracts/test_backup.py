"""A backup holds all of every store, is proven before it counts, and comes back as it was."""

import asyncio
from pathlib import Path

import pytest

from core.errors.exceptions import Conflict, Corrupt, Misconfigured, NotFound
from core.infrastructure.central_hub import open_hub
from core.settings import Secret, Settings
from tests.backups import bring_back, contents, empty_databases, fill, make, problems, vault_in
from tests.engines import House, new_databases

KEY = Secret("k" * 32)


@pytest.fixture(scope="module")
def filled(house: House) -> Settings:
    settings = new_databases(house)
    asyncio.run(fill(settings))
    return settings


@pytest.fixture(scope="module")
def kept(filled: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One backup, for tests that only read it."""
    directory = tmp_path_factory.mktemp("backups") / "plain"
    make(filled, vault_in(directory))
    return directory


@pytest.mark.parametrize(
    "secret", [None, KEY, Secret("a passphrase, not 32 bytes")], ids=["plain", "key", "words"]
)
def test_what_is_restored_is_what_was_there(
    house: House, filled: Settings, tmp_path: Path, secret: Secret | None
) -> None:
    vault = vault_in(tmp_path / "backup")
    make(filled, vault, secret)
    target = empty_databases(house, 3)
    bring_back(target, vault, secret, replace=True)
    assert asyncio.run(contents(target)) == asyncio.run(contents(filled))
    assert problems(target) == []


def test_counters_go_on_behind_what_was_restored(house: House, kept: Path) -> None:
    target = empty_databases(house, 4)
    bring_back(target, vault_in(kept))

    async def note() -> int:
        async with open_hub(target, {"postgres"}) as hub, hub["postgres"].acquire() as connection:
            return await connection.fetchval(
                "insert into source_notices (source, epoch, code, symbol, detail, at_ms)"
                " values ('demo', 1, 'C', '', '', 0) returning id"
            )

    assert asyncio.run(note()) == 1


def test_stores_that_hold_something_are_refused_unless_told(
    house: House, filled: Settings, kept: Path
) -> None:
    target = empty_databases(house, 5)
    bring_back(target, vault_in(kept))
    with pytest.raises(Conflict, match="is not empty"):
        bring_back(target, vault_in(kept))
    bring_back(target, vault_in(kept), replace=True)
    assert asyncio.run(contents(target)) == asyncio.run(contents(filled))


def test_stores_somebody_works_on_are_refused(house: House, kept: Path) -> None:
    target = empty_databases(house, 6)
    bring_back(target, vault_in(kept))

    async def meanwhile() -> None:
        async with open_hub(target, {"postgres"}):
            with pytest.raises(Conflict, match="running processes"):
                await asyncio.to_thread(bring_back, target, vault_in(kept), replace=True)

    asyncio.run(meanwhile())


def test_a_backup_never_shares_a_place(filled: Settings, kept: Path) -> None:
    with pytest.raises(Conflict, match="not empty"):
        make(filled, vault_in(kept))


def test_without_a_manifest_there_is_no_backup(house: House, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no whole backup"):
        bring_back(empty_databases(house, 7), vault_in(tmp_path))


@pytest.mark.parametrize("secret", [None, KEY], ids=["plain", "key"])
def test_any_damage_is_found_before_anything_is_touched(
    house: House, filled: Settings, tmp_path: Path, secret: Secret | None
) -> None:
    vault = vault_in(tmp_path / "b")
    make(filled, vault, secret)
    target = empty_databases(house, 8 if secret is None else 10)
    part = tmp_path / "b" / "clickhouse" / "ticks.202405.zst"
    whole = part.read_bytes()
    for damaged in (whole[:-1], whole[: len(whole) // 2], b"", whole + b"x", _flipped(whole)):
        part.write_bytes(damaged)
        with pytest.raises(Corrupt):
            bring_back(target, vault, secret)
    part.unlink()
    with pytest.raises(NotFound):
        bring_back(target, vault, secret)
    part.write_bytes(whole)
    bring_back(target, vault, secret)


def _flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def test_only_the_key_it_was_made_with_opens_it(house: House, filled: Settings, tmp_path: Path) -> None:
    vault = vault_in(tmp_path / "b")
    make(filled, vault, KEY)
    target = empty_databases(house, 9)
    with pytest.raises(Misconfigured, match="is encrypted"):
        bring_back(target, vault)
    with pytest.raises(Corrupt, match="key is another"):
        bring_back(target, vault, Secret("x" * 32))
    held = b"".join(file.read_bytes() for file in (tmp_path / "b").rglob("*.zst"))
    assert b"EURUSD" not in held


def test_a_sealed_manifest_cannot_be_changed(filled: Settings, house: House, tmp_path: Path) -> None:
    vault = vault_in(tmp_path / "b")
    make(filled, vault, KEY)
    file = tmp_path / "b" / "manifest.json"
    file.write_bytes(file.read_bytes().replace(b"ticks.202406", b"ticks.202407"))
    with pytest.raises(Corrupt, match="was changed"):
        bring_back(empty_databases(house, 9), vault, KEY)
