"""The embedded AttFC trainer, and what other programs use of it: everything is loaded when it is first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attfc_train.api.faces import compare, embed, load_encoder
    from attfc_train.api.head import DynamicClassContainer, attfc_loss

__all__ = ["DynamicClassContainer", "attfc_loss", "compare", "embed", "load_encoder"]

_FACES = "attfc_train.api.faces"
_HEAD = "attfc_train.api.head"
_WHERE = {"load_encoder": _FACES, "embed": _FACES, "compare": _FACES, "DynamicClassContainer": _HEAD, "attfc_loss": _HEAD}


def __getattr__(name: str) -> Any:
    """Load what is public here; the command lines import this package and must not wait for torch."""
    if name not in _WHERE:
        raise AttributeError(f"module 'attfc_train' has no attribute '{name}'")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    """Return the public names, loaded or not."""
    return sorted({*globals(), *__all__})
