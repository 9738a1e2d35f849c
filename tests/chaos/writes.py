"""Does the write API do what it says, in any order? `python -m tests.chaos.writes [--examples 300]`.

A state machine of Hypothesis puts users and items, posts events, takes them back, asks for slates, rewards them, erases
users, and sends again what it sent before, as it was and with other content. Beside it stands a model in plain Python:
dictionaries of what must be stored. Every answer and, after every step, everything that can be read must be what the
model says.
"""

import argparse
import itertools
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.chaos.databases import KINDS, database, scratch
from tests.chaos.lives import Nursery, nursery

USERS = ("ada", "grace")
ITEMS = ("one", "two", "three")
VALUES = (1, 4, 5)
N_EVENTS = 6
REWARDS = (0.1, 0.333333, -0.7, 1)

_numbers = itertools.count()

events = st.fixed_dictionaries(
    {
        "event": st.integers(0, N_EVENTS - 1),
        "user": st.sampled_from(USERS),
        "item": st.sampled_from(ITEMS),
        "value": st.sampled_from((*VALUES, None)),  # None: a click
        "slate": st.none() | st.integers(0, 2),
    }
)
rewards = st.fixed_dictionaries(
    {
        "event": st.integers(0, N_EVENTS - 1),
        "slate": st.integers(0, 2),
        "item": st.integers(0, 2),
        "value": st.sampled_from(REWARDS),
    }
)


@dataclass
class Model:
    """What must be stored, in plain Python."""

    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    """User → attributes."""
    items: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Item → attributes."""
    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Event id → the event as it was sent, oldest first."""
    erased: list[dict[str, Any]] = field(default_factory=list)
    """Events of erased users: the same again is late, and not stored."""
    slates: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    """Slate → (user, items shown), of those on record."""
    rewards: dict[str, dict[str, Any]] = field(default_factory=dict)
    shows: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    micros: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Item → sum of its rewards in millionths; erasure leaves it."""

    def worth(self, event: dict[str, Any]) -> int:
        """Millionths that an event counts as a reward, 0 where it is none."""
        slate = self.slates.get(event.get("slate_id", ""))
        if slate is None or event["item_id"] not in slate[1]:
            return 0
        return 300_000 if event["kind"] == "click" else round((event["value"] - 1) / 4 * 1_000_000)

    def touch(self, event: dict[str, Any]) -> None:
        """Store a new event."""
        self.users.setdefault(event["user_id"], {})
        self.items.setdefault(event["item_id"], {})
        self.events[event["event_id"]] = event
        self.micros[event["item_id"]] += self.worth(event)

    def forget(self, user_id: str) -> None:
        """Erase a user: events, and slates with their rewards; arms keep what those said."""
        del self.users[user_id]
        gone = [event for event in self.events.values() if event["user_id"] == user_id]
        self.erased += gone
        self.events = {key: event for key, event in self.events.items() if event not in gone}
        lost = {slate_id for slate_id, (owner, _) in self.slates.items() if owner == user_id}
        self.slates = {key: slate for key, slate in self.slates.items() if key not in lost}
        self.rewards = {key: reward for key, reward in self.rewards.items() if reward["slate_id"] not in lost}


class Writes(RuleBasedStateMachine):
    """The service and the model, side by side, in a domain of their own."""

    def __init__(self, http: httpx.Client) -> None:
        super().__init__()
        self.http = http
        self.name = f"d{next(_numbers)}"
        self.model = Model()
        self.shown: list[str] = []
        """Slates in the order in which they were made, those of erased users too."""
        body = {"kinds": {"click": {"value": 4, "reward": 0.3}}}
        assert http.put(f"/v1/domains/{self.name}", json=body).status_code == 201

    def _id(self, name: str) -> str:
        return f"{self.name}-{name}"

    @rule(user=st.sampled_from(USERS), age=st.integers(1, 99))
    def put_user(self, user: str, age: int) -> None:
        user_id, new = self._id(user), self._id(user) not in self.model.users
        response = self.http.put(f"/v1/users/{user_id}", json={"attributes": {"age": age}})
        assert response.status_code == (201 if new else 200)
        self.model.users[user_id] = {"age": age}

    @rule(item=st.sampled_from(ITEMS), year=st.integers(1900, 2030))
    def put_item(self, item: str, year: int) -> None:
        new = item not in self.model.items
        response = self.http.put(f"/v1/items/{self.name}/{item}", json={"title": item, "attributes": {"year": year}})
        assert response.status_code == (201 if new else 200)
        self.model.items[item] = {"year": year}

    @rule(batch=st.lists(events, min_size=1, max_size=4), bad=st.sampled_from((False, False, False, True)))
    def post(self, batch: list[dict[str, Any]], bad: bool) -> None:
        """Events, some of them sent before, some under an id that others have; perhaps with one that is not allowed."""
        rows = [self._event(**row) for row in batch]
        if bad:
            response = self._posted([*rows, self._event(N_EVENTS, USERS[0], ITEMS[0], 9, None)])
            assert response.status_code == 422
            return
        response, fresh, conflict = self._posted(rows), [], False
        for row in rows:
            if row in self.model.erased:
                continue
            known = self.model.events.get(row["event_id"]) or next(
                (other for other in fresh if other["event_id"] == row["event_id"]), None
            )
            conflict |= known is not None and known != row
            if known is None:
                fresh.append(row)
        if conflict:
            assert response.status_code == 409
            return
        assert response.status_code == (201 if fresh else 200)
        assert response.json() == {"accepted": len(fresh), "duplicates": len(rows) - len(fresh)}
        for row in fresh:
            self.model.touch(row)

    @rule(event=st.integers(0, N_EVENTS - 1))
    def take_back(self, event: int) -> None:
        event_id = self._id(f"e{event}")
        response = self.http.delete(f"/v1/interactions/{event_id}")
        stored = self.model.events.pop(event_id, None)
        assert response.status_code == (204 if stored else 404)
        if stored:
            self.model.micros[stored["item_id"]] -= self.model.worth(stored)

    @precondition(lambda self: self.model.items)
    @rule(user=st.sampled_from(USERS))
    def recommend(self, user: str) -> None:
        body = {"domain": self.name, "user_id": self._id(user), "k": 2, "filters": {"exclude_seen": False}}
        answer = self.http.post("/v1/recommendations", json=body)
        assert answer.status_code == 200
        items = [item["item_id"] for item in answer.json()["items"]]
        assert len(items) == min(2, len(self.model.items))
        assert set(items) <= self.model.items.keys()
        owner = self._id(user) if self._id(user) in self.model.users else ""
        self.model.slates[answer.json()["slate_id"]] = owner, items
        self.shown.append(answer.json()["slate_id"])
        for item in items:
            self.model.shows[item] += 1

    @precondition(lambda self: self.shown)
    @rule(batch=st.lists(rewards, min_size=1, max_size=3))
    def reward(self, batch: list[dict[str, Any]]) -> None:
        rows = [self._reward(**row) for row in batch]
        response = self.http.post("/v1/rewards", json={"rewards": rows})
        on_record = [row for row in rows if row["slate_id"] in self.model.slates]
        if len(on_record) < len(rows):
            assert response.status_code == 404
            return
        if any(row["item_id"] not in self.model.slates[row["slate_id"]][1] for row in rows):
            assert response.status_code == 422
            return
        fresh: dict[str, dict[str, Any]] = {}
        for row in rows:
            known = self.model.rewards.get(row["event_id"]) or fresh.setdefault(row["event_id"], row)
            if known != row:
                assert response.status_code == 409
                return
        assert response.status_code == (201 if fresh else 200)
        assert response.json() == {"accepted": len(fresh), "duplicates": len(rows) - len(fresh)}
        self.model.rewards |= fresh
        for row in fresh.values():
            self.model.micros[row["item_id"]] += round(row["value"] * 1_000_000)

    @rule(user=st.sampled_from(USERS))
    def erase(self, user: str) -> None:
        user_id = self._id(user)
        response = self.http.delete(f"/v1/users/{user_id}")
        assert response.status_code == (204 if user_id in self.model.users else 404)
        if user_id in self.model.users:
            self.model.forget(user_id)

    @invariant()
    def users_are_those_of_the_model(self) -> None:
        for user_id in map(self._id, USERS):
            response = self.http.get(f"/v1/users/{user_id}/export")
            if user_id not in self.model.users:
                assert response.status_code == 404
                continue
            stored = response.json()
            assert stored["attributes"] == self.model.users[user_id]
            own = [event for event in self.model.events.values() if event["user_id"] == user_id]
            assert [_content(event) for event in stored["interactions"]] == [_content(event) for event in own]
            assert {slate["slate_id"] for slate in stored["slates"]} == {
                slate_id for slate_id, (owner, _) in self.model.slates.items() if owner == user_id
            }

    @invariant()
    def items_are_those_of_the_model(self) -> None:
        listed = self.http.get(f"/v1/items/{self.name}").json()["items"]
        assert {item["item_id"]: item["attributes"] or {} for item in listed} == self.model.items

    @invariant()
    def arms_are_those_of_the_model(self) -> None:
        shows: dict[str, int] = defaultdict(int)
        micros: dict[str, int] = defaultdict(int)
        for arm in self.http.get("/v1/admin/arms", params={"domain": self.name}).json()["arms"]:
            shows[arm["item_id"]] += arm["shows"]
            micros[arm["item_id"]] += round(arm["reward"] * 1_000_000)
        assert shows == self.model.shows
        assert {item: n for item, n in micros.items() if n} == {item: n for item, n in self.model.micros.items() if n}

    def _posted(self, rows: list[dict[str, Any]]) -> httpx.Response:
        return self.http.post("/v1/interactions", json={"interactions": rows})

    def _event(self, event: int, user: str, item: str, value: float | None, slate: int | None) -> dict[str, Any]:
        made: dict[str, Any] = {
            "event_id": self._id(f"e{event}"),
            "user_id": self._id(user),
            "domain": self.name,
            "item_id": item,
            "kind": "click" if value is None else "rating",
        }
        if value is not None:
            made["value"] = value
        if slate is not None and self.shown:
            made["slate_id"] = self.shown[slate % len(self.shown)]
        return made

    def _reward(self, event: int, slate: int, item: int, value: float) -> dict[str, Any]:
        slate_id = self.shown[slate % len(self.shown)]
        _, items = self.model.slates.get(slate_id, ("", ITEMS))
        item_id = items[item] if item < len(items) else ITEMS[item]
        return {"event_id": self._id(f"r{event}"), "slate_id": slate_id, "item_id": item_id, "value": value}


def _content(event: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(event.get(name) for name in ("event_id", "domain", "item_id", "kind", "value", "slate_id"))


def run(services: Nursery, folder: Path, url: str, examples: int, steps: int = 25, fault: str | None = None) -> None:
    """Run the machine against one service. Raises AssertionError with the shortest way to a difference."""
    with (
        services.life(folder, database_url=url, fault=fault) as life,
        httpx.Client(base_url=life.url, timeout=30) as http,
    ):
        profile = settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        )
        run_state_machine_as_test(partial(Writes, http), settings=profile)


def main() -> None:
    parser = argparse.ArgumentParser(description="hold the write API against a model in plain Python")
    parser.add_argument("--examples", type=int, default=300)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--database", choices=[*KINDS, "both"], default="both")
    arguments = parser.parse_args()
    for kind in KINDS if arguments.database == "both" else (arguments.database,):
        with scratch() as folder, database(kind, folder) as url, nursery() as services:
            run(services, folder, url, arguments.examples, arguments.steps)
        print(f"{kind}: {arguments.examples} runs of up to {arguments.steps} steps: the service equals the model")


if __name__ == "__main__":
    main()
