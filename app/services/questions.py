"""Questions for newcomers: which items to ask about next."""

import asyncio
from collections.abc import Sequence
from typing import Any

from app.engine.questions import Query, choose_questions
from app.errors import invalid
from app.services import evidence
from app.services.evidence import SupportEvent
from app.services.installation import Installation
from app.services.recommend import locals_of
from models.datasets.schema import Attributes

NO_POSTERIOR = "no part of this domain has a joint posterior; the items are popular and unlike each other"


async def ask(
    installation: Installation,
    domain_name: str,
    attributes: Attributes,
    support: Sequence[SupportEvent],
    skipped: Sequence[str],
    n: int,
) -> dict[str, Any]:
    """The n items worth most to ask somebody about who is not stored, given `support` and the ids they do not know.

    Raises Problem: validation-error for an unknown domain or a value off its scale, timestamp-out-of-range.
    """
    snapshot = await installation.fresh(as_asked=True)
    if domain_name not in snapshot.domains:
        raise invalid("/domain", "no domain has that name")
    snapshot = await installation.refresh_counts(domain_name)
    domain = snapshot.domains[domain_name]
    gathered = evidence.from_request(snapshot, domain_name, support, attributes, "/support")
    unknown = locals_of(domain.shelf, skipped)
    counts = installation.runtime.counts(domain_name)[: len(domain.shelf.items)]
    query = Query(domain, gathered.known, gathered.support_size, gathered.seen, unknown, n, counts)
    made = await asyncio.to_thread(choose_questions, query)
    items = domain.shelf.items
    return {
        "domain": domain_name,
        "questions": [
            {
                "item_id": items[one.local].item_id,
                "title": items[one.local].title,
                "chance": None if one.chance is None else round(one.chance, 4),
                "reduction": None if one.reduction is None else round(one.reduction, 4),
            }
            for one in made.asked
        ],
        "part": made.part
        and {
            "role": made.part.role,
            "recommender": made.part.served.recommender.name,
            "checkpoint": made.part.served.name or None,
            "digest": made.part.served.digest or None,
        },
        "ignored": gathered.ignored + [item_id for item_id in skipped if item_id not in domain.shelf.local_of],
        "fallback": None if made.part else NO_POSTERIOR,
    }
