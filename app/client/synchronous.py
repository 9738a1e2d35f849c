"""`Client`. Made of `asynchronous.py` by `make client-python`; change that file."""

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

import httpx
from httpx_retries import Retry, RetryTransport

from app.client import answers, bodies, wire
from app.client.errors import Unreachable, problem_of

T = TypeVar("T")


class Client:
    """A client of the service, for `with`.

    Requests are tried again after lost connections, time-outs and answers that say so. That is safe: what is put is
    put twice with the same result, and events and batches carry ids by which the service knows them.

    Every method raises `Problem` (or one of its kinds: `NotFound`, `Invalid`, `Conflict`, `Unavailable`, …) where the
    service refuses, and `Unreachable` where there is no answer.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        token: str | None = None,
        timeout: float = 10.0,
        retries: int = 3,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`token` is an API key, or the token of one user; `timeout` is in seconds, for each try; `transport` is for
        proxies and certificates of your own (see httpx).
        """
        self.http = httpx.Client(
            base_url=url,
            headers=wire.headers(token),
            timeout=timeout,
            transport=RetryTransport(transport or httpx.HTTPTransport(), wire.retries(retries)),
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    # Recommendations

    def recommend(
        self,
        domain: str,
        *,
        user_id: str | None = None,
        attributes: bodies.Attributes | None = None,
        support: Sequence[bodies.SupportInteraction] | None = None,
        k: int = 10,
        filters: bodies.Filters | None = None,
        exploration: bodies.Exploration | None = None,
        rank_by: bodies.RankBy = "preference",
        explain: bool = False,
        allow_fallback: bool = True,
    ) -> answers.RecommendationResponse:
        """The best k items for a stored user (`user_id`), or for somebody who is not (`attributes`, `support`)."""
        wish = wire.filled(k=k, filters=filters, exploration=exploration, rank_by=rank_by, explain=explain)
        wish |= wire.filled(allow_fallback=None if allow_fallback else False)
        if user_id is None:
            newcomer = wire.filled(domain=domain, attributes=attributes, support=support)
            return self._post("/v1/cold-start/recommendations", newcomer | wish, answers.RecommendationResponse)
        if attributes is not None or support is not None:
            raise ValueError("give either user_id, or attributes and support")
        known = {"domain": domain, "user_id": user_id}
        return self._post("/v1/recommendations", known | wish, answers.RecommendationResponse)

    def questions(
        self,
        domain: str,
        *,
        attributes: bodies.Attributes | None = None,
        support: Sequence[bodies.SupportInteraction] | None = None,
        skipped: Sequence[str] | None = None,
        n: int = 1,
    ) -> answers.QuestionsResponse:
        """The n items most worth asking somebody about who is not stored; `skipped` are those that they do not know."""
        body = wire.filled(domain=domain, attributes=attributes, support=support, skipped=skipped, n=n)
        return self._post("/v1/cold-start/questions", body, answers.QuestionsResponse)

    def predict(
        self,
        domain: str,
        items: Sequence[str],
        *,
        user_id: str | None = None,
        attributes: bodies.Attributes | None = None,
        support: Sequence[bodies.SupportInteraction] | None = None,
        allow_fallback: bool = True,
    ) -> answers.PredictionResponse:
        """The rating to expect of each item, for a stored user or for somebody who is not stored."""
        if user_id is not None and (attributes is not None or support is not None):
            raise ValueError("give either user_id, or attributes and support")
        user = wire.filled(attributes=attributes, support=support) if user_id is None else None
        body = wire.filled(domain=domain, user_id=user_id, user=user, items=items)
        body |= wire.filled(allow_fallback=None if allow_fallback else False)
        return self._post("/v1/predictions", body, answers.PredictionResponse)

    # What people do

    def add_interactions(self, interactions: Sequence[bodies.InteractionIn]) -> answers.IngestResponse:
        """Store at most 500 events, all or none; they count in the next answer."""
        body = {"interactions": wire.named(interactions)}
        return self._post("/v1/interactions", body, answers.IngestResponse, wire.once_per_call())

    def withdraw(self, event_id: str) -> None:
        """Take an event back: un-rate."""
        self._delete(wire.address("/v1/interactions/{event_id}", event_id=event_id))

    def add_rewards(self, rewards: Sequence[bodies.RewardIn]) -> answers.IngestResponse:
        """Store at most 500 rewards of shown items, all or none."""
        body = {"rewards": wire.named(rewards)}
        return self._post("/v1/rewards", body, answers.IngestResponse, wire.once_per_call())

    # Users

    def put_users(self, users: Sequence[bodies.UserIn]) -> answers.WrittenResponse:
        """Put at most 500 users, all or none."""
        return self._post("/v1/users", {"users": users}, answers.WrittenResponse, wire.once_per_call())

    def put_user(self, user_id: str, attributes: bodies.Attributes) -> answers.UserOut:
        """Put a user; attributes replace those there were, interactions stay."""
        path = wire.address("/v1/users/{user_id}", user_id=user_id)
        return self._put(path, {"attributes": attributes}, answers.UserOut)

    def user(self, user_id: str) -> answers.UserOut:
        """A user and what they did last."""
        return self._get(wire.address("/v1/users/{user_id}", user_id=user_id), answers.UserOut)

    def slates(self, user_id: str, *, page_size: int = 50) -> Iterator[answers.SlateOut]:
        """What a user was shown, newest first, and what came of it, a page at a time."""
        path = wire.address("/v1/users/{user_id}/slates", user_id=user_id)
        cursor: str | None = None
        while True:
            page = self._get(path, answers.SlatesResponse, limit=page_size, cursor=cursor)
            for slate in page.slates:
                yield slate
            cursor = page.next_cursor
            if cursor is None:
                return

    def export_user(self, user_id: str) -> answers.UserExport:
        """Everything that is stored about a user."""
        return self._get(wire.address("/v1/users/{user_id}/export", user_id=user_id), answers.UserExport)

    def merge_users(self, user_id: str, from_id: str) -> answers.MergeResponse:
        """Take over all that is known of `from_id`, who is gone then; the same again changes nothing."""
        path = wire.address("/v1/users/{user_id}/merge", user_id=user_id)
        return self._post(path, {"from": from_id}, answers.MergeResponse, wire.once_per_call())

    def delete_user(self, user_id: str) -> None:
        """Erase every trace of a user."""
        self._delete(wire.address("/v1/users/{user_id}", user_id=user_id))

    def user_token(self, user_id: str, *, ttl_seconds: int = 900) -> answers.TokenOut:
        """A token with which a browser acts for that user, for a while."""
        body = {"user_id": user_id, "ttl_seconds": ttl_seconds}
        return self._post("/v1/tokens", body, answers.TokenOut)

    # Domains and items

    def domains(self) -> list[answers.DomainOut]:
        """Every domain, its rating scale, and what serves it."""
        return self._get("/v1/domains", list[answers.DomainOut])

    def put_domain(
        self,
        domain: str,
        *,
        title: str | None = None,
        rating_min: float = 1.0,
        rating_max: float = 5.0,
        kinds: Mapping[str, bodies.KindBody] | None = None,
        item_attributes: Mapping[str, str] | None = None,
    ) -> answers.DomainOut:
        """Declare a domain, or change it."""
        body = wire.filled(title=title, kinds=kinds, item_attributes=item_attributes)
        body |= {"rating_min": rating_min, "rating_max": rating_max}
        return self._put(wire.address("/v1/domains/{domain}", domain=domain), body, answers.DomainOut)

    def put_items(self, items: Sequence[bodies.ItemIn]) -> answers.WrittenResponse:
        """Put at most 500 items, all or none. They can be recommended at once."""
        return self._post("/v1/items", {"items": items}, answers.WrittenResponse, wire.once_per_call())

    def put_item(
        self,
        domain: str,
        item_id: str,
        *,
        title: str = "",
        attributes: bodies.Attributes | None = None,
        available: bool = True,
    ) -> answers.ItemOut:
        """Put an item; what was known of it is replaced."""
        body = wire.filled(title=title, attributes=attributes, available=available)
        path = wire.address("/v1/items/{domain}/{item_id}", domain=domain, item_id=item_id)
        return self._put(path, body, answers.ItemOut)

    def item(self, domain: str, item_id: str) -> answers.ItemOut:
        """An item."""
        path = wire.address("/v1/items/{domain}/{item_id}", domain=domain, item_id=item_id)
        return self._get(path, answers.ItemOut)

    def delete_item(self, domain: str, item_id: str) -> None:
        """Delete an item. What users did with it still counts as evidence about them."""
        self._delete(wire.address("/v1/items/{domain}/{item_id}", domain=domain, item_id=item_id))

    def items(self, domain: str, *, page_size: int = 500) -> Iterator[answers.ItemOut]:
        """All items of a domain, in the order in which they came, a page at a time."""
        path = wire.address("/v1/items/{domain}", domain=domain)
        cursor: str | None = None
        while True:
            page = self._get(path, answers.ItemsResponse, limit=page_size, cursor=cursor)
            for item in page.items:
                yield item
            cursor = page.next_cursor
            if cursor is None:
                return

    def similar(self, domain: str, item_id: str, *, k: int = 10) -> list[answers.SimilarItem]:
        """Items with the most similar content."""
        path = wire.address("/v1/items/{domain}/{item_id}/similar", domain=domain, item_id=item_id)
        return self._get(path, list[answers.SimilarItem], k=k)

    # For operators

    def checkpoints(self) -> list[answers.CheckpointOut]:
        """Every checkpoint on disk: how well it did on validation, where it is in service."""
        return self._get("/v1/admin/checkpoints", list[answers.CheckpointOut])

    def reload(
        self,
        domain: str,
        checkpoint: str,
        *,
        role: answers.Role | None = None,
        gate: bodies.GateBody | None = None,
        shadow: bool = False,
    ) -> answers.DeploymentOut:
        """Take a checkpoint into service on every worker; with `shadow` put it on trial at the one that is asked."""
        body = wire.filled(domain=domain, checkpoint=checkpoint, role=role, gate=gate, shadow=shadow or None)
        return self._post("/v1/admin/checkpoints/reload", body, answers.DeploymentOut)

    def roll_back(self, domain: str, role: answers.Role, *, shadow: bool = False) -> answers.DeploymentOut:
        """Put back the checkpoint that was in service before, or end a trial. Never tried again: twice would go back
        twice."""
        body = wire.filled(domain=domain, role=role, shadow=shadow or None)
        return self._post("/v1/admin/checkpoints/rollback", body, answers.DeploymentOut, retry=wire.ONCE)

    def evaluate(
        self,
        domain: str,
        *,
        checkpoint: str | None = None,
        role: answers.Role | None = None,
        slates: int | None = None,
        places: int | None = None,
        epsilon: float | None = None,
        confidence: float | None = None,
    ) -> answers.EvaluationResponse:
        """What a domain earns by the log of its own slates, and what it would with another checkpoint."""
        body = wire.filled(domain=domain, checkpoint=checkpoint, role=role, slates=slates, places=places)
        body |= wire.filled(epsilon=epsilon, confidence=confidence)
        return self._post("/v1/admin/evaluations", body, answers.EvaluationResponse)

    def exploration(self) -> list[answers.ExplorationSettingsOut]:
        """How each domain explores where a request does not say."""
        return self._get("/v1/admin/exploration", list[answers.ExplorationSettingsOut])

    def put_exploration(
        self,
        domain: str,
        exploration: bodies.Exploration,
        *,
        reward_wait_seconds: float | None = None,
        default_reward: float = 0.0,
    ) -> answers.ExplorationSettingsOut:
        """Say how a domain explores. Every worker does from its next request on."""
        body = wire.filled(domain=domain, exploration=exploration, reward_wait_seconds=reward_wait_seconds)
        body |= {"default_reward": default_reward}
        return self._put("/v1/admin/exploration", body, answers.ExplorationSettingsOut)

    def arms(self, domain: str, *, page_size: int = 500) -> Iterator[answers.ArmOut]:
        """What each policy showed of each item and what came of it, a page at a time."""
        cursor: str | None = None
        while True:
            page = self._get("/v1/admin/arms", answers.ArmsResponse, domain=domain, limit=page_size, cursor=cursor)
            for arm in page.arms:
                yield arm
            cursor = page.next_cursor
            if cursor is None:
                return

    def audit(self, *, page_size: int = 500, reads: bool = True) -> Iterator[answers.ActOut]:
        """What was asked of admin routes, refused or not, newest first, a page at a time; without `reads` that were
        answered, if they are not wanted."""
        cursor: str | None = None
        while True:
            more = {} if reads else {"reads": "false"}
            page = self._get("/v1/admin/audit", answers.AuditResponse, limit=page_size, cursor=cursor, **more)
            for act in page.acts:
                yield act
            cursor = page.next_cursor
            if cursor is None:
                return

    # Health

    def alive(self) -> answers.AliveOut:
        """Whether the process answers at all."""
        return self._get("/livez", answers.AliveOut)

    def ready(self) -> answers.ReadyOut:
        """Whether requests will be answered; raises Unavailable where they will not."""
        return self._get("/readyz", answers.ReadyOut)

    def metrics(self) -> str:
        """Prometheus metrics of the worker that answers."""
        return (self._send("GET", "/metrics")).text

    # HTTP

    def _get(self, path: str, answer: type[T], **query: Any) -> T:
        return wire.decoded(self._send("GET", path, params=wire.filled(**query)), answer)

    def _post(
        self,
        path: str,
        body: Mapping[str, Any],
        answer: type[T],
        headers: Mapping[str, str] | None = None,
        retry: Retry | None = None,
    ) -> T:
        extensions = wire.filled(retry=retry)
        return wire.decoded(self._send("POST", path, json=body, headers=headers, extensions=extensions), answer)

    def _put(self, path: str, body: Mapping[str, Any], answer: type[T]) -> T:
        return wire.decoded(self._send("PUT", path, json=body), answer)

    def _delete(self, path: str) -> None:
        self._send("DELETE", path)

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self.http.request(method, path, **options)
        except httpx.TransportError as error:
            raise Unreachable(f"{method} {path}: {error or type(error).__name__}") from error
        if not response.is_success:
            raise problem_of(response)
        return response
