"""Put the questions to a running service over HTTP: what users get is what is measured.

Each question is a `POST /v1/predictions` with the user's attributes and support in the request. Nothing is stored, and
nothing but the service decides which parts answer with what weight.
"""

import asyncio
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
import numpy as np
from torch import Tensor

from models.datasets.dataset import Dataset
from models.datasets.schema import AttributeEncoder, Attributes
from models.evaluation.exam import Group
from models.evaluation.predictors import Answers, Predictor
from models.recommender import Evidence, Scores

CONCURRENCY = 4
TIMEOUT_SECONDS = 60.0
RETRIES = 120
"""Times a question is asked again that the service was too busy for."""


class ServedError(Exception):
    """The service refused a question or could not be reached."""


class ServedPredictor(Predictor):
    """A running service; answers about the query items only."""

    ranks_catalogue = False

    def __init__(
        self,
        data: Dataset,
        base_url: str,
        *,
        api_key: str | None = None,
        concurrency: int = CONCURRENCY,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.data = data
        self.base_url = base_url
        self.headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.concurrency = concurrency
        self.transport = transport

    def scores(self, support: Evidence, domain: int, positions: Tensor) -> Scores:
        raise ServedError("a service is asked about a few items at a time, not about its whole catalogue")

    def answer(self, group: Group) -> Answers:
        """Answer every question of a group. Raises ServedError for the first that the service does not answer."""
        try:
            return asyncio.run(self._answer(group))
        except ExceptionGroup as refused:  # from the workers, which fail together
            raise refused.exceptions[0] from None

    async def _answer(self, group: Group) -> Answers:
        mean = np.zeros(group.mask.shape)
        std = np.full(group.mask.shape, np.nan)
        questions = iter([(i, question_body(self.data, group, i)) for i in range(len(group))])

        async def worker(client: httpx.AsyncClient) -> None:
            for i, body in questions:
                for place, predicted in zip(
                    group.mask[i].nonzero().flatten().tolist(), await _ask(client, body), strict=True
                ):
                    mean[i, place] = predicted["rating"]
                    std[i, place] = np.nan if predicted["std"] is None else predicted["std"]

        async with (
            httpx.AsyncClient(
                base_url=self.base_url,
                headers=self.headers,
                timeout=TIMEOUT_SECONDS,
                transport=self.transport,
                limits=httpx.Limits(max_connections=self.concurrency),
            ) as client,
            asyncio.TaskGroup() as workers,
        ):
            for _ in range(self.concurrency):
                workers.create_task(worker(client))
        known = ~np.isnan(std[group.mask.numpy()])
        return Answers(mean, std if known.all() else None)


def question_body(data: Dataset, group: Group, i: int) -> dict[str, Any]:
    """The request that puts question `i` of a group."""
    support = group.support.rows(slice(i, i + 1))
    shown = []
    for item, value, time in zip(
        support.items[support.mask].tolist(),
        support.values[support.mask].tolist(),
        support.times[support.mask].tolist(),
        strict=True,
    ):
        event: dict[str, Any] = {"item_id": data.items.ids[item], "value": value}
        if not math.isnan(time):
            event["occurred_at"] = datetime.fromtimestamp(time, UTC).isoformat()
        shown.append(event)
    attributes = decode_attributes(data.schema.user_attributes, group.support.attributes[i])
    return {
        "domain": data.schema.domains[group.domain].name,
        "user": {"attributes": attributes, "support": shown},
        "items": [data.items.ids[item] for item in group.items[i][group.mask[i]].tolist()],
    }


def decode_attributes(encoder: AttributeEncoder, row: Tensor) -> Attributes:
    """Raw attributes that encode to this row, (A,); what is unknown is left out.

    >>> encoder = AttributeEncoder.learn({"job": "categorical", "tags": "multi"}, [{"job": "cook", "tags": ["a"]}], 1)
    >>> decode_attributes(encoder, encoder.encode([{"job": "cook", "tags": ["a", "unknown"]}])[0])
    {'job': 'cook', 'tags': ['a']}
    """
    attributes: dict[str, Any] = {}
    start = 0
    for field in encoder.fields:
        columns = row[start : start + field.width]
        start += field.width
        if field.kind == "numeric":
            attributes[field.name] = round(float(columns[0]) * field.std + field.mean, 4)
        elif field.kind != "text":
            known = [field.vocabulary[j] for j in columns.nonzero().flatten().tolist()]
            if known:
                attributes[field.name] = known if field.kind == "multi" else known[0]
    return attributes


async def _ask(client: httpx.AsyncClient, body: dict[str, Any]) -> Sequence[dict[str, Any]]:
    """Predictions in the order of the items asked about."""
    for attempt in range(RETRIES + 1):
        try:
            response = await client.post("/v1/predictions", json=body)
        except httpx.HTTPError as error:
            raise ServedError(f"the service cannot be reached: {error!r}") from error
        if response.status_code not in {429, 503} or attempt == RETRIES:
            break
        await asyncio.sleep(float(response.headers.get("Retry-After", 1)))
    if response.status_code != httpx.codes.OK:
        raise ServedError(f"the service answered {response.status_code}: {response.text[:300]}")
    predictions = response.json()["predictions"]
    if [predicted["item_id"] for predicted in predictions] != body["items"]:
        raise ServedError("the service answered about other items than those asked about")
    return list(predictions)
