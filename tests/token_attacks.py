"""Tokens that must open nothing. Each is made from the real key set, as somebody who knows it all but the key would.

Some are signed with the real key: what is wrong with them is what they say, and no signature makes that right.
"""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import serialization
from joserfc import jwe, jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

NOW_S = int(time.time())


@dataclass(frozen=True)
class Forge:
    """The real key, and the tools of the trade."""

    key: OKPKey

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return good claims but for `changes`; None takes one out."""
        now_s = int(time.time())
        claims: dict[str, Any] = {
            "iss": "tickgate",
            "aud": "tickgate-api",
            "sub": "demo",
            "client_id": "demo",
            "tenant": "demo",
            "scope": "market:read",
            "iat": now_s,
            "exp": now_s + 600,
            "jti": "x",
        }
        return {name: value for name, value in {**claims, **changes}.items() if value is not None}

    def header(self, **changes: Any) -> dict[str, Any]:
        header = {"alg": "Ed25519", "typ": "at+jwt", "kid": self.key.kid, **changes}
        return {name: value for name, value in header.items() if value is not None}

    def raw(self, header: bytes | str, payload: bytes | str) -> str:
        """Sign these very bytes with the real key."""
        signed = f"{pad(as_bytes(header))}.{pad(as_bytes(payload))}"
        return f"{signed}.{pad(self.key.private_key.sign(signed.encode()))}"  # type: ignore[union-attr]

    def signed(self, header: dict[str, Any] | None = None, **changes: Any) -> str:
        """Sign with the real key. header: changes to it; the rest: changes to the claims."""
        return self.raw(json.dumps(self.header(**(header or {}))), json.dumps(self.claims(**changes)))

    def unsigned(self, **header: Any) -> str:
        head = json.dumps(self.header(**header))
        return f"{pad(head.encode())}.{pad(json.dumps(self.claims()).encode())}"

    def by(self, key: Any, algorithm: str, **header: Any) -> str:
        """Sign with another key."""
        full = self.header(alg=algorithm, **header)
        return jwt.encode(full, self.claims(), key, algorithms=[algorithm])

    def hmac(self, secret: bytes, **header: Any) -> str:
        """The classic confusion: the public key, which everybody has, as an HMAC secret."""
        signed = self.unsigned(alg="HS256", **header)
        return f"{signed}.{pad(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"

    def public(self, encoding: Any, form: Any) -> bytes:
        return bytes(self.key.public_key.public_bytes(encoding, form))


def as_bytes(text: bytes | str) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def pad(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unpad(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _parts(f: Forge) -> list[str]:
    return f.signed().split(".")


def _tampered(f: Forge) -> str:
    head, _, signature = _parts(f)
    return f"{head}.{pad(json.dumps(f.claims(tenant='rival')).encode())}.{signature}"


def _other_signature(f: Forge) -> str:
    head, payload, _ = _parts(f)
    return f"{head}.{payload}.{f.signed(jti='other').rpartition('.')[2]}"


def _spare_bits(f: Forge) -> str:
    """The same signature in another spelling: 64 bytes leave four bits of the last letter free."""
    token = f.signed()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) | 1]


def _malleable(f: Forge) -> str:
    """S plus the group's order satisfies the equation as well. Source: RFC 8032 section 5.1.7 forbids it."""
    head, payload, signature = _parts(f)
    raw = unpad(signature)
    order = 2**252 + 27742317777372353535851937790883648493
    greater = (int.from_bytes(raw[32:], "little") + order).to_bytes(32, "little")
    return f"{head}.{payload}.{pad(raw[:32] + greater)}"


def _duplicate_claim(f: Forge) -> str:
    text = json.dumps(f.claims())
    return f.raw(json.dumps(f.header()), text[:-1] + ', "tenant": "rival"}')


def _duplicate_header(f: Forge) -> str:
    text = json.dumps(f.header())
    return f.raw(text[:-1] + ', "alg": "none"}', json.dumps(f.claims()))


def _claims_text(f: Forge, name: str, value: str) -> str:
    """Write a claim's value as it is, JSON or not."""
    text = json.dumps(f.claims(**{name: "@"}))
    return f.raw(json.dumps(f.header()), text.replace('"@"', value))


def _embedded_rsa(f: Forge) -> str:
    key = RSAKey.generate_key(2048)
    return f.by(key, "RS256", jwk=key.as_dict(private=False))


def _embedded_ec(f: Forge) -> str:
    key = ECKey.generate_key("P-256")
    return f.by(key, "ES256", jwk=key.as_dict(private=False))


def _embedded_ed25519(f: Forge) -> str:
    key = OKPKey.generate_key("Ed25519")
    return f.by(key, "Ed25519", jwk=key.as_dict(private=False))


def _encrypted(f: Forge) -> str:
    header = {"alg": "dir", "enc": "A256GCM", "typ": "at+jwt", "kid": f.key.kid}
    return jwe.encrypt_compact(header, json.dumps(f.claims()), OctKey.generate_key(256))


def _psychic(f: Forge, algorithm: str, size: int) -> str:
    return f"{f.unsigned(alg=algorithm)}.{pad(bytes(size))}"


PEM, DER, RAW = serialization.Encoding.PEM, serialization.Encoding.DER, serialization.Encoding.Raw
SPKI, BARE = serialization.PublicFormat.SubjectPublicKeyInfo, serialization.PublicFormat.Raw
HTTPS = "https://attacker.example/keys.json"

ATTACKS: dict[str, Callable[[Forge], str]] = {
    # The algorithm
    "alg none, no signature": lambda f: f.unsigned(alg="none") + ".",
    "alg None": lambda f: f.unsigned(alg="None") + ".",
    "alg nOnE": lambda f: f.unsigned(alg="nOnE") + ".",
    "alg none, the real signature": lambda f: f.signed({"alg": "none"}),
    "alg none and empty type": lambda f: f.unsigned(alg="none", typ=None, kid=None) + ".",
    "alg missing": lambda f: f.signed({"alg": None}),
    "alg a list": lambda f: f.signed({"alg": ["Ed25519"]}),
    "alg in lower case": lambda f: f.signed({"alg": "eddsa"}),
    "alg Ed448": lambda f: f.signed({"alg": "Ed448"}),
    "HMAC with the public key, PEM": lambda f: f.hmac(f.public(PEM, SPKI)),
    "HMAC with the public key, PEM stripped": lambda f: f.hmac(f.public(PEM, SPKI).strip()),
    "HMAC with the public key, DER": lambda f: f.hmac(f.public(DER, SPKI)),
    "HMAC with the public key, raw": lambda f: f.hmac(f.public(RAW, BARE)),
    "HMAC with the public key, base64url": lambda f: f.hmac(pad(f.public(RAW, BARE)).encode()),
    "HMAC with the public key, JWK": lambda f: f.hmac(json.dumps(f.key.as_dict(private=False)).encode()),
    "HMAC with nothing": lambda f: f.hmac(b""),
    "HMAC with a key of one's own": lambda f: f.by(OctKey.generate_key(256), "HS256"),
    "RS256 with a key in the header": _embedded_rsa,
    "ES256 with a key in the header": _embedded_ec,
    "ES256 with a signature of zeros": lambda f: _psychic(f, "ES256", 64),
    # The key
    "Ed25519 with a key in the header": _embedded_ed25519,
    "another key under the right kid": lambda f: f.by(OKPKey.generate_key("Ed25519"), "Ed25519"),
    "kid unknown": lambda f: f.signed({"kid": "unknown"}),
    "kid missing": lambda f: f.signed({"kid": None}),
    "kid empty": lambda f: f.signed({"kid": ""}),
    "kid a path": lambda f: f.signed({"kid": "../../../../../../dev/null"}),
    "kid SQL": lambda f: f.signed({"kid": "x' union select 'AA=='; --"}),
    "kid a command": lambda f: f.signed({"kid": "| sleep 10"}),
    "kid very long": lambda f: f.signed({"kid": "k" * 2_000}),
    "kid a list": lambda f: f.signed({"kid": [f.key.kid]}),
    "kid an object": lambda f: f.signed({"kid": {"kid": f.key.kid}}),
    "kid a number": lambda f: f.signed({"kid": 0}),
    "kid with a null byte": lambda f: f.signed({"kid": f"{f.key.kid}\0"}),
    "jwk beside the right kid": lambda f: f.signed({"jwk": f.key.as_dict(private=False)}),
    "jku": lambda f: f.signed({"jku": HTTPS}),
    "x5u": lambda f: f.signed({"x5u": HTTPS}),
    "x5c": lambda f: f.signed({"x5c": ["MIIB"]}),
    "x5t": lambda f: f.signed({"x5t": "AAAA"}),
    # The header
    "crit unknown": lambda f: f.signed({"crit": ["exp2"], "exp2": 1}),
    "crit empty": lambda f: f.signed({"crit": []}),
    "b64 false": lambda f: f.signed({"b64": False, "crit": ["b64"]}),
    "b64 false without crit": lambda f: f.signed({"b64": False}),
    "cty a nested token": lambda f: f.signed({"cty": "JWT"}),
    "zip": lambda f: f.signed({"zip": "DEF"}),
    "a header of ours and one more": lambda f: f.signed({"role": "admin"}),
    "typ JWT": lambda f: f.signed({"typ": "JWT"}),
    "typ missing": lambda f: f.signed({"typ": None}),
    "typ in capitals": lambda f: f.signed({"typ": "AT+JWT"}),
    "typ a list": lambda f: f.signed({"typ": ["at+jwt"]}),
    "typ of a logout token": lambda f: f.signed({"typ": "logout+jwt"}),
    "a header name twice": _duplicate_header,
    "a header that is a list": lambda f: f.raw("[]", json.dumps(f.claims())),
    "a header that is no UTF-8": lambda f: f.raw(b'{"alg":"\xff"}', json.dumps(f.claims())),
    # The signature
    "signature empty": lambda f: ".".join([*_parts(f)[:2], ""]),
    "signature stripped": lambda f: ".".join(_parts(f)[:2]),
    "signature of another token": _other_signature,
    "signature of zeros": lambda f: ".".join([*_parts(f)[:2], pad(bytes(64))]),
    "signature cut short": lambda f: ".".join([*_parts(f)[:2], pad(unpad(_parts(f)[2])[:32])]),
    "signature and more": lambda f: ".".join([*_parts(f)[:2], pad(unpad(_parts(f)[2]) + b"\0")]),
    "signature in another spelling": _spare_bits,
    "signature malleated": _malleable,
    "claims tampered with": _tampered,
    # The claims
    "a claim twice": _duplicate_claim,
    "claims a list": lambda f: f.raw(json.dumps(f.header()), "[]"),
    "claims a text": lambda f: f.raw(json.dumps(f.header()), '"demo"'),
    "claims nested too deep": lambda f: f.raw(json.dumps(f.header()), "[" * 1_500 + "]" * 1_500),
    "claims with more behind": lambda f: f.raw(json.dumps(f.header()), json.dumps(f.claims()) + "{}"),
    "claims with a byte order mark": lambda f: f.raw(
        json.dumps(f.header()), b"\xef\xbb\xbf" + json.dumps(f.claims()).encode()
    ),
    "a nested token": lambda f: f.raw(json.dumps(f.header()), f.signed()),
    "exp missing": lambda f: f.signed(exp=None),
    "exp past": lambda f: f.signed(iat=NOW_S - 700, exp=NOW_S - 60),
    "exp far in the future": lambda f: f.signed(exp=NOW_S + 10 * 365 * 86_400),
    "exp a text": lambda f: f.signed(exp=str(NOW_S + 600)),
    "exp true": lambda f: f.signed(exp=True),
    "exp NaN": lambda f: _claims_text(f, "exp", "NaN"),
    "exp Infinity": lambda f: _claims_text(f, "exp", "Infinity"),
    "exp an infinite float": lambda f: _claims_text(f, "exp", "1e999"),
    "exp a huge number": lambda f: _claims_text(f, "exp", "9" * 400),
    "exp a fraction": lambda f: _claims_text(f, "exp", f"{NOW_S + 600}.5"),
    "exp negative": lambda f: f.signed(exp=-1),
    "exp a list": lambda f: f.signed(exp=[NOW_S + 600]),
    "exp before iat": lambda f: f.signed(iat=NOW_S + 3, exp=NOW_S + 2),
    "iat missing": lambda f: f.signed(iat=None),
    "iat future": lambda f: f.signed(iat=NOW_S + 3_600, exp=NOW_S + 4_000),
    "iat a text": lambda f: f.signed(iat=str(NOW_S)),
    "nbf future": lambda f: f.signed(nbf=NOW_S + 600),
    "nbf a text": lambda f: f.signed(nbf="0"),
    "iss wrong": lambda f: f.signed(iss="somebody-else"),
    "iss missing": lambda f: f.signed(iss=None),
    "iss a list": lambda f: f.signed(iss=["tickgate"]),
    "iss with a slash": lambda f: f.signed(iss="tickgate/"),
    "aud wrong": lambda f: f.signed(aud="somebody-else"),
    "aud missing": lambda f: f.signed(aud=None),
    "aud a list with us": lambda f: f.signed(aud=["tickgate-api"]),
    "aud a list with us and others": lambda f: f.signed(aud=["tickgate-api", "somebody-else"]),
    "aud that begins like us": lambda f: f.signed(aud="tickgate-api2"),
    "sub missing": lambda f: f.signed(sub=None),
    "sub a number": lambda f: f.signed(sub=7),
    "client_id missing": lambda f: f.signed(client_id=None),
    "jti missing": lambda f: f.signed(jti=None),
    "jti an object": lambda f: f.signed(jti={"x": 1}),
    "scope missing": lambda f: f.signed(scope=None),
    "scope a list": lambda f: f.signed(scope=["market:read"]),
    "tenant missing": lambda f: f.signed(tenant=None),
    "tenant empty": lambda f: f.signed(tenant=""),
    "tenant a list": lambda f: f.signed(tenant=["demo"]),
    "tenant with a null byte": lambda f: f.signed(tenant="demo\0"),
    "tenant with a line break": lambda f: f.signed(tenant="demo\nx"),
    "family a number": lambda f: f.signed(family=1),
    # The text
    "an encrypted token of five parts": _encrypted,
    "four parts": lambda f: f.signed() + ".e30",
    "a megabyte": lambda f: f.signed(sub="a" * 1_000_000),
    "padding": lambda f: f.signed() + "==",
    "standard Base64": lambda f: ".".join([*_parts(f)[:2], "+/" + _parts(f)[2][2:]]),
    "a percent sign": lambda f: f.signed().replace(".", "%2e", 1),
    "a space inside": lambda f: f.signed().replace(".", ". ", 1),
    "a tab inside": lambda f: f.signed().replace(".", ".\t", 1),
    "two tokens": lambda f: f"{f.signed()} {f.signed()}",
    "two tokens and a comma": lambda f: f"{f.signed()},{f.signed()}",
    "quoted": lambda f: f'"{f.signed()}"',
    "only dots": lambda _: "..",
    "garbage": lambda _: "....",
    "no JSON": lambda _: "e30.e30.e30",
}

NOT_FOR_HEADERS: dict[str, Callable[[Forge], str]] = {
    # HTTP cannot carry these, or its server takes them off; the bridge's first message can.
    "a line break inside": lambda f: f.signed().replace(".", ".\n", 1),
    "a line break behind": lambda f: f.signed() + "\n",
    "a space before": lambda f: " " + f.signed(),
    "a null byte inside": lambda f: f.signed().replace(".", ".\0", 1),
    "Arabic digits": lambda f: f.signed().translate({ord("0") + n: 0x660 + n for n in range(10)}) + "\u0660",
    "full-width letters": lambda f: "\uff45" + f.signed()[1:],
    "a lone surrogate": lambda f: f.signed() + "\ud800",
    "empty": lambda _: "",
}
