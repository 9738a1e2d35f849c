"""One entry a recommender: settings with which a fit of the laws' world takes a few seconds at most.

A recommender that is registered without an entry fails a test. One with settings that change what it is has an entry
for each of them: `name: variant`.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Entry:
    """How the laws treat one recommender."""

    settings: dict[str, Any] = field(default_factory=dict)
    uses_attributes: bool = False
    """Whether two people of whom only the attributes are known get different scores."""
    learns_from_evidence: bool = True
    """Whether interactions of a user change their scores."""
    beats_popularity: bool = True
    learns_items: bool = True
    """Whether rows of items are learnt from their ratings while serving."""
    worlds: tuple[str, ...] = ("one", "two")
    """`one`: a single domain. `two`: two domains with scales of their own."""
    targets: tuple[int, ...] | None = None
    """Domains that it answers for; all of the world's where None."""


NEXT_ITEM: dict[str, Any] = {
    "objective": "next_item",
    "embedding_size": 8,
    "hidden_size": 8,
    "embedding_dropout": 0.3,
    "epochs": 15,
    "batch_size": 16,
    "learning_rate": 0.02,
    "warm_learning_rate": 0.003,
    "inner_reg": 10.0,
}

ENTRIES: dict[str, Entry] = {
    "popularity": Entry(learns_from_evidence=False, beats_popularity=False),
    "bias": Entry(),
    "content": Entry(settings={"text_size": 4, "n_hashes": 256}, uses_attributes=True),
    "content: encoders": Entry(
        settings={"text_size": 0, "encoders": ["linear", "mlp", "text_cnn"], "n_factors": 3, "n_folds": 2, "epochs": 5},
        uses_attributes=True,
    ),
    "attributes": Entry(settings={"reg_content": 10.0, "embedding_size": 4}, uses_attributes=True),
    "prototype_zero_shot": Entry(
        settings={"reg_content": 10.0, "reg_prototype": 3.0, "n_prototypes": 6}, uses_attributes=True
    ),
    "mf": Entry(settings={"n_factors": 3, "reg": 4.0}),
    "maml": Entry(uses_attributes=True),
    "bayes": Entry(settings={"n_factors": 3, "iterations": 20}, uses_attributes=True),
    "matching": Entry(
        settings={"n_factors": 3, "embedding_size": 8, "head_size": 4, "epochs": 6, "batch_size": 16},
        uses_attributes=True,
    ),
    "mecos": Entry(
        settings={"n_factors": 3, "embedding_size": 8, "hidden_size": 8, "epochs": 6, "batch_size": 16},
        uses_attributes=True,
    ),
    "mecos: next item": Entry(settings=NEXT_ITEM, uses_attributes=True, worlds=("one",)),
    "mecos: next item of two domains": Entry(
        settings=NEXT_ITEM | {"epochs": 30, "inner_reg": 30.0}, uses_attributes=True, worlds=("two",)
    ),
    "metric": Entry(
        settings={"n_factors": 3, "embedding_size": 8, "relation_size": 4, "epochs": 6, "batch_size": 16},
        uses_attributes=True,
    ),
    "ease": Entry(
        settings={
            "liked_above": 0.5,
            "reg": 250.0,
            "reg_constant": 150.0,
            "user_discount": 0.0,
            "content_weight": 0.0,
            "place_size": 8,
        },
        learns_items=False,
    ),
    "hvae": Entry(
        settings={
            "liked_above": 0.5,
            "hidden_size": 24,
            "upper_size": 6,
            "lower_size": 4,
            "beta": 0.1,
            "epochs": 60,
            "batch_size": 25,
            "learning_rate": 0.01,
        },
        uses_attributes=True,
        learns_items=False,
    ),
    "hvae: shallow": Entry(
        settings={
            "shallow": True,
            "ease": {"reg": 250.0, "reg_constant": 150.0, "user_discount": 0.0, "content_weight": 0.0, "place_size": 8},
            "liked_above": 0.5,
            "hidden_size": 24,
            "upper_size": 6,
            "lower_size": 4,
            "beta": 0.1,
            "epochs": 15,
            "batch_size": 25,
        },
        uses_attributes=True,
        learns_items=False,
    ),
    "hvae: bernoulli": Entry(
        settings={
            "likelihood": "bernoulli",
            "n_negatives": 5,
            "liked_above": 0.5,
            "hidden_size": 24,
            "upper_size": 6,
            "lower_size": 4,
            "normalisation": 0.5,
            "least_shown": 0.3,
            "epochs": 100,
            "batch_size": 25,
        },
        uses_attributes=True,
        learns_items=False,
        worlds=("one",),
    ),
    "hvae: gaussian": Entry(
        settings={
            "likelihood": "gaussian",
            "hidden_size": 12,
            "upper_size": 6,
            "lower_size": 4,
            "beta": 0.1,
            "epochs": 80,
            "batch_size": 25,
        },
        uses_attributes=True,
        learns_items=False,
    ),
    "prototypical": Entry(settings={"embedding_size": 8, "epochs": 10, "batch_size": 16}, uses_attributes=True),
    "bayes_transfer": Entry(
        settings={"n_factors": 3, "iterations": 20}, uses_attributes=True, worlds=("two",), targets=(1,)
    ),
    "ordinal_transfer": Entry(
        settings={"n_factors": 3, "iterations": 20}, uses_attributes=True, worlds=("two",), targets=(1,)
    ),
    "preference_transfer": Entry(
        settings={"liked_above": 0.5, "rank": 8, "popularity_prior": 10.0},
        worlds=("two",),
        targets=(1,),
        learns_items=False,
    ),
    "collective": Entry(settings={"n_factors": 3, "reg": 4.0, "reg_source": 4.0, "reg_target": 4.0}, worlds=("two",)),
    "mapping": Entry(settings={"n_factors": 3, "reg": 4.0}, worlds=("two",), targets=(1,)),
    "mapping: mlp": Entry(
        settings={"n_factors": 3, "reg": 4.0, "kind": "mlp", "epochs": 5}, worlds=("two",), targets=(1,)
    ),
    "mapping: bridge": Entry(
        settings={"n_factors": 3, "reg": 4.0, "kind": "bridge", "epochs": 5}, worlds=("two",), targets=(1,)
    ),
    "shared": Entry(
        settings={"embedding_size": 8, "epochs": 5, "batch_size": 16}, uses_attributes=True, worlds=("two",)
    ),
    "feature_transfer": Entry(
        settings={"embedding_size": 8, "epochs": 5, "batch_size": 16}, uses_attributes=True, worlds=("two",)
    ),
    "feature_transfer: own encoders alone": Entry(
        settings={"embedding_size": 8, "epochs": 5, "batch_size": 16, "use_shared": False},
        uses_attributes=True,
        worlds=("two",),
    ),
    "relation_transfer": Entry(
        settings={"embedding_size": 8, "epochs": 5, "batch_size": 16}, uses_attributes=True, worlds=("two",)
    ),
    "relation_transfer: of the target alone": Entry(
        settings={"embedding_size": 8, "epochs": 5, "batch_size": 16, "is_transfer": False},
        uses_attributes=True,
        worlds=("two",),
        targets=(1,),
    ),
    "parameter_transfer": Entry(
        settings={"embedding_size": 8, "epochs": 5, "batch_size": 16}, uses_attributes=True, worlds=("two",)
    ),
    "instance_transfer": Entry(settings={"n_factors": 3, "reg": 4.0, "epochs": 15}, worlds=("two",)),
    "ktlf": Entry(
        settings={
            "n_factors": 3,
            "iterations": 20,
            "rank": 3,
            "length": 12,
            "hidden_size": 8,
            "n_steps": 4,
            "epochs": 2,
        },
        uses_attributes=True,
        worlds=("two",),
        targets=(1,),
    ),
    "ktlf: unpaired": Entry(
        settings={"n_factors": 3, "iterations": 20, "paired_weight": 0, "rank": 3, "hidden_size": 8, "epochs": 2},
        uses_attributes=True,
        worlds=("two",),
        targets=(1,),
    ),
    "ktlf: closed forms": Entry(
        settings={
            "n_factors": 3,
            "iterations": 20,
            "paired_weight": 0,
            "use_low_rank": False,
            "use_lstm": False,
            "epochs": 0,
        },
        uses_attributes=True,
        worlds=("two",),
        targets=(1,),
    ),
    "adversarial": Entry(
        settings={
            "embedding_size": 8,
            "hidden_size": 8,
            "epochs": 4,
            "fine_tuning": 1,
            "batch_size": 25,
            "learning_rate": 3e-3,
        },
        uses_attributes=True,
        worlds=("two",),
    ),
    "two_tower": Entry(
        settings={"embedding_size": 8, "epochs": 5, "pretraining": 1, "batch_size": 25, "learning_rate": 3e-3},
        uses_attributes=True,
        worlds=("two",),
    ),
    "two_tower: adversarial": Entry(
        settings={
            "embedding_size": 8,
            "epochs": 3,
            "alignment": "adversarial",
            "pretraining": 0,
            "batch_size": 25,
            "learning_rate": 3e-3,
        },
        uses_attributes=True,
        worlds=("two",),
    ),
    "no_overlap": Entry(
        settings={"embedding_size": 8, "epochs": 10, "pretraining": 2, "batch_size": 25, "learning_rate": 3e-3},
        uses_attributes=True,
        worlds=("two",),
    ),
    "cross_gnn": Entry(
        settings={"embedding_size": 8, "epochs": 4, "variant": "lightgcn", "batch_size": 25, "learning_rate": 3e-3},
        uses_attributes=True,
        worlds=("two",),
    ),
    "cross_gnn: gcn": Entry(
        settings={"embedding_size": 8, "epochs": 4, "variant": "gcn", "batch_size": 25, "learning_rate": 3e-3},
        uses_attributes=True,
        worlds=("two",),
    ),
    "cross_gnn: sage": Entry(
        settings={"embedding_size": 8, "epochs": 4, "variant": "sage", "batch_size": 25, "learning_rate": 3e-3},
        uses_attributes=True,
        worlds=("two",),
    ),
    "cross_gnn: gat": Entry(
        settings={"embedding_size": 8, "epochs": 4, "variant": "gat", "batch_size": 25, "learning_rate": 3e-3},
        uses_attributes=True,
        worlds=("two",),
    ),
}
