"""The application: `create_app(settings)`. Nothing runs at import."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
import torch
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from app import __version__, errors
from app.api import admin, catalogue, exploration, health, interactions, page, recommendations, rewards, tokens, users
from app.api.draining import LastAnswers, readiness_first
from app.api.headers import AnswerHeaders, cross_origin
from app.api.middleware import RequestLimits
from app.api.problems import describe
from app.api.shedding import Door, LoadShedding
from app.services.admission import Admission
from app.services.deploy import Deployments
from app.services.installation import Installation
from app.services.upkeep import Upkeep
from app.settings import Settings
from app.telemetry import WORKERS, configure_logging

log = structlog.get_logger()


def create_app(settings: Settings | None = None) -> FastAPI:
    """The service as an ASGI application; settings come from the environment where none are given."""
    settings = settings or Settings()
    configure_logging(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if settings.torch_threads:
            torch.set_num_threads(settings.torch_threads)
        WORKERS.labels(__version__).set(1)
        installation = await Installation.open(settings)
        app.state.installation = installation
        app.state.deployments = Deployments(installation)
        upkeep = Upkeep(installation)
        try:
            await app.state.deployments.adopt()
            await installation.warm_up()
            upkeep.start()
            log.info(
                "ready",
                address=f"http://{settings.host}:{settings.port}/docs",
                domains=sorted(installation.runtime.now.domains),
                device=str(settings.torch_device),
            )
            with readiness_first(installation.leave, settings.drain_seconds):
                yield
        finally:
            await upkeep.close()
            await installation.close()
            log.info("stopped")

    app = FastAPI(
        title="Warmstart",
        summary="Recommendations for people and items the service has barely met.",
        version=__version__,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,  # made by `app.api.page`, with a policy of what it may load
        redoc_url=None,
    )
    errors.install(app)
    describe(app)
    for module in (recommendations, interactions, rewards, catalogue, users, tokens, admin, exploration, health, page):
        app.include_router(module.router)
    admission = Admission(settings.max_working, settings.max_queue, settings.max_wait_seconds)
    app.add_middleware(LoadShedding, settings=settings, admission=admission)
    app.add_middleware(RequestLimits, settings=settings)
    app.add_middleware(Door, admission=admission)
    app.add_middleware(LastAnswers, ready=lambda: app.state.installation.ready)
    app.add_middleware(AnswerHeaders)
    if settings.cors_origins:
        app.add_middleware(CORSMiddleware, **cross_origin(settings.cors_origins))
    return app
