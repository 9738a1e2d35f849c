"""Name → recommender, one dict: what `warmstart train NAME` knows and what the laws run over."""

from models.recommender import Recommender
from models.recommenders.adversarial import Adversarial
from models.recommenders.attributes import Attributes
from models.recommenders.bayes import Bayes
from models.recommenders.bayes_transfer import BayesTransfer
from models.recommenders.bias import Bias
from models.recommenders.collective import Collective
from models.recommenders.content import Content
from models.recommenders.cross_gnn import CrossGnn
from models.recommenders.ease import Ease
from models.recommenders.feature_transfer import FeatureTransfer
from models.recommenders.hvae import Hvae
from models.recommenders.instance_transfer import InstanceTransfer
from models.recommenders.ktlf import Ktlf
from models.recommenders.maml import Maml
from models.recommenders.mapping import Mapping
from models.recommenders.matching import Matching
from models.recommenders.mecos import Mecos
from models.recommenders.metric import Metric
from models.recommenders.mf import Mf
from models.recommenders.no_overlap import NoOverlap
from models.recommenders.ordinal_transfer import OrdinalTransfer
from models.recommenders.parameter_transfer import ParameterTransfer
from models.recommenders.popularity import Popularity
from models.recommenders.preference_transfer import PreferenceTransfer
from models.recommenders.prototype_zero_shot import PrototypeZeroShot
from models.recommenders.prototypical import Prototypical
from models.recommenders.relation_transfer import RelationTransfer
from models.recommenders.shared import Shared
from models.recommenders.two_tower import TwoTower

RECOMMENDERS: dict[str, type[Recommender]] = {
    recommender.name: recommender
    for recommender in (
        Popularity,
        Bias,
        Bayes,
        Mf,
        Content,
        Attributes,
        PrototypeZeroShot,
        Maml,
        Matching,
        Prototypical,
        Mecos,
        Metric,
        Ease,
        Hvae,
        BayesTransfer,
        OrdinalTransfer,
        Collective,
        Mapping,
        Shared,
        FeatureTransfer,
        RelationTransfer,
        ParameterTransfer,
        InstanceTransfer,
        Adversarial,
        TwoTower,
        NoOverlap,
        CrossGnn,
        Ktlf,
        PreferenceTransfer,
    )
}
