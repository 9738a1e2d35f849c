"""Exploring new items: a film that nobody has seen gets its chance, is liked, and makes its way up the lists.

Three new films are known by their content alone, which is the same for all of them. Visitors are shown one, drawn by
chance; what they think of it is stored as what came of that answer. The log then says what each film earned, and the
service has learnt the films' rows. In the end the films and the visitors are deleted, and with them what was learnt.
"""

import sys
import time
from uuid import uuid4

from app.client import Client
from app.client.bodies import Attributes, Exploration, InteractionIn

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
VISITORS = 60
PATIENCE_SECONDS = 60
BY_CHANCE: Exploration = {"policy": "epsilon_greedy", "epsilon": 1.0}


def place(client: Client, item_id: str) -> str:
    """Where a film stands in the list of somebody of whom nothing is known."""
    listed = [item.item_id for item in client.recommend("movies", rank_by="rating", k=1000).items]
    return f"place {listed.index(item_id) + 1}" if item_id in listed else "beyond place 1000"


def rating(client: Client, item_id: str) -> float:
    """What such a person is expected to give it."""
    return client.predict("movies", [item_id], support=[]).predictions[0].rating


with Client(URL) as client:
    run = uuid4().hex[:8]
    good, dull, worse = films = [f"{name}-{run}" for name in ("good", "dull", "worse")]
    titles = dict(zip(films, ("The Good One (1998)", "A Dull One (1998)", "A Worse One (1998)"), strict=True))
    stars = {good: 5, dull: 2, worse: 1}
    content: Attributes = {"genres": ["Drama"], "year": 1998, "decade": "1990s"}
    client.put_items([{"domain": "movies", "item_id": i, "title": titles[i], "attributes": content} for i in films])
    unknown = rating(client, good)
    print(f"each of them, by its content alone: {unknown:.2f} stars, {place(client, good)}")

    visitors = [f"visitor-{run}-{n}" for n in range(VISITORS)]
    for visitor in visitors:
        slate = client.recommend(
            "movies", user_id=visitor, k=1, filters={"include_items": films}, exploration=BY_CHANCE
        )
        seen = slate.items[0].item_id
        event: InteractionIn = {"user_id": visitor, "domain": "movies", "item_id": seen, "value": stars[seen]}
        client.add_interactions([{**event, "slate_id": slate.slate_id}])
    for arm in client.arms("movies"):
        if arm.item_id in films and arm.policy == BY_CHANCE["policy"]:
            print(f"{titles[arm.item_id]}: shown {arm.shows} times, {arm.reward / arm.judged:.2f} of reward each time")

    deadline = time.monotonic() + PATIENCE_SECONDS
    while rating(client, good) < unknown + 0.3 and time.monotonic() < deadline:
        time.sleep(0.5)
    for film in films:
        print(f"{titles[film]}, as the service knows it now: {rating(client, film):.2f} stars, {place(client, film)}")

    for film in films:
        client.delete_item("movies", film)
    for visitor in visitors:
        client.delete_user(visitor)
