"""Who may ask: keys, names of the server, other sites' pages."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from bunny.serve.access import Access
from bunny.serve.app import Rules
from tests.serve.hostile import CHAT, Case, as_bytes, question
from tests.serve.sending import ask, get, send
from tests.serve.stub import Stub, served

KEY, OTHER = "a-long-secret-of-ours", "another-long-secret"
SITE = "https://friend.test"


@pytest.fixture(scope="module")
def open_door() -> Iterator[str]:
    with served(Stub(), rules=Rules(Access(hosts=("bunny.test",), origins=(SITE,)))) as address:
        yield address


@pytest.fixture(scope="module")
def keyed() -> Iterator[str]:
    with served(Stub(), rules=Rules(Access("0.0.0.0", keys=(KEY, OTHER)))) as address:
        yield address


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer ", f"Basic {KEY}", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", KEY]
)
def test_a_wrong_key_opens_nothing(keyed: str, given: str) -> None:
    status, said = ask(keyed, question(), authorization=given)
    assert (status, said["error"]["code"]) == (401, "invalid_api_key")
    for path in ("/v1/models", "/v1/models/stub", "/metrics"):
        status, headers, _ = get(keyed, path, authorization=given)
        assert (status, headers["www-authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize("key", [KEY, OTHER])
def test_each_key_opens_everything(keyed: str, key: str) -> None:
    assert ask(keyed, question(), authorization=f"Bearer {key}")[0] == 200
    for path in ("/v1/models", "/v1/models/stub", "/metrics"):
        assert get(keyed, path, authorization=f"bearer {key}")[0] == 200


def test_the_page_and_the_state_need_no_key(keyed: str) -> None:
    for path in ("/", "/main.js", "/health", "/ready", "/openapi.json", "/page/config.json"):
        assert get(keyed, path)[0] == 200
    assert json.loads(get(keyed, "/page/config.json")[2])["key_needed"] is True


def test_a_body_is_not_read_before_the_key(keyed: str) -> None:
    promised = Case("", "", headers={"content-length": "1000000"})
    assert send(keyed, promised)[0] == 401


def test_keys_are_never_written_down(keyed: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    ask(keyed, question(), authorization=f"Bearer {KEY}")
    _, said = ask(keyed, question(), authorization="Bearer wrong-but-secret")
    assert caplog.text and KEY not in caplog.text and "wrong-but-secret" not in caplog.text + json.dumps(said)


@pytest.mark.parametrize(
    "host", ["evil.test", "127.0.0.1.evil.test", "bunny.test.evil.test", "", "[::1", "localhost@evil.test"]
)
def test_a_foreign_name_for_this_machine_is_refused(open_door: str, host: str) -> None:
    status, _, body = get(open_door, "/v1/models", host=host)
    assert (status, json.loads(body)["error"]["code"]) == (403, "wrong_host")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:80", "bunny.test", "BUNNY.test:8000"])
def test_own_names_are_known(open_door: str, host: str) -> None:
    assert get(open_door, "/v1/models", host=host)[0] == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.test", "null", "http://127.0.0.1", "http://[", "https://friend.test.evil"]
)
def test_another_sites_page_is_refused(open_door: str, origin: str) -> None:
    status, said = ask(open_door, question(), origin=origin)
    assert (status, said["error"]["code"]) == (403, "wrong_origin")


def test_a_picture_tag_of_another_site_is_refused(open_door: str) -> None:
    assert get(open_door, "/v1/models", sec_fetch_site="cross-site", sec_fetch_mode="no-cors")[0] == 403


def test_a_link_of_another_site_leads_to_the_page(open_door: str) -> None:
    assert get(open_door, "/", sec_fetch_site="cross-site", sec_fetch_mode="navigate")[0] == 200


def test_our_own_page_may_ask(open_door: str) -> None:
    assert ask(open_door, question(), origin=open_door, sec_fetch_site="same-origin")[0] == 200


def test_an_allowed_sites_page_may_ask(open_door: str) -> None:
    asked = Case("", "", as_bytes(question()), headers={"origin": SITE, "sec-fetch-site": "cross-site"})
    status, headers, _ = send(open_door, asked)
    assert (status, headers["access-control-allow-origin"], headers["vary"]) == (200, SITE, "origin")


def test_a_browser_is_told_what_an_allowed_site_may(open_door: str) -> None:
    wanted = {
        "origin": SITE,
        "access-control-request-method": "POST",
        "access-control-request-headers": "x-stainless-os",
    }
    status, headers, _ = send(open_door, Case("", "", method="OPTIONS", path=CHAT, headers=wanted))
    assert (status, headers["access-control-allow-headers"]) == (204, "x-stainless-os")
    status, headers, _ = send(
        open_door, Case("", "", method="OPTIONS", path=CHAT, headers={**wanted, "origin": "null"})
    )
    assert status == 403 and "access-control-allow-origin" not in headers


def test_every_answer_has_a_number_and_guards_the_browser(open_door: str) -> None:
    for path in ("/", "/v1/models", "/nothing"):
        _, headers, _ = get(open_door, path)
        assert headers["x-request-id"].startswith("req-") and headers["x-content-type-options"] == "nosniff"
