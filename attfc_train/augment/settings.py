"""The settings of augmentations: a probability for each name of `AUGMENTATIONS`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypeAlias

from pydantic import Field, create_model, model_validator

from attfc_train.augment.kinds import AUGMENTATIONS
from attfc_train.document import Frozen


class Augmentations(Frozen):
    """The probabilities with which images are changed, and which images are."""

    references: bool = False
    """Whether references are changed too, each by draws of its own; queries always are."""

    @model_validator(mode="after")
    def _something_to_change_them(self) -> Self:
        if self.references and not self.probabilities:
            raise ValueError(
                f"references needs an augmentation that is switched on, but got none; "
                f"give the probability of one ({', '.join(AUGMENTATIONS)}), or leave it false"
            )
        return self

    @property
    def probabilities(self) -> dict[str, float]:
        """The augmentations that are switched on, in the order in which they are made."""
        named = {name: float(getattr(self, name)) for name in AUGMENTATIONS}
        return {name: probability for name, probability in named.items() if probability > 0}

    def in_full(self) -> Augmentations:
        """Return settings that stand for all with the same augmentations, however probable."""
        return self.model_copy(update=dict.fromkeys(self.probabilities, 1.0))


def _with_a_field_each() -> Any:
    fields: dict[str, Any] = {name: (float, Field(0.0, ge=0, le=1)) for name in AUGMENTATIONS}
    return create_model("AugmentSettings", __base__=Augmentations, __doc__=Augmentations.__doc__, **fields)


if TYPE_CHECKING:
    AugmentSettings: TypeAlias = Augmentations
else:  # which augmentations there are is known when `AUGMENTATIONS` is read
    AugmentSettings = _with_a_field_each()
