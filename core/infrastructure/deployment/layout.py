"""Where everything of a local deployment lies: the names under the data directory, and who may read them."""

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from core.errors.exceptions import Misconfigured

SOCKET_PATH_BYTES_MAX: Final = 90
"""A unix socket's path holds 104 bytes on macOS, 108 on Linux; supervisord first binds a longer name."""
UNQUOTABLE: Final = frozenset('"\\\n\r\t')
"""Characters that supervisord's configuration file cannot carry in a path."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Names under one data directory. root: absolute and resolved."""

    root: Path

    @property
    def settings_file(self) -> Path:
        return self.root / "settings.json"

    @property
    def credentials_file(self) -> Path:
        return self.root / "credentials.json"

    @property
    def curl_file(self) -> Path:
        """The demo client's credentials again, as curl reads them with -K."""
        return self.root / "credentials.curl"

    @property
    def key_file(self) -> Path:
        return self.root / "keys" / "signing.json"

    @property
    def audit_key_file(self) -> Path:
        return self.root / "keys" / "audit.json"

    @property
    def audit_keys_file(self) -> Path:
        """Its public half."""
        return self.root / "keys" / "audit-public.json"

    @property
    def order_key_file(self) -> Path:
        """What signs orders for terminals."""
        return self.root / "keys" / "orders.json"

    @property
    def order_keys_file(self) -> Path:
        """Its public half."""
        return self.root / "keys" / "orders-public.json"

    @property
    def anchor_file(self) -> Path:
        """Checkpoints of the audit trail, where nothing else is set up."""
        return self.root / "anchor.jsonl"

    @property
    def jwks_file(self) -> Path:
        return self.root / "keys" / "public.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def supervisor_config(self) -> Path:
        return self.run / "supervisord.conf"

    @property
    def deployment_file(self) -> Path:
        """What the last `up` was asked to run."""
        return self.run / "deployment.json"

    @property
    def prepared_file(self) -> Path:
        """What the stores were last migrated and provisioned for."""
        return self.run / "prepared.json"

    @property
    def lock_file(self) -> Path:
        return self.root / "up.lock"

    @property
    def supervisor_socket(self) -> Path:
        """Inside the data directory, or in a private temporary one when that is too long a path."""
        inside = self.run / "supervisor.sock"
        if len(os.fsencode(inside)) <= SOCKET_PATH_BYTES_MAX:
            return inside
        mark = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"tickgate-{os.getuid()}-{mark}" / "supervisor.sock"

    def engine(self, name: str) -> Path:
        return self.root / "engines" / name

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def connector_settings(self, source: str) -> Path:
        return self.root / "connectors" / f"{source}.json"

    def spool(self, source: str) -> Path:
        return self.root / "connectors" / source


def default_data_dir() -> Path:
    """Root's lies where the unprivileged user that PostgreSQL runs as can reach it."""
    if os.getuid() == 0:
        return Path("/var/lib/tickgate")
    from platformdirs import user_data_path  # noqa: PLC0415 - not needed when a directory is named

    return user_data_path("tickgate")


def layout_of(data_dir: Path | None) -> Layout:
    """Return the layout of `data_dir`, or of the default one. Nothing is created.

    Raises:
        Misconfigured: it belongs to somebody else.
    """
    root = (data_dir or default_data_dir()).expanduser().resolve()
    if root.exists() and not os.access(root, os.R_OK | os.X_OK):
        text = f"{root} belongs to another user; choose another directory with --data-dir, or be that user"
        raise Misconfigured(text, code="BAD_DATA_DIR")
    return Layout(root)


def create(layout: Layout) -> None:
    """Create the directories that are not there yet, readable by their owner alone.

    Raises:
        Misconfigured: the place cannot be used; the text says why and what to do.
    """
    _check_name(layout.root)
    # PostgreSQL never runs as root, so root's tree must be passable (not readable) by the user it runs as.
    mode = 0o711 if os.getuid() == 0 else 0o700
    try:
        for directory in (layout.root, layout.root / "engines"):
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(mode)
        for directory in (layout.logs, layout.run, layout.key_file.parent, layout.root / "connectors"):
            directory.mkdir(mode=0o700, exist_ok=True)
        layout.supervisor_socket.parent.mkdir(mode=0o700, exist_ok=True)
    except OSError as e:
        text = f"cannot use the data directory {layout.root}: {e.strerror}; choose another with --data-dir"
        raise Misconfigured(text, code="BAD_DATA_DIR") from e
    _check_private(layout.supervisor_socket.parent)


def _check_name(root: Path) -> None:
    text = str(root)
    if UNQUOTABLE & set(text) or " #" in text or " ;" in text:
        raise Misconfigured(
            f"the data directory {text!r} has a quote, backslash, line break, ' #' or ' ;' in its name; "
            "choose another with --data-dir",
            code="BAD_DATA_DIR",
        )


def _check_private(directory: Path) -> None:
    facts = directory.lstat()  # a link of somebody else's in a shared place must not lead us on
    foreign = facts.st_uid != os.getuid() or not stat.S_ISDIR(facts.st_mode)
    if foreign or stat.S_IMODE(facts.st_mode) & 0o022:
        raise Misconfigured(
            f"{directory} must belong to you and be writable by nobody else", code="BAD_DATA_DIR"
        )
