"""Access control over the real application: every cell of the documented table, and tokens nobody should believe."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from functions.access import signing_keys
from functions.bootstrap import compose
from local import describe_access
from local.embedded import EmbeddedServers
from shared.errors import ConfigurationError
from shared.settings import Settings
from tests.integration.api_shop import ApiShop, behaviour, open_shop, problem_of
from tests.integration.credentials import AUDIENCE, Credentials, bearer, public_jwk

OWNER, OTHER = "ann", "ben"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
FILLED = {
    "user_id": OWNER, "item_id": "sku-0003", "receipt": "0" * 32, "recommendation_id": f"r-test-1.{"0" * 32}",
    "release_id": "r-test-9", "source": "live-1", "partition": "0", "sequence": "5",
}  # fmt: skip
BODIES: dict[str, Any] = {
    "POST /events": [behaviour(OTHER, 3)],
    "PUT /items/{item_id}": {"title": "A thing"},
    "PATCH /items/{item_id}": {"stock": 5},
    "POST /items:batch": {"items": [{"item_id": "sku-0003", "stock": 5}]},
    "PUT /user_profile/{user_id}/preferences": {},
    "POST /dead_letters/replay": {"all": True, "dry_run": True},
}


@pytest.fixture
def credentials(tmp_path: Path) -> Credentials:
    return Credentials(tmp_path)


@pytest.fixture
def shop(servers: EmbeddedServers, tmp_path: Path, credentials: Credentials) -> Iterator[ApiShop]:
    with opened(servers, tmp_path, credentials) as found:
        yield found


def opened(servers: EmbeddedServers, folder: Path, credentials: Credentials, **settings: str) -> Any:
    """A shop without a release: what is behind the door does not matter here."""
    merged = {**credentials.settings, **settings}
    return open_shop(servers.state_url, servers.log_url, folder / "shop", stocked=False, **merged)


def documented_rows() -> list[tuple[str, list[str]]]:
    text = describe_access.PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([A-Z]+ /[^`]*)` \| \w+ \| (.*) \|$", text, re.MULTILINE)
    return [(name, cells.split(" | ")) for name, cells in rows]


def test_the_table_names_every_route_as_the_code_does(shop: ApiShop) -> None:
    page = describe_access.PAGE.read_text(encoding="utf-8")
    assert describe_access.page_of(shop.app.openapi(), page) == page, f"run {describe_access.COMMAND}"
    named = {name.partition("?")[0] for name, _ in documented_rows()}
    paths = shop.app.openapi()["paths"]
    assert named == {f"{method.upper()} {path}" for path, operations in paths.items() for method in operations}


def test_every_cell_of_the_table_is_what_the_application_answers(shop: ApiShop, credentials: Credentials) -> None:
    presented = {
        "nothing": {},
        "her own token": credentials.shopper(OWNER),
        "another's token": credentials.shopper(OTHER),
        "service key": credentials.service,
        "operator key": credentials.operator,
        "expired token": credentials.shopper(OWNER, exp=int(time.time()) - 3600, iat=None),
    }
    wrong = []
    for name, cells in documented_rows():
        method, _, target = name.partition(" ")
        path = re.sub(r"{(\w+)}", lambda found: FILLED.get(found[1], "x-1"), target) + (
            OWNER if target.endswith("user_id=") else ""
        )
        for column, expected in zip(describe_access.COLUMNS, cells, strict=True):
            answer = shop.client.request(method, path, json=BODIES.get(name), headers=presented[column])
            let_in = answer.status_code not in {401, 403, 500}
            if (expected == "yes") != let_in or (expected != "yes" and answer.status_code != int(expected)):
                wrong.append((name, column, expected, answer.status_code, answer.text[:200]))
            if answer.status_code in {401, 403}:
                assert OWNER not in problem_of(answer, answer.status_code)["detail"]
                assert ("www-authenticate" in answer.headers) == (answer.status_code == 401)
                assert answer.headers["cache-control"] == "no-store"
    assert not wrong


def test_a_role_in_a_token_does_what_the_key_would(shop: ApiShop, credentials: Credentials) -> None:
    for roles, path, status in [
        (["operator"], "/metrics", 200),
        ("shopper operator", "/metrics", 200),
        (["service"], "/metrics", 403),
        (["Operator", 7, None], "/metrics", 403),
        ({"operator": True}, "/metrics", 403),
        (["service"], f"/recommendations/{FILLED['recommendation_id']}", 404),
    ]:
        answer = shop.client.get(path, headers=credentials.shopper("back-end", roles=roles))
        assert answer.status_code == status, (roles, answer.text)
    shopper = credentials.shopper(OWNER)
    assert shop.client.get(f"/popular?user_id={OWNER}&user_id={OTHER}", headers=shopper).status_code == 403
    assert shop.client.get(f"/user_profile/{OWNER}?user_id={OTHER}", headers=shopper).status_code == 403
    assert shop.client.get("/user_profile/ANN", headers=shopper).status_code == 403


def unsigned(claims: dict[str, Any], header: dict[str, Any]) -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(one).encode()).rstrip(b"=").decode() for one in (header, claims)]
    return ".".join([*parts, ""])


def forged(credentials: Credentials) -> dict[str, str]:
    """Tokens that must not do, by what is wrong with them."""
    now_s = int(time.time())
    claims = {"sub": OWNER, "iss": "https://login.example/", "aud": AUDIENCE, "exp": now_s + 300}
    stranger = ec.generate_private_key(ec.SECP256R1())
    public = credentials.signing_key.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    good = credentials.token(OWNER)
    head, body, signature = good.split(".")
    hs256 = {
        name: jwt.api_jws.PyJWS().encode(json.dumps(claims).encode(), base64.b64encode(key), "HS256", {"kid": "first"})
        for name, key in {"pem": pem, "der": der}.items()
    }
    by_stranger = jwt.encode(claims, stranger, "ES256", {"kid": "first"})
    jwk = public_jwk(stranger, "first")
    pointing = {"jku": "https://evil.example/keys", "x5u": "https://evil.example/cert", "jwk": jwk}
    other = unsigned({**claims, "sub": OTHER}, {"alg": "ES256", "kid": "first"}).split(".")[1]
    return {
        "alg none": unsigned(claims, {"alg": "none", "typ": "JWT"}),
        "alg None with our kid": unsigned(claims, {"alg": "nOnE", "kid": "first"}),
        "no signature": f"{head}.{body}.",
        "another body under the signature": f"{head}.{other}.{signature}",
        "signed by a stranger": by_stranger,
        "signed by a stranger without kid": jwt.encode(claims, stranger, "ES256"),
        "RS256 by a stranger": jwt.encode(claims, RSA_KEY, "RS256", {"kid": "first"}),
        "PS256": jwt.encode(claims, RSA_KEY, "PS256", {"kid": "first"}),
        "HS256 with the public key as PEM": hs256["pem"],
        "HS256 with the public key as DER": hs256["der"],
        "a header that points elsewhere": jwt.encode(claims, stranger, "ES256", {"kid": "first", **pointing}),
        "kid of a path": jwt.encode(claims, stranger, "ES256", {"kid": "../../../../dev/null"}),
        "kid of SQL": jwt.encode(claims, stranger, "ES256", {"kid": "x' UNION SELECT 'key"}),
        "expired": credentials.token(OWNER, exp=now_s - 31),
        "expired long ago": credentials.token(OWNER, exp=0, iat=None),
        "not yet valid": credentials.token(OWNER, nbf=now_s + 3600),
        "issued in the future": credentials.token(OWNER, iat=now_s + 3600),
        "without exp": credentials.token(OWNER, exp=None),
        "exp as text": credentials.token(OWNER, exp="tomorrow"),
        "exp infinite": credentials.token(OWNER, exp=float("inf")),
        "exp true": credentials.token(OWNER, exp=True),
        "exp in a list": credentials.token(OWNER, exp=[now_s + 300]),
        "nbf as text": credentials.token(OWNER, nbf="soon"),
        "wrong audience": credentials.token(OWNER, aud="another-service"),
        "no audience": credentials.token(OWNER, aud=None),
        "wrong issuer": credentials.token(OWNER, iss="https://login.example"),
        "no issuer": credentials.token(OWNER, iss=None),
        "no sub": credentials.token(None),  # type: ignore[arg-type]  # what it is for
        "empty sub": credentials.token(""),
        "another sub": credentials.token(OTHER),
        "critical header": credentials.token(OWNER, headers={"crit": ["exp"], "exp": 1}),
        "detached": credentials.token(OWNER, headers={"b64": False, "crit": ["b64"]}),
        "huge": credentials.token(OWNER, padding="x" * 9000),
        "garbage": "a.b.c",
        "dots": "..",
        "more dots": good + ".x",
        "letters": "\x80\xff.\xfe.z",
        "nesting": ".".join([base64.urlsafe_b64encode(b"[" * 5000).decode().rstrip("="), body, signature]),
        "header is a list": ".".join([base64.urlsafe_b64encode(b"[1]").decode().rstrip("="), body, signature]),
        "a key": "k" * 40,
        "nothing": "",
    }


def test_a_forged_token_opens_nothing(shop: ApiShop, credentials: Credentials) -> None:
    assert shop.client.get(f"/user_profile/{OWNER}", headers=credentials.shopper(OWNER)).status_code == 503
    wrong = []
    for name, token in forged(credentials).items():
        for path in (f"/user_profile/{OWNER}", f"/popular?user_id={OWNER}", "/metrics"):
            answer = shop.client.get(path, headers={"Authorization": b"Bearer " + token.encode("latin-1")})
            if answer.status_code not in {401, 403}:
                wrong.append((name, path, answer.status_code))
    assert not wrong
    key = credentials.operator_key
    good = credentials.token(OWNER)
    for headers in (
        [("Authorization", f"Basic {key}")],
        [("Authorization", f"Bearer {key}x")],
        [("Authorization", f"Bearer {key}"), ("Authorization", f"Bearer {key}")],
        [("X-API-Key", key), ("Authorization", f"Bearer {good}")],
        [("X-API-Key", key[:-1])],
        [("X-API-Key", good)],
        [("X-API-Key", "")],
        [("Cookie", f"X-API-Key={key}")],
    ):
        assert shop.client.get("/metrics", headers=headers).status_code == 401, headers
    assert shop.client.get("/metrics", headers={"authorization": f"bEARER  {key}"}).status_code == 200
    assert shop.client.get(f"/metrics?x_api_key={key}").status_code == 401


def test_either_kind_of_signature_and_several_keys_at_once_are_taken(
    servers: EmbeddedServers, tmp_path: Path, credentials: Credentials
) -> None:
    by_rsa = Credentials(tmp_path, signing_key=RSA_KEY, key_id="second")
    credentials.settings["SERVICE_KEYS"] = f"{'n' * 32},{credentials.service_key}"
    credentials.write_keys({"first": credentials.signing_key, "second": RSA_KEY})
    with opened(servers, tmp_path, credentials) as shop:
        for one in (credentials, by_rsa):
            assert shop.client.get(f"/user_profile/{OWNER}", headers=one.shopper(OWNER)).status_code == 503
        for key in ("n" * 32, credentials.service_key):
            assert shop.client.post("/events", json=[behaviour(OWNER, 1)], headers=bearer(key)).status_code == 202


class KeyServer:
    """An issuer's document of keys over HTTP; it can be away."""

    def __init__(self, credentials: Credentials) -> None:
        self.document = credentials.write_keys({"first": credentials.signing_key}).read_bytes()
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                self.send_response(200 if outer.document else 500)
                self.end_headers()
                self.wfile.write(outer.document)

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}/keys"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def test_keys_over_http_outlive_their_server_and_a_new_one_is_found(
    servers: EmbeddedServers, tmp_path: Path, credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing_keys, "PAUSE_BETWEEN_FETCHES_S", 0.3)
    second = Credentials(tmp_path, signing_key=RSA_KEY, key_id="second")
    with (
        closing(KeyServer(credentials)) as keys,
        opened(servers, tmp_path, credentials, AUTH_JWKS=keys.address) as shop,
    ):

        def status(one: Credentials) -> int:
            return int(shop.client.get(f"/user_profile/{OWNER}", headers=one.shopper(OWNER)).status_code)

        assert status(credentials) == 503, "let in; there is no release"
        assert keys.asked == 1
        keys.document = b""
        time.sleep(0.4)
        answer = shop.client.get(f"/user_profile/{OWNER}", headers=second.shopper(OWNER))
        assert problem_of(answer, 503)["type"].endswith(":signing_keys_unavailable")
        assert status(second) == 503
        assert keys.asked == 2, "the second token with an unknown key did not ask again at once"
        unknown = shop.client.get(f"/user_profile/{OWNER}", headers=credentials.shopper(OWNER))
        assert problem_of(unknown, 503)["type"].endswith(":no_release"), "the known key goes on"
        keys.document = credentials.write_keys({"second": RSA_KEY}).read_bytes()
        time.sleep(0.4)
        assert problem_of(shop.client.get(f"/user_profile/{OWNER}", headers=second.shopper(OWNER)), 503)[
            "type"
        ].endswith(":no_release")
        assert status(Credentials(tmp_path, key_id="first")) == 401, "the first key is gone"


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"AUTH_JWKS": "", "SERVICE_KEYS": ""}, "AUTH_JWKS"),
        ({"AUTH_ISSUER": ""}, "AUTH_ISSUER"),
        ({"AUTH_AUDIENCE": ""}, "AUTH_AUDIENCE"),
        ({"AUTH_JWKS": "there/is/no/such/file.json"}, "AUTH_JWKS"),
    ],
)
def test_access_control_without_key_material_does_not_start(
    credentials: Credentials, changed: dict[str, str], named: str
) -> None:
    with pytest.raises(ConfigurationError, match=named):
        compose(Settings.from_environment({**credentials.settings, **changed}))


def test_off_is_said_loudly_and_opens_everything(
    servers: EmbeddedServers, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_shop(servers.state_url, servers.log_url, tmp_path, stocked=False) as shop:
        assert shop.client.get("/metrics", headers=bearer("a.b.c")).status_code == 200
        shop.services.start()
    assert sum("ACCESS CONTROL IS OFF" in record.getMessage() for record in caplog.records) == 1
