"""The Python client against the real service: every method, every kind of refusal, retries that store nothing twice."""

import asyncio
import inspect
from collections.abc import AsyncIterator

import httpx
import pytest

from app.client import AsyncClient, Client, Conflict, Invalid, NotFound, Unavailable, Unreachable, WarmstartError
from app.client.bodies import InteractionIn, KindBody, SupportInteraction
from app.client.wire import address
from tests import make_client
from tests.app.conftest import Service, Start


def client_of(service: Service, transport: httpx.AsyncBaseTransport | None = None, retries: int = 3) -> AsyncClient:
    """A client of a service in this process."""
    inside = httpx.ASGITransport(service.app, raise_app_exceptions=False)
    return AsyncClient("http://localhost", transport=transport or inside, retries=retries)


@pytest.fixture
async def client(service: Service) -> AsyncIterator[AsyncClient]:
    async with client_of(service) as made:
        yield made


async def test_a_newcomer_is_asked_answers_and_is_recommended(client: AsyncClient) -> None:
    questions = (await client.questions("films", n=2)).questions
    assert len(questions) == 2
    asked, skipped = questions[0].item_id, questions[1].item_id
    support: list[SupportInteraction] = [{"item_id": asked, "value": 5}]
    following = (await client.questions("films", support=support, skipped=[skipped])).questions[0].item_id
    assert following not in (asked, skipped)
    slate = await client.recommend("films", support=support, k=3, explain=True, exploration={"policy": "greedy"})
    assert len(slate.items) == 3
    assert slate.items[0].why is not None
    assert asked not in [item.item_id for item in slate.items]
    more = await client.recommend("films", support=support, k=3, filters={"exclude_slates": [slate.slate_id]})
    assert not {item.item_id for item in more.items} & {item.item_id for item in slate.items}
    predicted = await client.predict("films", [asked, skipped], support=support)
    assert [p.item_id for p in predicted.predictions] == [asked, skipped]


async def test_a_user_rates_and_is_erased(client: AsyncClient, user: str) -> None:
    assert (await client.put_users([{"user_id": user, "attributes": {"age": 34}}])).created == 1
    assert (await client.put_user(user, {"age": 35})).attributes == {"age": 35}
    slate = await client.recommend("films", user_id=user, k=2)
    first, second = (item.item_id for item in slate.items)
    rated: InteractionIn = {"user_id": user, "domain": "films", "item_id": first, "value": 4, "event_id": f"{user}-1"}
    clicked: InteractionIn = {"user_id": user, "domain": "films", "item_id": second, "value": 2}
    assert (await client.add_interactions([rated, clicked])).accepted == 2
    again = await client.add_interactions([rated])
    assert (again.accepted, again.duplicates) == (0, 1)
    rewarded = await client.add_rewards([{"slate_id": slate.slate_id, "item_id": first, "value": 1}])
    assert rewarded.accepted == 1
    assert len((await client.user(user)).interactions) == 2
    shown = [earlier async for earlier in client.slates(user, page_size=1)]
    assert [earlier.slate_id for earlier in shown] == [slate.slate_id]
    assert shown[0].items[0].reward == 1
    await client.withdraw(f"{user}-1")
    assert len((await client.user(user)).interactions) == 1
    assert (await client.predict("films", [first], user_id=user)).predictions[0].rating > 0
    await client.delete_user(user)
    with pytest.raises(NotFound) as refused:
        await client.user(user)
    assert (refused.value.type, refused.value.status) == ("not-found", 404)
    assert refused.value.request_id


async def test_a_catalogue_is_put_and_paged_through(client: AsyncClient, shop: str) -> None:
    kinds: dict[str, KindBody] = {"click": {"value": 4.5, "weight": 0.5}}
    declared = await client.put_domain(shop, title="Shop", kinds=kinds, item_attributes={"maker": "categorical"})
    assert declared.kinds["click"].weight == 0.5
    assert shop in [domain.domain for domain in await client.domains()]
    ids = [f"item {n:03}" for n in range(250)]
    put = await client.put_items([{"domain": shop, "item_id": i, "attributes": {"maker": "we"}} for i in ids])
    assert put.created == 250
    assert [item.item_id async for item in client.items(shop, page_size=100)] == ids
    odd = "a/b ünï.?#%2F"
    assert (await client.put_item(shop, odd, title="Odd", attributes={"maker": "we"})).item_id == odd
    for dots in (".", ".."):
        await client.put_item(shop, dots, title="Dots")
        assert (await client.item(shop, dots)).title == "Dots"
    assert len(await client.similar(shop, odd, k=3)) == 3
    await client.delete_item(shop, odd)
    with pytest.raises(NotFound):
        await client.item(shop, odd)


async def test_what_operators_do(start: Start) -> None:
    async with start() as service, client_of(service) as client:
        assert (await client.alive()).status == "alive"
        assert "films" in (await client.ready()).domains
        listed = await client.checkpoints()
        assert {"bayes", "bias"} <= {checkpoint.checkpoint for checkpoint in listed}
        moved = await client.reload("films", "bias")
        assert (moved.checkpoint, moved.previous, moved.role) == ("bias", "bayes", "collaborative")
        assert (await client.roll_back("films", "collaborative")).checkpoint == "bayes"
        told = await client.put_exploration("films", {"policy": "epsilon_greedy", "epsilon": 0.5})
        assert told in await client.exploration()
        slate = await client.recommend("films", k=5)
        assert slate.exploration.propensity_valid
        arms = [arm async for arm in client.arms("films", page_size=2)]
        assert {arm.item_id for arm in arms} == {item.item_id for item in slate.items}
        assert (await client.evaluate("films", places=2)).domain == "films"
        assert "warmstart_request_seconds" in await client.metrics()


async def test_a_refusal_says_what_is_wrong(client: AsyncClient, user: str) -> None:
    with pytest.raises(Invalid) as refused:
        await client.add_interactions([{"user_id": user, "domain": "films", "item_id": "item1", "value": 99}])
    assert refused.value.type == "validation-error"
    assert refused.value.errors[0]["pointer"] == "/interactions/0/value"
    assert "/interactions/0/value" in str(refused.value)
    event: InteractionIn = {"user_id": user, "domain": "films", "item_id": "item1", "value": 4, "event_id": user}
    await client.add_interactions([event])
    with pytest.raises(Conflict) as conflict:
        await client.add_interactions([{**event, "value": 5}])
    assert (conflict.value.type, conflict.value.pointers) == ("event-id-conflict", ["/interactions/0/event_id"])
    with pytest.raises(ValueError, match="either"):
        await client.recommend("films", user_id=user, support=[])
    assert (await client.recommend("films", user_id=user, allow_fallback=False)).fallback is None


async def test_what_is_refused_for_now_is_tried_again(start: Start) -> None:
    """Of a burst that overruns the queue every request is answered in the end; without retries most are not."""
    async with start(max_queue=1, max_batch=1) as service:
        async with client_of(service, retries=0) as once:
            answers = await asyncio.gather(*(once.recommend("films") for _ in range(50)), return_exceptions=True)
        refusals = [answer for answer in answers if isinstance(answer, Unavailable)]
        assert {refusal.type for refusal in refusals} == {"overloaded"}
        async with client_of(service, retries=50) as patient:
            slates = await asyncio.gather(*(patient.recommend("films") for _ in range(4)))
        assert {len(slate.items) for slate in slates} == {10}


class LosesAnswers(httpx.AsyncBaseTransport):
    """A network on which the first answers to each address are lost after the service has done its work."""

    def __init__(self, service: Service, lost: int) -> None:
        self.inside = httpx.ASGITransport(service.app, raise_app_exceptions=False)
        self.lost = lost
        self.seen: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self.inside.handle_async_request(request)
        self.seen.append(request)
        if len([earlier for earlier in self.seen if earlier.url == request.url]) <= self.lost:
            raise httpx.ReadError("the connection was reset")
        return response


async def test_an_answer_that_is_lost_stores_nothing_twice(service: Service, user: str) -> None:
    """The retry is the same request, ids and key included, though the caller gave none."""
    network = LosesAnswers(service, lost=2)
    before = await service.stored()
    async with client_of(service, network) as client:
        await client.add_interactions([{"user_id": user, "domain": "films", "item_id": "item1", "value": 4}] * 3)
    assert (await service.stored())["interactions"] == before["interactions"] + 3
    assert len({request.content for request in network.seen}) == 1
    assert len({request.headers["Idempotency-Key"] for request in network.seen}) == 1
    assert len(network.seen) == 3


async def test_a_rollback_is_never_repeated(start: Start) -> None:
    """Nobody knows whether it happened, so nobody goes back a second step."""
    async with start() as service:
        network = LosesAnswers(service, lost=1)
        async with client_of(service, network) as client:
            await client.reload("films", "bias")
            with pytest.raises(Unreachable):
                await client.roll_back("films", "collaborative")
        assert [request.url.path for request in network.seen].count("/v1/admin/checkpoints/rollback") == 1


async def test_the_token_is_sent_and_never_shown(service: Service) -> None:
    network = LosesAnswers(service, lost=0)
    async with AsyncClient("http://localhost", token="secret-42", transport=network) as client:
        await client.alive()
        with pytest.raises(NotFound) as refused:
            await client.user("nobody at all")
        assert "secret-42" not in f"{client.http.headers!r}{refused.value!s}{refused.value!r}"
    assert network.seen[0].headers["Authorization"] == "Bearer secret-42"


async def test_what_is_not_this_service_is_told(unused_tcp_port: int) -> None:
    """Nothing that listens, and something else that does."""
    with Client(f"http://127.0.0.1:{unused_tcp_port}", retries=0) as client, pytest.raises(Unreachable):
        client.alive()

    stranger = httpx.MockTransport(lambda request: httpx.Response(200, text="<html>"))
    async with AsyncClient("http://elsewhere", transport=stranger) as lost:
        with pytest.raises(WarmstartError, match="cannot be read"):
            await lost.alive()


def test_the_synchronous_client_is_made_of_the_other() -> None:
    """`make client-python` makes it again."""
    assert make_client.MADE.read_text(encoding="utf-8") == make_client.made()


def test_both_clients_have_the_same_methods() -> None:
    def public(kind: type) -> set[str]:
        return {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}

    assert public(AsyncClient) - {"aclose"} == public(Client) - {"close"}


@pytest.mark.parametrize("item_id", ["plain", "a/b", "50%", "ü", "?#", "..", "..."])
def test_ids_survive_addresses(item_id: str) -> None:
    url = httpx.URL("http://localhost" + address("/v1/items/{domain}/{item_id}", domain="d", item_id=item_id))
    assert httpx.URL(str(url)).raw_path.count(b"/") == 4
