"""The usual stack doing what our gateway does: FastAPI, slowapi counting in Redis, PyJWT (EdDSA), pydantic, uvicorn.

Served by `uvicorn tests.benchmarks.rig.fastapi_stack:app` with the peers' packages; what it needs is in the
environment. Set up as its parts' documentation shows.
"""

import json
import os
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

jwt = import_module("jwt")
fastapi = import_module("fastapi")
security = import_module("fastapi.security")
pydantic = import_module("pydantic")
slowapi = import_module("slowapi")
slowapi_errors = import_module("slowapi.errors")

LIMIT = "100000000/minute"
# The same algorithm by its newer name (RFC 9864), which PyJWT does not know yet.
ALGORITHM = "Ed25519"
jwt.register_algorithm(ALGORITHM, import_module("jwt.algorithms").OKPAlgorithm())

_jwk = json.loads(Path(os.environ["JWKS_FILE"]).read_text())["keys"][0]
_key = jwt.PyJWK.from_dict({**_jwk, "alg": "EdDSA"}).key


def caller(request: Any) -> str:
    return str(request.headers["authorization"])


limiter = slowapi.Limiter(key_func=lambda request: caller(request), storage_uri=os.environ["REDIS_URL"])
app = fastapi.FastAPI()
app.state.limiter = limiter
app.add_exception_handler(slowapi_errors.RateLimitExceeded, slowapi._rate_limit_exceeded_handler)
bearer = fastapi.Security(security.HTTPBearer())


class Wish(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    client_order_id: str
    account: str
    symbol: str
    side: Literal["BUY", "SELL"]
    type: Literal["MARKET", "LIMIT", "STOP"]
    volume: float
    price: float
    stop_loss: float
    take_profit: float
    comment: str = ""


class Taken(pydantic.BaseModel):
    id: str
    state: str


async def principal(credentials: Any = bearer) -> dict[str, Any]:
    try:
        claims: dict[str, Any] = jwt.decode(
            credentials.credentials,
            _key,
            algorithms=[ALGORITHM],
            audience=os.environ["AUDIENCE"],
            issuer=os.environ["ISSUER"],
            options={"require": ["exp", "iat", "sub", "jti"]},
        )
    except jwt.InvalidTokenError as e:
        raise fastapi.HTTPException(401, "invalid token") from e
    if "market:read" not in claims.get("scope", "").split():
        raise fastapi.HTTPException(403, "insufficient scope")
    return claims


certain = fastapi.Depends(principal)


@app.post("/v1/measured", response_model=Taken)
@limiter.limit(LIMIT)
async def measured(request: fastapi.Request, wish: Wish, claims: dict[str, Any] = certain) -> Taken:
    return Taken(id=wish.client_order_id, state="QUEUED")
