"""What transfer networks on a ground share: how they see people and items, and training on episodes across domains.

    r_ui = base_ui + unit_d (z_u . v_i + m_u . (1, quality_i, exposure_i))
    L    = alpha L_source + (1 - alpha) L_target + alignment

The base is biases of all domains at once, so generosity is carried over before anything is learnt. m_u, linear in how
somebody rates in each domain and in their attributes, says what that means for good and for well-known items. z_u and
v_i are the recommender's own. People are never more than their evidence, so strangers are answered like anybody else.
"""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from models.datasets.dataset import Dataset
from models.datasets.schema import Schema
from models.layers import reset_parameters, with_constant
from models.recommender import Columns, Evidence, FitOptions, FitReport, Fitted, ItemContent, ItemTable
from models.training.biases import item_design
from models.training.domains import TransferSettings
from models.training.episodes import Episode
from models.training.ground import Fold, base_table, prefixed
from models.training.grounded import OnGround
from models.training.habits import HABITS, exposures, habits
from models.training.lessons import ContentRows, LessonSettings, Practice
from models.training.outer_loop import outer_loop
from models.training.statistics import domain_means, item_counts
from models.training.transfer import Transfer
from models.training.transfer_episodes import TransferEpisodes

FACTS = 3
"""A constant, quality and exposure of an item."""


class GroundedTransferSettings(LessonSettings, TransferSettings):
    """Settings of rows, of lessons and of the two losses."""

    base: Literal["bias", "bayes"] = "bayes"
    """What predicts first: biases, or the Bayesian factor model (biases as well where it has no factors)."""
    n_factors: int = Field(0, ge=0, le=64)
    """Factors of the base (`base` = bayes)."""
    embedding_size: int = Field(64, ge=2)
    """Width of item rows."""
    learning_rate: float = Field(1e-3, gt=0)
    """Of Adam, for the network."""
    alpha: float = Field(0.3, ge=0, le=1)
    """Weight of the source's loss; the target's is one minus it."""


@dataclass(frozen=True)
class Known:
    """What B people are known by."""

    evidence: Evidence
    rows: Tensor
    """(B, L, E) of the items of the evidence."""
    opinions: Tensor
    """(B, L) what the adapted base leaves unexplained, in units; zero where padded."""
    in_target: Tensor
    """(B, L) bool, meaningless where padded."""
    habits: Tensor
    """(B, 3, HABITS) all told, in the source, in the target."""

    @property
    def weights(self) -> Tensor:
        """(B, L)."""
        return self.evidence.weights

    def within(self, target: bool) -> "Known":
        """The same people as if nothing of the other domain were known."""
        weights = self.weights.where(self.in_target == target, 0)
        own = self.habits[:, 2 if target else 1]
        nothing = torch.zeros_like(own)
        habits = torch.stack([own, nothing, own] if target else [own, own, nothing], dim=1)
        return replace(self, evidence=replace(self.evidence, weights=weights), habits=habits)

    def turned(self) -> "Known":
        """The same people with the source for the target and the target for the source."""
        return replace(self, in_target=~self.in_target, habits=self.habits[:, [0, 2, 1]])

    def pooled(self, values: Tensor, shrinkage: float | Tensor) -> Tensor:
        """(B, E) weighted sums of `values` (B, L, E), divided by how much there is and `shrinkage`: a shrunken mean."""
        total = (self.weights[:, None] @ values).squeeze(1)
        mean: Tensor = total / (self.weights.sum(1, keepdim=True) + shrinkage)
        return mean


@dataclass(frozen=True)
class TransferLesson:
    """B people, the n items that they touch, and what is asked."""

    known: Known
    rows: Tensor
    """(n, E)."""
    read: Tensor
    """(n, W), what `GroundedTransfer.read` says of the items."""
    facts: Tensor
    """(n, FACTS)."""
    query: Tensor
    """(B, Q) int64, which of the n items is asked about."""
    in_target: Tensor
    """(B, Q) bool."""
    values: Tensor
    """(B, Q) what the base leaves unexplained, in units."""
    weights: Tensor
    """(B, Q), 0 where padded."""

    def error(self, predicted: Tensor, target: bool) -> Tensor:
        """Weighted mean squared error of predictions (B, Q) in one domain; 0 of none."""
        weights = self.weights * (self.in_target == target)
        total = (weights * (predicted - self.values).square()).sum()
        return total / weights.sum().clamp(min=1e-9)


@dataclass(frozen=True)
class Stage:
    """A part of the training."""

    alpha: float
    epochs: int
    learns: nn.Module | None = None
    """What is learnt; None: everything."""
    is_answer: bool = True
    """Whether what comes of it may be what the fit gives; otherwise later stages begin with it."""


class GroundedTransfer(OnGround, Transfer):
    """A network that learns in episodes across domains what to say beyond its base. A state is the base's, m_u, z_u."""

    config: GroundedTransferSettings
    manners_are_shared: ClassVar[bool] = False
    """Whether it makes no difference to m_u in which domain somebody rates like this."""
    mean: Tensor

    def __init__(self, config: GroundedTransferSettings, schema: Schema) -> None:
        super().__init__(config, schema)
        self.content = ContentRows(schema, config.embedding_size)
        n_habits = HABITS if self.manners_are_shared else 3 * HABITS
        self.manner = nn.Linear(1 + schema.user_attributes.width + n_habits, FACTS, bias=False)
        self.register_buffer("mean", torch.zeros(len(schema.domains)))  # (D,)

    @property
    @abstractmethod
    def taste_size(self) -> int:
        """K, width of z_u and v_i."""

    @abstractmethod
    def encode(self, known: Known) -> Tensor:
        """z_u (B, K)."""

    @abstractmethod
    def place(self, rows: Tensor, read: Tensor) -> Tensor:
        """v_i (n, K) from rows (n, E) and what is read of the items (n, W)."""

    @abstractmethod
    def begin(self) -> None:
        """Weights to begin with, where those that layers draw are not meant."""

    def read(self, content: ItemContent) -> Tensor:
        """(n, W) what the network reads of items beside their rows; nothing here."""
        return self.mean.new_zeros(len(content), 0)

    def align(self, lesson: TransferLesson, tastes: Tensor, items: Tensor, done: float) -> Tensor:
        """What is added to the losses of both domains: `tastes` (B, K), `items` (n, K), share of training gone by."""
        return tastes.new_zeros(())

    def item_rows(self, practice: Practice, index: Tensor | None, keep: Tensor | None, apart: Tensor) -> Tensor:
        """Rows of some items, or of all, as training has them; nothing that users `apart` (B,) did may be in them."""
        return practice.rows(... if index is None else index, keep)

    def new_rows(self, rows: Tensor, domain: int) -> Tensor:
        """Rows of items that nobody has touched, from those that content tells."""
        return rows

    def prepare(self, folds: list[Fold]) -> None:
        """Called once before the training, with those who practise; nothing to do here."""

    def start(self, stage: int) -> None:
        """Called before each stage of the training, by its number; nothing to do here."""

    def stages(self) -> list[Stage]:
        """The training: each stage begins where the one before was best."""
        return [Stage(self.config.alpha, self.config.epochs)]

    @property
    def state_size(self) -> int:
        return self.ground.state_size + FACTS + self.taste_size

    def adapt(self, evidence: Evidence, table: ItemTable, target: int) -> Tensor:
        items = torch.where(evidence.mask, evidence.items, 0)
        base, known = self.meet(evidence, table, table["row"][items])
        return torch.cat([base, self.manners(known), self.encode(known)], dim=1)

    def deviation(self, states: Tensor, table: ItemTable, rows: Tensor | slice) -> Tensor:
        return states @ torch.cat([table["facts"][rows], table["place"][rows]], dim=1).mT

    def meet(self, evidence: Evidence, table: ItemTable, rows: Tensor) -> tuple[Tensor, Known]:
        """Base states, and what the evidence tells, given the rows of its items (B, L, E)."""
        items, ground = torch.where(evidence.mask, evidence.items, 0), base_table(table)
        states = self.ground.base.adapt(evidence, ground, self.direction.target)
        domain = table.domain[items]
        deviation = (evidence.values - self.mean[domain]) / self.ground.unit[domain]
        _, quality, exposure = table["facts"][items].unbind(-1)  # (B, L) each
        in_target = domain == self.direction.target
        ways = [
            habits(replace(evidence, weights=evidence.weights.where(there, 0)), deviation, quality, exposure)
            for there in (torch.ones_like(in_target), ~in_target, in_target)
        ]
        opinions = self.ground.residuals(states, ground, evidence)
        return states, Known(evidence, rows, opinions, in_target, torch.stack(ways, dim=1))

    def manners(self, known: Known) -> Tensor:
        """m_u (B, FACTS)."""
        seen = known.habits[:, 0] if self.manners_are_shared else known.habits.flatten(1)
        manners: Tensor = self.manner(with_constant(torch.cat([known.evidence.attributes, seen], dim=1)))
        return manners

    def embed_items(self, content: ItemContent, domain: int) -> Columns:
        domains = torch.full((len(content),), domain, device=self.mean.device)
        base = self.ground.base.embed_items(content, domain)
        design = item_design(content.features.to(self.mean), domains, len(self.schema.domains))
        rows = self.new_rows(self.content(design), domain)
        columns = prefixed(base) | {"row": rows, "place": self.place(rows, self.read(content))}
        table = ItemTable(columns, domains, torch.zeros_like(domains, dtype=torch.bool))
        return columns | {"facts": self._facts(table, self.mean.new_zeros(len(content)))}

    def fit(self, data: Dataset, options: FitOptions) -> Fitted:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)  # initial weights are drawn from torch's own generator
            for part in self.children():
                if part is not self.ground:
                    reset_parameters(part)
            nn.init.zeros_(self.manner.weight)
            self.begin()
            return self._learn(data, options)

    def _learn(self, data: Dataset, options: FitOptions) -> Fitted:
        self.mean.copy_(domain_means(data))
        base = self.ground.fit(data, options)
        folds = self.ground.folds(data, base, options)
        practice = Practice(self.config, self.content, data, folds).to(options.device)
        table = replace(base, columns=prefixed(base.columns))
        with torch.no_grad():
            facts = self._facts(table, exposures(data).to(self.mean))
        table = replace(table, columns=table.columns | {"facts": facts}, trained=item_counts(data).to(self.mean) > 0)
        read, nobody = self.read(data.items.content), torch.zeros(0, dtype=torch.long)
        generator = torch.Generator().manual_seed(options.seed)
        courses = [
            TransferEpisodes(
                fold.data,
                self.direction.target,
                max_support=self.config.max_support,
                query_size=self.config.query_size,
                batch_size=self.config.batch_size,
                generator=generator,
            )
            for fold in folds
        ]
        steps, snapshots = sum(len(course) for course in courses), []

        def item_table() -> ItemTable:
            rows = self.item_rows(practice, None, None, nobody)
            snapshots.append(practice.embedding.detach().clone())
            return replace(table, columns=table.columns | {"row": rows, "place": self.place(rows, read)})

        self.prepare(folds)
        best: Fitted | None = None
        kept: dict[str, Tensor] = {}
        if options.validation is not None:  # it may turn out that nothing is to be learnt beyond the start
            self.eval()
            with torch.no_grad():
                begun = item_table()
            best, kept = Fitted(begun, FitReport(0, [options.validation.measure(self, begun)])), _copy(self)
        for number, stage in enumerate(self.stages()):
            if stage.epochs == 0:
                continue
            self.start(number)

            def losses(epoch: int, stage: Stage = stage) -> Iterator[Tensor]:
                step = epoch * steps
                for course, fold in zip(courses, folds, strict=True):
                    seen = replace(table, columns=prefixed(fold.table.columns) | {"facts": facts})
                    for episode in course.epoch():
                        lesson = self._lesson(episode, practice, seen, read, generator)
                        yield self._loss(lesson, stage.alpha, step / (stage.epochs * steps))
                        step += 1

            snapshots.clear()
            fitted = outer_loop(
                self,
                losses,
                item_table,
                self._groups(practice, stage),
                options,
                epochs=stage.epochs,
                steps=steps,
                patience=self.config.patience,
                learning_rate=self.config.learning_rate,
            )
            with torch.no_grad():
                practice.embedding.copy_(snapshots[fitted.report.epochs - 1])
            if stage.is_answer and (best is None or _error(fitted) <= _error(best)):
                best, kept = fitted, _copy(self)
        if best is None:
            raise ValueError("training takes at least one epoch")
        self.load_state_dict(kept)
        return best

    def _lesson(
        self, episode: Episode, practice: Practice, table: ItemTable, read: Tensor, generator: torch.Generator
    ) -> TransferLesson:
        device = self.mean.device
        users = episode.tasks.to(device)
        support = episode.support.to(device).evidence(practice.attributes[users])
        query = episode.query.to(device).evidence(support.attributes)
        index, at = torch.unique(torch.cat([support.items, query.items], dim=1), return_inverse=True)
        keep = torch.rand(len(index), 1, generator=generator).to(device) >= self.config.embedding_dropout
        rows, n = self.item_rows(practice, index, keep, users), support.items.shape[1]
        found = nn.functional.embedding(at[:, :n], rows)  # its gradient is faster than that of indexing
        with torch.no_grad():
            states, known = self.meet(support, table, found)
            values = self.ground.residuals(states, base_table(table), query)
        in_target = table.domain[query.items] == self.direction.target
        facts = table["facts"][index]
        return TransferLesson(known, rows, read[index], facts, at[:, n:], in_target, values, query.weights)

    def _loss(self, lesson: TransferLesson, alpha: float, done: float) -> Tensor:
        tastes, items = self.encode(lesson.known), self.place(lesson.rows, lesson.read)
        said = torch.cat([self.manners(lesson.known), tastes], dim=1)
        predicted = (said @ torch.cat([lesson.facts, items], dim=1).mT).gather(1, lesson.query)
        loss = alpha * lesson.error(predicted, target=False) + (1 - alpha) * lesson.error(predicted, target=True)
        return loss + self.align(lesson, tastes, items, done)

    def _groups(self, practice: Practice, stage: Stage) -> list[dict[str, Any]]:
        """What the optimiser learns, and how fast: rows start where they should nearly be."""
        if stage.learns is not None:
            return [{"params": stage.learns.parameters()}]
        settings, own = self.config, {id(weight) for weight in self.content.parameters()}
        return [
            {"params": [practice.embedding], "lr": settings.warm_learning_rate, "weight_decay": settings.reg},
            {"params": self.content.parameters(), "lr": settings.warm_learning_rate},
            {"params": [weight for weight in self.parameters() if weight.requires_grad and id(weight) not in own]},
        ]

    def _facts(self, table: ItemTable, exposure: Tensor) -> Tensor:
        """(N, FACTS): 1, quality (what the base expects of a stranger beyond the mean, in units), exposure."""
        ground = base_table(table)
        stranger = Evidence(
            **{name: torch.zeros(1, 0, dtype=torch.long, device=exposure.device) for name in ("items", "kinds")},
            **{name: torch.zeros(1, 0, device=exposure.device) for name in ("values", "weights")},
            times=torch.zeros(1, 0, dtype=torch.double, device=exposure.device),
            attributes=torch.zeros(1, self.schema.user_attributes.width, device=exposure.device),
        )
        expected = self.ground.base.means(self.ground.base.adapt(stranger, ground, 0), ground)[0]
        quality = (expected - self.mean[table.domain]) / self.ground.unit[table.domain]
        return torch.stack([torch.ones_like(quality), quality, exposure], dim=1)


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def _error(fitted: Fitted) -> float:
    """On validation users; of a fit without any, minus infinity: the later is then the better."""
    metrics = fitted.report.history[max(0, fitted.report.epochs - 1)]
    return metrics.get("rmse", -torch.inf)
