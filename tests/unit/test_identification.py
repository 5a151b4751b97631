"""How long a verified token is remembered, and that nobody's patience is asked for keys."""

from __future__ import annotations

import asyncio
from hashlib import sha256
from pathlib import Path

import pytest

from functions.access import identification, token_verifier
from functions.access.api_keys import ApiKeys
from functions.access.caller import ANONYMOUS, Role, Unauthenticated
from functions.access.identification import Identification
from functions.access.signing_keys import SigningKeys
from functions.access.token_verifier import TokenRules
from tests.integration.credentials import AUDIENCE, ISSUER, Credentials

NOW_S = 1_780_000_000


class World:
    def __init__(self, folder: Path) -> None:
        self.credentials = Credentials(folder)
        self.now_s = float(NOW_S)
        path = self.credentials.write_keys({"first": self.credentials.signing_key})
        self.keys = SigningKeys(path.read_bytes, lambda: self.now_s)
        rules = TokenRules(ISSUER, AUDIENCE, "roles", 0)
        self.identification = Identification(ApiKeys([], []), (self.keys, rules), lambda: self.now_s)

    def identify(self, token: str) -> str | None:
        header = (b"authorization", f"Bearer {token}".encode())
        return asyncio.run(self.identification.identify([header])).user_id


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_token_is_remembered_a_minute_and_never_beyond_its_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    verified = []
    verify = token_verifier.verify_token

    def counted(*arguments: object) -> object:
        verified.append(arguments)
        return verify(*arguments)  # type: ignore[arg-type]  # as it was called

    monkeypatch.setattr(identification, "verify_token", counted)
    long = world.credentials.token("ann", iat=NOW_S, exp=NOW_S + 300)
    short = world.credentials.token("ben", iat=NOW_S, exp=NOW_S + 10)
    for _ in range(3):
        assert (world.identify(long), world.identify(short)) == ("ann", "ben")
    assert len(verified) == 2
    world.now_s += 10
    with pytest.raises(Unauthenticated, match="expired"):
        world.identify(short)
    world.now_s += 51
    assert world.identify(long) == "ann"
    assert len(verified) == 4, "after a minute it is verified again"
    world.now_s += 300
    with pytest.raises(Unauthenticated):
        world.identify(long)


def test_a_key_that_was_taken_away_is_refused_after_a_minute(world: World) -> None:
    token = world.credentials.token("ann", iat=NOW_S, exp=NOW_S + 3000)
    assert world.identify(token) == "ann"
    world.credentials.write_keys({"first": Credentials(world.credentials.folder).signing_key})
    world.keys.refresh()
    assert world.identify(token) == "ann"
    world.now_s += 61
    with pytest.raises(Unauthenticated):
        world.identify(token)


def test_what_is_remembered_is_bounded_and_holds_no_token(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identification, "MOST_REMEMBERED", 5)
    tokens = [world.credentials.token(f"user-{number}", iat=NOW_S, exp=NOW_S + 60) for number in range(12)]
    for number, token in enumerate(tokens):
        assert world.identify(token) == f"user-{number}"
        assert 1 <= len(world.identification._remembered) <= 5
    assert all(len(digest) == 32 for digest in world.identification._remembered)


def test_keys_are_found_whichever_they_are_and_the_highest_role_counts() -> None:
    digests = [sha256(name.encode()).digest() for name in ("first", "second", "both")]
    keys = ApiKeys(digests, digests[2:])
    found = {name: keys.find(name.encode()) for name in ("first", "second", "both", "none", "", "x" * 600)}
    roles = {name: None if one is None else one.role for name, one in found.items()}
    assert roles == {
        "first": Role.SERVICE, "second": Role.SERVICE, "both": Role.OPERATOR, "none": None, "": None, "x" * 600: None,
    }  # fmt: skip
    identified = Identification(keys, None, lambda: 0.0)
    assert asyncio.run(identified.identify([])) is ANONYMOUS
    assert "first" not in repr(found["first"])
