"""Small profiles and devices for the tests of the memory model."""

from __future__ import annotations

from typing import Any, Literal

from attfc_planner.gpu.profile import GpuProfile
from attfc_train.backbones.kinds import Checkpointing
from attfc_train.document import Precision
from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.heads.dcq.settings import DCQSettings
from attfc_train.heads.f2c.settings import F2CSettings
from attfc_train.heads.full_fc.settings import FullFCSettings
from attfc_train.heads.partial_fc.settings import PartialFCSettings
from attfc_train.heads.settings import HeadSettings
from attfc_train.profile.profile import (
    NO_TEACHER,
    ModelSettings,
    OptimSettings,
    RunSettings,
    TeacherSettings,
    TrainProfile,
)
from attfc_train.units import GIB


def small_profile(
    head: dict[str, Any] | None = None,
    *,
    backbone: str = "tiny",
    checkpointing: Checkpointing = False,
    precision: Precision = "fp32",
    batch_size: int = 8,
    accumulation: int = 1,
    num_ids: int = 300,
    image_size: int = 64,
    teacher: TeacherSettings = NO_TEACHER,
) -> TrainProfile:
    """A small profile; `head` holds settings of the AttFC head, or {} with "kind" for another."""
    return TrainProfile(
        model=ModelSettings(backbone=backbone, image_size=image_size, embedding_size=64, gradient_checkpointing=checkpointing),
        head=_head(head or {}),
        optim=OptimSettings(batch_size=batch_size, accumulation=accumulation),
        run=RunSettings(steps=100, precision=precision),
        teacher=teacher,
    ).resolve(num_ids)


def _head(settings: dict[str, Any]) -> HeadSettings:
    match settings.get("kind"):
        case "full_fc":
            return FullFCSettings.model_validate(_known(settings, FullFCSettings))
        case "partial_fc":
            return PartialFCSettings.model_validate(_known(settings, PartialFCSettings))
        case "f2c":
            known = {name: value for name, value in settings.items() if name != "num_references"}
            return F2CSettings.model_validate({"dcc_size": 100, "chunk_slots": 32, **known})
        case "dcq":
            fields = DCQSettings.model_fields
            return DCQSettings.model_validate({name: value for name, value in settings.items() if name in fields})
    return AttFCSettings.model_validate({"dcc_size": 100, "chunk_slots": 32, "num_references": 1, **settings})


def _known(settings: dict[str, Any], kind: type[HeadSettings]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name in kind.model_fields}


def device(kind: Literal["cuda", "cpu"] = "cuda", **changes: Any) -> GpuProfile:
    """A device with round figures."""
    numbers: dict[str, Any] = {
        "capacity_bytes": 24 * GIB,
        "memory_bandwidth_bytes_per_second": 1e12,
        "fp32_flops": 80e12,
        "pcie_bytes_per_second": 25e9,
        **changes,
    }
    sources = {name: "test" for name, value in numbers.items() if isinstance(value, int | float)}
    architecture = "ada" if kind == "cuda" else "cpu"
    document = {"name": "Test", "slug": "test", "kind": kind, "architecture": architecture, **numbers, "sources": sources}
    return GpuProfile.model_validate(document)
