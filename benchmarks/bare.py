"""The yardstick of `benchmarks.serving`: a FastAPI application that parses its input and does nothing.

uvicorn benchmarks.bare:app
"""

from typing import Annotated, Any

from fastapi import Body, FastAPI

app = FastAPI()


@app.get("/ready")
async def ready() -> dict[str, bool]:
    """The cheapest request that FastAPI can answer."""
    return {"ok": True}


@app.post("/answer")
async def answer(body: Annotated[dict[str, Any], Body()]) -> dict[str, bool]:
    """The same for a JSON body, parsed."""
    return {"ok": bool(body)}
