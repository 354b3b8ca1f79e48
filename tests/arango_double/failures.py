"""Refusals as ArangoDB words them. Source: its list of error codes."""


class Refusal(Exception):
    """status: of HTTP; number: ArangoDB's own."""

    def __init__(self, status: int, number: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.number = number
        self.message = message


def syntax(message: str) -> Refusal:
    return Refusal(400, 1501, f"AQL: syntax error, {message}")


def not_bound(name: str) -> Refusal:
    return Refusal(400, 1551, f"no value specified for declared bind parameter '{name}'")


def unused(name: str) -> Refusal:
    return Refusal(400, 1552, f"bind parameter '{name}' was not declared in the query")


def no_collection(name: str) -> Refusal:
    return Refusal(404, 1203, f"collection or view not found: {name}")


def taken(what: str) -> Refusal:
    return Refusal(409, 1210, f"unique constraint violated - {what}")


def conflict() -> Refusal:
    return Refusal(409, 1200, "write-write conflict")


def killed() -> Refusal:
    return Refusal(410, 1500, "query killed")


def numbered(number: int) -> Refusal:
    """Return one that only a server in trouble has: whose transaction is lost, or which may only be read."""
    in_trouble = {
        1004: Refusal(403, 1004, "read only"),
        1654: Refusal(410, 1654, "transaction aborted"),
        1655: Refusal(404, 1655, "transaction not found"),
    }
    return in_trouble.get(number) or conflict()


def bad_edge() -> Refusal:
    return Refusal(400, 1233, "edge attribute missing or invalid")
