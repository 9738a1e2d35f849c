"""`warmstart blend`: learn the weights with which a domain's checkpoints are mixed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.terminal import fail, progress_bars, show

if TYPE_CHECKING:
    from models.blend import Blend, BlendPart
    from models.checkpoint import Checkpoint
    from models.datasets.dataset import Dataset
    from models.evaluation.predictors import Predictor
    from models.recommender import Role

app = typer.Typer()


class BlendError(Exception):
    """A blend that cannot be learnt from what was given; the message is a sentence for whoever asked."""


@app.command("blend")
def blend_command(
    checkpoints: Annotated[Path, typer.Option(help="Folder of checkpoints; the newest of each role are mixed.")],
    data: Annotated[Path, typer.Option(help="The data set folder that they were trained on.")],
) -> None:
    """Learn how far to trust each checkpoint, by how much is known of a user, and keep it as blend.json beside them."""
    from models.datasets.description import DatasetError
    from models.datasets.folder import read

    try:
        with progress_bars() as progress:
            blends = fit_blends(checkpoints, read(data, progress))
    except (BlendError, DatasetError, OSError, ValueError) as error:
        raise fail(str(error)) from error
    for blend in blends:
        show(describe(blend))


def fit_blends(folder: Path, data: "Dataset") -> "list[Blend]":
    """Fit and save a blend for each domain of `data`, over the newest checkpoint of each role in `folder`.

    The validation users are those that the checkpoints' fits held apart, so all of them must come from this data and
    one seed. Raises BlendError where they do not, or where there are fewer than two to mix.
    """
    from models.evaluation.blend import fit_blend
    from models.evaluation.transfer_guard import fit_guarded
    from models.training.train import VALIDATION_SHARE, held_in_target
    from models.training.transfer import Transfer

    blends = []
    for index, domain in enumerate(data.schema.domains):
        parts = _newest_of_each_role(folder, domain.name, data.fingerprint)
        if len(parts) < 2:
            raise BlendError(f"there are fewer than two checkpoints of different roles for {domain.name!r} to mix.")
        seeds = {loaded.card.seed for loaded in parts.values()}
        if len(seeds) > 1:
            raise BlendError("the checkpoints were trained with different seeds, so no user is new to all of them.")
        seed = seeds.pop()
        predictors = [(_part(role, loaded), _predictor(loaded, data, index)) for role, loaded in parts.items()]
        transfer = parts.get("transfer")
        if transfer is not None and isinstance(transfer.recommender, Transfer):
            direction = transfer.recommender.direction
            carrying = predictors.pop(list(parts).index("transfer"))
            held = held_in_target(data, direction, seed)
            blend = fit_guarded(predictors, carrying, data, held, index, [direction.source], seed=0)
        else:
            _, held = data.split_users(VALIDATION_SHARE, seed)
            blend = fit_blend(predictors, data, held, index, seed=0)
        name = "blend.json" if len(data.schema.domains) == 1 else f"blend-{index}.json"
        blend.save(folder / name)
        blends.append(blend)
    return blends


def describe(blend: "Blend") -> str:
    """The weights as a person reads them."""
    names = ", ".join(part.recommender for part in blend.parts)
    rows = []
    for bucket in blend.buckets:
        if bucket.min_support == 0 and bucket.min_source:
            rows.append(f"  with {bucket.min_source} and more where the transfer comes from")
        told = "  ".join(f"{w:.2f}" for w in bucket.weights)
        gain = bucket.transfer_gain
        saved = "" if gain is None else f"   transfer saves {gain.gain:.4f} RMSE, at least {gain.low:.4f}"
        rows.append(f"  from {bucket.min_support:>2}: {told}{saved}")
    return "\n".join([f"{blend.domain}: weights of {names} by the interactions known", *rows])


def _newest_of_each_role(folder: Path, domain: str, fingerprint: str) -> "dict[Role, Checkpoint]":
    from models import checkpoint
    from models.recommender import ROLES

    found: dict[Role, Checkpoint] = {}
    for path in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        try:
            loaded = checkpoint.load(path)
        except checkpoint.CheckpointError:
            continue
        if loaded.card.dataset_fingerprint != fingerprint or domain not in loaded.card.targets:
            continue
        role = loaded.recommender.role
        if role not in found or loaded.card.created > found[role].card.created:
            found[role] = loaded
    return {role: found[role] for role in ROLES if role in found}


def _predictor(loaded: "Checkpoint", data: "Dataset", domain: int) -> "Predictor":
    """The checkpoint as one who can be asked about `domain` of the data, also where it knows nothing else."""
    from models.evaluation.predictors import AlonePredictor, TrainedPredictor

    if len(loaded.card.schema_.domains) < len(data.schema.domains):
        return AlonePredictor(loaded.recommender, loaded.table, data, domain)
    return TrainedPredictor(loaded.recommender, loaded.table)


def _part(role: "Role", loaded: "Checkpoint") -> "BlendPart":
    from models.blend import BlendPart

    return BlendPart(role=role, digest=loaded.digest, recommender=loaded.recommender.name)
