"""What answers and bodies look like that many routes share, as rows of the catalogue name them."""

from typing import Final

import msgspec

from gateway import answers
from gateway.problems import CONTENT_TYPE as PROBLEM_TYPE
from gateway.routing import Content

JSON_TYPE: Final = "application/json"


def shown(schema: type[msgspec.Struct], *headers: str, types: tuple[str, ...] = (JSON_TYPE,)) -> Content:
    """Describe a content by the first line of its schema's docstring."""
    title = (schema.__doc__ or "").partition("\n")[0]
    return Content(description=title, schema=schema, types=types, headers=headers)


def refused(why: str) -> Content:
    """Describe a problem by why it comes."""
    return Content(description=why, schema=answers.Problem, types=(PROBLEM_TYPE,))


LATER: Final = Content(
    description="It takes longer than the caller waits; the answer will be at Location.",
    schema=answers.AcceptedJob,
    headers=("Location", "Retry-After"),
)
JOB_CANCELLED: Final = refused("The job was cancelled while its caller waited.")
