"""What AttFC would save on a run that others' trainer does: its layer beside AttFC, with the same card, batch and network.

The layer's rows are traced as attfc trains them: gradient and logits of a learned layer are never whole in memory.
arcface_torch keeps them whole, so its own layer is added up by its authors' formula (insightface#1989): three times the weights
(weights, gradient, momentum) and two times the logits, all fp32, on one card.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from attfc_planner.accuracy.prior import accuracy_prior
from attfc_planner.explain.explain import ExactMemory
from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.knobs.space import Setting, with_head
from attfc_planner.plan.arcface_torch import ForeignRun
from attfc_planner.plan.problem import base_profile
from attfc_planner.plan.request import PlanRequest
from attfc_planner.speed.model import SpeedPrediction, predict_speed
from attfc_train.document import Precision
from attfc_train.profile.file import resolve_profile
from attfc_train.profile.prediction import Interval, MemoryPrediction
from attfc_train.profile.profile import TrainProfile
from attfc_train.units import Bytes

ATTFC = "attfc"
_FLOAT: Bytes = 4


@dataclass(frozen=True)
class Way:
    """One way to train the run."""

    profile: TrainProfile
    memory: MemoryPrediction
    speed: SpeedPrediction
    accuracy: Interval
    head_bytes: Bytes

    @property
    def fits(self) -> bool:
        """Whether the step is within the card's memory."""
        return self.memory.total_bytes <= self.memory.budget_bytes


@dataclass(frozen=True)
class Savings:
    """The answer to ``attfc-plan import``."""

    run: ForeignRun
    gpu: GpuProfile
    ways: tuple[Way, ...]
    """Every kind of layer at the batch of the config; the config's own first, AttFC last."""
    released_bytes: Bytes
    """What arcface_torch's own layer keeps on one card, by its authors' formula."""

    @property
    def own(self) -> Way:
        """The config's own layer, as attfc trains it."""
        return self.ways[0]

    @property
    def attfc(self) -> Way:
        """AttFC."""
        return self.ways[-1]


def savings(
    run: ForeignRun, gpu: GpuProfile, precision: Precision, make_model: Callable[[TrainProfile, GpuProfile], ExactMemory]
) -> Savings:
    """Trace the run's own layer and AttFC, and return both; a config of Partial FC is compared with a full FC layer, too."""
    kinds = dict.fromkeys((run.head, "full_fc", ATTFC))
    profiles = [profile_of(run, gpu, precision, kind) for kind in kinds]
    model = make_model(profiles[0], gpu)
    model.prepare_exact(profiles)
    ways = tuple(
        Way(
            profile=profile,
            memory=model.exact(profile),
            speed=predict_speed(profile, gpu, model.history(profile).costs[-1]),
            accuracy=accuracy_prior(profile),
            head_bytes=model.head_bytes([profile])[0],
        )
        for profile in profiles
    )
    return Savings(run, gpu, ways, released_bytes(run))


def profile_of(run: ForeignRun, gpu: GpuProfile, precision: Precision, kind: str) -> TrainProfile:
    """Return the run as a resolved training profile with a kind of head, and the recipe's learning rate for its batch."""
    request = PlanRequest(
        num_ids=run.num_ids,
        num_images=run.num_images,
        backbone=run.network,
        precision=precision,
        epochs=run.epochs or 1.0,
    )
    recipe = base_profile(request, gpu)
    margin = run.margin.model_copy(update={"ramp_images": recipe.head.margin.ramp_images})
    recipe = with_head(recipe.model_copy(update={"head": recipe.head.model_copy(update={"margin": margin})}), kind)
    sizes = {"embedding_size": run.embedding_size}
    own: dict[str, Any] = {}
    if kind != ATTFC:
        own["interclass_filter"] = run.interclass_filter
    if kind == "partial_fc":
        own["sample_rate"] = run.sample_rate
    base = recipe.model_copy(
        update={"head": recipe.head.model_copy(update=own), "model": recipe.model.model_copy(update=sizes)}
    )
    paced = Setting.of({"batch_size": run.batch_size, "accumulation": run.accumulation}).applied_to(base)
    return resolve_profile(paced, run.num_ids, run.num_images or 0)


def released_bytes(run: ForeignRun) -> Bytes:
    """Return what arcface_torch's layer takes on one card: 3 x weights + 2 x logits of the identities that a step scores."""
    weights = _FLOAT * run.num_ids * run.embedding_size
    scored = max(round(run.sample_rate * run.num_ids), 1)
    logits = _FLOAT * (run.batch_size // run.accumulation) * scored
    return 3 * weights + 2 * logits


def plan_command(run: ForeignRun, gpu: str, precision: Precision, data: str | None) -> list[str]:
    """Return the command that searches the best settings for the same run.

    Args:
        data: a data set that is here; None: the config's numbers take its place.
    """
    counts = ["--ids", str(run.num_ids), *(["--images", str(run.num_images)] if run.num_images else [])]
    epochs = ["--epochs", f"{run.epochs:g}"] if run.epochs else []
    source = ["--data", data] if data else counts
    return ["attfc-plan", "--gpu", gpu, *source, "--backbone", run.network, "--precision", precision, *epochs]


def train_command(way: Way, data: str | None, val: Sequence[str]) -> list[str]:
    """Return the command that trains exactly this way, from the preset of AttFC."""
    profile = way.profile
    margin = profile.head.margin
    settings = {
        "model.backbone": profile.model.backbone,
        "model.embedding_size": profile.model.embedding_size,
        "optim.batch_size": profile.optim.batch_size,
        "optim.accumulation": profile.optim.accumulation,
        "optim.learning_rate": profile.optim.learning_rate,
        "run.epochs": f"{profile.run.epochs:g}",
        "run.precision": profile.run.precision,
        "head.margin.kind": margin.kind,
        "head.margin.margin": f"{margin.margin:g}",
    }
    if margin.kind == "combined":
        settings |= {"head.margin.multiplier": margin.multiplier, "head.margin.cosine_margin": margin.cosine_margin}
    assignments = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    sets = [word for path in val for word in ("--val", path)]
    return ["attfc-train", "--preset", ATTFC, "--data", data or "DATA", *sets, *assignments]
