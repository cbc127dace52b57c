"""Folders that the page links to, shown by the same server."""

from __future__ import annotations

import json

from bunny.curate.explore import Explorer
from bunny.serve.app import Rules
from bunny.serve.curation import shelf
from tests.serve.sending import get
from tests.serve.stub import Stub, served


def test_the_curation_explorer_is_a_part_of_the_server(explorer: Explorer) -> None:
    with served(Stub(), rules=Rules(shelves=[shelf(explorer)])) as address:
        config = json.loads(get(address, "/page/config.json")[2])
        assert config["links"] == [{"title": "Curation", "href": "curation/"}]
        status, headers, body = get(address, "/curation/")
        assert status == 200 and b"main.js" in body and "default-src 'none'" in headers["content-security-policy"]
        assert json.loads(get(address, "/curation/api/about")[2])
        assert get(address, "/curation/page/main.js")[0] == 200
        assert get(address, "/curation/picture/0")[1]["content-type"] == "image/webp"
        assert get(address, "/curation/api/about", host="evil.test")[0] == 403
        assert get(address, "/api/about")[0] == 404
