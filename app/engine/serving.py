"""Checkpoints in service: item tables that follow the catalogue, and the parts that answer for a domain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from app.engine.catalogue import Catalogue, Shelf
from models.blend import Blend, fixed_ranking, fixed_schedule
from models.checkpoint import Checkpoint, LearntThrough
from models.datasets.dataset import item_content
from models.recommender import Evidence, ItemTable, Recommender, Role
from models.training.transfer import Transfer


@dataclass(frozen=True)
class Served:
    """A recommender with a row for every item of the catalogue that lies in one of its domains."""

    name: str
    """The checkpoint's name; empty for the built-in fallback."""
    digest: str
    recommender: Recommender
    table: ItemTable
    row_of: Tensor
    """(N,) row of each catalogue position in the table; -1 where the item's domain is not the recommender's."""
    known: dict[tuple[str, str], int]
    """(domain, item id) → row, of the items that the checkpoint came with."""
    prior: ItemTable
    """The table as fit and content have it; `table` is this with rows learnt while serving (`app.engine.learning`)."""
    versions: NDArray[np.uint64]
    """(N,) for each catalogue position a digest of the evidence that its row was learnt from, 0 where it was not."""
    learnt_through: LearntThrough | None = None
    """What the fit has seen of an installation's log."""
    fingerprint: str = ""
    """Of the data set behind the fit."""

    @classmethod
    def of(cls, name: str, checkpoint: Checkpoint) -> "Served":
        """A checkpoint, before it follows a catalogue."""
        known = {(item.domain, item.item_id): row for row, item in enumerate(checkpoint.items)}
        empty = torch.empty(0, dtype=torch.long, device=checkpoint.table.domain.device)
        card = checkpoint.card
        return cls(
            name,
            checkpoint.digest,
            checkpoint.recommender,
            checkpoint.table,
            empty,
            known,
            checkpoint.table,
            np.zeros(0, np.uint64),
            card.learnt_through,
            card.dataset_fingerprint,
        )

    @cached_property
    def domains(self) -> dict[str, int]:
        """Domain name → its index in the recommender's schema."""
        return {domain.name: i for i, domain in enumerate(self.recommender.schema.domains)}

    def following(self, catalogue: Catalogue, changed: Sequence[int]) -> "Served":
        """The same with rows for what is new in the catalogue, and fresh rows for untrained items that changed.

        An item that the checkpoint was trained on keeps its learnt row whatever becomes of its attributes.
        """
        met = len(self.row_of)
        rows = self.row_of.tolist() + [-1] * (len(catalogue.items) - met)
        versions = np.concatenate([self.versions, np.zeros(len(rows) - met, np.uint64)])
        table, prior = self.table, self.prior
        learnt = table is not prior
        for name, target in self.domains.items():
            fresh = []
            for position in sorted({p for p in changed if p < met} | set(range(met, len(catalogue.items)))):
                item = catalogue.items[position]
                if item.domain != name:
                    continue
                if rows[position] < 0:
                    rows[position] = self.known.get((name, item.item_id), -1)
                    if rows[position] >= 0 and self.table.trained[rows[position]]:
                        continue
                elif table.trained[rows[position]]:
                    continue
                fresh.append(position)
            if not fresh:
                continue
            columns = self._content_rows(catalogue, fresh, target)
            old = torch.tensor([i for i, p in enumerate(fresh) if rows[p] >= 0], dtype=torch.long)
            new = torch.tensor([i for i, p in enumerate(fresh) if rows[p] < 0], dtype=torch.long)
            if len(old):
                at = torch.tensor([rows[fresh[i]] for i in old.tolist()], device=table.domain.device)
                given = {key: column[old] for key, column in columns.items()}
                prior = prior.with_rows(at, given)
                table = table.with_rows(at, given) if learnt else prior
                versions[[fresh[i] for i in old.tolist()]] = 0
            if len(new):
                for offset, i in enumerate(new.tolist()):
                    rows[fresh[i]] = len(table) + offset
                given = {key: column[new] for key, column in columns.items()}
                prior = prior.appended(given, target)
                table = table.appended(given, target) if learnt else prior
        row_of = torch.tensor(rows, device=table.domain.device)
        return replace(self, table=table, prior=prior, row_of=row_of, versions=versions)

    def version_of(self, positions: NDArray[np.int64]) -> int:
        """A digest of what the rows at some catalogue positions were learnt from; 0 where none was.

        A user's state reads the rows of the items in their evidence and no others, so a state that was made under the
        same digest is the state that would be made now.
        """
        used = self.versions[positions]
        return int.from_bytes(blake2b(used.tobytes(), digest_size=7).digest()) if used.any() else 0

    def _content_rows(self, catalogue: Catalogue, positions: Sequence[int], target: int) -> dict[str, Tensor]:
        items = [catalogue.items[p] for p in positions]
        content = item_content(
            self.recommender.schema.item_attributes, [i.title for i in items], [i.attributes for i in items]
        )
        with torch.no_grad():
            return self.recommender.embed_items(content.to(self.table.domain.device), target)


def imported_ids(fingerprint: str) -> str:
    """How the ids of events begin that came from a data set."""
    return f"import-{fingerprint[:16]}-"


@dataclass(frozen=True)
class Part:
    """A recommender in its role for one domain."""

    role: Role
    served: Served
    target: int
    """Index of the domain in the recommender's schema."""
    rows: Tensor | None
    """(n,) table rows of the shelf's items in local order; None where that is every row in order."""

    @classmethod
    def of(cls, role: Role, served: Served, shelf: Shelf) -> "Part":
        """The part that answers for the items of a shelf."""
        rows = served.row_of[torch.as_tensor(shelf.positions, device=served.row_of.device)]
        whole = len(rows) == len(served.table) and torch.equal(rows, torch.arange(len(rows), device=rows.device))
        return cls(role, served, served.domains[shelf.domain.name], None if whole else rows)

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Domains whose evidence it carries over, for a transfer."""
        recommender = self.served.recommender
        names = [domain.name for domain in recommender.schema.domains]
        if self.role != "transfer":
            return ()
        if isinstance(recommender, Transfer):
            return (names[recommender.direction.source],) if self.target == recommender.direction.target else ()
        return tuple(name for index, name in enumerate(names) if index != self.target)

    @cached_property
    def newcomer(self) -> Tensor:
        """(1, S) state of somebody of whom nothing at all is known."""
        recommender, table = self.served.recommender, self.served.table
        nothing = torch.zeros(1, 0, device=table.domain.device)
        attributes = torch.zeros(1, recommender.schema.user_attributes.width, device=table.domain.device)
        evidence = Evidence(nothing.long(), nothing, nothing, nothing.long(), nothing.double(), attributes)
        with torch.no_grad():
            return recommender.adapt(evidence, table, self.target)

    @cached_property
    def newcomer_means(self) -> Tensor:
        """(1, n) expected ratings for that newcomer."""
        with torch.no_grad():
            return self.served.recommender.means(self.newcomer, self.served.table, self.rows)

    @cached_property
    def has_posterior(self) -> bool:
        """Whether the recommender says how sure it is of a taste."""
        if not len(self.served.table):
            return False
        first = torch.zeros(1, dtype=torch.long, device=self.served.table.domain.device)
        with torch.no_grad():
            scores = self.served.recommender.score(self.newcomer, self.served.table, first)
        return scores.taste_std is not None or scores.std is not None


@dataclass(frozen=True)
class ServedDomain:
    """All that answers for one domain, at one moment. Immutable: a request keeps the one it began with."""

    shelf: Shelf
    catalogue: Catalogue
    parts: tuple[Part, ...]
    """In the order of the roles; where there is no checkpoint, the built-in fallback alone."""
    blend: Blend | None
    fallback: str | None
    """What was missing, for the caller; None where a checkpoint answers."""
    of_items: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)
    """What was made from the items alone, once it was asked for; the same under other tables."""

    def with_tables(self, served: Mapping[str, Served]) -> "ServedDomain":
        """The same with other tables of some checkpoints, whose items have the same rows."""
        if not any(part.served.name in served for part in self.parts):
            return self
        parts = [replace(part, served=served.get(part.served.name, part.served)) for part in self.parts]
        return replace(self, parts=tuple(parts))

    @property
    def schedule(self) -> str:
        """`learnt` or `fixed`."""
        return "learnt" if self.blend else "fixed"

    @property
    def has_ranking(self) -> bool:
        """Whether lists are ordered by something else than the rating to expect."""
        if self.blend is None:
            return any(part.role == "ranking" for part in self.parts)
        return self.blend.orders_lists

    def source_size(self, positions: NDArray[np.int64]) -> int:
        """How many interactions, of those with items at some catalogue positions, a transfer here has to go by."""
        if not len(self._sources):
            return 0
        return int(np.isin(self.catalogue.shelf_of[positions], self._sources).sum())

    def weights(self, support_size: int, source_size: int = 0) -> list[float]:
        """Weights of the parts in ratings for a user with that many interactions here, and that many where the transfer
        comes from; see `models.blend.Bucket`."""
        if self.blend is None:
            return fixed_schedule([part.role for part in self.parts], support_size, source_size)
        return self._in_order(self.blend.bucket(support_size, source_size).weights)

    def ranking_weights(self, support_size: int, source_size: int = 0) -> list[float]:
        """Weights of the parts in the order of lists."""
        if self.blend is None:
            return fixed_ranking([part.role for part in self.parts], support_size, source_size)
        bucket = self.blend.bucket(support_size, source_size)
        return self._in_order(bucket.ranking_weights or bucket.weights)

    def centres(self, support_size: int, source_size: int = 0) -> list[float]:
        """What the parts' scores are counted from in ratings."""
        centres = self.blend.bucket(support_size, source_size).centres if self.blend else []
        return self._in_order(centres) if centres else [0.0] * len(self.parts)

    def std_scale(self, support_size: int, source_size: int = 0) -> float:
        """Factor on the mixed standard deviation."""
        return self.blend.bucket(support_size, source_size).std_scale if self.blend else 1.0

    @property
    def content_rows(self) -> Tensor:
        """(n, F) the items' encoded attributes, each row of length 1, or 0 where nothing is known of the item."""
        if "content" not in self.of_items:
            encoder = self.parts[0].served.recommender.schema.item_attributes
            self.of_items["content"] = normalize(encoder.encode([item.attributes for item in self.shelf.items]))
        return self.of_items["content"]

    def most_alike(self, local: int, k: int) -> list[tuple[int, float]]:
        """(item, cosine of its content with an item's) of the k available ones that are most like it, likest first."""
        likeness = (self.content_rows @ self.content_rows[local]).numpy()
        likeness[self.shelf.unavailable] = -np.inf
        likeness[local] = -np.inf
        best = np.argsort(-likeness, kind="stable")[:k].tolist()
        return [(i, float(likeness[i])) for i in best if np.isfinite(likeness[i])]

    @cached_property
    def newcomer_order(self) -> Tensor:
        """(n,) where the items stand in the list of somebody of whom nothing is known: 1 the first, 0 the last."""
        weights = self.ranking_weights(0)
        mean = torch.zeros(len(self.shelf.items))
        for part, weight in zip(self.parts, weights, strict=True):
            if weight > 0:
                mean = mean + weight * part.newcomer_means[0].cpu()
        return mean.argsort(stable=True).argsort() / max(len(mean) - 1, 1)

    @cached_property
    def _sources(self) -> NDArray[np.int64]:
        """Numbers of the shelves that transfers here carry evidence from."""
        names = {name for part in self.parts for name in part.sources}
        return np.array([shelf.number for name, shelf in self.catalogue.shelves.items() if name in names], np.int64)

    def _in_order(self, values: Sequence[float]) -> list[float]:
        """Values of the blend's parts, in the order of the parts here."""
        return [values[place] for place in self._places]

    @cached_property
    def _places(self) -> list[int]:
        """For each part, its place among the blend's parts, which need not have the same order."""
        assert self.blend is not None
        roles = [part.role for part in self.blend.parts]
        return [roles.index(part.role) for part in self.parts]
