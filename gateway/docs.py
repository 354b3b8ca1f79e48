"""Documentation: the OpenAPI document, and a page that shows it with assets of an installed package.

The page exists only where the settings turn it on. Its assets are Swagger UI 4, which reads OpenAPI 3.0 at most, so
the page is given the document in the older words; everybody else gets it as it is.
"""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import msgspec
from starlette.responses import FileResponse, Response

from core.errors.exceptions import NotFound
from gateway.routing import Call

CACHED_S: Final = 3_600
PACKAGE: Final = "swagger_ui_bundle"
PACKAGED: Final = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")
OURS: Final = ("docs.css", "docs.js")
PAGES: Final = Path(__file__).with_name("pages")
PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


async def openapi(call: Call) -> Response:
    """Answer this document."""
    return Response(call.request.app.state.document(), media_type="application/json")


async def page(call: Call) -> Response:
    """Show the documentation page, where it is turned on."""
    _require_docs(call)
    headers = {"Content-Security-Policy": PAGE_POLICY}
    return FileResponse(PAGES / "docs.html", headers=headers, media_type="text/html")


async def asset(call: Call) -> Response:
    """Send a file the documentation page needs."""
    _require_docs(call)
    name = call.request.path_params["name"]
    if name == "openapi-3.0.json":
        return Response(lowered(call.request.app.state.document()), media_type="application/json")
    found = _asset(name)
    if found is None:
        raise NotFound("the documentation has no such file", code="ASSET_NOT_FOUND")
    return FileResponse(found, headers={"Cache-Control": f"public, max-age={CACHED_S}"})


def lowered(document: bytes) -> bytes:
    """Say in OpenAPI 3.0 what the document says in 3.1, as far as a page needs it."""
    tree = msgspec.json.decode(document)
    tree["openapi"] = "3.0.3"
    return msgspec.json.encode(_lowered(tree))


def _lowered(node: Any) -> Any:
    if isinstance(node, list):
        return [_lowered(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    lower = {name: _lowered(value) for name, value in node.items()}
    if isinstance(lower.get("examples"), list):
        lower["example"] = lower.pop("examples")[0]
    kinds = lower.get("anyOf")
    if isinstance(kinds, list) and {"type": "null"} in kinds:
        rest = [kind for kind in kinds if kind != {"type": "null"}]
        del lower["anyOf"]
        # Beside a reference 3.0 heeds nothing; one of several is the same as that one.
        lower |= {"nullable": True, **({"allOf": rest} if len(rest) == 1 else {"anyOf": rest})}
    return lower


def _asset(name: str) -> Path | None:
    """Return the file of a known name; the caller's text never becomes part of a path."""
    if name in OURS:
        return PAGES / name
    if name in PACKAGED:
        for version in (Path(str(files(PACKAGE))) / "vendor").iterdir():
            return version / name
    return None


def _require_docs(call: Call) -> None:
    if not call.services.settings.gateway.docs:
        raise NotFound("the documentation is not served here", code="DOCS_OFF")
