"""The cache of signing keys: which are usable, and when the document is looked at again."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from functions.access.caller import SigningKeysUnavailable
from functions.access.signing_keys import SigningKeys, usable_keys
from shared.errors import InfrastructureFault

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def document(*keys: Any) -> bytes:
    return json.dumps({"keys": keys}).encode()


def rsa_jwk(key: rsa.RSAPrivateKey = RSA_KEY, **members: Any) -> dict[str, Any]:
    return {**RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": "r", **members}


def ec_jwk(key: ec.EllipticCurvePrivateKey = EC_KEY, **members: Any) -> dict[str, Any]:
    return {**ECAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": "e", **members}


def test_only_public_keys_for_the_two_algorithms_are_usable() -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    secret = {"kty": "oct", "kid": "o", "k": base64.urlsafe_b64encode(b"s" * 32).decode().rstrip("=")}
    refused = [
        secret,
        {**secret, "alg": "HS256"},
        {**secret, "alg": "RS256", "kty": "RSA"},
        rsa_jwk(weak, kid="weak"),
        rsa_jwk(kid="encryption", use="enc"),
        rsa_jwk(kid="pss", alg="PS256"),
        rsa_jwk(kid="confused", alg="HS256"),
        rsa_jwk(kid=7),
        {**RSAAlgorithm.to_jwk(RSA_KEY, as_dict=True), "kid": "private"},
        ec_jwk(ec.generate_private_key(ec.SECP384R1()), kid="p384"),
        ec_jwk(kid="point", x="AAAA"),
        {"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "okp"},
        {"kid": "empty"},
        7,
        None,
    ]
    kept = usable_keys(document(*refused, rsa_jwk(), ec_jwk(use="sig", alg="ES256"), rsa_jwk(kid="e")))
    assert {key_id: key.algorithm_name for key_id, key in kept.items()} == {"r": "RS256", "e": "ES256"}
    with pytest.raises(InfrastructureFault):
        usable_keys(document(*refused))


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"keys": {}}', b'{"keys": []}', b"[" * 100_000, b"\xff", b"null"]
)
def test_what_is_no_key_set_is_said(text: bytes) -> None:
    with pytest.raises(InfrastructureFault):
        usable_keys(text)


class Issuer:
    def __init__(self) -> None:
        self.now_s = 1000.0
        self.text: bytes | None = document(rsa_jwk())
        self.asked = 0
        self.keys = SigningKeys(self.read, lambda: self.now_s)

    def read(self) -> bytes:
        self.asked += 1
        if self.text is None:
            raise InfrastructureFault("away")
        return self.text


def test_an_unknown_key_is_looked_for_now_and_then_and_known_ones_outlive_the_document() -> None:
    issuer = Issuer()
    keys = issuer.keys
    assert keys.may_have_changed()
    keys.refresh()
    assert keys.known("r") is not None
    assert keys.known("e") is None
    assert not keys.may_have_changed(), "it was read just now: the key does not exist"
    issuer.now_s += 9.9
    assert not keys.may_have_changed()
    issuer.now_s += 0.2
    assert keys.may_have_changed()

    issuer.text = None
    with pytest.raises(InfrastructureFault):
        keys.refresh()
    assert keys.known("r") is not None
    with pytest.raises(SigningKeysUnavailable):
        keys.may_have_changed()
    issuer.now_s += 10.1
    assert keys.may_have_changed()
    issuer.text = document(ec_jwk())
    keys.refresh()
    assert keys.known("r") is None
    assert keys.known("e") is not None
    assert issuer.asked == 3


def test_a_token_without_a_key_id_may_mean_the_only_key() -> None:
    issuer = Issuer()
    issuer.keys.refresh()
    assert issuer.keys.known(None) is issuer.keys.known("r")
    issuer.text = document(rsa_jwk(), ec_jwk())
    issuer.keys.refresh()
    assert issuer.keys.known(None) is None


def test_of_many_that_want_new_keys_one_asks_and_nobody_waits() -> None:
    issuer = Issuer()
    within: list[str] = []

    def read() -> bytes:
        keys.refresh()
        with pytest.raises(SigningKeysUnavailable):
            keys.may_have_changed()
        within.append("asked")
        return document(rsa_jwk())

    keys = SigningKeys(read, lambda: issuer.now_s)
    keys.refresh()
    assert within == ["asked"]
