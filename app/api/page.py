"""The pages: `/` for everybody, `/admin` for operators, and the files that they are made of.

They hold no data that needs a key: what they show, they read from the public routes, as anybody would.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import get_args

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import Response

from app import __version__
from app.api.depends import Here
from app.api.parsing import DescribedRoute
from app.engine.policies.settings import POLICIES
from app.errors import Problem
from app.services import stock
from app.services.installation import Installation
from app.storage.errors import StorageUnavailable
from app.storage.records import StoredDomain
from models.recommender import Role

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

SWAGGER_UI = ("swagger-ui-bundle.js", "swagger-ui.css")
"""Files of the page at `/docs`, which a package brings: FastAPI's own page takes them from another host."""

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
    return await _page(here, "page.html")


@router.get("/admin")
async def get_admin(here: Here) -> Response:
    """The operator's page; without a database it shows what can be had."""
    return await _page(here, "admin.html", policies=POLICIES, roles=get_args(Role))


@router.get("/docs")
async def get_docs(request: Request) -> Response:
    """A page to try the routes on."""
    folder = f"/assets/{assets_digest()}"
    script, style = (f"{folder}/{name}" for name in SWAGGER_UI)
    page = get_swagger_ui_html(
        openapi_url=request.app.openapi_url,
        title="Warmstart: routes",
        swagger_js_url=script,
        swagger_css_url=style,
        swagger_favicon_url=f"{folder}/icon.svg",
    )
    text = bytes(page.body).decode()
    return Response(text, headers={**HEADERS, "Content-Security-Policy": docs_policy(text)}, media_type="text/html")


def docs_policy(text: str) -> str:
    """Content-Security-Policy of the page at `/docs`: files of this service, and the one script that starts them."""
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'self' 'sha256-{digest}'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


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


async def _page(here: Installation, name: str, **values: object) -> Response:
    known: Mapping[str, StoredDomain] | None
    try:
        known = await stock.known_domains(here)
    except StorageUnavailable:
        known = None
    domains = None if known is None else [known[domain] for domain in sorted(known)]
    values |= {
        "domains": domains,
        "first": _first(here),
        "assets": f"/assets/{assets_digest()}",
        "version": __version__,
    }
    headers = {**HEADERS, "Cache-Control": "no-store"}
    text = _templates().get_template(name).render(values)
    return Response(text, 503 if known is None else 200, headers, "text/html; charset=utf-8")


@cache
def assets() -> Mapping[str, bytes]:
    """Name → content of every file beside the pages."""
    own = list((files("app.web") / "assets").iterdir())
    brought = [files("fastapi_swagger.resources") / name for name in SWAGGER_UI]
    return {file.name: file.read_bytes() for file in [*own, *brought]}


@cache
def assets_digest() -> str:
    """What changes when any of the files does."""
    digest = hashlib.sha256()
    for name, content in sorted(assets().items()):
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("app.web", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
