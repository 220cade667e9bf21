"""The section of a profile that names a trained network to learn from."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from attfc_train.backbones.kinds import BACKBONES
from attfc_train.document import Frozen

FOREIGN = "onnx"
"""The backbone of a teacher that only an ONNX file knows."""


class TeacherSettings(Frozen):
    """A trained network that the feature encoder learns to agree with, beside its identities (docs/methods.md)."""

    path: str | None = None
    """Its file or run, as ``--init`` takes it; None: there is no teacher."""
    weight: float = Field(7.0, gt=0, le=10_000)
    """Of the angular distance in the loss; 7 is VarGFaceNet's (arXiv 1910.04985)."""
    backbone: str | None = None
    """One of `BACKBONES`, or ``onnx`` for a network that only its file knows; None until the file is opened."""
    image_size: int | None = Field(None, ge=32, le=512)
    """H = W in pixels that it was trained with; None: the student's. Other images are resized on the device."""
    digest: str | None = Field(None, pattern="^[0-9a-f]{32}$")
    """Of its parameters, as a run was started with them; a resumed run compares it."""

    @model_validator(mode="after")
    def _known_backbone(self) -> Self:
        if self.backbone not in (None, FOREIGN, *BACKBONES):
            raise ValueError(f"teacher.backbone must be a known name, but got '{str(self.backbone)[:40]}'")
        if self.backbone == FOREIGN and self.path is None:
            raise ValueError(f"teacher.backbone '{FOREIGN}' needs its file as teacher.path, but got none")
        return self

    @model_validator(mode="after")
    def _weight_of_a_teacher(self) -> Self:
        default = type(self).model_fields["weight"].default
        if not self.is_on and self.weight != default:
            raise ValueError(
                f"weight needs a teacher, but got {self.weight:g} and none; give --teacher MODEL, or leave it at {default:g}"
            )
        return self

    @property
    def is_on(self) -> bool:
        """Whether there is a teacher."""
        return self.path is not None or self.backbone is not None

    @property
    def is_missing(self) -> bool:
        """Whether a teacher is planned for that there is no file of yet."""
        return self.is_on and self.path is None

    @property
    def architecture(self) -> tuple[object, ...]:
        """The settings that memory and time depend on."""
        return self.is_on, self.backbone, self.image_size

    def describe(self) -> str:
        """Return the teacher in a few words."""
        size = f" at {self.image_size} pixels" if self.image_size else ""
        return f"{self.backbone or 'unknown'}{size}, weight {self.weight:g}"


NO_TEACHER = TeacherSettings()
