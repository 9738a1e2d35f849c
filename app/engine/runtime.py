"""What one worker has in service: a catalogue, loaded checkpoints, and for each domain the parts that answer.

Everything that a request reads hangs from one reference, `Runtime.now`; taking a checkpoint into service or following
the catalogue builds the next value aside and swaps that reference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from app.engine import fallback, learning
from app.engine.catalogue import Catalogue, CatalogueItem, Shelf
from app.engine.fallback import Described
from app.engine.golden import examine, practise
from app.engine.learning import ItemEvents
from app.engine.serving import Part, Served, ServedDomain
from models import checkpoint
from models.blend import Blend
from models.checkpoint import CheckpointError
from models.datasets.schema import Domain
from models.recommender import ROLES, Role

log = structlog.get_logger()

Deployed = Mapping[tuple[str, Role], str]
"""(domain, role) → name of the checkpoint that is wanted there."""


@dataclass(frozen=True)
class Snapshot:
    """One consistent view: a request takes it once and keeps it."""

    catalogue: Catalogue = field(default_factory=Catalogue)
    served: Mapping[str, Served] = field(default_factory=dict)
    """Checkpoints in service by name."""
    deployed: Deployed = field(default_factory=dict)
    domains: Mapping[str, ServedDomain] = field(default_factory=dict)

    def serves(self, domain: str, role: Role, name: str, digest: str | None) -> bool:
        """Whether that checkpoint, with that digest, is in service there."""
        return self.deployed.get((domain, role)) == name and self.served[name].digest == digest


def check_fit(served: Served, domain: str, role: Role) -> None:
    """Raise CheckpointError (checkpoint-incompatible) for a checkpoint that cannot serve a domain in that role."""
    if domain not in served.domains:
        raise CheckpointError("checkpoint-incompatible", "The checkpoint was not trained on this domain.")
    if served.recommender.kind == "preference" and role != "ranking":
        told = "The checkpoint puts items in order and predicts no ratings: its only role is ranking."
        raise CheckpointError("checkpoint-incompatible", told)


class Runtime:
    """The engine's state in one process. Changed by one task at a time, read by any number."""

    def __init__(self, checkpoint_dir: Path, device: torch.device, max_bytes: int = 2 * 1024**3) -> None:
        """`max_bytes` is the size of the largest checkpoint that is loaded."""
        self.checkpoint_dir = checkpoint_dir
        self.max_bytes = max_bytes
        self.device = device
        self.now = Snapshot()
        self._counts: dict[str, NDArray[np.float64]] = {}
        self._fallbacks: dict[str, Described] = {}

    def load(self, name: str, digest: str | None = None) -> Served:
        """Read and verify a checkpoint, the one with that digest where one is given. Takes time: call it in a thread.

        Raises checkpoint.CheckpointError.
        """
        size = sum(file.stat().st_size for file in (self.checkpoint_dir / name).glob("*"))
        if size > self.max_bytes:
            raise CheckpointError("checkpoint-too-large", f"{size} bytes; no more than {self.max_bytes} are loaded")
        loaded = checkpoint.load(self.checkpoint_dir / name, self.device)
        if digest not in (None, loaded.digest):
            raise CheckpointError("checkpoint-digest-mismatch", "another checkpoint has been put under that name")
        return Served.of(name, loaded)

    def follow(self, revision: int, domains: Sequence[Domain], changed: Sequence[CatalogueItem]) -> None:
        """Take in what storage says of domains and items at `revision`."""
        now = self.now
        catalogue, positions = now.catalogue.followed(revision, domains, changed)
        served = {name: one.following(catalogue, positions) for name, one in now.served.items()}
        self.put(self._snapshot(catalogue, served, now.deployed))

    def deploy(self, deployed: Deployed, loaded: Mapping[str, Served]) -> None:
        """Put checkpoints into service: `deployed` says what is wanted, `loaded` has those not yet in service."""
        self.put(self.prepared(deployed, loaded))

    def prepared(self, deployed: Deployed, loaded: Mapping[str, Served]) -> Snapshot:
        """What `put` takes into service, all of it made; the domains whose checkpoints change have practised."""
        now = self.now
        every = range(len(now.catalogue.items))
        fresh = {name: one.following(now.catalogue, every) for name, one in loaded.items()}
        served = {name: fresh.get(name) or now.served[name] for name in deployed.values()}
        made = self._snapshot(now.catalogue, served, deployed)
        for domain in {domain for (domain, _), name in deployed.items() if name in fresh}:
            practise(made.domains[domain])
        return made

    def put(self, prepared: Snapshot) -> None:
        """Take a prepared state into service. Nothing else may have changed since; nothing can go wrong any more."""
        self.now = prepared

    def examine(self, domain: str, role: Role, candidate: Served) -> None:
        """Let a loaded checkpoint practise, and hold its answers against those of a second copy loaded for that.

        Raises checkpoint.CheckpointError: checkpoint-incompatible where it cannot serve the domain in that role,
        checkpoint-unsteady, and what `load` raises. Takes time, as loading does.
        """
        check_fit(candidate, domain, role)
        fresh = self.load(candidate.name, candidate.digest)
        try:
            examine(self.with_candidate(domain, role, candidate), self.with_candidate(domain, role, fresh), role)
        except CheckpointError:
            raise
        except Exception as error:  # whatever it says, it cannot serve
            raise CheckpointError("checkpoint-incompatible", f"it does not answer golden questions: {error}") from error

    def with_candidate(self, domain: str, role: Role, candidate: Served) -> ServedDomain:
        """The domain as it would be served with a checkpoint in a role. Nothing changes."""
        now = self.now
        fresh = candidate.following(now.catalogue, range(len(now.catalogue.items)))
        served, deployed = {**now.served, fresh.name: fresh}, {**now.deployed, (domain, role): fresh.name}
        return self._domain(now.catalogue, served, deployed, now.catalogue.shelves[domain])

    def count(self, domain: str, counts: NDArray[np.float64]) -> None:
        """Renew the live counts of a domain without checkpoints: (n, 3) ratings, their sum, events by local index."""
        self._counts[domain] = counts
        now = self.now
        if domain in now.domains and now.domains[domain].fallback:
            renewed = self._domain(now.catalogue, now.served, now.deployed, now.catalogue.shelves[domain])
            self.now = Snapshot(now.catalogue, now.served, now.deployed, {**now.domains, domain: renewed})

    def learn(self, events: Sequence[ItemEvents], installation: int) -> int:
        """Learn the rows of items anew from all that came in about them; how many rows changed.

        A checkpoint with which that fails keeps its rows.
        """
        now = self.now
        served: dict[str, Served] = {}
        for name, one in now.served.items():
            try:
                learnt = learning.learn(one, now.catalogue, events, installation)
            except Exception:
                log.exception("items_not_learnt", checkpoint=name)
                continue
            if learnt is not one:
                served[name] = learnt
        changed = sum(int((one.versions != now.served[name].versions).sum()) for name, one in served.items())
        if served:
            domains = {name: domain.with_tables(served) for name, domain in now.domains.items()}
            self.now = Snapshot(now.catalogue, {**now.served, **served}, now.deployed, domains)
        return changed

    def counts(self, domain: str) -> NDArray[np.float64]:
        """The live counts that `count` was told last, (n, 3), zeros for items that came since."""
        counts, n = self._counts.get(domain, np.zeros((0, 3))), len(self.now.catalogue.shelves[domain].items)
        return np.pad(counts, ((0, max(0, n - len(counts))), (0, 0)))

    def warm_up(self) -> None:
        """Answer questions about every domain once."""
        for domain in self.now.domains.values():
            practise(domain)

    def _snapshot(self, catalogue: Catalogue, served: Mapping[str, Served], deployed: Deployed) -> Snapshot:
        domains = {name: self._domain(catalogue, served, deployed, shelf) for name, shelf in catalogue.shelves.items()}
        return Snapshot(catalogue, served, deployed, domains)

    def _domain(
        self, catalogue: Catalogue, served: Mapping[str, Served], deployed: Deployed, shelf: Shelf
    ) -> ServedDomain:
        name = shelf.domain.name
        parts = tuple(Part.of(role, served[deployed[name, role]], shelf) for role in ROLES if (name, role) in deployed)
        if any(part.role != "ranking" for part in parts):
            return ServedDomain(shelf, catalogue, parts, self._blend(name, parts), None)
        counts = self._counts.get(name, np.zeros((0, 3)))
        padded = np.zeros((len(shelf.items), 3))
        padded[: len(counts)] = counts[: len(padded)]
        described = self._described(shelf)
        table = fallback.counted(described, padded)
        row_of = torch.full((len(catalogue.items),), -1, dtype=torch.long)
        row_of[torch.from_numpy(shelf.positions)] = torch.arange(len(shelf.items))
        built_in = Served("", "", described.recommender, table, row_of, {}, table, np.zeros(len(row_of), np.uint64))
        missing = "no checkpoint that rates is deployed for this domain; ratings come from content and live counts"
        return ServedDomain(shelf, catalogue, (Part("content", built_in, 0, None), *parts), None, missing)

    def _described(self, shelf: Shelf) -> Described:
        """What the fallback knows of a shelf, made once: to describe a large one takes long.

        A candidate may be tried on an older state of the shelf, in another thread: each has what it asked for.
        """
        kept = self._fallbacks.get(shelf.domain.name)
        if kept is not None and kept.shelf is shelf:
            return kept
        made = Described.of(shelf) if kept is None else kept.following(shelf)
        self._fallbacks[shelf.domain.name] = made
        return made

    def _blend(self, domain: str, parts: Sequence[Part]) -> Blend | None:
        """The learnt blend beside the checkpoints that was fitted on exactly these parts, if there is one."""
        digests = {part.role: part.served.digest for part in parts}
        for path in sorted(self.checkpoint_dir.glob("blend*.json")):
            try:
                blend = Blend.load(path)
            except (OSError, ValidationError) as error:
                log.warning("blend_unreadable", file=path.name, reason=type(error).__name__)
                continue
            if blend.domain == domain and blend.applies_to(digests):
                return blend
        return None
