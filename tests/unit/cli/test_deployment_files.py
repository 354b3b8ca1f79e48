"""What a deployment keeps on disk: names, permissions, secrets made once, ports remembered."""

import json
import socket
import stat
import tempfile
from pathlib import Path

import pytest

from core.errors.exceptions import Conflict, Invalid, Misconfigured
from core.infrastructure.config_manager import load_settings
from core.infrastructure.deployment import belongings, ports
from core.infrastructure.deployment.layout import SOCKET_PATH_BYTES_MAX, Layout, create, layout_of
from core.infrastructure.deployment.lock import exclusive
from core.infrastructure.deployment.wish import Wish, recall, remember, replays_of, source_name, terminals_of


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made = layout_of(tmp_path / "data")
    create(made)
    return made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_nobody_else_can_list_a_data_directory(layout: Layout) -> None:
    assert mode(layout.root) & 0o066 == 0
    assert mode(layout.logs) == mode(layout.run) == mode(layout.key_file.parent) == 0o700


def test_a_long_data_directory_puts_the_socket_where_its_path_fits(tmp_path: Path) -> None:
    deep = Layout(tmp_path / ("d" * 60) / ("e" * 60))
    assert len(str(deep.supervisor_socket)) <= SOCKET_PATH_BYTES_MAX
    assert deep.supervisor_socket != Layout(tmp_path / ("d" * 60) / ("f" * 60)).supervisor_socket


@pytest.mark.parametrize("name", ['quote"d', "back\\slash", "line\nbreak", "hash # mark", "semi ;colon"])
def test_a_directory_name_that_supervisord_cannot_carry_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Misconfigured, match="--data-dir"):
        create(layout_of(tmp_path / name))


def test_a_directory_that_is_a_file_is_refused_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Misconfigured, match="--data-dir"):
        create(layout_of(tmp_path / "file" / "data"))


def test_secrets_are_made_once_and_readable_by_their_owner_alone(layout: Layout) -> None:
    first = belongings.ensure_settings(layout, 18_000)
    belongings.ensure_signing_key(layout)
    secret = belongings.ensure_credentials(layout)
    key = layout.key_file.read_bytes()
    second = belongings.ensure_settings(layout, 18_000)
    belongings.ensure_signing_key(layout)
    assert second == first
    assert belongings.ensure_credentials(layout) == secret
    assert layout.key_file.read_bytes() == key
    for path in (layout.settings_file, layout.credentials_file, layout.key_file):
        assert mode(path) == 0o600


def test_the_public_key_set_holds_no_private_part(layout: Layout) -> None:
    belongings.ensure_signing_key(layout)
    public = json.loads(layout.jwks_file.read_bytes())["keys"][0]
    private = json.loads(layout.key_file.read_bytes())["keys"][0]
    assert "d" in private
    assert "d" not in public
    assert public["kid"] == private["kid"]


def test_the_written_settings_are_ones_the_config_manager_accepts(layout: Layout) -> None:
    tree = belongings.ensure_settings(layout, 18_000)
    belongings.ensure_connector_settings(layout, tree, "demo", {})
    house = load_settings({"TICKGATE_SETTINGS_FILE": str(layout.settings_file)})
    connector = load_settings({"TICKGATE_SETTINGS_FILE": str(layout.connector_settings("demo"))}).connector
    assert (house.gateway.port, house.bridge.port) == (18_000, 18_001)
    workers = [house.worker.port_of(queue) for queue in ("trading", "database", "chain")]
    assert workers == [18_007, 18_008, 18_009]
    assert connector.bridge_url == "ws://127.0.0.1:18001"
    assert connector.token
    assert connector.token.reveal() not in layout.settings_file.read_text()


def test_what_a_user_added_to_the_settings_file_stays(layout: Layout) -> None:
    tree = belongings.ensure_settings(layout, 18_000)
    assert tree["gateway"]["docs"]
    tree["gateway"] |= {"processes": 2, "docs": False}
    layout.settings_file.write_text(json.dumps(tree))
    kept = belongings.ensure_settings(layout, 19_000)["gateway"]
    assert kept == {"port": 19_000, "processes": 2, "docs": False}


def test_variables_that_would_override_the_deployment_are_left_out(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKGATE_POSTGRES_PORT", "1")
    monkeypatch.setenv("TICKGATE_BRIDGE_HEARTBEAT_MS", "7000")
    tree = belongings.ensure_settings(layout, 18_000)
    environment = belongings.child_environment(layout, belongings.owned_variables(tree))
    assert "TICKGATE_POSTGRES_PORT" not in environment
    assert environment["TICKGATE_BRIDGE_HEARTBEAT_MS"] == "7000"


def test_an_engine_keeps_its_port_while_it_is_free_and_gets_another_when_it_is_not() -> None:
    port = ports.engine_port(None, ())
    assert ports.engine_port(port, ()) == port
    with socket.create_server(("127.0.0.1", port)):
        assert ports.engine_port(port, ()) != port
    assert ports.engine_port(port, {port}) != port


def test_a_taken_port_is_named_together_with_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        with pytest.raises(Conflict, match=rf"{taken}.*--port-base"):
            ports.require_free({"gateway": taken})


def test_the_same_recording_keeps_its_source_and_another_gets_its_own(tmp_path: Path) -> None:
    first, copy, other = (
        tmp_path / "EUR USD (May).csv",
        tmp_path / "copy" / "EUR USD (May).csv",
        tmp_path / "x.csv",
    )
    copy.parent.mkdir()
    first.write_bytes(b"1")
    copy.write_bytes(b"1")
    other.write_bytes(b"2")
    assert source_name(first) == source_name(copy) == "replay-eur-usd-may-6b86b273"
    assert source_name(other).startswith("replay-x-")
    assert len(replays_of([first, copy, other])) == 2


def test_a_recording_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"gone\.csv cannot be read"):
        source_name(tmp_path / "gone.csv")


def test_what_was_asked_for_is_remembered(layout: Layout, tmp_path: Path) -> None:
    recording = tmp_path / "a.csv"
    recording.write_bytes(b"1")
    wish = Wish(port_base=18_000, demo=False, replays=replays_of([recording]), speed="2.5")
    assert recall(layout) is None
    remember(layout, wish)
    assert recall(layout) == wish
    options = json.loads(terminals_of(wish)[wish.sources[0]]["terminal_options"])
    assert options == {"path": str(recording), "speed": 2.5}


def test_only_one_holds_the_lock(tmp_path: Path) -> None:
    with exclusive(tmp_path / "lock"), pytest.raises(Conflict, match="pid"), exclusive(tmp_path / "lock"):
        pass
    with exclusive(tmp_path / "lock"):
        pass
