"""Knowledge Transfer via Latent Factors: what somebody does in one catalogue, told again in the terms of another.

    x_j     = an action through the factors of its item                                 models.training.actions
    h       = LSTM(x_1 … x_n)                                                           models.training.sequence
    z       = V m_u + V' h                 into a shared latent space, by matrices of low rank
    t       = AAE(z)                       onto the target's latent distribution        .adversarial_autoencoder
    g_u     = U t + LSTM decoder of t      regenerates the target's representation      .sequence_decoder
    target:   r_ui = mean_t + b_i + c w_u0 + v_i . w_u + e,    w_u ~ N(A a_u + g_u, I)  `bayes`

so what is told of somebody is the prior of who they are in the target, and evidence there moves them on in closed form.
m_u is what the factor model of the source says. U V is a linear map from there in closed form: without anybody in both
domains the one that content anchors (`models.training.anchors`), with such people that of `bayes_transfer`. What is
learnt moves people from where it puts them by no more than a bound. Nobody needs to be in both domains for it: target
histories are told again from their codes, and the autoencoder's adversary makes codes of the source like theirs. The
error of people who are (`paired_weight`) on target ratings, told from the source alone, is learnt from besides.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from models.datasets.dataset import Dataset
from models.datasets.schema import Schema
from models.recommender import Evidence, FitOptions, Fitted, ItemTable
from models.recommenders.bayes_transfer import SOURCE, TARGET, BayesTransfer, BayesTransferConfig
from models.training.actions import Actions
from models.training.alignment import reversal_strength
from models.training.anchors import anchored_map, expected_opinions
from models.training.domains import evidence_in, hide_identities, only, overlapping_users, users_in
from models.training.gaussian import packed_size, unpack_lower, with_intercept
from models.training.latent_transfer import LatentTransfer, Shape
from models.training.sequence_decoder import NearestItems, reconstruction_error, scheduled
from models.training.statistics import item_counts
from models.training.transfer import keep_best, part
from models.training.unpaired import batches_of, split_history

BATCH = 256
QUERY_SHARE = 0.2
"""Share of a target history that the rest of it is to tell."""


class KtlfConfig(BayesTransferConfig):
    """Settings of `Ktlf`; those of `bayes_transfer` hold for the factor models."""

    carry: float = Field(0.85, ge=0, le=1)
    """How much of a place in the source somebody takes along, where nobody in both domains can tell."""
    reg_anchor: float = Field(0.001, gt=0)
    """How strongly the anchored map is drawn to zero, in squared steps of a five-point scale."""
    use_low_rank: bool = True
    """Step 3: whether the shared latent space is smaller than that of the target."""
    rank: int = Field(7, ge=1)
    """R, its size: the directions that matter most to ratings."""
    use_lstm: bool = True
    """Step 2: whether the order of actions is read; otherwise their mean is."""
    length: int = Field(30, ge=1)
    """Actions of a history that are read as a sequence: the newest."""
    hidden_size: int = Field(32, ge=1)
    """Width of the LSTMs and of the autoencoder's networks."""
    use_autoencoder: bool = True
    """Step 4: whether codes are mapped onto the target's distribution; otherwise they stay as they are."""
    adversary_weight: float = Field(0.1, ge=0)
    """Of the discriminator and the prior."""
    reconstruction_weight: float = Field(0.1, ge=0)
    """Of what was encoded, from mapped codes."""
    use_decoder: bool = True
    """Step 5: whether a decoder tells the target's sequence, and moves who somebody is."""
    n_steps: int = Field(10, ge=1)
    """Actions that it tells."""
    sequence_weight: float = Field(0.1, ge=0)
    """Of the error of the sequence."""
    teacher_forcing_ratio: float = Field(0.5, ge=0, le=1)
    """Share of steps that are shown the truth at first; it falls to nothing over training."""
    bound: float = Field(0.15, gt=0)
    """How far autoencoder and decoder may each move somebody, in standard deviations of tastes."""
    paired_weight: float = Field(1.0, ge=0)
    """Of the error of people who are in both domains; at 0 everybody is two people that nothing links."""
    epochs: int = Field(5, ge=0)
    """Passes over the larger domain's people at most; none: the closed forms alone."""
    patience: int = Field(3, ge=1)
    """Epochs without better answers to validation users before the fit stops."""
    batch_size: int = Field(128, ge=1)
    """People of each domain in a step."""
    learning_rate: float = Field(1e-3, gt=0)
    """Adam's."""


@dataclass(frozen=True)
class _Course:
    """What the fit of the network learns from."""

    source: Dataset
    """Interactions of one domain."""
    target: Dataset
    table: ItemTable
    told: Tensor
    """(U, E) of everybody."""
    source_users: Tensor
    target_users: Tensor
    paired_users: Tensor


class Ktlf(BayesTransfer):
    """Two factor models, and a network that tells the second's prior. A state is that of both factor models."""

    name: ClassVar[str] = "ktlf"
    Config = KtlfConfig
    config: KtlfConfig
    factor_scale: Tensor

    def __init__(self, config: KtlfConfig, schema: Schema) -> None:
        own = set(KtlfConfig.model_fields) - set(BayesTransferConfig.model_fields)
        super().__init__(BayesTransferConfig(**config.model_dump(exclude=own)), schema)
        self.config = config
        self.n_attributes, size = schema.user_attributes.width, self.target.size
        self.register_buffer("factor_scale", torch.ones(2))  # of the source's factors, and of the target's
        self.network = LatentTransfer(
            Shape(
                told=len(self.centre) + self.n_attributes + 1,
                attributes=self.n_attributes,
                action=Actions.width(config.n_factors, len(schema.kinds)),
                output=size,
                rank=min(config.rank, size) if config.use_low_rank else size,
                hidden=config.hidden_size,
                bound=config.bound,
                use_lstm=config.use_lstm,
                use_autoencoder=config.use_autoencoder,
                use_decoder=config.use_decoder,
            )
        )

    def adapt(self, evidence: Evidence, table: ItemTable, target: int) -> Tensor:
        source, told = self._encoding(evidence, table)
        codes = self._codes(told, evidence_in(evidence, table, self.direction.source), table)
        known = told[:, -1:] * self.network(self.network.map(codes), self.config.n_steps)  # nothing without a history
        here = self._adapt_target(evidence_in(evidence, table, self.direction.target), table)
        mean, rest = here.tensor_split([self.target.size], dim=1)
        return torch.cat([source, mean + self._moves(here, known), rest], dim=1)

    def generate(self, evidence: Evidence, table: ItemTable, n: int) -> Tensor:
        """(B, n) items of the target, each at most once: what the decoder thinks that users would do there, in order.

        At each step the item nearest to what it says is taken, and stands for it at the next. Raises ValueError
        without a decoder, or where the target has fewer than n items.
        """
        _, told = self._encoding(evidence, table)
        codes = self.network.map(self._codes(told, evidence_in(evidence, table, self.direction.source), table))
        rows = (table.domain == self.direction.target).nonzero().flatten()
        if n > len(rows) or not self.config.use_decoder:
            raise ValueError(f"{n} actions cannot be told: there are {len(rows)} items, or there is no decoder")
        nearest = NearestItems(self._factors(table, TARGET)[rows], len(codes))
        self.network.decode(codes, n, nearest)
        return rows[torch.stack(nearest.chosen, dim=1)]

    def fit(self, data: Dataset, options: FitOptions) -> Fitted:
        both = overlapping_users(data, self.direction)
        if not self.config.paired_weight:
            data, both = hide_identities(data, both, self.direction.target), both[:0]
        table = super().fit(data, options).table
        source_users, target_users = (
            users_in(data, d).nonzero().flatten() for d in (self.direction.source, self.direction.target)
        )
        for index, (prefix, domain) in enumerate(((SOURCE, self.direction.source), (TARGET, self.direction.target))):
            factors = table[prefix + "mean"][table.trained & (table.domain == domain), 1:]
            self.factor_scale[index] = factors.square().mean().sqrt().nan_to_num(nan=1.0).clamp(min=1e-3)
        there, here = (only(data, d) for d in (self.direction.source, self.direction.target))
        course = _Course(there, here, table, self._everybody(data, table), source_users, target_users, both)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)  # initial weights are drawn from torch's own generator
            linear = self._regression() if len(both) else self._anchored(data, table)
            self.network.start(linear, course.told[source_users].to(linear), self._metric(data, table))
        self._leave_open(course)
        return self._train(course, options)

    @torch.no_grad()
    def _leave_open(self, course: _Course) -> None:
        """How much less codes of the source vary than those of the target, before anything is learnt."""
        told = course.told[course.source_users].to(self.network.told)
        codes = [
            self._target_codes(course.target.evidence(users).to(told.device), course.table)[0]
            for users in torch.split(course.target_users, BATCH)
        ]
        if len(told) > 1 and len(course.target_users) > 1:
            self.network.autoencoder.leave_open(told @ self.network.told.T, torch.cat(codes))

    def _train(self, course: _Course, options: FitOptions) -> Fitted:
        config, generator = self.config, torch.Generator().manual_seed(options.seed)
        learnt = [course.source_users, course.target_users, course.paired_users]
        n_steps = -(-max(len(users) for users in learnt) // config.batch_size)
        optimizer = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate)

        def epoch(number: int) -> dict[str, float]:
            if number == 0:  # as the closed forms put it
                return {}
            self.train()
            total = 0.0
            batches = zip(*(batches_of(users, n_steps, config.batch_size, generator) for users in learnt), strict=True)
            for step, (source, target, paired) in enumerate(batches, start=(number - 1) * n_steps):
                loss = self._loss(course, source, target, step / (config.epochs * n_steps), generator)
                if len(paired):
                    loss = loss + config.paired_weight * self._paired_loss(course, paired, generator)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                total += float(loss.detach())
            return {"loss": total / n_steps}

        return keep_best(self, epoch, lambda: course.table, 1 + config.epochs, config.patience, options)

    def _loss(self, course: _Course, source: Tensor, target: Tensor, done: float, generator: torch.Generator) -> Tensor:
        """What nobody needs to be in both domains for: reconstructions, and the adversary."""
        config, network, table = self.config, self.network, course.table
        device = table.domain.device
        told = course.told[source].to(device)
        there = course.source.evidence(source, last=config.length).to(device)
        mapped = network.map(self._codes(told, there, table))
        known, asked = split_history(course.target, target, generator, QUERY_SHARE)
        known, asked = known.to(device), asked.to(device)
        codes, actions = self._target_codes(known, table)
        loss = codes.sum() * 0
        if config.use_autoencoder:
            loss = loss + config.reconstruction_weight * network.autoencoder.reconstruction_loss(mapped, told)
            loss = loss + config.adversary_weight * network.autoencoder.adversarial_loss(
                mapped, there.attributes, codes, known.attributes, reversal_strength(done), generator
            )
        if config.use_decoder:
            truth, mask = self._truth(actions, table)
            ratio = config.teacher_forcing_ratio * (1 - done)
            moves, decoded = network.decode(codes, truth.shape[1], scheduled(truth, ratio, generator))
            assert decoded is not None
            loss = loss + config.sequence_weight * reconstruction_error(decoded.steps, truth, mask)
            loss = loss + self._error(self._unknown(known, table), codes @ network.up.T + moves, table, asked)
        return loss

    def _paired_loss(self, course: _Course, users: Tensor, generator: torch.Generator) -> Tensor:
        """The error of target ratings told from the source alone."""
        device = course.table.domain.device
        there = course.source.evidence(users, last=self.config.length).to(device)
        codes = self._codes(course.told[users].to(device), there, course.table)
        _, asked = split_history(course.target, users, generator, 1.0)
        asked = asked.to(device)
        told = self.network(self.network.map(codes), self.config.n_steps)
        return self._error(self._unknown(asked, course.table), told, course.table, asked)

    def _encoding(self, evidence: Evidence, table: ItemTable) -> tuple[Tensor, Tensor]:
        """The state in the source, and x (B, E): m_u and habits, standardised, attributes and 1; 0 of no history."""
        source, told = self._told(evidence, table)
        told = torch.cat([(told - self.centre) / self.scale, evidence.attributes, torch.ones_like(told[:, :1])], dim=1)
        return source, told.where(self._history(evidence, table).mask.any(1, keepdim=True), 0)

    @torch.no_grad()
    def _everybody(self, data: Dataset, table: ItemTable) -> Tensor:
        """x (U, E) of all users, from all that they did."""
        batches = torch.split(torch.arange(data.n_users), BATCH)
        device = table.domain.device
        return torch.cat([self._encoding(data.evidence(users).to(device), table)[1].cpu() for users in batches])

    def _codes(self, told: Tensor, there: Evidence, table: ItemTable) -> Tensor:
        """z (B, R) of histories in the source."""
        actions = self._actions(there, table, SOURCE)
        inputs = actions.embedded(self._factors(table, SOURCE))
        return self.network.encode(told, there.attributes, inputs, actions.counts)

    def _target_codes(self, known: Evidence, table: ItemTable) -> tuple[Tensor, Actions]:
        """z' (B, R) of histories in the target, and their actions."""
        with torch.no_grad():
            place = self._adapt_target(known, table)[:, : self.target.size] - self._prior(known)
        actions = self._actions(known, table, TARGET)
        inputs = actions.embedded(self._factors(table, TARGET))
        return self.network.encode_target(place, known.attributes, inputs, actions.counts), actions

    def _factors(self, table: ItemTable, prefix: str) -> Tensor:
        """(N, K) of unit size."""
        scale: Tensor = self.factor_scale[int(prefix == TARGET)]
        return table[prefix + "mean"][:, 1:] / scale

    def _actions(self, evidence: Evidence, table: ItemTable, prefix: str) -> Actions:
        model = self.source if prefix == SOURCE else self.target
        domain = table.domain[evidence.items]
        expected = model.domain_mean[domain] + table[prefix + "mean"][evidence.items][..., 0]
        return Actions.of(evidence, expected, self.unit[domain], len(self.schema.kinds), self.config.length)

    def _truth(self, actions: Actions, table: ItemTable) -> tuple[Tensor, Tensor]:
        """The first actions of each user as the decoder is to tell them: (B, T, P) and their mask (B, T)."""
        n = self.config.n_steps
        told = torch.cat([self._factors(table, TARGET)[actions.items], actions.opinions[..., None]], dim=2)
        return told[:, :n], actions.mask[:, :n]

    def _prior(self, evidence: Evidence) -> Tensor:
        """A a_u (B, P) in the target."""
        return self.target._prior_mean(self._untold(evidence).attributes)

    def _untold(self, evidence: Evidence) -> Evidence:
        """With nothing told of the source where the target's factor model reads it."""
        nothing = evidence.attributes.new_zeros(evidence.batch_size, len(self.centre))
        return replace(evidence, attributes=torch.cat([evidence.attributes, nothing], dim=1))

    def _adapt_target(self, known: Evidence, table: ItemTable) -> Tensor:
        """State in the target from what is known there alone."""
        return self.target.adapt(self._untold(known), part(table, TARGET), self.direction.target)

    @torch.no_grad()
    def _unknown(self, evidence: Evidence, table: ItemTable) -> Tensor:
        """State in the target of the same people, as if they had done nothing anywhere."""
        return self._adapt_target(evidence.emptied(), table)

    def _moves(self, state: Tensor, told: Tensor) -> Tensor:
        """How far the posterior mean (B, P) moves as that of the prior moves by `told`: by covariance times that."""
        size = self.target.size
        root = unpack_lower(state[:, size : size + packed_size(size)], size)
        return (root.mT @ (root @ told[..., None])).squeeze(-1)

    def _error(self, state: Tensor, told: Tensor, table: ItemTable, asked: Evidence) -> Tensor:
        """Squared error of ratings in the target, in steps of a five-point scale, once the prior mean of a state has
        moved by `told` (B, P)."""
        here, unit = part(table, TARGET), self.unit[self.direction.target]
        with torch.no_grad():
            index, place = torch.unique(asked.items, return_inverse=True)
            left = asked.values - self.target.means(state, here, index).gather(1, place)
            loadings = self.target._loadings(here, asked.items)  # (B, Q, P)
        moves = (loadings @ self._moves(state, told)[..., None]).squeeze(-1)
        return (asked.weights * ((left - moves) / unit).square()).sum() / asked.weights.sum().clamp(min=1e-9)

    def _regression(self) -> Tensor:
        """(P, E) what the factor model of the target has learnt from people who are in both domains."""
        told = self.target.attribute_weights[1 + self.n_attributes :].T  # (P, Z)
        return torch.cat([told, told.new_zeros(len(told), self.n_attributes + 1)], dim=1)

    def _metric(self, data: Dataset, table: ItemTable) -> Tensor:
        """(P, P) the mean of φ φ' over ratings of the target: what a difference in w does to them."""
        phi = self.target._loadings(part(table, TARGET), None)  # (N, P)
        n = item_counts(data).to(phi) * (table.domain == self.direction.target)
        return (phi * n[:, None]).T @ phi / n.sum().clamp(min=1)

    def _anchored(self, data: Dataset, table: ItemTable) -> Tensor:
        """(P, E) what content anchors: M (m_u - A a_u), the more of it the more carries over."""
        source, target = self.direction.source, self.direction.target
        m = self.config.carry * anchored_map(
            expected_opinions(self.source.content_weights[source], self.source.loading[source]) / self.unit[source],
            expected_opinions(self.target.content_weights[target], self.target.loading[target]) / self.unit[target],
            with_intercept(torch.cat([table["exposure"][:, None], data.items.content.features.to(self.unit)], dim=1)),
            item_counts(data).to(self.unit) * (table.domain == target),
            self.config.reg_anchor,
        )
        size = self.source.size
        habits = m.new_zeros(len(m), len(self.centre) - size)
        prior = self.source.attribute_weights  # (1 + A, P)
        constant = m @ (self.centre[:size] - prior[0])
        return torch.cat([m * self.scale[:size], habits, -m @ prior[1:].T, constant[:, None]], dim=1)
