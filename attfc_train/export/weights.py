"""Parameters by name, as every file of a model has them: which network they are of, and whether they fit another."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn

from attfc_train.backbones.kinds import BACKBONES, build_encoder
from attfc_train.errors import CheckpointError
from attfc_train.profile.profile import ModelSettings

State: TypeAlias = Mapping[str, Tensor]

METADATA_KEY = "attfc"
"""Under which a file's metadata name the network."""
_FACTS = ("backbone", "embedding_size", "image_size")

_COUNTER = "num_batches_tracked"
"""A buffer of BatchNorm that only a cumulative average reads; older files and ONNX do not have it."""
_MOST_NAMED = 24
"""Differences that are listed one by one; more of them are listed block by block."""
_USUAL_SIZE = 112
_SIZES = (_USUAL_SIZE, *(size for size in range(32, 513, 16) if size != _USUAL_SIZE))


def fill(encoder: nn.Module, state: State, path: Path) -> None:
    """Load parameters that came from `path` into `encoder`, in place.

    Raises:
        CheckpointError: names every parameter that is missing, left over, of another shape, or not finite.
    """
    found = differences(encoder.state_dict(), state)
    if found:
        got = f"{len(found)} that do not: {'; '.join(_shortened(found))}"
        raise CheckpointError(f"the parameters in '{path}' must fit the model", got, _remedy(state, path))
    encoder.load_state_dict(_counted(encoder, state))


def _remedy(state: State, path: Path) -> str:
    like = recognised(state)
    if like is not None:
        sizes = f"--set model.image_size={like.image_size} --set model.embedding_size={like.embedding_size}"
        return f"The file is for --set model.backbone={like.backbone} {sizes}."
    if path.suffix.lower() == ".onnx":
        return "If an exporter has folded BatchNorm into its convolutions, use the .pt file that it was made from."
    return "Check the file."


def differences(wanted: State, given: State) -> list[str]:
    """Return what keeps parameters from being loaded, one text a parameter, in the order of the network."""
    texts = [text for name, tensor in wanted.items() if (text := _difference(name, tensor, given)) is not None]
    return texts + [f"{name} is left over" for name in given if name not in wanted and not name.endswith(_COUNTER)]


def _difference(name: str, wanted: Tensor, given: State) -> str | None:
    if name not in given:
        return None if name.endswith(_COUNTER) else f"{name} is missing"
    tensor = given[name]
    if tensor.shape != wanted.shape:
        return f"{name} is {list(tensor.shape)}, not {list(wanted.shape)}"
    if tensor.is_floating_point() != wanted.is_floating_point() or tensor.is_complex():
        return f"{name} is {str(tensor.dtype).removeprefix('torch.')}"
    if tensor.is_meta or tensor.layout != torch.strided:  # saved on no device, or of few values in a sea of zeros
        return f"{name} is {'without values' if tensor.is_meta else 'sparse'}"
    return None if bool(torch.isfinite(tensor.float()).all()) else f"{name} is not finite"


def _shortened(texts: list[str]) -> Iterator[str]:
    """Yield differences; many of them by block, as in ``layer3.14 (15 parameters) is missing``."""
    if len(texts) <= _MOST_NAMED:
        yield from texts
        return

    def block(text: str) -> tuple[str, str]:
        name, _, what = text.partition(" ")
        return ".".join(name.split(".")[:2]), what.split(" ")[-1] if what.startswith("is [") else what

    for (name, what), group in groupby(texts, key=block):
        members = list(group)
        yield members[0] if len(members) == 1 else f"{name} ({len(members)} parameters) {what}"


def _counted(encoder: nn.Module, state: State) -> dict[str, Tensor]:
    """Return the parameters with the counters that are missing, without those that are left over."""
    return {name: state.get(name, own) for name, own in encoder.state_dict().items()}


def recognised(state: State) -> ModelSettings | None:
    """Return the network that parameters are of, by their names and shapes; None: none that is known here."""
    names = {name for name in state if not name.endswith(_COUNTER)}
    for backbone in BACKBONES:
        like = _shapes(ModelSettings(backbone=backbone))
        if set(like) != names:
            continue
        width = state[[name for name, shape in like.items() if len(shape) == 1][-1]].numel()
        if not 8 <= width <= 4096:
            return None
        candidates = (ModelSettings(backbone=backbone, embedding_size=width, image_size=size) for size in _SIZES)
        shapes = {name: state[name].shape for name in names}
        matching = next((settings for settings in candidates if _shapes(settings) == shapes), None)
        if matching is not None:  # a network of another width may have the same names
            return matching
    return None


def facts(settings: ModelSettings) -> str:
    """Return the text that a file's metadata have under `METADATA_KEY`."""
    return settings.model_dump_json(include=set(_FACTS))


def settings_in(text: str) -> ModelSettings | None:
    """Return the settings that such a text names; None: it is none."""
    try:
        named = json.loads(text)
        return ModelSettings.model_validate({name: named[name] for name in _FACTS})
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


@cache
def _shapes(settings: ModelSettings) -> dict[str, torch.Size]:
    """Return the shapes of a network's parameters, without making it."""
    encoder = build_encoder(settings, torch.device("meta"))
    return {name: tensor.shape for name, tensor in encoder.state_dict().items() if not name.endswith(_COUNTER)}
