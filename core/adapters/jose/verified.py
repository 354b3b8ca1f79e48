"""What a token is once it has been verified, and the check of a signature by a key that was chosen beforehand."""

from dataclasses import dataclass
from typing import Any, Final

from joserfc import jws
from joserfc.errors import JoseError

from core.adapters.jose.claims import Refused
from core.model.principals import Principal

CACHED_S_MAX: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A token that was good. one: names of itself, whose revocation is final; owner: who it was issued to, and when."""

    principal: Principal
    one: tuple[str, ...]
    owner: str
    issued_at_s: int
    until_s: float


def check_signature(token: str, key: Any, algorithm: str) -> None:
    """Raises: Refused: `key` did not sign this with `algorithm`."""
    try:
        registry = jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)
        jws.deserialize_compact(token.encode(), key, registry=registry)
    except (JoseError, ValueError, TypeError, KeyError) as e:
        raise Refused(f"signature: {type(e).__name__}") from e
