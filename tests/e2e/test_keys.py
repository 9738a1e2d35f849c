"""Keys, as a running service asks for them: on the command line, over HTTP, in a browser."""

import os
import subprocess
from pathlib import Path
from typing import Any

from playwright.sync_api import expect

from tests.app.keyed import bearer
from tests.e2e.browser import chromium, visit
from tests.e2e.service import COMMAND, Server, settings_as_environment, warmstart

ADMIN = "f0" * 32
REQUESTS = 16
"""Enough that each of two workers is asked."""


def keys(folder: Path, *words: str, **settings: Any) -> str:
    """What `warmstart keys` prints."""
    environment = {**os.environ, **settings_as_environment(folder, **settings)}
    done = subprocess.run([*COMMAND, "keys", *words], env=environment, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def statuses(server: Server, key: str, path: str = "/v1/domains") -> set[int]:
    """Of many requests, each on a connection of its own, for it is connections that workers share among them."""
    headers = bearer(key) | {"connection": "close"}
    with server.client() as client:
        return {client.get(path, headers=headers).status_code for _ in range(REQUESTS)}


def key_file(folder: Path) -> Path:
    file = folder / "admin.key"
    file.write_text(ADMIN, encoding="ascii")
    return file


def test_a_key_from_its_making_to_its_end(tmp_path: Path, backing: dict[str, Any]) -> None:
    """Made while the service runs, it opens every worker; revoked, it opens none from the next request on, and neither
    do tokens that were made with it. No key or token is in the log, whatever was asked."""
    settings = {**backing, "log_level": "debug", "bootstrap_admin_key_file": key_file(tmp_path)}
    with warmstart(tmp_path / "data", **settings) as server:
        assert statuses(server, "nonsense") == {401}
        assert statuses(server, ADMIN) == {200}
        key = keys(tmp_path / "data", "create", "--name", "shop", "--scope", "read", "--scope", "ingest", **backing)
        assert statuses(server, key) == {200}
        assert statuses(server, key, "/v1/admin/checkpoints") == {403}
        with server.client() as client:
            made = client.post("/v1/tokens", json={"user_id": "ada"}, headers=bearer(key))
            token = made.json()["token"]
            client.get("/v1/domains", params={"key": key})
            client.post("/v1/interactions", content=b"{", headers=bearer(token))
        assert statuses(server, token, "/v1/users/ada/recommendations?domain=x") == {422}
        keys(tmp_path / "data", "revoke", key.split("_")[1], **backing)
        assert statuses(server, key) == statuses(server, token) == {401}
        assert statuses(server, ADMIN) == {200}
        with server.client() as client:
            acts = client.get("/v1/admin/audit", headers=bearer(ADMIN)).json()["acts"]
        assert sum(act["status"] == 403 for act in acts) == REQUESTS
        logged = server.log.read_text(encoding="utf-8")
        assert not any(secret in logged for secret in (key.split("_", 2)[2], token, ADMIN))


def test_the_page_asks_for_a_key(tmp_path: Path) -> None:
    """One that does not hold is refused with the reason; a good one, or a token, opens the page, in this tab alone."""
    with warmstart(tmp_path, bootstrap_admin_key_file=key_file(tmp_path)) as server, server.client() as client:
        items = [{"domain": "books", "item_id": name, "title": name.title()} for name in ("emma", "dracula", "it")]
        client.put("/v1/domains/books", json={}, headers=bearer(ADMIN)).raise_for_status()
        client.post("/v1/items", json={"items": items}, headers=bearer(ADMIN)).raise_for_status()
        token = client.post("/v1/tokens", json={"user_id": "ada"}, headers=bearer(ADMIN)).json()["token"]
        with chromium() as browser:
            for good in (ADMIN, token):
                with visit(browser, server.url, viewport={"width": 1280, "height": 900}) as opened:
                    page = opened.page
                    expect(page.get_by_role("heading", name="A key, please.")).to_be_visible()
                    assert opened.faults() == []
                    for given in ("nonsense", good):
                        page.get_by_label("Key", exact=True).fill(given)
                        page.get_by_role("button", name="Use it").click()
                        if given != good:
                            expect(page.locator("#lock-said")).to_contain_text("none that opens anything")
                    expect(page.locator("#lock")).to_be_hidden()
                    opened.settled()
                    opened.rate(4)
                    assert len(opened.ranking()) == 2
                    assert page.evaluate("localStorage.length") == 0
                    page.reload()
                    expect(page.locator("#ranking .name").first).to_be_visible()
                    expect(page.locator("#lock")).to_be_hidden()
