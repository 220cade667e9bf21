"""Names that several documents share."""

from __future__ import annotations

from typing import Literal

Precision = Literal["fp32", "bf16", "fp16"]
StorageName = Literal["fp32", "bf16", "fp8", "int8"]
