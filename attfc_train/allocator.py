"""The setting of torch's caching allocator on CUDA that plans are made for; what CUDA reads when torch is imported is set here.

With expandable segments a freed block's neighbours merge, and what the allocator reserves stays close to what is in use: the
planner's replay (`attfc_planner.memory.allocator`) assumes them. A user's own setting stays, and is told apart.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

PLANNED = "expandable_segments:True"
_NAMES = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
"""As torch reads them: the first that is there."""


def use_planned(environment: MutableMapping[str, str]) -> None:
    """Sets `PLANNED` where the user has set nothing; works until CUDA is started."""
    if not any(name in environment for name in _NAMES):
        environment[_NAMES[-1]] = PLANNED


def setting_of(environment: Mapping[str, str]) -> str:
    """The setting in force; empty: torch's own."""
    return next((environment[name] for name in _NAMES if name in environment), "")


def satisfies(setting: str, assumed: str) -> bool:
    """Whether `setting` holds everything that `assumed` does; what it holds besides changes no prediction by much."""
    return _items(assumed) <= _items(setting)


def _items(setting: str) -> set[str]:
    return {item.replace(" ", "").lower() for item in setting.split(",") if item.strip()}
