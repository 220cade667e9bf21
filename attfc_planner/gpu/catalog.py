"""The catalogue of cards that need not be here: `profiles/gpus/*.json`.

Run ``python -m attfc_planner.gpu.catalog`` to see how names resolve.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from functools import cache
from pathlib import Path

from pydantic import ValidationError

from attfc_planner.gpu.other_devices import refuse_other_devices
from attfc_planner.gpu.profile import GpuProfile
from attfc_train.errors import ProfileError, UsageError
from attfc_train.profile.file import profiles_folder, read_json
from attfc_train.units import Bytes, format_bytes

_VENDOR_WORDS = frozenset({"nvidia", "geforce", "tesla", "gpu", "graphics"})
_UNITS = frozenset({"gb", "gib", "g"})
_VARIANT = re.compile(
    r"sxm\d?|pcie|nvl|hgx|active|rtx|gtx|quadro|pro|ada|generation|blackwell|grace|hopper|workstation|server|edition|max|q"
)
"""Words of a name that tell cards of one model number apart, and that people leave out."""
_SAME_MEMORY = 0.12
"""Relative difference of two capacities of one card at most: ECC takes 6 %, and drivers keep up to 4 % more or less."""


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


def cards_called(name: str) -> tuple[GpuProfile, ...]:
    """Return the card with this slug, name or alias, or else all cards that the name leaves open: ``RTX 3060`` leaves two.

    Vendor words, spaces and case do not count. A name leaves a card open if it has all words of the card's model, such as
    ``4060 Ti``, and no word that the card's name lacks; memory and form factor may be left out.
    """
    exact = tuple(card for card in load_catalog() if is_called(card, name))
    return exact or tuple(card for card in load_catalog() if _leaves_open(name, card))


def find_card(name: str, capacity_bytes: Bytes | None = None) -> GpuProfile | None:
    """Return the one card that `name` stands for; None without one, or if it stands for several.

    Args:
        capacity_bytes: what CUDA has on the card that is here, which tells apart what the driver calls the same.
    """
    cards = cards_called(name)
    if capacity_bytes is not None and len(cards) > 1:
        cards = tuple(card for card in cards if abs(card.capacity_bytes / capacity_bytes - 1) < _SAME_MEMORY)
    return cards[0] if len(cards) == 1 else None


def is_called(card: GpuProfile, name: str) -> bool:
    """Return whether `name` is the card's slug, name or alias, with or without vendor words, in any case."""
    return _key(name) in map(_key, (card.slug, card.name, *card.aliases))


def get_card(name: str) -> GpuProfile:
    """Return the one card that `name` stands for.

    Raises:
        UsageError: the name stands for several cards, is that of another kind of device, or is not known.
    """
    cards = cards_called(name)
    if len(cards) == 1:
        return cards[0]
    if cards:
        choice = ", ".join(f"{card.slug} ({format_bytes(card.capacity_bytes)})" for card in cards)
        raise UsageError("--gpu must name one card", f"'{name}', which stands for {len(cards)}", f"Give one of: {choice}.")
    refuse_other_devices(name)
    near = ", ".join(nearest_names(name))
    raise UsageError(
        "--gpu must be 'auto', 'cpu', a GPU profile file or a card of the catalogue",
        f"'{name}'",
        f"Nearest: {near}. 'attfc-plan gpus' lists all.",
    )


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
    """Return a name without vendor words, units, spaces and case: ``'NVIDIA GeForce RTX 3060 12 GB' -> 'rtx306012'``."""
    return "".join(_words(name))


def _words(name: str) -> list[str]:
    """Return the words of a name: ``'A100-SXM4-40GB' -> ['a', '100', 'sxm4', '40']``."""
    words = re.findall(r"sxm\d?|hbm\d\w?|[a-z]+|\d+", name.lower())
    return [word for word in words if word not in _VENDOR_WORDS | _UNITS and not word.startswith("hbm")]


def _leaves_open(name: str, card: GpuProfile) -> bool:
    # model of the card <= words of the name <= words of the card, as bags of words.
    wanted = Counter(_words(name))
    words = _words(card.name)
    size = re.search(r"(\d+) GB", card.name)
    model = Counter(word for word in words if not _VARIANT.fullmatch(word) and not (size and word == size.group(1)))
    if not any(word.isdigit() for word in model):
        model = Counter(words)  # such as TITAN RTX: nothing but its words tells it apart
    return model <= wanted <= Counter(words)


if __name__ == "__main__":
    for text in ("rtx-4090", "RTX 4090", "nvidia geforce rtx 4090", "NVIDIA A100-SXM4-80GB", "RTX 3060", "rtx 4095"):
        named = ", ".join(card.name for card in cards_called(text))
        print(f"{text!r}: {named or 'nearest ' + ', '.join(nearest_names(text))}")
