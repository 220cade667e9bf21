"""A memory model by formula and small devices, so that tests of the search run in milliseconds."""

from __future__ import annotations

from collections.abc import Iterable

from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.trace import OpCost
from attfc_train.prediction import MemoryPrediction, MemoryTerm
from attfc_train.profile import TrainProfile
from attfc_train.units import GIB, MIB

NUMBERS = {
    "memory_bandwidth_bytes_per_second": 1e12,
    "fp32_flops": 40e12,
    "bf16_flops": 160e12,
    "pcie_bytes_per_second": 25e9,
}


def make_gpu(capacity_bytes: int = 24 * GIB, **changes: object) -> GpuProfile:
    numbers = {**NUMBERS, "capacity_bytes": capacity_bytes}
    document = {"name": "Test card", "slug": "test-card", "kind": "cuda", "architecture": "ada", **numbers}
    document["sources"] = dict.fromkeys(
        [*numbers, *(key for key, value in changes.items() if isinstance(value, int))], "a test"
    )
    return GpuProfile.model_validate({**document, **changes})


class FakeMemoryModel:
    """Memory and costs that are affine in batch size and DCC size. `hidden_bytes`: what only `exact` sees."""

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
        batch, refs = profile.optim.batch_size, profile.num_references
        repeat = 4 if profile.model.gradient_checkpointing else 3
        loss = 4 * batch * profile.dcc_size * 512
        return (
            OpCost("convolution", "conv", "forward", repeat * batch * 12 * 10**9, repeat * batch * 10**8, 300),
            OpCost("convolution", "conv", "references", refs * batch * 12 * 10**9, refs * batch * 10**8, 100),
            OpCost("addmm", "loss", "loss", loss, 4 * 512 * profile.dcc_size, 200),
            OpCost("_foreach_add_", "optimizer", "update", 0, 10**9, 10),
        )

    def _predict(self, profile: TrainProfile, extra: int) -> MemoryPrediction:
        share = 0.4 if profile.model.gradient_checkpointing else 1.0
        terms = {
            "context": 600 * MIB,
            "weights": (3 + (profile.num_references > 0)) * 170 * MIB + extra,
            "container": 4 * 512 * profile.dcc_size,
            "activations": round(profile.optim.batch_size * (30 + 8 * profile.num_references) * share * MIB),
        }
        listed = tuple(MemoryTerm(name=name, bytes=num, source="a test") for name, num in terms.items())
        return MemoryPrediction(terms=listed, budget_bytes=self.budget_bytes, peak_phase="backward", peak_operator="mm")
