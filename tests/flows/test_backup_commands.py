"""`tickgate backup` and `restore` through the front door: a running house, an empty machine, and what is refused."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.infrastructure.backups.manifest import Manifest
from tests.engines import free_ports
from tests.flows.test_operations import House, own_command, wait_until

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    # Not pytest's own directory: that one is private to root, which PostgreSQL's user is not.
    home = Path(tempfile.mkdtemp(prefix="tickgate-"))
    home.chmod(0o711)
    yield home
    shutil.rmtree(home)


@pytest.fixture(scope="module")
def first(home: Path) -> Iterator[House]:
    """A house whose demo connector has stored ticks."""
    house = House(data=home / "first", port_base=free_ports(10), command=own_command())
    assert house.up().returncode == 0
    wait_until(lambda: "GREEN" in house.run("verify").stdout)
    yield house
    house.run("down")


def tickgate(house: House, *arguments: str) -> tuple[int, str]:
    import subprocess

    done = subprocess.run(
        [*house.command, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **house.options(),
    )
    return done.returncode, done.stdout + done.stderr


def test_a_house_is_restored_on_an_empty_machine_and_goes_on(first: House, home: Path) -> None:
    key = home / "key"
    key.write_bytes(b"0123456789abcdef" * 2)
    done = first.run("backup", "--to", str(home / "kept"), "--key-file", str(key))
    assert done.returncode == 0, done.stdout + done.stderr
    (place,) = (home / "kept").iterdir()
    assert str(place) in done.stdout.splitlines()[-1]
    manifest = Manifest(**json.loads((place / "manifest.json").read_bytes()))
    assert manifest.sealed

    second = House(data=home / "second", port_base=free_ports(10), command=own_command())
    restore = ("restore", "--from", str(place), "--into", str(second.data), "--key-file", str(key))
    assert tickgate(first, "backup", "--verify", str(place), "--key-file", str(key))[0] == 0
    code, said = tickgate(first, *restore[:5])
    assert (code, said.splitlines()[-1]) == (
        1,
        "error: this backup is encrypted; name its key with --key-file",
    )
    assert not second.data.exists()

    code, said = tickgate(first, *restore)
    assert code == 0, said
    assert not second.run("status").stdout.count("RUNNING")
    for name in ("keys/signing.json", "credentials.json", "connectors/demo.json"):
        assert (second.data / name).read_bytes() == (first.data / name).read_bytes()
    code, said = tickgate(first, *restore)
    assert (code, said) == (1, f"error: {second.data} holds data; --replace deletes it\n")

    assert second.up().returncode == 0
    try:
        wait_until(lambda: "epoch 2" in second.run("verify").stdout)
        said = second.run("verify").stdout
        assert "RED" not in said, said
        code, said = tickgate(first, *restore, "--replace")
        assert code == 1
        assert "stop them with `tickgate down`" in said
    finally:
        second.run("down")
    code, said = tickgate(first, *restore, "--replace")
    assert code == 0, said


def test_a_key_never_stands_in_an_argument(first: House) -> None:
    code, said = tickgate(first, "backup", "--help")
    assert code == 0
    assert "--key " not in said
    assert "--passphrase" not in said
