"""A newcomer on films: a few questions, chosen to tell most, and the list becomes theirs.

The newcomer loves science fiction, is bored by romance, and has not seen what few people know. The service knows
nothing of that: it asks, they answer or say that they don't know, and nothing is stored.
"""

import sys

from app.client import Client
from app.client.answers import QuestionOut
from app.client.bodies import SupportInteraction

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
QUESTIONS = 8


def opinion(client: Client, question: QuestionOut) -> float | None:
    """What the newcomer thinks of a film: stars, or None where they have not seen it."""
    if question.chance is not None and question.chance < 0.3:
        return None
    genres = client.item("movies", question.item_id).attributes["genres"]
    if "Sci-Fi" in genres:
        return 5
    return 2 if "Romance" in genres else 3


def science_fiction(client: Client, support: list[SupportInteraction]) -> float:
    """How much of the newcomer's list of twenty is what they love."""
    slate = client.recommend("movies", support=support, k=20)
    return sum("Sci-Fi" in client.item("movies", item.item_id).attributes["genres"] for item in slate.items) / 20


with Client(URL) as client:
    support: list[SupportInteraction] = []
    skipped: list[str] = []
    print(f"science fiction in the list, before: {science_fiction(client, support):.0%}")
    for _ in range(QUESTIONS):
        (question,) = client.questions("movies", support=support, skipped=skipped).questions
        stars = opinion(client, question)
        if stars is None:
            skipped.append(question.item_id)
            print(f"  {question.title}? I don't know it.")
        else:
            support.append({"item_id": question.item_id, "value": stars})
            print(f"  {question.title}? {stars:g} stars.")
    print(f"science fiction in the list, after: {science_fiction(client, support):.0%}")
    for item in client.recommend("movies", support=support, k=5).items:
        print(f"  {item.title}: {item.score:.1f} ± {item.std or 0:.1f}")
