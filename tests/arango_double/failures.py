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


def bad_edge() -> Refusal:
    return Refusal(400, 1233, "edge attribute missing or invalid")
