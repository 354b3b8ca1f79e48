"""Where backups are kept: a directory, or a prefix of an S3 bucket."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol
from urllib.parse import urlsplit

from core.errors.exceptions import Conflict, Invalid, NotFound, Unavailable
from core.infrastructure.backups.manifest import BYTES_MAX, NAME

CONNECT_TIMEOUT_S: Final = 10
REQUEST_TIMEOUT_S: Final = 60
ENDPOINT_VARIABLES: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


class Vault(Protocol):
    """The place of one backup. Every method raises Unavailable where the place does not answer."""

    address: str

    def begin(self) -> None:
        """Make sure that nothing is there yet. Raises: Conflict."""

    def create(self, path: str) -> Any:
        """Open a new file: a context manager over a binary file; it is durable when the block has ended."""

    def open(self, path: str) -> Any:
        """Open a file: a context manager over a binary file. Raises: NotFound."""

    def write_manifest(self, content: bytes) -> None:
        """Write the manifest in one step: it is there wholly or not at all."""

    def read_manifest(self) -> bytes:
        """Raises: NotFound: there is no backup."""

    def discard(self) -> None:
        """Delete what an unfinished backup left."""


def vault_at(address: str) -> Vault:
    """Return the vault at a directory or an s3:// address. Raises: Invalid."""
    if "://" not in address:
        return DirectoryVault(Path(address).expanduser().absolute())
    parts = urlsplit(address)
    if parts.scheme != "s3" or not parts.netloc or not parts.path.strip("/"):
        raise Invalid(f"{address} is neither a directory nor s3://bucket/prefix", code="BAD_ADDRESS")
    return S3Vault(parts.netloc, parts.path.strip("/"))


class DirectoryVault:
    """A directory only its owner can read."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.address = str(root)

    def begin(self) -> None:
        with _told(self.address):
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(self._root.iterdir()):
                raise Conflict(
                    f"{self.address} is not empty; a backup needs a directory of its own", code="NOT_EMPTY"
                )

    @contextmanager
    def create(self, path: str) -> Iterator[BinaryIO]:
        file = self._root / path
        with _told(self.address):
            file.parent.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as raw:
                yield raw
                raw.flush()
                os.fsync(raw.fileno())
            _sync_directory(file.parent)

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        with _told(self.address), (self._root / path).open("rb") as raw:
            yield raw

    def write_manifest(self, content: bytes) -> None:
        with _told(self.address):
            temporary = self._root / f"{NAME}.new"
            with temporary.open("wb") as raw:
                os.fchmod(raw.fileno(), 0o600)
                raw.write(content)
                raw.flush()
                os.fsync(raw.fileno())
            temporary.replace(self._root / NAME)
            _sync_directory(self._root)

    def read_manifest(self) -> bytes:
        with self.open(NAME) as raw:
            return raw.read(BYTES_MAX)

    def discard(self) -> None:
        with _told(self.address):
            for entry in self._root.iterdir():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


class S3Vault:
    """A prefix of a bucket. An object is there wholly once its upload has ended, or not at all.

    Credentials and region come from where the AWS tools have them: environment, profile, instance. Left to itself
    pyarrow would compress once more, and decompress, whatever is named .zst.
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        from pyarrow.fs import S3FileSystem  # noqa: PLC0415 - half a second that a directory does not need

        self.address = f"s3://{bucket}/{prefix}"
        self._root = f"{bucket}/{prefix}"
        endpoint = next((os.environ[name] for name in ENDPOINT_VARIABLES if os.environ.get(name)), "")
        url = urlsplit(endpoint)
        options: dict[str, Any] = {"endpoint_override": url.netloc, "scheme": url.scheme} if endpoint else {}
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        with _told(self.address):
            self._files = S3FileSystem(
                connect_timeout=CONNECT_TIMEOUT_S,
                request_timeout=REQUEST_TIMEOUT_S,
                **options,
                **({"region": region} if region else {}),
            )

    def begin(self) -> None:
        from pyarrow.fs import FileSelector  # noqa: PLC0415 - as above

        with _told(self.address):
            if self._files.get_file_info(FileSelector(self._root, allow_not_found=True)):
                raise Conflict(
                    f"{self.address} is not empty; a backup needs a prefix of its own", code="NOT_EMPTY"
                )

    def names(self) -> list[str]:
        """Return the paths of all files."""
        from pyarrow.fs import FileSelector, FileType  # noqa: PLC0415 - as above

        selector = FileSelector(self._root, allow_not_found=True, recursive=True)
        with _told(self.address):
            found = self._files.get_file_info(selector)
        return sorted(one.path.removeprefix(f"{self._root}/") for one in found if one.type is FileType.File)

    @contextmanager
    def create(self, path: str) -> Iterator[BinaryIO]:
        with (
            _told(self.address),
            self._files.open_output_stream(f"{self._root}/{path}", compression=None) as raw,
        ):
            yield raw

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        with (
            _told(self.address),
            self._files.open_input_stream(f"{self._root}/{path}", compression=None) as raw,
        ):
            yield raw

    def write_manifest(self, content: bytes) -> None:
        with self.create(NAME) as raw:
            raw.write(content)

    def read_manifest(self) -> bytes:
        with self.open(NAME) as raw:
            return bytes(raw.read(BYTES_MAX))

    def discard(self) -> None:
        with _told(self.address):
            self._files.delete_dir_contents(self._root, missing_dir_ok=True)


@contextmanager
def _told(address: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as e:
        raise NotFound(f"there is no whole backup at {address}", code="NO_BACKUP", detail=str(e)[:300]) from e
    except OSError as e:
        reason = e.strerror or str(e).splitlines()[0][:200]
        raise Unavailable(f"{address} cannot be used: {reason}", code="BACKUP_PLACE") from e


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
