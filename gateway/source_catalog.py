"""The routes of sources."""

from typing import Final

from core.model.principals import Scope
from gateway import sources
from gateway.contents import refused
from gateway.parameters import NoParameters
from gateway.routing import Content, Endpoint, RateClass

BODY_BYTES_MAX: Final = 4 * 1024


_SOURCE: Final = Content(description="The source.", schema=sources.FeedSource, headers=("ETag",))
_GONE: Final = refused("The tenant has no such source.")
_CLOSED: Final = refused("The source is closed.")

ENDPOINTS: Final = (
    Endpoint(
        method="GET",
        path="/v1/sources",
        handler=sources.listed,
        access=Scope.SOURCES_READ,
        rate=RateClass.READ,
        query=sources.SourceQuery,
        answers={200: Content(description="A page of sources.", schema=sources.SourcePage)},
    ),
    Endpoint(
        method="POST",
        path="/v1/sources",
        handler=sources.create,
        access=Scope.SOURCES_WRITE,
        rate=RateClass.WRITE,
        query=NoParameters,
        body=Content(description="What to call it.", schema=sources.SourceWish),
        body_bytes_max=BODY_BYTES_MAX,
        idempotent=True,
        atomic=True,
        answers={
            201: Content(
                description="The source, with its token.",
                schema=sources.SourceWithToken,
                headers=("ETag", "Location"),
            ),
            409: refused(
                "A request with this Idempotency-Key is running, or the tenant has too many sources."
            ),
        },
    ),
    Endpoint(
        method="GET",
        path="/v1/sources/{name}",
        handler=sources.read,
        access=Scope.SOURCES_READ,
        rate=RateClass.READ,
        query=NoParameters,
        answers={200: _SOURCE, 404: _GONE},
    ),
    Endpoint(
        method="PUT",
        path="/v1/sources/{name}",
        handler=sources.update,
        access=Scope.SOURCES_WRITE,
        rate=RateClass.WRITE,
        query=NoParameters,
        body=Content(description="All of it.", schema=sources.SourceChange),
        body_bytes_max=BODY_BYTES_MAX,
        headers=("If-Match",),
        answers={200: _SOURCE, 404: _GONE, 409: _CLOSED},
    ),
    Endpoint(
        method="POST",
        path="/v1/sources/{name}/token",
        handler=sources.rotate,
        access=Scope.SOURCES_WRITE,
        rate=RateClass.WRITE,
        query=NoParameters,
        idempotent=True,
        atomic=True,
        answers={
            200: Content(
                description="The source, with its new token.",
                schema=sources.SourceWithToken,
                headers=("ETag",),
            ),
            404: _GONE,
            409: refused("A request with this Idempotency-Key is running, or the source is closed."),
        },
    ),
    Endpoint(
        method="DELETE",
        path="/v1/sources/{name}",
        handler=sources.close,
        access=Scope.SOURCES_WRITE,
        rate=RateClass.WRITE,
        query=NoParameters,
        answers={204: Content(description="Nobody writes it any more.", types=()), 404: _GONE},
    ),
)
