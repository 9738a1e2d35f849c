"""The page that a person opens, in a browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.browser import LOOKS, MAX_WEIGHT, SCREENSHOTS, Visit, visit, weight
from tests.e2e.movies import Movies
from tests.e2e.service import Server, warmstart

BOOKS = [("emma", "Emma", ["Romance"]), ("dracula", "Dracula", ["Horror"]), ("it", "It", ["Horror", "Drama"])]


@pytest.fixture(scope="module")
def service(movies: Movies, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Films with checkpoints, and three books without any."""
    folder = tmp_path_factory.mktemp("page")
    stock = movies.stock(folder / "checkpoints", "content", "bayes-a", "ease")
    with warmstart(folder, checkpoint_dir=stock, learn_seconds=0) as server:
        put_books(server)
        yield server


def put_books(server: Server) -> None:
    items = [{"domain": "books", "item_id": i, "title": t, "attributes": {"genres": g}} for i, t, g in BOOKS]
    with server.client() as client:
        client.put("/v1/domains/books", json={"item_attributes": {"genres": "multi"}}).raise_for_status()
        client.post("/v1/items", json={"items": items}).raise_for_status()


@pytest.fixture
def films(browser: Browser, service: Server) -> Iterator[Visit]:
    """The page with films; afterwards nothing has gone wrong in it, and nothing has left the host."""
    with visit(browser, service.url, viewport={"width": 1280, "height": 900}) as opened:
        yield opened
        assert opened.errors == []
        assert opened.hosts == {service.url.removeprefix("http://")}


def test_the_list_changes_with_each_of_five_ratings(films: Visit) -> None:
    """In its order or in what it expects, and whoever does not see it is told."""
    seen = [films.ranking()]
    for value in (5, 1, 4, 2, 5):
        title = films.rate(value)
        seen.append(films.ranking())
        assert seen[-1] != seen[-2]
        assert not any(title in entry for entry in seen[-1])
        expect(films.page.get_by_role("status")).to_contain_text(f"{title}: {value}.")
    expect(films.page.locator("#answered li")).to_have_count(5)


def test_an_entry_says_why_it_is_there(films: Visit) -> None:
    """What it is, what rated film is nearest, the rating to expect with its deviation, and each part's share."""
    films.rate(5)
    title = films.rate(4)
    page = films.page
    expect(page.locator("#ranking .because", has_text="nearest").filter(has_text=title).first).to_be_visible()
    entry = page.locator("#ranking > .entry").first
    assert "±" in entry.locator(".rating").inner_text()
    entry.get_by_text("Who says so").click()
    told = {row.split()[0]: row.split()[-2:] for row in entry.locator("tbody tr").all_inner_texts()}
    assert set(told) == {"content", "bayes", "ease"}
    assert told["ease"] == ["the", "order"]
    assert sum(float(share) for name, (share, _) in told.items() if name != "ease") == pytest.approx(100, abs=2)


def test_the_plot_has_a_point_for_each_answer(films: Visit) -> None:
    """For the eye, and as a table for everybody else: error before and after, deviation, what the answer changed."""
    points = films.page.locator("#chart tbody tr")
    for answered, value in enumerate((5, 2, 4), start=1):
        expect(points).to_have_count(answered)  # who answers faster than the service skips a point
        films.rate(value)
    expect(points).to_have_count(4)
    rows = [row.locator("td").all_inner_texts() for row in films.page.locator("#chart tbody tr").all()]
    assert [row[0] for row in rows] == ["0", "1", "2", "3"]
    assert rows[0][1:3] == ["none", "none"]
    before, after, std, moved = (float(cell) for cell in rows[3][1:])
    assert after < before
    assert std > 0
    assert moved > 0
    assert films.page.locator("#chart circle.after").count() == 3


def test_what_is_taken_back_is_forgotten(films: Visit) -> None:
    before = films.ranking()
    title = films.rate(1)
    assert films.ranking() != before
    films.page.get_by_role("button", name=f"Take back {title}").click()
    films.settled()
    assert films.ranking() == before


def test_what_is_not_known_is_sent_and_what_is_skipped_is_not(films: Visit) -> None:
    """Either way something else is asked."""
    asked = [films.page.locator("#asked-title").inner_text()]
    for button in ("Don’t know it", "Skip"):
        with films.page.expect_request("**/v1/cold-start/questions") as sent:
            films.page.get_by_role("button", name=button).click()
        films.settled()
        asked.append(films.page.locator("#asked-title").inner_text())
        assert len(sent.value.post_data_json["skipped"]) == 1
    assert len(set(asked)) == 3


def test_keys_are_enough(films: Visit) -> None:
    """From the top of the page: tab to the scale, rate by digit, and stay there for the next question."""
    page = films.page
    focused = page.locator(":focus")
    for _ in range(20):
        page.keyboard.press("Tab")
        if focused.get_attribute("aria-label") == "1 of 5":
            break
    for key in ("4", "2"):
        page.keyboard.press(key)
        films.settled()
        expect(focused).to_have_attribute("aria-label", "1 of 5")
    assert page.locator("#answered b").all_inner_texts() == ["2", "4"]


def test_explored_items_are_marked(films: Visit) -> None:
    """Those and no others that the answer says are explored."""
    marked = 0
    for policy in ("by chance of being best", "a tenth at random") * 20:
        with films.page.expect_response("**/v1/cold-start/recommendations") as answered:
            films.page.get_by_role("radio", name=policy).check()
        films.settled()
        explored = [item["title"] for item in answered.value.json()["items"] if item["explored"]]
        assert films.page.locator(".entry.explored .name").all_inner_texts() == explored
        assert films.page.get_by_text("explored", exact=True).count() == len(explored)
        marked += len(explored)
        if marked:
            return
    pytest.fail("forty slates without anything explored")


def test_a_profile_comes_along_to_another_domain_or_stays(films: Visit) -> None:
    page = films.page
    expect(page.locator("#bring")).to_be_hidden()
    for value in (5, 4, 1):
        films.rate(value)
    with page.expect_request("**/v1/cold-start/recommendations") as sent:
        page.get_by_role("radio", name="books").check()
    assert [row["domain"] for row in sent.value.post_data_json["support"]] == ["movies"] * 3
    films.settled()
    assert set(page.locator("#ranking .name").all_inner_texts()) == {title for _, title, _ in BOOKS}
    with page.expect_request("**/v1/cold-start/recommendations") as sent:
        page.get_by_role("checkbox", name="bring along your 3 answers in movies").uncheck()
    assert sent.value.post_data_json["support"] == []
    films.settled()
    page.get_by_role("radio", name="movies").check()
    films.settled()
    expect(page.locator("#answered li")).to_have_count(3)


def test_the_end_of_a_catalogue_is_said(films: Visit) -> None:
    films.page.get_by_role("radio", name="books").check()
    films.settled()
    for _ in BOOKS:
        films.rate(3)
    expect(films.page.get_by_text("No more questions.")).to_be_visible()
    expect(films.page.get_by_text("Nothing left to recommend.")).to_be_visible()


def test_it_goes_on_where_it_was_once_the_service_is_back(browser: Browser, service: Server) -> None:
    """Answers given meanwhile count."""
    with visit(browser, service.url) as opened:
        opened.rate(5)
        before = opened.ranking()
        opened.page.context.set_offline(True)
        opened.page.get_by_role("button", name="Take back").click()
        expect(opened.page.get_by_role("alert")).to_contain_text("The service does not answer.")
        assert opened.ranking() == before
        opened.page.context.set_offline(False)
        opened.page.get_by_role("button", name="Try now").click()
        expect(opened.page.get_by_role("alert")).to_be_hidden()
        opened.settled()
        assert opened.ranking() != before


def test_from_nothing_to_a_service_that_stops(browser: Browser, tmp_path: Path) -> None:
    """No domain, a domain without items, a few items, no service: each is said, none is a fault."""
    with warmstart(tmp_path) as server, visit(browser, server.url) as opened:
        page = opened.page
        expect(page.get_by_role("heading", name="No catalogue yet.")).to_be_visible()
        assert opened.faults() == []
        with server.client() as client:
            client.put("/v1/domains/books", json={}).raise_for_status()
        page.reload()
        opened.settled()
        expect(page.get_by_text("Nothing to recommend yet.")).to_be_visible()
        expect(page.get_by_text("Catalogue", exact=True)).to_be_hidden()
        put_books(server)
        page.reload()
        opened.settled()
        assert len(opened.ranking()) == len(BOOKS)
        assert opened.errors == []
        server.stop()
        page.get_by_role("button", name="5 of 5").click()
        expect(page.get_by_role("alert")).to_contain_text("The service does not answer.")
        expect(page.locator("#answered li")).to_have_count(1)
        assert opened.faults() == []
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SCREENSHOTS / "stopped.png")


def test_the_page_to_try_routes_needs_no_other_host(browser: Browser, service: Server) -> None:
    with visit(browser, service.url, "/docs") as opened:
        expect(opened.page.get_by_text("/v1/cold-start/recommendations").first).to_be_visible()
        assert opened.errors == []
        assert opened.hosts == {service.url.removeprefix("http://")}


@pytest.mark.parametrize("look", LOOKS)
def test_everybody_can_use_it(browser: Browser, service: Server, look: str) -> None:
    """axe-core finds no serious fault, nothing is wider than the screen, and there is a picture to look at."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with visit(browser, service.url, **LOOKS[look]) as opened:
        for answered, value in enumerate((5, 2, 4), start=1):
            expect(opened.page.locator("#chart tbody tr")).to_have_count(answered)  # the list before this answer
            opened.rate(value)
        opened.page.get_by_text("Who says so").first.click()
        expect(opened.page.locator("#chart tbody tr")).to_have_count(4)
        if look != "phone":  # to axe-core the same as light, and its runs are what takes long here
            assert opened.faults() == []
        assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        opened.page.screenshot(path=SCREENSHOTS / f"{look}.png", full_page=True)


def test_the_page_is_light(films: Visit) -> None:
    """In bytes, as they are before compression; how soon something is painted is printed."""
    assert 0 < weight(films.page) < MAX_WEIGHT
