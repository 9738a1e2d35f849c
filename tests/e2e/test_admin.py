"""The operator's page, in a browser."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.browser import LOOKS, MAX_WEIGHT, SCREENSHOTS, Visit, visit, weight
from tests.e2e.movies import Movies
from tests.e2e.service import COMMAND, Server, settings_as_environment, warmstart

ADA = "ada ✓/1"
"""A user whose id has to be written with care in an address."""


@pytest.fixture(scope="module")
def service(movies: Movies, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Films with two checkpoints of one role, and somebody who got lists that explore, and rewarded some of it."""
    folder = tmp_path_factory.mktemp("admin")
    stock = movies.stock(folder / "checkpoints", "content", "bayes-a", "bayes-b")
    with warmstart(folder, checkpoint_dir=stock, learn_seconds=0) as server, server.client() as client:
        explore = {"domain": "movies", "exploration": {"policy": "epsilon_greedy", "epsilon": 0.3}}
        client.put("/v1/admin/exploration", json=explore).raise_for_status()
        meet(server, ADA)
        yield server


def meet(server: Server, user_id: str) -> list[Any]:
    """Somebody rates three films and gets four lists, whose first places earn something; the lists."""
    with server.client() as client:
        rows = [{"user_id": user_id, "domain": "movies", "item_id": i, "value": v} for i, v in (("1", 5), ("50", 4))]
        client.post("/v1/interactions", json={"interactions": rows}).raise_for_status()
        slates = []
        for _ in range(4):
            answer = client.post("/v1/recommendations", json={"domain": "movies", "user_id": user_id})
            slates.append(answer.raise_for_status().json())
        rewards = [{"slate_id": s["slate_id"], "item_id": s["items"][0]["item_id"], "value": 1} for s in slates]
        client.post("/v1/rewards", json={"rewards": rewards}).raise_for_status()
        return slates


@pytest.fixture
def opened(browser: Browser, service: Server) -> Iterator[Visit]:
    """The page; afterwards nothing has gone wrong in it, and nothing has left the host."""
    with visit(browser, service.url, "/admin", viewport={"width": 1280, "height": 900}) as seen:
        yield seen
        assert seen.errors == []
        assert seen.hosts == {service.url.removeprefix("http://")}


def serving(server: Server, role: str) -> str:
    with server.client() as client:
        listed = client.get("/v1/admin/checkpoints").json()
    (name,) = (c["checkpoint"] for c in listed for where in c["serving"] if where["role"] == role)
    return str(name)


def test_a_checkpoint_is_put_in_service_and_rolled_back(opened: Visit, service: Server) -> None:
    page = opened.page
    before = serving(service, "collaborative")
    other = {"bayes-a": "bayes-b", "bayes-b": "bayes-a"}[before]
    row = page.locator("#serving tr", has=page.get_by_role("rowheader", name="collaborative"))
    expect(row).to_contain_text(before)
    page.get_by_text("Others on disk").click()
    page.get_by_role("button", name=f"Put {other} in service").click()
    page.get_by_role("dialog").get_by_role("button", name="Put in service").click()
    expect(page.get_by_text(f"{other} serves collaborative now, in place of {before}.")).to_be_visible()
    expect(row).to_contain_text(other)
    assert serving(service, "collaborative") == other
    page.get_by_role("button", name="Roll back collaborative").click()
    expect(page.get_by_text(f"{before} serves collaborative again.")).to_be_visible()
    expect(row).to_contain_text(before)
    assert serving(service, "collaborative") == before


def test_what_is_refused_says_why_and_changes_nothing(opened: Visit, service: Server) -> None:
    """A gate wants more of the log than there is. The browser itself notes that the answer was no success."""
    page = opened.page
    before = serving(service, "collaborative")
    page.get_by_text("Others on disk").click()
    page.get_by_role("button", name="in service").last.click()
    page.get_by_role("checkbox", name="only if the log shows").check()
    page.get_by_role("dialog").get_by_role("button", name="Put in service").click()
    expect(page.locator("#checkpoints-said")).to_contain_text("The log says too little to decide.")
    assert serving(service, "collaborative") == before
    assert all("409" in error for error in opened.errors)
    opened.errors.clear()


def test_figures_follow_what_comes_in(opened: Visit, service: Server) -> None:
    row = opened.page.locator("#evidence tr", has=opened.page.get_by_role("rowheader", name="1 to 4"))
    before = int(row.locator("td").first.inner_text())
    meet(service, "grace")
    expect(row.locator("td").first).to_have_text(str(before + 4), timeout=15_000)
    assert [figure.inner_text() for figure in opened.page.locator(".figure dt").all()][:3] == [
        "requests a second",
        "half within",
        "99 % within",
    ]


def test_acts_are_listed_with_what_they_came_to(opened: Visit, service: Server) -> None:
    """Newest first, refused ones too, and none of the reads that the page itself makes."""
    with service.client() as client:
        for _ in range(25):
            client.post("/v1/admin/checkpoints/rollback", json={"domain": "movies", "role": "transfer"})
        explore = {"domain": "movies", "exploration": {"policy": "epsilon_greedy", "epsilon": 0.3}}
        client.put("/v1/admin/exploration", json=explore).raise_for_status()
    page = opened.page
    page.reload()
    rows = page.locator("#audit tbody tr")
    expect(rows.first).to_contain_text("PUT /v1/admin/exploration")
    expect(rows.nth(1)).to_contain_text("POST /v1/admin/checkpoints/rollback")
    expect(rows.nth(1)).to_contain_text("422 nothing-to-roll-back")
    expect(rows).to_have_count(20)
    page.get_by_role("button", name="Older ones").click()
    expect(rows.nth(21)).to_be_visible()
    expect(page.locator("#audit")).not_to_contain_text("GET ")


def test_exploration_is_changed(opened: Visit, service: Server) -> None:
    page = opened.page
    page.get_by_label("Policy").select_option("thompson")
    page.get_by_label("Share at random").fill("0.25")
    page.get_by_role("button", name="Explore so").click()
    expect(page.get_by_text("movies explores by thompson")).to_be_visible()
    with service.client() as client:
        (now,) = (one for one in client.get("/v1/admin/exploration").json() if one["domain"] == "movies")
    assert (now["exploration"]["policy"], now["exploration"]["epsilon"]) == ("thompson", 0.25)
    page.get_by_label("Policy").select_option("greedy")
    expect(page.get_by_label("Share at random")).to_be_disabled()
    page.get_by_role("button", name="Explore so").click()
    expect(page.get_by_text("movies explores by greedy")).to_be_visible()


def test_arms_show_what_was_shown(opened: Visit, service: Server) -> None:
    with service.client() as client:
        arms = client.get("/v1/admin/arms", params={"domain": "movies", "limit": 1000}).json()["arms"]
    expect(opened.page.locator("#arms-said")).to_contain_text(f"{sum(arm['shows'] for arm in arms)} places")
    most = max(arm["shows"] for arm in arms)
    assert opened.page.locator("#arms tbody tr").first.locator("td").nth(1).inner_text() == str(most)


def test_the_log_is_asked(opened: Visit) -> None:
    page = opened.page
    page.get_by_label("Beside what is in service").select_option("bayes-b")
    page.get_by_role("button", name="Ask the log").click()
    expect(page.locator("#evaluation-said")).to_contain_text("Difference a place")
    expect(page.get_by_role("heading", name="in service", exact=True)).to_be_visible()
    expect(page.get_by_role("rowheader", name="doubly robust").first).to_be_visible()


def test_a_user_is_shown_and_erased(opened: Visit, service: Server) -> None:
    """With every list they got and why; the id must be typed before they go."""
    slates = meet(service, "joan")
    page = opened.page
    page.get_by_label("User id").fill("joan")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#people-said")).to_have_text("joan: 2 interactions, 4 slates.")
    expect(page.get_by_role("rowheader", name="Toy Story (1995)")).to_be_visible()
    newest = page.locator(".slate").first
    newest.locator("summary").click()
    assert newest.locator("tbody th").all_inner_texts() == [
        item["title"] + (" explored" if item["explored"] else "") for item in slates[-1]["items"]
    ]
    assert newest.locator("tbody tr").first.locator("td").last.inner_text() == "1"
    expect(newest).to_contain_text("Weights: content")
    page.get_by_role("button", name="Erase…").click()
    go = page.get_by_role("dialog").get_by_role("button", name="Erase")
    expect(go).to_be_disabled()
    page.get_by_label("Type the id to erase").fill("joan")
    go.click()
    expect(page.get_by_text("joan is erased.")).to_be_visible()
    with service.client() as client:
        assert client.get("/v1/users/joan").status_code == 404


def test_ids_with_slashes_are_found(opened: Visit) -> None:
    opened.page.get_by_label("User id").fill(ADA)
    opened.page.get_by_role("button", name="Show").click()
    expect(opened.page.locator("#people-said")).to_contain_text("2 interactions")


def test_it_says_that_the_service_is_away_and_goes_on(browser: Browser, service: Server) -> None:
    with visit(browser, service.url, "/admin") as seen:
        seen.page.context.set_offline(True)
        expect(seen.page.get_by_role("alert")).to_contain_text("The service does not answer.", timeout=15_000)
        expect(seen.page.locator("#serving")).to_contain_text("bayes")
        seen.page.context.set_offline(False)
        seen.page.get_by_role("button", name="Try now").click()
        expect(seen.page.get_by_role("alert")).to_be_hidden()


def test_an_installation_without_domains_has_a_page_too(browser: Browser, tmp_path: Path) -> None:
    with warmstart(tmp_path) as server, visit(browser, server.url, "/admin") as seen:
        expect(seen.page.get_by_role("heading", name="Traffic")).to_be_visible()
        expect(seen.page.get_by_role("heading", name="Checkpoints")).to_be_hidden()
        assert seen.errors == []


def test_it_asks_for_a_key_where_the_service_does(browser: Browser, service: Server, tmp_path: Path) -> None:
    """One that may not do all this is refused with the reason; a good one is kept for this tab alone."""
    keys = {scope: make_key(tmp_path, scope) for scope in ("read", "admin")}
    with warmstart(tmp_path) as server:
        bearer = {"authorization": f"Bearer {keys['admin']}"}
        httpx.put(f"{server.url}/v1/domains/books", json={}, headers=bearer).raise_for_status()
        locked(browser, server, keys)
        assert not any(key in server.log.read_text() for key in keys.values())


def locked(browser: Browser, server: Server, keys: dict[str, str]) -> None:
    with visit(browser, server.url, "/admin") as seen:
        page = seen.page
        expect(page.get_by_role("heading", name="An admin key, please.")).to_be_visible()
        assert seen.faults() == []
        for given in ("nonsense", keys["read"]):
            page.get_by_label("Key", exact=True).fill(given)
            with page.expect_response("**/v1/admin/checkpoints") as answered:
                page.get_by_role("button", name="Use it").click()
            assert answered.value.status == (403 if given == keys["read"] else 401)
            expect(page.locator("#lock")).to_be_visible()
        page.get_by_label("Key", exact=True).fill(keys["admin"])
        page.get_by_role("button", name="Use it").click()
        expect(page.locator("#lock")).to_be_hidden()
        expect(page.locator("#serving")).to_contain_text("No checkpoint serves here")


def make_key(data_dir: Path, scope: str) -> str:
    """A key of a service that is to run on a folder."""
    command = [*COMMAND, "keys", "create", "--name", scope, "--scope", scope]
    environment = {**os.environ, **settings_as_environment(data_dir)}
    made = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return made.stdout.strip()


@pytest.mark.parametrize("look", LOOKS)
def test_everybody_can_use_it(browser: Browser, service: Server, look: str) -> None:
    """axe-core finds no serious fault, nothing is wider than the screen, it is light, and there is a picture of it."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with visit(browser, service.url, "/admin", **LOOKS[look]) as seen:
        page = seen.page
        page.get_by_label("User id").fill(ADA)
        page.get_by_role("button", name="Show").click()
        page.locator(".slate summary").first.click()
        if look != "phone":  # to axe-core the same as light, and its runs are what takes long here
            assert seen.faults() == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.screenshot(path=SCREENSHOTS / f"admin-{look}.png", full_page=True)
        page.get_by_text("Others on disk").click()
        page.get_by_role("button", name="in service").last.click()
        if look == "dark":
            assert seen.faults() == []
        assert 0 < weight(page) < MAX_WEIGHT
