"""What a local deployment creates once and keeps: secrets, signing key, demo credentials, settings files."""

import json
import os
import secrets
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from core.errors.exceptions import Misconfigured
from core.infrastructure.config_manager import PREFIX, write_settings_file
from core.infrastructure.deployment.layout import Layout
from core.infrastructure.deployment.ports import HOST, OFFSETS, engine_port
from core.infrastructure.deployment.programs import QUEUES
from core.infrastructure.signing_keys import new_key, read_keys, write_keys

SECRET_BYTES: Final = 32
DEMO_CLIENT_ID: Final = "demo"
SIGNING_KEYS: Final = 2
ENGINES: Final = {"postgres": "postgres", "redis": "valkey", "clickhouse": "clickhouse"}
"""settings section -> engine"""

Tree = dict[str, Any]


def new_secret() -> str:
    return secrets.token_urlsafe(SECRET_BYTES)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def read_tree(path: Path) -> Tree:
    """Return the JSON object in `path`, empty when there is no file. Raises: Misconfigured."""
    try:
        tree = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as e:
        raise Misconfigured(f"{path} cannot be read: {e}", code="BAD_SETTINGS_FILE") from e
    if not isinstance(tree, dict):
        raise Misconfigured(f"{path} holds no JSON object", code="BAD_SETTINGS_FILE")
    return tree


def remembered_port_base(layout: Layout) -> int | None:
    """Return the port base of the last `up`, if there was one."""
    gateway = read_tree(layout.settings_file).get("gateway", {})
    return gateway.get("port") if isinstance(gateway, dict) else None


def ensure_settings(layout: Layout, port_base: int) -> Tree:
    """Write the settings file all processes read: secrets once, engines' ports kept while they are free."""
    old = read_tree(layout.settings_file)
    tree = dict(old)
    avoid = {port_base + offset for offset in range(max(OFFSETS.values()) + 1)}
    for section in ENGINES:
        before = old.get(section, {})
        port = engine_port(before.get("port"), avoid)
        avoid.add(port)
        tree[section] = {
            **before,
            "host": HOST,
            "port": port,
            "password": before.get("password") or new_secret(),
        }
    tree["profile"] = "embedded"
    tree["auth"] = {
        **old.get("auth", {}),
        "key_file": str(layout.key_file),
        "jwks_file": str(layout.jwks_file),
    }
    tree["audit"] = {
        # Where its checkpoints go is the operator's to change.
        "anchor": str(layout.anchor_file),
        **old.get("audit", {}),
        "key_file": str(layout.audit_key_file),
        "keys_file": str(layout.audit_keys_file),
    }
    tree["trading"] = {**old.get("trading", {}), "key_file": str(layout.order_key_file)}
    for section in ("gateway", "bridge"):
        tree[section] = {**old.get(section, {}), "port": port_base + OFFSETS[section]}
    ports = {f"{queue}_port": port_base + OFFSETS[f"worker-{queue}"] for queue in QUEUES}
    tree["worker"] = {**old.get("worker", {}), **ports}
    # One port for every worker would be two too few.
    tree["worker"].pop("health_port", None)
    # A machine's own house explains itself; a cluster's gateway has to be asked to.
    tree["gateway"].setdefault("docs", True)
    if tree != old:
        write_settings_file(layout.settings_file, tree)
    return tree


def ensure_connector_settings(layout: Layout, tree: Tree, source: str, terminal: Mapping[str, Any]) -> str:
    """Write one connector's own settings file and return its token, which is made once.

    A file of its own, because a token in an argument list or a shared environment is readable by others.
    """
    path = layout.connector_settings(source)
    token = read_tree(path).get("connector", {}).get("token") or new_secret()
    connector = {
        "source": source,
        "token": token,
        "bridge_url": f"ws://{HOST}:{tree['bridge']['port']}",
        "spool_directory": str(layout.spool(source)),
        "order_keys_file": str(layout.order_keys_file),
        **terminal,
    }
    write_settings_file(path, {"profile": "embedded", "connector": connector})
    return str(token)


def ensure_signing_key(layout: Layout) -> None:
    """Create the Ed25519 keys that sign access tokens, one and the next, and their public half, unless they are there.

    A public half that is missing is made from the private one, so that a rotation that was cut short does no harm.
    """
    if layout.key_file.exists() and layout.jwks_file.exists():
        return
    if layout.key_file.exists():
        keys = read_keys(layout.key_file)
    else:
        keys = [new_key(time.time()) for _ in range(SIGNING_KEYS)]
    write_keys(layout.key_file, layout.jwks_file, keys)


def ensure_audit_key(layout: Layout) -> None:
    """Create the Ed25519 key that signs checkpoints of the audit trail, and its public half, unless they are there."""
    _ensure_key(layout.audit_key_file, layout.audit_keys_file)


def ensure_order_key(layout: Layout) -> None:
    """Create the Ed25519 key that signs orders for terminals, and its public half, unless they are there."""
    _ensure_key(layout.order_key_file, layout.order_keys_file)


def _ensure_key(key_file: Path, keys_file: Path) -> None:
    if not (key_file.exists() and keys_file.exists()):
        known = read_keys(key_file) if key_file.exists() else [new_key(time.time())]
        write_keys(key_file, keys_file, known)


def ensure_credentials(layout: Layout) -> tuple[str, str]:
    """Return the demo client's id and secret, created on first use."""
    known = read_tree(layout.credentials_file)
    if not known.get("client_secret"):
        known = {"client_id": DEMO_CLIENT_ID, "client_secret": new_secret()}
        _write_credentials(layout, known["client_id"], known["client_secret"])
    return str(known["client_id"]), str(known["client_secret"])


def replace_credentials(layout: Layout, client_id: str, secret: str) -> bool:
    """Keep a rotated secret where the client is the one whose credentials we keep, or the next start brings the old
    one back. Return whether it is.
    """
    if read_tree(layout.credentials_file).get("client_id") != client_id:
        return False
    _write_credentials(layout, client_id, secret)
    return True


def _write_credentials(layout: Layout, client_id: str, secret: str) -> None:
    write_settings_file(layout.credentials_file, {"client_id": client_id, "client_secret": secret})
    write_private(layout.curl_file, f'user = "{client_id}:{secret}"\n')


def child_environment(layout: Layout, owned: Collection[str]) -> dict[str, str]:
    """Return this process's environment without variables that override what the deployment decides.

    owned: such variables, e.g. TICKGATE_POSTGRES_PORT.
    """
    kept = {name: value for name, value in os.environ.items() if name not in owned}
    kept.update(
        TICKGATE_DATA_DIR=str(layout.root),
        TICKGATE_SETTINGS_FILE=str(layout.settings_file),
        PYTHONUNBUFFERED="1",
    )
    return kept


def owned_variables(*trees: Tree) -> frozenset[str]:
    """Name the environment variables of every setting that stands in `trees`."""
    names: set[str] = set()
    for tree in trees:
        for section, fields in tree.items():
            if isinstance(fields, dict):
                names.update(f"{PREFIX}{section}_{field}".upper() for field in fields)
            else:
                names.add(f"{PREFIX}{section}".upper())
    return frozenset(names)
