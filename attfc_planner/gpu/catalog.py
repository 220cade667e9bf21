"""The catalogue of cards that need not be here: `profiles/gpus/*.json`.

Run ``python -m attfc_planner.gpu.catalog`` to see how names resolve.
"""

from __future__ import annotations

import difflib
import re
from functools import cache
from pathlib import Path

from pydantic import ValidationError

from attfc_planner.gpu.profile import GpuProfile
from attfc_train.errors import ProfileError, UsageError
from attfc_train.profile.file import profiles_folder, read_json

_VENDOR_WORDS = frozenset({"nvidia", "geforce", "tesla", "gpu", "graphics"})


@cache
def load_catalog() -> tuple[GpuProfile, ...]:
    """Return every shipped card, by memory and then name."""
    paths = sorted((profiles_folder() / "gpus").glob("*.json"))
    return tuple(sorted(map(load_gpu_profile, paths), key=lambda card: (card.capacity_bytes, card.slug)))


def load_gpu_profile(path: Path) -> GpuProfile:
    """Read one GPU profile from a file.

    Raises:
        ProfileError: missing, not JSON, or a number without a source.
    """
    document = read_json(path)
    try:
        return GpuProfile.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "profile"
        raise ProfileError(f"'{path}' must be a GPU profile", f"{place}: {first['msg']}", "Correct the file.") from error


def find_card(name: str) -> GpuProfile | None:
    """Return the card with this slug, name or alias, with or without vendor words, in any case; None without one."""
    return next((card for card in load_catalog() if is_called(card, name)), None)


def is_called(card: GpuProfile, name: str) -> bool:
    """Return whether `name` is one of the card's names, as `find_card` reads them."""
    return _key(name) in map(_key, (card.slug, card.name, *card.aliases))


def get_card(name: str) -> GpuProfile:
    """Return what `find_card` returns, or raise an error that lists the nearest names.

    Raises:
        UsageError: the catalogue has no such card.
    """
    card = find_card(name)
    if card is None:
        near = ", ".join(nearest_names(name))
        raise UsageError(
            "--gpu must be 'auto', 'cpu', a GPU profile file or a card of the catalogue",
            f"'{name}'",
            f"Nearest: {near}. 'attfc-plan gpus' lists all.",
        )
    return card


def nearest_names(name: str, count: int = 5) -> list[str]:
    """Return the slugs most like `name`: those that contain it or share its digits first, then by spelling."""
    wanted = _key(name)
    # A slug that contains the name, or a number of it ("4090"), gets a point for each, more than any spelling can lose.
    digits = re.findall(r"\d{2,}", wanted)

    def likeness(slug: str) -> float:
        key = _key(slug)
        contained = wanted in key or key in wanted
        return difflib.SequenceMatcher(None, wanted, key).ratio() + contained + any(number in key for number in digits)

    return sorted((card.slug for card in load_catalog()), key=likeness, reverse=True)[:count]


def _key(name: str) -> str:
    """Return a name without vendor words, spaces and case: ``'NVIDIA GeForce RTX 4090' -> 'rtx4090'``."""
    words = re.findall(r"[a-z0-9]+", name.lower())
    return "".join(word for word in words if word not in _VENDOR_WORDS)


if __name__ == "__main__":
    for text in ("rtx-4090", "RTX 4090", "nvidia geforce rtx 4090", "NVIDIA A100-SXM4-80GB", "rtx 4095"):
        card = find_card(text)
        print(f"{text!r}: {card.name if card else 'nearest ' + ', '.join(nearest_names(text))}")
