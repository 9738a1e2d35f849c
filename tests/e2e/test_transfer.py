"""What is known of somebody in one catalogue tells in another: `thrills` and `hearts`, as the demo serves them."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.commands.blend import fit_blends
from app.commands.serve import DEMO_DOMAIN_RECOMMENDERS, DEMO_DOMAINS, DEMO_TRANSFER
from app.commands.train import train_checkpoint
from models.datasets.dataset import Dataset
from models.datasets.fetch import FetchError, fetch
from models.datasets.folder import read
from tests.e2e.conftest import DATA
from tests.e2e.examples import told
from tests.e2e.service import warmstart

SLATE = 20


@pytest.fixture(scope="module")
def domains() -> Dataset:
    try:
        return read(fetch("movielens-100k-domains", DATA / "movielens-100k-domains"))
    except FetchError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def client(domains: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a service with a transfer in both directions."""
    folder = tmp_path_factory.mktemp("domains")
    stock = folder / "checkpoints"
    for target, source in zip(DEMO_DOMAINS, reversed(DEMO_DOMAINS), strict=True):
        for name in DEMO_DOMAIN_RECOMMENDERS:
            train_checkpoint(name, {}, domains, stock, domain=target, device="cpu")
        train_checkpoint(DEMO_TRANSFER, {"source": source, "target": target}, domains, stock, device="cpu")
    fit_blends(stock, domains)
    with warmstart(folder, checkpoint_dir=stock, learn_seconds=0) as server, server.client() as made:
        yield made


@pytest.fixture(scope="module")
def ten_thrills(domains: Dataset) -> list[dict[str, Any]]:
    """The ten oldest `thrills` ratings of somebody who has rated many."""
    user = int(domains.interactions.users.bincount().argmax())
    rows = range(int(domains.offsets[user]), int(domains.offsets[user + 1]))
    seen, items = domains.interactions, domains.items
    rated = [
        {"domain": "thrills", "item_id": items.ids[int(seen.items[row])], "value": float(seen.values[row])}
        for row in rows
        if int(items.domain[seen.items[row]]) == 0
    ]
    assert domains.schema.domains[0].name == "thrills"
    return rated[:10]


def answer(client: httpx.Client, path: str, body: dict[str, Any]) -> Any:
    response = client.post(path, json=body)
    assert response.is_success, response.text
    return response.json()


def hearts(client: httpx.Client, support: list[dict[str, Any]], domain: str = "hearts") -> Any:
    return answer(client, "/v1/cold-start/recommendations", {"domain": domain, "support": support, "k": SLATE})


def ids(slate: Any) -> list[str]:
    return [item["item_id"] for item in slate["items"]]


def transfer(slate: Any) -> Any:
    (part,) = [part for part in slate["parts"] if part["role"] == "transfer"]
    return part


@pytest.mark.parametrize("direction", [("thrills", "hearts"), ("hearts", "thrills")])
def test_each_domain_has_the_transfer_that_leads_to_it(client: httpx.Client, direction: tuple[str, str]) -> None:
    source, target = direction
    slate = hearts(client, [], target)
    assert slate["schedule"] == "learnt"
    assert transfer(slate)["transfer"]["sources"] == [source]


def test_ten_ratings_in_thrills_change_what_hearts_are_given(
    client: httpx.Client, ten_thrills: list[dict[str, Any]]
) -> None:
    popular, slate = hearts(client, []), hearts(client, ten_thrills)
    assert ids(slate) != ids(popular)
    contrary = hearts(client, [{**event, "value": 6 - event["value"]} for event in ten_thrills])
    assert ids(contrary) != ids(slate)


def test_one_rating_in_hearts_moves_them(client: httpx.Client, ten_thrills: list[dict[str, Any]]) -> None:
    before = hearts(client, ten_thrills)
    rated = before["items"][0]["item_id"]
    after = hearts(client, [*ten_thrills, {"item_id": rated, "value": 1}])
    assert rated not in ids(after)
    assert ids(after) != ids(before)[1:]
    scores = {item["item_id"]: item["score"] for item in before["items"]}
    assert any(item["score"] != scores.get(item["item_id"], item["score"]) for item in after["items"])


def test_the_answer_says_what_was_carried_over_and_what_that_is_worth(
    client: httpx.Client, ten_thrills: list[dict[str, Any]]
) -> None:
    newcomer, part = transfer(hearts(client, [])), transfer(hearts(client, ten_thrills))
    assert (newcomer["transfer"]["used"], newcomer["transfer"]["source_size"]) == (False, 0)
    assert (newcomer["weight"], newcomer["ranking_weight"]) == (0, 0)
    told = part["transfer"]
    assert (told["used"], told["sources"], told["source_size"]) == (True, ["thrills"], 10)
    assert part["weight"] > 0
    assert part["ranking_weight"] > 0
    for gain in (told["gain"], told["ranking_gain"]):
        assert gain["gain"] > gain["low"] > 0
        assert gain["users"] >= 20
    assert part["adaptation"]["support_size"] == 10


def test_films_that_were_rated_there_are_still_recommended_here(
    client: httpx.Client, ten_thrills: list[dict[str, Any]]
) -> None:
    """What is seen is seen in its own domain; the support size of a list is that of its domain too."""
    assert not {event["item_id"] for event in ten_thrills} & set(ids(hearts(client, ten_thrills, "thrills")))
    parts = {part["role"]: part for part in hearts(client, ten_thrills)["parts"]}
    assert all(part["transfer"] is None for role, part in parts.items() if role != "transfer")
    assert parts["ranking"]["adaptation"]["support_size"] == 0


def test_a_known_user_is_given_the_same_as_a_stranger_with_the_same_history(
    client: httpx.Client, ten_thrills: list[dict[str, Any]]
) -> None:
    """Cached states follow what a user does in any domain."""
    body = {"domain": "hearts", "user_id": "traveller", "k": SLATE}
    assert ids(answer(client, "/v1/recommendations", body)) == ids(hearts(client, []))
    timed = [{**event, "occurred_at": 1_000_000_000 + i} for i, event in enumerate(ten_thrills)]
    answer(client, "/v1/interactions", {"interactions": [{**event, "user_id": "traveller"} for event in timed]})
    stranger = hearts(client, timed)
    for cached in (False, True):
        known = answer(client, "/v1/recommendations", body)
        assert known["items"] == stranger["items"]
        assert transfer(known)["adaptation"]["cached"] == cached
    one = {"domain": "hearts", "item_id": ids(stranger)[0], "value": 1, "occurred_at": 1_000_000_100}
    answer(client, "/v1/interactions", {"interactions": [{**one, "user_id": "traveller"}]})
    moved = answer(client, "/v1/recommendations", body)
    assert moved["items"] == hearts(client, [*timed, one])["items"]
    assert ids(moved) != ids(stranger)


def test_the_example_tells_what_was_carried_over(client: httpx.Client) -> None:
    story = told("two_catalogues", str(client.base_url))
    assert story.startswith("10 ratings of thrills; used: yes\n")
    assert story.count(" instead of ") == 6
