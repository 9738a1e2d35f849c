"""The page a person opens at `/`, and the files that it is made of. It uses the public routes, as anybody would."""

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from fastapi import APIRouter
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from starlette.responses import Response

from app import __version__
from app.api.depends import Here
from app.api.parsing import DescribedRoute
from app.errors import Problem
from app.services import stock
from app.services.installation import Installation
from app.storage.errors import StorageUnavailable
from app.storage.records import StoredDomain

router = APIRouter(include_in_schema=False, route_class=DescribedRoute)

MEDIA_TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy: files of this service only, no inline script or style, in nobody's frame."""

HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


@router.get("/")
async def get_page(here: Here) -> Response:
    """The page, with the domains there are; without a database it says so, and waits."""
    try:
        known = await stock.known_domains(here)
    except StorageUnavailable:
        return _page(503, None)
    return _page(200, [known[name] for name in sorted(known)], _first(here))


@router.get("/assets/{digest}/{name}")
async def get_asset(digest: str, name: str) -> Response:
    """A file of the page. Its address changes with its content, so that browsers may keep it for good."""
    asset = assets().get(name)
    if asset is None:
        raise Problem("not-found")
    # While a new version is rolled out, a page may ask an older worker: it must not be kept under that address.
    caching = "public, max-age=31536000, immutable" if digest == assets_digest() else "no-store"
    media_type = MEDIA_TYPES[name.rpartition(".")[2]]
    return Response(asset, headers={**HEADERS, "Cache-Control": caching, "Content-Type": media_type})


def _first(here: Installation) -> str | None:
    """The domain to begin with: the one that most parts answer for, and of several the one with most items."""
    served = here.runtime.now.domains
    return max(
        sorted(served),
        key=lambda name: (not served[name].fallback, len(served[name].parts), len(served[name].shelf.local_of)),
        default=None,
    )


def _page(status: int, domains: list[StoredDomain] | None, first: str | None = None) -> Response:
    assets_folder = f"/assets/{assets_digest()}"
    text = _template().render(domains=domains, first=first, assets=assets_folder, version=__version__)
    headers = {**HEADERS, "Cache-Control": "no-store"}
    return Response(text, status, headers, "text/html; charset=utf-8")


@cache
def assets() -> Mapping[str, bytes]:
    """Name → content of every file beside the page."""
    return {file.name: file.read_bytes() for file in (files("app.web") / "assets").iterdir()}


@cache
def assets_digest() -> str:
    """What changes when any of the files does."""
    digest = hashlib.sha256()
    for name, content in sorted(assets().items()):
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("app.web", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")
