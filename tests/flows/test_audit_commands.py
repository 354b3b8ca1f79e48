"""`tickgate audit`: verifies, names the first bad event, proves one, writes out; anchored in a file or a bucket."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from core.auditing.checkpoints import Checkpoint, Keyring
from core.auditing.merkle import included, leaf
from core.infrastructure.central_hub import open_hub
from core.infrastructure.config_manager import write_settings_file
from core.infrastructure.signing_keys import new_key, public_half, write_keys
from core.model.audit import AuditEvent
from core.settings import AuditSettings, Settings
from tests.buckets import running_bucket
from tests.engines import PASSWORD, House, new_databases
from workers.auditing import sealing_of

BUCKET, TENANT, EVENTS = "anchors", "demo", 9
NEEDS = {"audit", "audit_archive", "order_ledger", "postgres"}


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with running_bucket(BUCKET):
        yield f"s3://{BUCKET}/trail"


class Trail:
    """A sealed trail of a tenant, and the command over it."""

    def __init__(self, settings: Settings, root: Path, anchor: str) -> None:
        self.settings, self.root = settings, root
        self.key = new_key(0)
        write_keys(root / "audit.json", root / "public.json", [self.key])
        self.audit = AuditSettings(
            key_file=str(root / "audit.json"), keys_file=str(root / "public.json"), anchor=anchor
        )
        postgres = {
            "port": settings.postgres.port,
            "database": settings.postgres.database,
            "password": PASSWORD,
        }
        audit = msgspec.to_builtins(self.audit)
        write_settings_file(root / "settings.json", {"postgres": postgres, "audit": audit})
        asyncio.run(self._write())

    async def _write(self) -> None:
        async with open_hub(self.settings, NEEDS) as hub:
            sealing = sealing_of(hub["audit_archive"], self.audit)
            for number in range(EVENTS):
                async with hub["order_ledger"].work(TENANT) as work:
                    event = AuditEvent(type="order.moved", actor="a", order=f"o{number}")
                    await hub["audit"].append(work, event)
                if number % 4 == 3:
                    await sealing.run({}, None)
            await sealing.run({}, None)

    def tamper(self, statement: str) -> None:
        async def execute() -> None:
            async with open_hub(self.settings, NEEDS) as hub, hub["postgres"].acquire() as connection:
                await connection.execute("set session_replication_role = replica")
                await connection.execute(statement)
                await connection.execute("reset session_replication_role")

        asyncio.run(execute())

    def run(self, *arguments: str) -> tuple[int, str]:
        ended = subprocess.run(
            [sys.executable, "-m", "core.cli.main", "audit", *arguments],
            env={**os.environ, "TICKGATE_SETTINGS_FILE": str(self.root / "settings.json")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return ended.returncode, ended.stdout + ended.stderr


@pytest.fixture(params=["file", "bucket"])
def trail(house: House, tmp_path: Path, bucket: str, request: pytest.FixtureRequest) -> Trail:
    anchor = str(tmp_path / "anchor") if request.param == "file" else f"{bucket}/{tmp_path.name}"
    return Trail(new_databases(house), tmp_path, anchor)


def test_a_sound_trail_is_sound_and_a_changed_one_is_named(trail: Trail) -> None:
    code, told = trail.run("verify", "--json")
    assert (code, json.loads(told)["streams"]) == (
        0,
        [{"stream": TENANT, "events": EVENTS, "anchored": EVENTS, "finding": None}],
    )
    trail.tamper("update audit_events set account = 'x' where seq = 6")
    code, told = trail.run("verify")
    assert code == 1
    assert "event 6: its columns say something else" in told
    trail.tamper("delete from audit_events where seq > 5")
    code, told = trail.run("verify")
    assert code == 1
    assert "event 6: missing" in told


def test_one_event_is_proved_to_who_has_the_public_key_alone(trail: Trail) -> None:
    code, told = trail.run("prove", TENANT, "3")
    assert code == 0, told
    proof = json.loads(told)
    checkpoint = msgspec.convert(proof["checkpoint"], Checkpoint)
    assert Keyring(public_half([trail.key])["keys"]).verifies(checkpoint)
    path = [bytes.fromhex(one) for one in proof["path"]]
    root, hashed = bytes.fromhex(checkpoint.root), leaf(bytes.fromhex(proof["hash"]))
    assert included(root, checkpoint.size, proof["seq"] - 1, hashed, path)
    code, told = trail.run("prove", TENANT, str(EVENTS + 1))
    assert code == 1
    assert "NOT_ANCHORED" in told or "no checkpoint vouches" in told


def test_what_is_written_out_is_verified_without_the_ledger(trail: Trail, tmp_path: Path) -> None:
    file = tmp_path / "trail.jsonl"
    assert trail.run("export", TENANT, "--to", str(file))[0] == 0
    assert trail.run("verify", "--file", str(file))[0] == 0
    lines = file.read_text().splitlines()
    file.write_text("\n".join(lines[:-1]) + "\n")
    code, told = trail.run("verify", "--file", str(file))
    assert code == 1
    assert f"event {EVENTS}: missing" in told


def test_an_export_is_never_written_over_and_an_empty_one_is_said(trail: Trail, tmp_path: Path) -> None:
    kept, empty = tmp_path / "kept.ndjson", tmp_path / "empty.ndjson"
    kept.write_text("kept")
    said = trail.run("export", TENANT, "--to", str(kept))
    assert said == (1, f"error: {kept} cannot be written: File exists\n")
    assert kept.read_text() == "kept"
    assert trail.run("export", "nobody", "--to", str(empty)) == (1, "there are no events of 'nobody'\n")
    assert not empty.exists()
    said = trail.run("verify", "--file", str(empty))
    assert said == (1, f"error: {empty} cannot be read: No such file or directory\n")
