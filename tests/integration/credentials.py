"""Credentials of every kind for a shop with access control on: what an identity provider and an operator would give.

`open_shop(..., **credentials.settings)` switches it on; `headers(...)` are what a caller sends.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

ISSUER = "https://login.example/"
AUDIENCE = "recommndr"


def public_jwk(key: Any, key_id: str) -> dict[str, Any]:
    """The public half as a JSON Web Key."""
    algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    found = algorithm.to_jwk(key.public_key(), as_dict=True)
    return {**found, "kid": key_id, "use": "sig", "alg": "RS256" if algorithm is RSAAlgorithm else "ES256"}


@dataclass
class Credentials:
    """An issuer with one key, a service's key and an operator's; the key set lies in `folder`."""

    folder: Path
    signing_key: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    key_id: str = "first"
    service_key: str = field(default_factory=lambda: f"service-{secrets.token_urlsafe(24)}")
    operator_key: str = field(default_factory=lambda: f"operator-{secrets.token_urlsafe(24)}")

    @cached_property
    def settings(self) -> dict[str, str]:
        """Settings by their environment names."""
        return {
            "AUTH": "on",
            "AUTH_JWKS": str(self.write_keys({self.key_id: self.signing_key})),
            "AUTH_ISSUER": ISSUER,
            "AUTH_AUDIENCE": AUDIENCE,
            "SERVICE_KEYS": self.service_key,
            "OPERATOR_KEYS": self.operator_key,
        }

    def write_keys(self, keys: dict[str, Any]) -> Path:
        """The key set as a file."""
        path = self.folder / "jwks.json"
        path.write_text(json.dumps({"keys": [public_jwk(key, key_id) for key_id, key in keys.items()]}))
        return path

    def token(self, user_id: str, *, headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token of this user, valid for five minutes; a claim given as None is left out."""
        now_s = int(time.time())
        said = {"sub": user_id, "iss": ISSUER, "aud": AUDIENCE, "iat": now_s, "exp": now_s + 300, **claims}
        kept = {name: value for name, value in said.items() if value is not None}
        algorithm = "RS256" if isinstance(self.signing_key, rsa.RSAPrivateKey) else "ES256"
        return jwt.encode(kept, self.signing_key, algorithm, {"kid": self.key_id, **(headers or {})})

    def shopper(self, user_id: str, **claims: Any) -> dict[str, str]:
        """Headers of a shopper who is signed in."""
        return bearer(self.token(user_id, **claims))

    @property
    def service(self) -> dict[str, str]:
        """Headers of the shop's back end."""
        return {"X-API-Key": self.service_key}

    @property
    def operator(self) -> dict[str, str]:
        """Headers of an operator."""
        return {"X-API-Key": self.operator_key}


def bearer(token: str) -> dict[str, str]:
    """The header that carries a token."""
    return {"Authorization": f"Bearer {token}"}
