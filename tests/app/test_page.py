"""The page at `/` and its files, as the service sends them."""

import base64
import hashlib
import re
from html.parser import HTMLParser

from app.api.page import POLICY
from tests.app.conftest import Service, Start


class Addresses(HTMLParser):
    """Collects what a document loads, and the scripts and styles that stand in it."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "link"):
            self.loaded.append(given.get("src") or given.get("href") or "")
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)
        self.inline += [name for name in given if name == "style" or name.startswith("on")]


async def page_of(service: Service) -> Addresses:
    response = await service.http.get("/")
    assert response.status_code == 200
    assert response.headers["content-security-policy"] == POLICY
    assert response.headers["cache-control"] == "no-store"
    parser = Addresses()
    parser.feed(response.text)
    return parser


async def test_the_page_loads_nothing_but_files_of_its_own(start: Start) -> None:
    """Nor do these: no address in them leads to another host, but for names of XML vocabularies."""
    async with start(()) as service:
        page = await page_of(service)
        assert page.inline == []
        for address in page.loaded:
            response = await service.http.get(address)
            assert response.status_code == 200, address
            assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
            assert response.headers["x-content-type-options"] == "nosniff"
            assert set(re.findall(r"https?://[^\"'\s)]+", response.text)) <= {"http://www.w3.org/2000/svg"}


def test_the_policy_allows_no_inline_script_and_no_other_host() -> None:
    directives = dict(directive.split(maxsplit=1) for directive in POLICY.split("; "))
    assert directives["default-src"] == "'none'"
    assert set(directives.values()) == {"'none'", "'self'"}


async def test_files_under_an_old_address_are_sent_and_not_kept(start: Start) -> None:
    """As while a new version is rolled out."""
    async with start(()) as service:
        response = await service.http.get("/assets/0123456789abcdef/page.js")
        assert response.status_code == 200
        assert response.headers["cache-control"] == "no-store"


async def test_only_files_of_the_page_are_sent(start: Start) -> None:
    async with start(()) as service:
        for name in ("page.html", "__init__.py", "..%2F__init__.py", "nothing.js"):
            await service.get(f"/assets/0123456789abcdef/{name}", 404)


async def test_titles_of_domains_are_text(start: Start) -> None:
    async with start(()) as service:
        await service.put("/v1/domains/d", {"title": '"><script>alert(1)</script>'})
        response = await service.http.get("/")
        assert "<script>alert" not in response.text
        assert "&lt;script&gt;alert" in response.text


async def test_it_begins_with_the_domain_that_most_parts_answer_for(start: Start) -> None:
    async with start(("bias", "content")) as service:
        await service.put("/v1/domains/another", {})
        response = await service.http.get("/")
        (checked,) = re.findall(r'value="(\w+)" checked\s+data-min', response.text)
        assert checked == "films"


async def test_the_page_to_try_routes_runs_one_script_of_its_own(start: Start) -> None:
    """By its digest, beside Swagger UI's, which the service sends itself; nobody may frame it."""
    async with start(()) as service:
        response = await service.http.get("/docs")
        assert response.status_code == 200
        parser = Addresses()
        parser.feed(response.text)
        assert parser.inline == ["script"]
        policy = response.headers["content-security-policy"]
        directives = dict(directive.split(maxsplit=1) for directive in policy.split("; "))
        assert directives["default-src"] == directives["frame-ancestors"] == "'none'"
        (script,) = re.findall(r"<script>(.*?)</script>", response.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert directives["script-src"] == f"'self' 'sha256-{digest}'"
        loaded = [address for address in parser.loaded if address]
        assert len(loaded) == 3
        for address in loaded:
            assert address.startswith("/assets/")
            assert (await service.http.get(address)).status_code == 200
        for gone in ("/redoc", "/docs/oauth2-redirect"):
            assert (await service.http.get(gone)).status_code == 404
