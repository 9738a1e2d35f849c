"""Chromium, as Debian packages it, and a page in it that keeps a record of what went on."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

SCREENSHOTS = Path(os.environ.get("WARMSTART_SCREENSHOTS", Path(__file__).parents[2] / "var" / "screenshots"))
"""Folder that pictures of the pages are written to, for whoever wants to see what the tests saw."""
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1280, "height": 900}},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": PHONE,
}
MAX_WEIGHT = 300_000
"""Bytes of everything that a page loads until it has its first answer, beside the answers."""


@dataclass
class Visit:
    """A page that is open, and what it did so far."""

    page: Page
    hosts: set[str] = field(default_factory=set)
    """Hosts and ports that it sent requests to."""
    errors: list[str] = field(default_factory=list)
    """What it wrote to the console as an error, and what it threw."""

    def settled(self) -> None:
        """Wait until the answer that is under way is shown."""
        self.page.wait_for_selector("#question[aria-busy=false]")

    def ranking(self) -> list[str]:
        """The titles and ratings of the list, in its order."""
        entries = self.page.locator("#ranking > .entry")
        names, ratings = entries.locator(".name").all_inner_texts(), entries.locator(".rating").all_inner_texts()
        return [f"{name} {rating}" for name, rating in zip(names, ratings, strict=True)]

    def rate(self, value: float) -> str:
        """Answer the question, and wait for the next; the title that was asked about."""
        title = self.page.locator("#asked-title").inner_text()
        self.page.get_by_role("button", name=f"{value:g} of 5").click()
        self.settled()
        return title

    def faults(self) -> list[str]:
        """Serious and critical faults that axe-core finds: rule, and where."""
        # What fades in has the contrast of the moment.
        self.page.evaluate("Promise.allSettled(document.getAnimations().map((animation) => animation.finished))")
        found = Axe().run(self.page).response["violations"]
        return [
            f"{fault['id']}: {node['target']}"
            for fault in found
            if fault["impact"] in ("serious", "critical")
            for node in fault["nodes"]
        ]


def weight(page: Page) -> int:
    """Bytes of everything that the page loaded, before compression, beside answers of the service."""
    loaded: list[int] = page.evaluate(
        """() => performance.getEntriesByType("navigation").concat(performance.getEntriesByType("resource"))
             .filter((entry) => !/\\/(v1|metrics)/.test(entry.name)).map((entry) => entry.decodedBodySize)"""
    )
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    print(f"\n{page.url}: {sum(loaded):,} bytes in {len(loaded)} files, first paint after {paint:.0f} ms")
    return sum(loaded)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser; skips the test where there is none."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium here; Debian has it in the package of that name")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@contextmanager
def visit(browser: Browser, url: str, path: str = "/", **context: Any) -> Iterator[Visit]:
    """A page of a service in a context of its own (`context` as Playwright takes it), once it has an answer."""
    opened = browser.new_context(**context)
    page = opened.new_page()
    visited = Visit(page)

    def heard(message: ConsoleMessage) -> None:
        if message.type == "error":
            visited.errors.append(message.text)

    def sent(request: Request) -> None:
        visited.hosts.add(urlsplit(request.url).netloc)

    page.on("console", heard)
    page.on("pageerror", lambda error: visited.errors.append(str(error)))
    page.on("request", sent)
    page.goto(url + path)
    page.wait_for_selector(".notice, [aria-busy=false]:is(#question, #sections), .opblock")
    yield visited
    opened.close()
