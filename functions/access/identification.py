"""From what a request presents to who calls: keys at once, tokens by signature; nothing blocks the event loop."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable
from typing import Final

from starlette.concurrency import run_in_threadpool

from functions.access.api_keys import ApiKeys
from functions.access.caller import ANONYMOUS, Caller, SigningKeysUnavailable, Unauthenticated
from functions.access.signing_keys import SigningKeys
from functions.access.token_verifier import TokenRules, invalid_token, key_id_of, verify_token
from shared.adapters.jwks_document import is_remote, read_jwks
from shared.errors import ConfigurationError, InfrastructureFault
from shared.settings import Settings

log = logging.getLogger(__name__)

LONGEST_REMEMBERED_S: Final = 60.0
MOST_REMEMBERED: Final = 10_000


class Identification:
    """Verifies credentials; tokens found valid are remembered for a minute at most, by their hash."""

    def __init__(
        self, keys: ApiKeys, tokens: tuple[SigningKeys, TokenRules] | None, now_s: Callable[[], float]
    ) -> None:
        """`tokens` is None where no tokens are taken; `now_s` is the clock in epoch seconds."""
        self._keys = keys
        self._tokens = tokens
        self._now_s = now_s
        self._remembered: dict[bytes, tuple[Caller, float]] = {}

    def by_key(self, headers: Iterable[tuple[bytes, bytes]]) -> Caller | None:
        """The caller whom a key alone identifies: quick enough to be asked before anything else."""
        presented = [value for name, value in headers if name in _CREDENTIALS]
        return self._keys.find(_secret_of(presented[0])) if len(presented) == 1 else None

    async def identify(self, headers: Iterable[tuple[bytes, bytes]]) -> Caller:
        """The caller; ANONYMOUS when nothing is presented.

        Raises:
            Unauthenticated: what is presented is not valid.
            SigningKeysUnavailable: it cannot be said now.
        """
        presented = [(name, value) for name, value in headers if name in _CREDENTIALS]
        if not presented:
            return ANONYMOUS
        if len(presented) > 1:
            raise Unauthenticated("more than one key or token was presented; send one", presented=True)
        name, value = presented[0]
        secret = _secret_of(value)
        if name == b"authorization" and secret.count(b".") == 2:
            return await self._by_token(secret)
        found = self._keys.find(secret)
        if found is None:
            raise Unauthenticated("the key is not valid here", presented=True)
        return found

    async def _by_token(self, presented: bytes) -> Caller:
        if self._tokens is None:
            raise invalid_token()
        now_s = self._now_s()
        digest = hashlib.sha256(presented).digest()
        remembered = self._remembered.get(digest)
        if remembered is not None and now_s < remembered[1]:
            return remembered[0]
        keys, rules = self._tokens
        try:
            token = presented.decode("ascii")
        except UnicodeDecodeError as error:
            raise invalid_token() from error
        key_id = key_id_of(token)
        key = keys.known(key_id)
        if key is None and keys.may_have_changed():
            await run_in_threadpool(_look_again, keys)
            key = keys.known(key_id)
        if key is None:
            keys.may_have_changed()
            raise invalid_token()
        caller, expires_at_s = verify_token(token, key, rules, now_s)
        if len(self._remembered) >= MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[digest] = caller, min(expires_at_s, now_s + LONGEST_REMEMBERED_S)
        return caller


_CREDENTIALS: Final = frozenset({b"authorization", b"x-api-key"})


def _secret_of(value: bytes) -> bytes:
    scheme, space, rest = value.strip().partition(b" ")
    return rest.strip() if space and scheme.lower() == b"bearer" else value.strip()


def _look_again(keys: SigningKeys) -> None:
    try:
        keys.refresh()
    except InfrastructureFault as error:
        log.warning("%s; keys known so far go on", error)
        raise SigningKeysUnavailable("the token's signing key is not known and the keys cannot be read now") from error


def open_identification(
    settings: Settings, clock: Callable[[], int], seconds: Callable[[], float]
) -> tuple[Identification | None, SigningKeys | None]:
    """What the settings ask for: (None, None) where access control is off, no signing keys where no tokens are.

    Raises:
        ConfigurationError: it is on and key material is missing or unusable; the message names the setting.
    """
    if not settings.auth:
        return None, None
    if not settings.auth_jwks and not settings.service_keys:
        raise ConfigurationError(
            "AUTH is on and nobody could come in: set AUTH_JWKS (with AUTH_ISSUER and AUTH_AUDIENCE) for shoppers' "
            "tokens, SERVICE_KEYS for the shop's back end, or both"
        )
    signing_keys = _open_signing_keys(settings, seconds) if settings.auth_jwks else None
    rules = TokenRules(settings.auth_issuer, settings.auth_audience, settings.auth_roles_claim, settings.auth_leeway_s)
    keys = ApiKeys(settings.service_keys, settings.operator_keys)
    tokens = None if signing_keys is None else (signing_keys, rules)
    return Identification(keys, tokens, lambda: clock() / 1000), signing_keys


def _open_signing_keys(settings: Settings, seconds: Callable[[], float]) -> SigningKeys:
    for name, value in (("AUTH_ISSUER", settings.auth_issuer), ("AUTH_AUDIENCE", settings.auth_audience)):
        if not value:
            raise ConfigurationError(f"{name} must be set with AUTH_JWKS: a token made for another service must not do")
    keys = SigningKeys(lambda: read_jwks(settings.auth_jwks), seconds)
    if not is_remote(settings.auth_jwks):
        try:
            keys.refresh()
        except InfrastructureFault as error:
            raise ConfigurationError(f"AUTH_JWKS: {error}") from error
    return keys
