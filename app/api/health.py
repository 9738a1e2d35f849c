"""Is it alive, is it ready, what does it measure."""

from dataclasses import asdict

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import PlainTextResponse, Response

from app.api.answers import AliveOut, ReadyOut
from app.api.depends import Here
from app.api.parsing import DescribedRoute, json_response
from app.api.problems import problems
from app.errors import Problem
from app.telemetry import exposition

router = APIRouter(tags=["health"], route_class=DescribedRoute)


@router.get("/livez", response_model=AliveOut)
async def livez() -> Response:
    """Whether the process answers at all; touches nothing else."""
    return json_response({"status": "alive"})


@router.get("/readyz", response_model=ReadyOut, responses=problems(503))
async def readyz(here: Here) -> Response:
    """Whether requests will be answered: loaded, warmed up, database at hand."""
    if not here.ready:
        raise Problem("draining")
    now = await here.fresh()
    return json_response(
        {
            "status": "ready",
            "domains": sorted(now.domains),
            "checkpoints": sorted(now.served),
            "behind": [asdict(lag) for lag in here.following.behind],
        }
    )


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics() -> Response:
    """Prometheus metrics, of all workers together."""
    return Response(exposition(), media_type=CONTENT_TYPE_LATEST)
