"""What looks like a credential, or is named like one, does not get into a log line, wherever in the line it stands."""

import base64
import string
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.telemetry.logs import redact

URL_SAFE = string.ascii_letters + string.digits + "-_"
random_text = st.text(URL_SAFE, min_size=20, max_size=60)
around = st.text(alphabet=" \t,;:'\"()[]{}", max_size=5)

credentials = st.one_of(
    random_text.map(lambda text: ("Bearer " + text, text)),
    random_text.map(lambda text: _basic(text)),
    st.tuples(random_text, random_text).map(
        lambda parts: (f"eyJhbGciOiJ.{parts[0]}.{parts[1]}", f".{parts[0]}.{parts[1]}")
    ),
    random_text.map(lambda text: ("tgk_" + text, text)),
    random_text.map(lambda text: ("tgr_" + text, text)),
    random_text.map(lambda text: (f"grant_type=x&client_secret={text}&scope=y", text)),
    random_text.map(lambda text: (f"postgres://user:{text}@host/db", text)),
)
"""(as it is written, what must not be read)"""


def _basic(text: str) -> tuple[str, str]:
    encoded = base64.b64encode(text.encode()).decode()
    return "Basic " + encoded, encoded


def _line(event: dict[str, Any]) -> str:
    return msgspec.json.encode(redact(None, "", event)).decode()


@given(credentials, around, around)
def test_a_credential_inside_a_text_is_hidden(credential: tuple[str, str], before: str, after: str) -> None:
    written, secret = credential
    assert secret not in _line({"event": "x", "error": f"it said {before}{written}{after}"})


@given(credentials, st.sampled_from([list, tuple, lambda x: {"deep": {"deeper": x}}, lambda x: [[[[x]]]]]))
def test_a_credential_inside_a_collection_is_hidden(credential: tuple[str, str], wrap: Any) -> None:
    written, secret = credential
    assert secret not in _line({"event": "x", "given": wrap([written])})


@given(credentials)
def test_a_credential_in_bytes_or_in_an_objects_words_is_hidden(credential: tuple[str, str]) -> None:
    written, secret = credential
    line = _line({"event": "x", "body": written.encode(), "error": ValueError(written)})
    assert secret not in line
    assert base64.b64encode(written.encode()).decode()[:20] not in line


@pytest.mark.parametrize(
    "name",
    [
        "token",
        "client_secret",
        "Authorization",
        "x-api-key",
        "api_key",
        "Idempotency-Key",
        "set-cookie",
        "password",
    ],
)
@given(value=st.text(string.ascii_letters, min_size=8))
def test_what_is_named_like_a_secret_is_hidden_at_any_depth(name: str, value: str) -> None:
    line = _line({"event": "", name: f"<{value}>", "headers": {name: f"<{value}>"}})
    assert f"<{value}>" not in line


def test_what_is_no_secret_stays() -> None:
    event = {"event": "job.done", "rows": 3, "ok": True, "none": None, "error": "no source is named 'x'"}
    assert redact(None, "", dict(event)) == event
