"""Settings of every head whose class centers are learned, one row an identity, and what they tell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Self

from pydantic import Field

from attfc_train.document import STORAGES, StorageName
from attfc_train.heads.containers.settings import STORAGE
from attfc_train.heads.knob import Knob
from attfc_train.heads.settings import HeadSettings, SlotKernel


class LearnedSettings(HeadSettings):
    """The settings of a matrix of learned rows."""

    storage: StorageName = "fp32"
    """Type of the rows: 4, 2, 1 or 1 bytes per dimension; the 8-bit types have a scale per row. All but fp32 are rounded
    stochastically."""
    momentum: bool = True
    """Whether rows have a momentum buffer (`optim.momentum`): fp32 beside fp32 rows, else bf16. Without one a gradient moves a
    row at once as far as it would with momentum in all."""
    interclass_filter: float = Field(0.0, ge=0, lt=1)
    """A query's cosine with another identity above it is taken for a wrong label: it counts as a logit of 0 and has no
    gradient. 0: none is."""
    chunk_slots: int = Field(2048, ge=16, le=2**24)
    """Rows scored and moved at a time; about 3 embedding_size x chunk_slots floats are scratch memory."""
    loss_kernel: Literal["auto", "chunked", "triton"] = "auto"
    """Both passes over the rows: ``triton`` (CUDA only), ``chunked`` (any device), or on CUDA whichever is measured to be
    faster."""

    @property
    def is_shared(self) -> bool:
        """See `HeadSettings.is_shared`."""
        return True

    @property
    def slot_kernel(self) -> SlotKernel | None:
        """See `HeadSettings.slot_kernel`."""
        if self.loss_kernel == "chunked":
            return None
        momentum_bytes = (4 if self.storage == "fp32" else 2) if self.momentum else 0
        return SlotKernel(self.storage, momentum_bytes, self.loss_kernel == "triton", is_joint=True)

    def rows(self) -> tuple[tuple[str, str], ...]:
        """See `HeadSettings.rows`."""
        return (*super().rows(), ("learned rows", f"{self.storage}, {_buffer(self)}"))

    @classmethod
    def knobs(cls) -> tuple[Knob, ...]:
        """Return type and momentum of the rows."""
        return STORAGE, MOMENTUM

    def variations(self) -> Iterator[tuple[str, Self]]:
        """Yield rows without momentum, and narrower ones."""
        if self.momentum:
            yield "momentum of rows on -> off", self.model_copy(update={"momentum": False})
        for storage in ("bf16", "int8"):
            if STORAGES[storage].component_bytes < STORAGES[self.storage].component_bytes:
                yield f"storage {self.storage} -> {storage}", self.model_copy(update={"storage": storage})


def _buffer(head: LearnedSettings) -> str:
    if not head.momentum:
        return "no momentum"
    return f"momentum in {'fp32' if head.storage == 'fp32' else 'bf16'}"


MOMENTUM = Knob(
    "momentum",
    (True, False),
    "head",
    place=71,
    ordered=False,
    size=lambda on: float(on is not False),
    column="row momentum",
    cell=lambda head: "yes" if head.momentum else "no",
    phrase=lambda head: "" if head.momentum else "rows without momentum",
)
