"""Take checkpoints into service and back out, without dropping a request."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from app.engine.runtime import check_fit
from app.engine.serving import Served
from app.errors import Problem, invalid
from app.services import audit
from app.services.evaluation import Gate, Scope, Verdict, evaluate_log, pass_gate
from app.services.installation import Installation
from app.storage import catalogue, deployments, domains
from app.storage.database import Connection
from app.storage.records import NewDomain, NewItem
from app.telemetry import RELOADS
from models import checkpoint
from models.checkpoint import Card, CheckpointError
from models.datasets.schema import AttributeKind
from models.recommender import Role
from models.registry import RECOMMENDERS

log = structlog.get_logger()

CLAIM_SECONDS = 0.1
"""Pause before another worker is asked again whether it is done."""
CHECKPOINT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class Listed:
    """A folder among the checkpoints."""

    name: str
    card: Card | None
    digest: str | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class Done:
    """What a reload or a rollback did."""

    domain: str
    role: Role
    checkpoint: str
    digest: str
    previous: str | None
    shadow: bool = False
    """It was on trial only, and has served nobody."""


class Deployments:
    """Reloads: at most one at a time for a domain and role, of all workers of the installation."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        installation.probation.withdraw = self.withdraw

    async def reload(self, domain: str, name: str, role: Role | None, gate: Gate | None = None) -> Done:
        """Load, verify, warm, commit and swap; the old checkpoint answers until then, and goes on if anything is wrong.

        Nothing is loaded where that checkpoint is in service already. Raises Problem: invalid-checkpoint-id,
        checkpoint-*, validation-error, reload-in-progress; with a gate too-few-samples, gate-not-passed.
        """
        path = self._path(name)
        where = (domain, role or await self._default_role(path))
        async with self._alone(where):
            return await self._deploy(where, name, gate=gate)

    async def try_out(self, domain: str, name: str, role: Role | None) -> Done:
        """Put a checkpoint that passes every gate on trial at this worker (`app.services.shadow`); it serves nobody.

        Raises Problem: invalid-checkpoint-id, checkpoint-*, validation-error, reload-in-progress.
        """
        if not self.installation.settings.shadow_share:
            raise invalid("/shadow", "no share of requests is for trials: WARMSTART_SHADOW_SHARE is 0")
        path = self._path(name)
        where = (domain, role or await self._default_role(path))
        async with self._alone(where):
            served = await self._admitted(where, name, path)
            self.installation.shadows.begin(*where, served)
            return Done(*where, name, served.digest, self.installation.runtime.now.deployed.get(where), shadow=True)

    def end_trial(self, domain: str, role: Role) -> Done:
        """Take a checkpoint off trial. Raises Problem: nothing-to-roll-back."""
        trial = self.installation.shadows.end(domain, role)
        if trial is None:
            raise Problem("nothing-to-roll-back", "No checkpoint is on trial there, at this worker.")
        previous = self.installation.runtime.now.deployed.get((domain, role))
        return Done(domain, role, trial.candidate.name, trial.candidate.digest, previous, shadow=True)

    async def evaluate(self, domain: str, scope: Scope, name: str | None, role: Role | None) -> Verdict:
        """What the log says of a domain, and of a checkpoint beside what is in service. Nothing changes.

        Raises Problem: invalid-checkpoint-id, checkpoint-*, validation-error.
        """
        if name is None:
            return await evaluate_log(self.installation, domain, scope)
        path = self._path(name)
        wanted = role or await self._default_role(path)
        served = await self._load(name)
        _check_fit(served, domain, wanted)
        return await evaluate_log(self.installation, domain, scope, (wanted, served))

    async def rollback(self, domain: str, role: Role) -> Done:
        """Put back what was in service before. Raises Problem: validation-error, nothing-to-roll-back, checkpoint-*."""
        snapshot = await self.installation.fresh()
        if domain not in snapshot.domains:
            raise invalid("/domain", "no domain has that name")
        async with self._alone((domain, role)):
            return await self._back((domain, role))

    async def withdraw(self, domain: str, role: Role, name: str) -> bool:
        """Put back what was in service before a checkpoint that does badly; whether that was done.

        Not where it is in service no more, nor where it came back itself because the one before it did badly: then
        there is nothing better. It is on record as an act of the service.
        """
        key = self.installation.domains[domain].key
        async with self._alone((domain, role), patient=True):
            async with self.installation.database.read() as connection:
                decisions = [d for d in await deployments.history(connection, key) if d.role == role]
            names = [decision.checkpoint for decision in decisions]
            if names[:1] != [name]:
                return False
            if names[2:3] == [name]:
                lasted = decisions[0].created_at - decisions[1].created_at
                if lasted < self.installation.settings.probation_seconds:
                    return False
            async with audit.of_the_service(self.installation, f"checkpoints withdraw {name}"):
                await self._back((domain, role))
            return True

    async def adopt(self) -> None:
        """Deploy the newest checkpoint that loads, for each domain and role that nobody has decided about yet.

        Each is on record as an act of the service.
        """
        installation = self.installation
        listed = await asyncio.to_thread(list_checkpoints, installation.settings.checkpoints)
        newest_first = sorted(
            ((entry.card.created, entry.name, entry.card) for entry in listed if entry.card), reverse=True
        )
        candidates: dict[tuple[str, Role], list[str]] = {}
        for _, name, card in newest_first:
            for domain in card.targets:
                candidates.setdefault((domain, usual_role(card)), []).append(name)
        for where, names in sorted(candidates.items()):
            if not await self._decided(*where):
                async with self._alone(where, patient=True):  # another worker that starts may be doing the same
                    await self._adopt(where, names)
        await installation.following.follow()

    async def _adopt(self, where: tuple[str, Role], names: Sequence[str]) -> None:
        """Deploy the first of the checkpoints that loads, unless somebody has decided meanwhile."""
        if await self._decided(*where):
            return
        for name in names:
            try:
                async with audit.of_the_service(self.installation, f"checkpoints adopt {name}"):
                    await self._deploy(where, name)
                return
            except Problem as problem:
                log.warning("checkpoint_not_adopted", checkpoint=name, reason=problem.slug)

    async def _deploy(
        self, where: tuple[str, Role], name: str, *, digest: str | None = None, gate: Gate | None = None
    ) -> Done:
        """Take a checkpoint, the one with that digest where one is given, through every gate and into service.

        For whoever has the claim on the place.
        """
        domain, role = where
        path = self._path(name)
        if gate is None and (there := await self._in_service(where, name, path)) is not None:
            return there
        served = await self._admitted(where, name, path, digest)
        if gate is not None:
            await pass_gate(self.installation, domain, role, served, gate)
        previous = self.installation.runtime.now.deployed.get(where)
        await self.installation.following.put(domain, role, served)
        return Done(domain, role, name, served.digest, previous)

    async def _admitted(self, where: tuple[str, Role], name: str, path: Path, digest: str | None = None) -> Served:
        """A checkpoint that is loaded and has passed every gate; its items are in the catalogue. Raises Problem."""
        served = await self._load(name, digest)
        _check_fit(served, *where)
        await self._register(path)
        await self.installation.fresh()
        await self._check_name(where, served)
        await self._examine(*where, served)
        return served

    async def _back(self, where: tuple[str, Role]) -> Done:
        """Deploy what was in service before, if it is still what it was. Raises Problem: nothing-to-roll-back, …"""
        key = self.installation.domains[where[0]].key
        async with self.installation.database.read() as connection:
            earlier = await deployments.earlier(connection, key, where[1])
        if earlier is None or earlier.checkpoint is None:
            raise Problem("nothing-to-roll-back")
        return await self._deploy(where, earlier.checkpoint, digest=earlier.digest)

    async def _in_service(self, where: tuple[str, Role], name: str, path: Path) -> Done | None:
        """What a deployment that changes nothing has done: the checkpoint, as it is on disk, is wanted and served."""
        async with self.installation.database.read() as connection:
            wanted = {(row.domain, row.role): row for row in await deployments.wanted(connection)}.get(where)
        if wanted is None or wanted.checkpoint != name:
            return None
        try:
            if await asyncio.to_thread(checkpoint.verify, path) != wanted.digest:
                return None
        except CheckpointError:  # which loading it will tell
            return None
        await self.installation.following.follow()
        if not self.installation.runtime.now.serves(*where, name, wanted.digest):
            return None
        return Done(*where, name, wanted.digest, name)

    async def _check_name(self, where: tuple[str, Role], served: Served) -> None:
        """Raise Problem (checkpoint-digest-mismatch) where the name stands for another checkpoint in another place."""
        async with self.installation.database.read() as connection:
            rows = await deployments.wanted(connection)
        if any(
            row.checkpoint == served.name and row.digest != served.digest and (row.domain, row.role) != where
            for row in rows
        ):
            detail = "Another checkpoint is in service under that name: save this one under a name of its own."
            raise Problem("checkpoint-digest-mismatch", detail)

    @asynccontextmanager
    async def _alone(self, where: tuple[str, Role], *, patient: bool = False) -> AsyncIterator[None]:
        """Decide about a place while no worker else does; wait for that where `patient`, else raise Problem
        (reload-in-progress)."""
        while True:
            async with self.installation.database.claim(f"deployment {where[1]} {where[0]}") as ours:
                if ours:
                    yield
                    return
            if not patient:
                raise Problem("reload-in-progress")
            await asyncio.sleep(CLAIM_SECONDS)

    async def _decided(self, domain: str, role: Role) -> bool:
        """Whether somebody has ever said what should be served there."""
        await self.installation.fresh()
        stored = self.installation.domains.get(domain)
        if stored is None:
            return False
        async with self.installation.database.read() as connection:
            history = await deployments.history(connection, stored.key)
        return any(decision.role == role for decision in history)

    def _path(self, name: str) -> Path:
        """The folder of a checkpoint. Raises Problem: invalid-checkpoint-id, checkpoint-not-found, …"""
        if not CHECKPOINT_NAME.fullmatch(name):
            raise Problem("invalid-checkpoint-id")
        folder = self.installation.settings.checkpoints.resolve()
        path = folder / name
        if path.resolve().parent != folder:
            raise Problem("invalid-checkpoint-id")
        if not path.exists():
            raise Problem("checkpoint-not-found")
        return path

    async def _default_role(self, path: Path) -> Role:
        """The role of the checkpoint's recommender. Raises Problem: checkpoint-*."""
        try:
            card, _ = await asyncio.to_thread(checkpoint.read_card, path)
        except CheckpointError as error:
            raise Problem(error.reason, "The checkpoint in service goes on answering.") from error
        if card.recommender not in RECOMMENDERS:
            raise Problem("checkpoint-incompatible", "This version does not know the checkpoint's recommender.")
        return usual_role(card)

    async def _load(self, name: str, digest: str | None = None) -> Served:
        try:
            return await asyncio.to_thread(self.installation.runtime.load, name, digest)
        except CheckpointError as error:
            raise _refused(name, error) from error

    async def _examine(self, domain: str, role: Role, served: Served) -> None:
        try:
            await asyncio.to_thread(self.installation.runtime.examine, domain, role, served)
        except CheckpointError as error:
            raise _refused(served.name, error) from error

    async def _register(self, path: Path) -> None:
        """Declare the checkpoint's domains and add its items to the catalogue, leaving what is there untouched."""
        card, items = await asyncio.to_thread(checkpoint.read_items, path)
        known = self.installation.domains
        by_domain: dict[str, list[NewItem]] = {spec.name: [] for spec in card.schema_.domains}
        for item in items:
            by_domain[item.domain].append(NewItem(item.item_id, item.title, item.attributes))
        kinds: dict[str, AttributeKind] = {field.name: field.kind for field in card.schema_.item_attributes.fields}

        async def work(connection: Connection) -> None:
            for spec in card.schema_.domains:
                if spec.name not in known:
                    await domains.put(
                        connection,
                        NewDomain(spec.name, spec.rating_min, spec.rating_max, spec.kinds, kinds),
                        time.time(),
                    )
            keys = {stored.name: stored.key for stored in await domains.all(connection)}
            for name, batch in by_domain.items():
                await catalogue.add_missing(connection, keys[name], batch)

        await self.installation.database.transact(work)


def _refused(name: str, error: CheckpointError) -> Problem:
    RELOADS.labels("failed").inc()
    log.warning("checkpoint_refused", checkpoint=name, reason=error.reason, error=str(error))
    return Problem(error.reason, "The checkpoint in service goes on answering.")


def _check_fit(served: Served, domain: str, role: Role) -> None:
    """Raise Problem (checkpoint-incompatible) for a checkpoint that cannot serve a domain in that role."""
    try:
        check_fit(served, domain, role)
    except CheckpointError as error:
        raise Problem(error.reason, str(error)) from error


def usual_role(card: Card) -> Role:
    """What a checkpoint is used for where nobody says otherwise."""
    return card.role or RECOMMENDERS[card.recommender].role


def list_checkpoints(folder: Path) -> list[Listed]:
    """Every checkpoint in a folder with its card, and what is wrong with those that have none."""
    listed = []
    for path in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        try:
            card, digest = checkpoint.read_card(path)
            if card.recommender not in RECOMMENDERS:
                raise CheckpointError("checkpoint-incompatible", "unknown recommender")
            listed.append(Listed(path.name, card, digest, None))
        except CheckpointError as error:
            listed.append(Listed(path.name, None, None, error.reason))
    return listed
