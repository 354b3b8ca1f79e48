"""What we send to Redis and what Dragonfly's documentation says of it, both as data, and how to find what we send.

Source: https://www.dragonflydb.io/docs/command-reference/compatibility as of 2026-03-21, which describes Dragonfly 1.37
and later (it lists DELEX and DIGEST, which came with 1.37.0); options from the commands' own pages there. BLMPOP came
in summer 2025 (dragonflydb/dragonfly #5370, and #5503 for its replication): an older Dragonfly cannot run our queues.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS = ("core", "gateway", "workers", "bridge")
PRODUCT = "Dragonfly 1.37"

FULLY = frozenset(
    """
    AUTH|CLIENT SETINFO|INFO|PING|SELECT|
    DEL|EXISTS|EXPIRE|KEYS|PEXPIRE|PTTL|SCAN|UNLINK|
    HGETALL|HMGET|HSET|
    BLMPOP|LLEN|LRANGE|LREM|LTRIM|RPUSH|
    PUBLISH|SUBSCRIBE|
    EVALSHA|SCRIPT LOAD|
    FLUSHALL|FLUSHDB|TIME|
    ZADD|ZCARD|ZMSCORE|ZRANGE|ZRANGEBYLEX|ZRANGEBYSCORE|ZREM|ZREMRANGEBYSCORE|ZSCORE|
    DECR|DECRBY|GET|INCR|INCRBY|SET|STRLEN|
    EXEC|MULTI
    """.replace("\n", "")
    .replace("  ", "")
    .split("|")
)
"""Commands that the table calls fully supported, as far as we have looked them up."""
NOT_FULLY = {
    "CLIENT TRACKING": "partially",
    "BGSAVE": "partially",
    "WAIT": "unsupported",
    "WAITAOF": "unsupported",
    "BGREWRITEAOF": "unsupported",
    "SCRIPT FLUSH": "unsupported",
    "FCALL": "unsupported",
    "SWAPDB": "unsupported",
    "RESET": "unsupported",
    "OBJECT FREQ": "unsupported",
}
"""Some that are not; nothing here may be sent."""
OPTIONS = {
    "SET": {"NX", "XX", "GET", "EX", "PX", "EXAT", "PXAT", "KEEPTTL"},
    "BLMPOP": {"LEFT", "RIGHT", "COUNT"},
    "ZRANGE": {"BYSCORE", "BYLEX", "REV", "LIMIT", "WITHSCORES"},
    "ZRANGEBYSCORE": {"WITHSCORES", "LIMIT"},
}
"""What a command's page documents there. Not among them: SET IFEQ, of Valkey and Redis 8."""

SENT: dict[str, set[str]] = {
    "AUTH": set(),
    "SELECT": set(),
    "PING": set(),
    "TIME": set(),
    "DEL": set(),
    "UNLINK": set(),
    "EXISTS": set(),
    "EXPIRE": set(),
    "PEXPIRE": set(),
    "SET": {"NX", "PX", "EX"},
    "GET": set(),
    "STRLEN": set(),
    "INCR": set(),
    "INCRBY": set(),
    "DECR": set(),
    "DECRBY": set(),
    "LLEN": set(),
    "LRANGE": set(),
    "LREM": set(),
    "LTRIM": set(),
    "RPUSH": set(),
    "BLMPOP": {"LEFT", "COUNT"},
    "ZADD": set(),
    "ZCARD": set(),
    "ZMSCORE": set(),
    "ZRANGE": {"WITHSCORES"},
    "ZRANGEBYSCORE": {"LIMIT"},
    "ZREM": set(),
    "ZREMRANGEBYSCORE": set(),
    "ZSCORE": set(),
    "PUBLISH": set(),
    "SUBSCRIBE": set(),
    "MULTI": set(),
    "EXEC": set(),
}
"""Every command of our own connections, with every option we ever give it. Look a new one up above before adding it."""
CALLED: dict[str, set[str]] = {
    "ping": {"PING"},
    "get": {"GET"},
    "info": {"INFO"},
    "set": {"SET"},
    "hset": {"HSET"},
    "hmget": {"HMGET"},
    "hgetall": {"HGETALL"},
    "expire": {"EXPIRE"},
    "zrangebylex": {"ZRANGEBYLEX"},
    "zrange": {"ZRANGE"},
    "zadd": {"ZADD"},
    "pexpire": {"PEXPIRE"},
    "pttl": {"PTTL"},
    "unlink": {"UNLINK"},
    "scan": {"SCAN"},
    "register_script": {"EVALSHA", "SCRIPT LOAD"},
    "pipeline": set(),
    # Of the steps of the schema, which are looked at by themselves.
    "execute_command": set(),
    "execute": set(),
    "aclose": set(),
}
"""Methods of redis-py that may be called, with the commands that they become."""
KEYWORDS: dict[str, set[str]] = {
    "set": {"ex", "px", "nx"},
    "hset": {"mapping"},
    "zrangebylex": {"start", "num"},
    "scan": {"cursor", "match", "count"},
    "pipeline": {"transaction"},
    "aclose": {"close_connection_pool"},
}
"""What else they may be told, which becomes a command's options."""
BY_THE_CLIENT = {"AUTH", "SELECT", "CLIENT SETINFO"}
"""What redis-py sends by itself when it connects."""
NEVER = {"KEYS", "FLUSHALL", "FLUSHDB", *NOT_FULLY}
"""Goes through everything at once (a backup's SCAN does it in steps), throws all away, or is not fully supported."""


def all_sent() -> set[str]:
    """Return every command that may reach the server from outside a script."""
    return set(SENT).union(BY_THE_CLIENT, *CALLED.values())


def commands_in_code() -> dict[str, set[str]]:
    """Return the commands written as tuples in our code, each with all its options."""
    found: dict[str, set[str]] = {}
    for tree in _trees("core/adapters/redis"):
        constants = {id(node) for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)}
        for node in _outside(tree, constants):
            words = [part.value for part in node.elts if isinstance(part, ast.Constant)]
            words = [word for word in words if isinstance(word, str) and word.isalpha() and word.isupper()]
            first = node.elts[0] if node.elts else None
            if isinstance(first, ast.Constant) and first.value in words:
                found.setdefault(words[0], set()).update(words[1:])
    return found


def calls_in_code() -> dict[str, set[str]]:
    """Return the methods our code calls on redis-py's client or pipeline, each with the keywords it is given."""
    found: dict[str, set[str]] = {}
    for tree in (tree for room in OURS for tree in _trees(room)):
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if _name(node.func.value) in {"redis", "pipeline"}:
                keywords = {keyword.arg or "**" for keyword in node.keywords}
                found.setdefault(node.func.attr, set()).update(keywords)
    return found


def _trees(directory: str) -> Iterator[ast.Module]:
    for file in sorted((ROOT / directory).rglob("*.py")):
        yield ast.parse(file.read_text())


def _outside(tree: ast.Module, skipped: set[int]) -> Iterator[ast.Tuple]:
    for node in tree.body:
        if id(node) not in skipped:
            yield from (found for found in ast.walk(node) if isinstance(found, ast.Tuple))


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
