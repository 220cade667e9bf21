"""A memory model by formula and small devices, so that tests of the search run in milliseconds."""

from __future__ import annotations

from collections.abc import Iterable

from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.trace.history import OpCost
from attfc_train.profile.prediction import MemoryPrediction, MemoryTerm
from attfc_train.profile.profile import TrainProfile
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


class FakeMemoryModel:
    """Memory and costs that are affine in batch size, parts and DCC size. `hidden_bytes`: what only `exact` sees."""

    def __init__(self, budget_bytes: int = 24 * GIB, hidden_bytes: int = 0) -> None:
        self.budget_bytes, self.hidden_bytes = budget_bytes, hidden_bytes
        self.num_exact = 0

    def prepare(self, profiles: Iterable[TrainProfile]) -> None:
        """There is nothing to trace."""

    prepare_exact = prepare

    def estimate(self, profile: TrainProfile) -> MemoryPrediction:
        return self._predict(profile, 0)

    def exact(self, profile: TrainProfile) -> MemoryPrediction:
        self.num_exact += 1
        return self._predict(profile, self.hidden_bytes)

    def op_costs(self, profile: TrainProfile) -> tuple[OpCost, ...]:
        parts, batch, refs = profile.optim.accumulation, profile.optim.micro_batch_size, profile.num_references
        repeat = 4 if profile.model.gradient_checkpointing else 3
        network = NETWORKS.get(profile.model.backbone, 1.0)
        flops, moved = round(network * batch * 12 * 10**9), round(network * batch * 10**8)
        loss = 4 * batch * profile.dcc_size * 512
        width = {"fp32": 4, "bf16": 2, "fp8": 1, "int8": 1}[profile.head.storage]  # type: ignore[union-attr]
        part = (
            OpCost("convolution", "conv", "forward", repeat * flops, repeat * moved, 300),
            OpCost("convolution", "conv", "references", refs * flops, refs * moved, 100),
            OpCost("addmm", "loss", "loss", loss, width * 512 * profile.dcc_size, 200),
        )
        repeated = tuple(
            OpCost(one.name, one.kind, one.phase, parts * one.flops, parts * one.bytes_read_written, parts * one.count)
            for one in part
        )
        return (*repeated, OpCost("_foreach_add_", "optimizer", "update", 0, 10**9, 10))

    def _predict(self, profile: TrainProfile, extra: int) -> MemoryPrediction:
        network = NETWORKS.get(profile.model.backbone, 1.0)
        share = 0.4 if profile.model.gradient_checkpointing else 1.0
        terms = {
            "context": 600 * MIB,
            "weights": (3 + (profile.num_references > 0) + (profile.optim.accumulation > 1)) * 170 * MIB + extra,
            "container": {"fp32": 4, "bf16": 2, "fp8": 1, "int8": 1}[profile.head.storage] * 512 * profile.dcc_size,
            "input": 37632 * profile.optim.batch_size * (1 + profile.num_references),
            "activations": round(network * profile.optim.micro_batch_size * (30 + 8 * profile.num_references) * share * MIB),
        }
        listed = tuple(MemoryTerm(name=name, bytes=num, source="a test") for name, num in terms.items())
        return MemoryPrediction(terms=listed, budget_bytes=self.budget_bytes, peak_phase="backward", peak_operator="mm")
