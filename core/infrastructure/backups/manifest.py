"""What a backup says about itself: written last, in one step. What has no manifest is no backup."""

from typing import Annotated, Final

import msgspec

from core.errors.exceptions import Corrupt, Misconfigured
from core.infrastructure.backups.sealing import key_of, seal_of
from core.settings import Secret

VERSION: Final = 1
NAME: Final = "manifest.json"
BYTES_MAX: Final = 64 * 1024**2


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file. bytes, sha256: as it is stored. It lies at `path`."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z]+/[A-Za-z0-9_.-]{1,200}$")]
    rows: Annotated[int, msgspec.Meta(ge=0)]
    bytes: Annotated[int, msgspec.Meta(ge=0)]
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]

    @property
    def store(self) -> str:
        return self.name.partition("/")[0]

    @property
    def path(self) -> str:
        return path_of(self.name)


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """steps: by store, the number and checksum of each step of its schema. salt: of the key, empty where there is none.

    seal: a MAC of everything else here, made with the key.
    """

    version: int
    id: str
    started_at: str
    finished_at: str
    compression: str = "zstd"
    salt: str = ""
    steps: dict[str, dict[int, str]]
    parts: list[Part]
    seal: str = ""

    @property
    def sealed(self) -> bool:
        return bool(self.salt)

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    @property
    def bytes(self) -> int:
        return sum(part.bytes for part in self.parts)


def path_of(name: str) -> str:
    """Return where the part `name` lies, below the backup."""
    return f"{name}.zst"


def encode(manifest: Manifest, key: bytes | None) -> bytes:
    """Return the file's content, with the seal on it."""
    if key is not None:
        bare = msgspec.structs.replace(manifest, seal="")
        manifest = msgspec.structs.replace(bare, seal=seal_of(key, msgspec.json.encode(bare)))
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2)


def decode(content: bytes, secret: Secret | None) -> tuple[Manifest, bytes | None]:
    """Return a manifest and the key of its parts, None where they are not encrypted.

    Raises:
        Corrupt: it is damaged, or was written by somebody without the key. Misconfigured: a key is missing, or a
        newer version wrote it.
    """
    try:
        version = msgspec.json.decode(content).get("version")
        if isinstance(version, int) and version > VERSION:
            raise Misconfigured(
                "a newer version made this backup; restore it with that one", code="BACKUP_NEWER"
            )
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.MsgspecError, AttributeError) as e:
        raise Corrupt("the backup's manifest is damaged", code="BACKUP_DAMAGED") from e
    if not manifest.sealed:
        if secret is not None:
            raise Misconfigured("this backup is not encrypted; leave out the key", code="BACKUP_NOT_SEALED")
        return manifest, None
    if secret is None:
        raise Misconfigured(
            "this backup is encrypted; name its key with --key-file", code="BACKUP_KEY_NEEDED"
        )
    try:
        key = key_of(secret, bytes.fromhex(manifest.salt))
    except ValueError as e:
        raise Corrupt("the backup's manifest is damaged", code="BACKUP_DAMAGED") from e
    bare = msgspec.structs.replace(manifest, seal="")
    if seal_of(key, msgspec.json.encode(bare)) != manifest.seal:
        raise Corrupt("the key is another, or the backup's manifest was changed", code="BACKUP_DAMAGED")
    return manifest, key
