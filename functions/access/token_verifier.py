"""Tokens: JSON Web Tokens (RFC 7519) signed with RS256 or ES256, verified by PyJWT; instants are arguments."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import jwt

from functions.access.caller import Caller, Role, Unauthenticated

ALGORITHMS: Final = ("RS256", "ES256")
LONGEST_TOKEN: Final = 8192
_BROKEN: Final = (jwt.PyJWTError, ValueError, TypeError, KeyError, OverflowError, RecursionError)
_ROLES: Final = {"service": Role.SERVICE, "operator": Role.OPERATOR}


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What a token must say; `leeway_s` is how far clocks may differ, `roles_claim` where the roles stand."""

    issuer: str
    audience: str
    roles_claim: str
    leeway_s: int


def key_id_of(token: str) -> str | None:
    """The id of the key that the token says it is signed with. Raises Unauthenticated."""
    if len(token) > LONGEST_TOKEN:
        raise invalid_token()
    try:
        header = jwt.get_unverified_header(token)
    except _BROKEN as error:
        raise invalid_token() from error
    key_id = header.get("kid")
    if header.get("alg") not in ALGORITHMS or not isinstance(key_id, str | None):
        raise invalid_token()
    return key_id


def verify_token(token: str, key: jwt.PyJWK, rules: TokenRules, now_s: float) -> tuple[Caller, float]:
    """The caller whom the token names, and until when (epoch seconds) it is valid.

    The algorithm is the key's, never the token's choice. Raises Unauthenticated.
    """
    try:
        claims = jwt.decode(
            token,
            key=key,
            algorithms=[key.algorithm_name],
            audience=rules.audience,
            issuer=rules.issuer,
            options={
                "require": ["exp", "sub", "iss", "aud"],
                # Instants are compared below, with the instant that was handed in.
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
            },
        )
    except _BROKEN as error:
        raise invalid_token() from error
    expires_at_s = _instant(claims, "exp")
    if now_s >= expires_at_s + rules.leeway_s:
        raise Unauthenticated("the token has expired; sign in again", presented=True)
    if any(now_s < _instant(claims, name) - rules.leeway_s for name in ("nbf", "iat") if name in claims):
        raise Unauthenticated("the token is not valid yet", presented=True)
    return _caller(claims, rules.roles_claim), expires_at_s


def invalid_token() -> Unauthenticated:
    """One text for all that is wrong with a token: it must not teach how to forge one."""
    return Unauthenticated("the token is not valid here", presented=True)


def _instant(claims: Mapping[str, Any], name: str) -> float:
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise invalid_token()
    return float(value)


def _caller(claims: Mapping[str, Any], roles_claim: str) -> Caller:
    subject = claims["sub"]
    if not isinstance(subject, str) or not subject:
        raise invalid_token()
    listed = claims.get(roles_claim, ())
    names = listed.split() if isinstance(listed, str) else listed if isinstance(listed, list) else ()
    role = max((_ROLES[name] for name in names if isinstance(name, str) and name in _ROLES), default=Role.SHOPPER)
    counted_as = hashlib.sha256(subject.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return Caller(role, subject, f"sub:{counted_as}")
