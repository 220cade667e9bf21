"""A memory model by formula and small devices, so that tests of the search run in milliseconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attfc_planner.gpu.profile import GpuProfile
from attfc_train.backbones.kinds import Checkpointing
from attfc_train.profile.prediction import MemoryPrediction, MemoryTerm
from attfc_train.profile.profile import TrainProfile
from attfc_train.timing.op_cost import OpCost
from attfc_train.units import GIB, MIB

NUMBERS = {
    "memory_bandwidth_bytes_per_second": 1e12,
    "fp32_flops": 40e12,
    "bf16_flops": 160e12,
    "pcie_bytes_per_second": 25e9,
}
NETWORKS = {"mbf": 0.1, "r18": 0.4, "r50": 1.0, "r100": 1.9, "r200": 3.7}
"""Work and activations against r50's."""


def make_gpu(capacity_bytes: int = 24 * GIB, **changes: object) -> GpuProfile:
    numbers = {**NUMBERS, "capacity_bytes": capacity_bytes}
    document = {"name": "Test card", "slug": "test-card", "kind": "cuda", "architecture": "ada", **numbers}
    document["sources"] = dict.fromkeys(
        [*numbers, *(key for key, value in changes.items() if isinstance(value, int))], "a test"
    )
    return GpuProfile.model_validate({**document, **changes})


PASSES: dict[Checkpointing, float] = {False: 3, "wide": 3.3, True: 4}
"""Forward passes' worth of work that a step does."""
ACTIVATIONS: dict[Checkpointing, float] = {False: 1.0, "wide": 0.55, True: 0.4}
EMBEDDING_SIZE = 512
CENTER_BYTES = {"fp32": 4 * EMBEDDING_SIZE, "bf16": 2 * EMBEDDING_SIZE, "fp8": EMBEDDING_SIZE, "int8": EMBEDDING_SIZE}


def scored_rows(profile: TrainProfile) -> int:
    """Return the centers that a step scores: all slots, else a sample of the identities, at least the part of a batch."""
    if profile.dcc_size:
        return profile.dcc_size
    sampled = round(getattr(profile.head, "sample_rate", 1.0) * profile.num_ids)
    return min(profile.num_ids, max(sampled, profile.optim.micro_batch_size))


def center_bytes(profile: TrainProfile) -> int:
    """Return the bytes of a stored center; learned ones are fp32."""
    return CENTER_BYTES[getattr(profile.head, "storage", "fp32")]


class FakeMemoryModel:
    """Memory and costs that are affine in batch size, parts and the centers that a step scores.

    Args:
        hidden_bytes: memory that only `exact` sees.
        activations: share of them that is kept with each way of checkpointing.
    """

    def __init__(
        self,
        budget_bytes: int = 24 * GIB,
        hidden_bytes: int = 0,
        activations: Mapping[Checkpointing, float] = ACTIVATIONS,
    ) -> None:
        self.activations = activations
        self.budget_bytes = budget_bytes
        self.hidden_bytes = hidden_bytes
        self.num_exact = 0

    def prepare(self, profiles: Iterable[TrainProfile]) -> None:
        """There is nothing to trace."""

    prepare_exact = prepare

    def estimate(self, profile: TrainProfile) -> MemoryPrediction:
        return self._predict(profile, 0)

    def exact(self, profile: TrainProfile) -> MemoryPrediction:
        self.num_exact += 1
        return self._predict(profile, self.hidden_bytes)

    def head_bytes(self, profiles: Sequence[TrainProfile]) -> list[int]:
        """All centers, with the momentum of learned ones."""
        return [center_bytes(each) * each.dcc_size or 2 * CENTER_BYTES["fp32"] * each.num_ids for each in profiles]

    def op_costs(self, profile: TrainProfile) -> tuple[OpCost, ...]:
        parts = profile.optim.accumulation
        batch = profile.optim.micro_batch_size
        references = profile.num_references
        passes = PASSES[profile.model.gradient_checkpointing]
        network = NETWORKS.get(profile.model.backbone, 1.0)
        flops = round(network * batch * 12 * 10**9)
        moved = round(network * batch * 10**8)
        rows = scored_rows(profile)
        loss_flops = 4 * batch * rows * EMBEDDING_SIZE
        of_a_part = (
            OpCost("convolution", "conv", "forward", round(passes * flops), round(passes * moved), 300),
            OpCost("convolution", "conv", "references", references * flops, references * moved, 100),
            OpCost("addmm", "loss", "loss", loss_flops, center_bytes(profile) * rows, 200),
        )
        of_all_parts = tuple(
            OpCost(cost.name, cost.kind, cost.phase, parts * cost.flops, parts * cost.bytes_read_written, parts * cost.count)
            for cost in of_a_part
        )
        return (*of_all_parts, OpCost("_foreach_add_", "optimizer", "update", 0, 10**9, 10))

    def _predict(self, profile: TrainProfile, extra: int) -> MemoryPrediction:
        network = NETWORKS.get(profile.model.backbone, 1.0)
        share = self.activations[profile.model.gradient_checkpointing]
        terms = {
            "context": 600 * MIB,
            "weights": (3 + (profile.num_references > 0) + (profile.optim.accumulation > 1)) * 170 * MIB + extra,
            "container": center_bytes(profile) * profile.dcc_size,
            "input": 37632 * profile.optim.batch_size * (1 + profile.num_references),
            "activations": round(network * profile.optim.micro_batch_size * (30 + 8 * profile.num_references) * share * MIB),
        }
        if not profile.dcc_size:
            terms |= _learned_layer(profile)
        listed = tuple(MemoryTerm(name=name, bytes=num, source="a test") for name, num in terms.items())
        return MemoryPrediction(terms=listed, budget_bytes=self.budget_bytes, peak_phase="backward", peak_operator="mm")


def _learned_layer(profile: TrainProfile) -> dict[str, int]:
    """Return what a layer of learned centers adds: all of them with their momentum, and a step's gradients and logits."""
    rows = scored_rows(profile)
    return {
        "momentum": 2 * CENTER_BYTES["fp32"] * profile.num_ids,
        "gradients": CENTER_BYTES["fp32"] * rows,
        "loss": 3 * 4 * profile.optim.micro_batch_size * rows,
    }
