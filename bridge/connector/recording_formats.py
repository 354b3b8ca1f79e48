"""Recordings as arrays, whatever their format, which is told by their content. Prices are what float(text) gives."""

from pathlib import PurePath

from bridge.connector.recording_common import Recording
from bridge.connector.recording_export import read_export
from bridge.connector.recording_json import read_json
from bridge.connector.recording_lean import read_lean
from core.errors.exceptions import Invalid


def read(content: bytes, name: PurePath) -> Recording:
    """Read one file. name: its path, or its archive's path joined with its name inside.

    Raises: Invalid, with the line that is wrong.
    """
    text = _utf8(content)
    head = text[:4_096].lstrip()
    if head.startswith(b"<DATE>"):
        recording = read_export(text, name)
    elif head.startswith(b"{"):
        recording = read_json(text, name)
    else:
        recording = read_lean(text, name)
    if not len(recording.rows):
        raise Invalid(f"{name.name} holds no ticks", code="BAD_RECORDING")
    return recording


def _utf8(content: bytes) -> bytes:
    for mark, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if content.startswith(mark):
            return content[2:].decode(encoding, "replace").encode()
    return content.removeprefix(b"\xef\xbb\xbf")
