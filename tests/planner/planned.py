"""A whole plan with memory by formula, for tests of what is chosen and refused."""

from __future__ import annotations

from typing import Any

from attfc_planner.plan.plan import Plan, make_plan
from attfc_planner.plan.problem import pose
from attfc_planner.plan.request import PlanRequest
from attfc_planner.search.candidates import MemoryEstimator
from attfc_train.units import GIB
from tests.planner.fakes import FakeMemoryModel, make_gpu


def planned(model: MemoryEstimator | None = None, gib: int = 24, **changes: Any) -> Plan:
    request = PlanRequest(**{"num_ids": 500_000, "num_images": 12_000_000, **changes})
    return make_plan(pose(request, make_gpu(gib * GIB), lambda *_: model or FakeMemoryModel(gib * GIB)))
