"""Config Manager: read settings file and environment once, validate, freeze; refuse what nobody knows."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from core.errors.exceptions import Misconfigured
from core.settings import Secret, Section, Settings

PREFIX: Final = "TICKGATE_"
FILE_VARIABLE: Final = "TICKGATE_SETTINGS_FILE"
NOT_SETTINGS: Final = (FILE_VARIABLE, "TICKGATE_DATA_DIR", "TICKGATE_TEST_", "TICKGATE_BACKUP_")
"""Variables with our prefix that the CLI and the tests read for themselves."""


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Return the frozen settings: defaults, then the file named by TICKGATE_SETTINGS_FILE, then the environment.

    Raises:
        Misconfigured: an unknown variable or field, or a value of the wrong type; the text names it, never its value.
    """
    variables = os.environ if environment is None else environment
    tree = _read_file(variables[FILE_VARIABLE]) if variables.get(FILE_VARIABLE) else {}
    for name, value in variables.items():
        if name.startswith(PREFIX) and not name.startswith(NOT_SETTINGS):
            _place(tree, name, value)
    try:
        return msgspec.convert(tree, Settings, strict=False, dec_hook=_decode)
    except msgspec.ValidationError as e:
        raise Misconfigured(f"settings: {e}", code="BAD_SETTING") from e


def write_settings_file(path: Path, tree: Mapping[str, Any]) -> None:
    """Write a settings file that only its owner can read, in one step."""
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(tree, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _read_file(path: str) -> dict[str, Any]:
    try:
        tree = json.loads(Path(path).read_bytes())
    except (OSError, ValueError) as e:
        raise Misconfigured(f"the settings file {path} cannot be read", code="BAD_SETTINGS_FILE") from e
    if not isinstance(tree, dict):
        raise Misconfigured(f"the settings file {path} holds no JSON object", code="BAD_SETTINGS_FILE")
    return tree


def _sections() -> set[str]:
    return {
        field.name
        for field in msgspec.structs.fields(Settings)
        if isinstance(field.type, type) and issubclass(field.type, Section)
    }


def _place(tree: dict[str, Any], variable: str, value: str) -> None:
    name = variable.removeprefix(PREFIX).lower()
    section, _, field = name.partition("_")
    if section in _sections() and field:
        tree.setdefault(section, {})[field] = _list_or_text(section, field, value)
    elif name in Settings.__struct_fields__ and name not in _sections():
        tree[name] = value
    else:
        raise Misconfigured(
            f"{variable} is no setting; see core/settings.py for all of them", code="UNKNOWN_SETTING"
        )


def _list_or_text(section: str, field: str, value: str) -> Any:
    fields = {one.name: one.type for one in msgspec.structs.fields(Settings) if one.name == section}
    kinds = {one.name: one.type for one in msgspec.structs.fields(fields[section])}
    if kinds.get(field) == list[str]:
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _decode(kind: type[Any], value: Any) -> Any:
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise NotImplementedError(kind)
