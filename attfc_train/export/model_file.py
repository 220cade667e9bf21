"""Opens an encoder from whatever holds one: a run's folder, a ``.pt``, ``.safetensors`` or ``.onnx`` file."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from attfc_train.backbones.kinds import build_encoder
from attfc_train.errors import CheckpointError, UsageError
from attfc_train.export.weights import METADATA_KEY, State, fill, recognised, settings_in
from attfc_train.profile.file import load_profile
from attfc_train.profile.profile import ModelSettings, TrainProfile
from attfc_train.run.checkpoint import has_checkpoint, load_checkpoint, load_last
from attfc_train.run.loop import BEST_FILE, MODEL_FILE, PROFILE_FILE
from attfc_train.run.tensor_file import load_tensors, short
from attfc_train.streams import typed

Which: TypeAlias = Literal["best", "last"]
ONNX, SAFETENSORS = ".onnx", ".safetensors"

_WRAPPERS = ("state_dict_backbone", "state_dict", "backbone", "model", "net")
"""Keys behind which trainers of the field keep the encoder's parameters."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """A trained network that is ready to embed faces."""

    network: nn.Module
    """In eval mode: float32 [N, 3, S, S], RGB in [-1, 1], to un-normalised float32 [N, D]."""
    image_size: int
    """S."""
    embedding_size: int
    """D."""
    device: torch.device
    source: Path
    """The file that it came from."""
    settings: ModelSettings | None = None
    """The architecture; None where only an ONNX file knows it."""
    profile: TrainProfile | None = None
    """The training profile, of a run."""
    notes: tuple[str, ...] = ()
    """What its user should know of where it came from, such as a damaged checkpoint that another one stands in for."""


def open_encoder(path: Path, which: Which = "best", device: torch.device | None = None) -> Encoder:
    """Open the encoder in `path`, in eval mode.

    Args:
        which: the ``best`` or ``last`` model of a run.
        device: where to compute, by default the CPU; an ONNX file is computed there in any case.

    Raises:
        CheckpointError: there is none, it is damaged, or is no encoder that is known here.
        UsageError: the package that reads such files is not installed.
        ProfileError: the profile of the run cannot be read.
    """
    if path.suffix.lower() == ONNX:
        return _open_onnx(path)
    return open_network(path, which, device)


def open_network(path: Path, which: Which = "best", device: torch.device | None = None) -> Encoder:
    """Open the encoder in `path` as one of attfc's backbones, also that in an ONNX file; otherwise as `open_encoder`."""
    device = device or torch.device("cpu")
    if path.is_dir():
        profile = load_profile(path / PROFILE_FILE)
        notes: list[str] = []
        source, state = _state_of_run(path, which, notes.append)
        return replace(_encoder(state, profile.model, source, device, profile), notes=tuple(notes))
    state, settings = read_state(path)
    settings = settings or recognised(state)
    if settings is None:
        got = f"{len(state)} others, such as '{next(iter(state), '')}'"
        remedy = "Give the folder of a run, or an ONNX file where one is enough."
        raise CheckpointError(f"'{path}' must hold the parameters of a known backbone", got, remedy)
    return _encoder(state, settings, path, device)


def read_state(path: Path) -> tuple[State, ModelSettings | None]:
    """Return the parameters of an encoder by name, and its settings where the file names them.

    Args:
        path: a ``.pt`` file of attfc or of the field's trainers, a checkpoint of attfc, a ``.safetensors`` or ``.onnx`` file,
            or a run's folder.

    Raises:
        CheckpointError: there is none, it is damaged, or holds something else.
        UsageError: the package that reads such files is not installed.
    """
    if path.is_dir():
        return _state_of_run(path, "best", lambda _: None)[1], load_profile(path / PROFILE_FILE).model
    suffix = path.suffix.lower()
    if suffix == ONNX:
        require("onnx", "onnxruntime")
        from attfc_train.export.onnx_file import named_settings, parameters, read_onnx

        model = read_onnx(path)
        return parameters(model), named_settings(model)
    if suffix == SAFETENSORS:
        return _read_safetensors(path)
    content = load_tensors(path, "Use another file.")
    if isinstance(content, dict) and {"format", "profile", "state"} <= set(content):
        checkpoint = load_checkpoint(path)
        return checkpoint.exported_encoder, checkpoint.profile.model
    return parameters_in(content, path), None


def parameters_in(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the parameters of an encoder in what a file of ``torch.save`` held.

    A dict of them may stand behind one of the field's keys, and all names may begin with the name of a wrapper.

    Raises:
        CheckpointError: there are none.
    """
    key = next((key for key in _WRAPPERS if isinstance(content, Mapping) and isinstance(content.get(key), Mapping)), None)
    state = content[key] if key is not None else content
    named = isinstance(state, Mapping) and bool(state) and all(isinstance(name, str) for name in state)
    if not named or not all(isinstance(value, Tensor) for value in state.values()):
        got = f"a dict of {', '.join(map(str, list(content)[:5]))}" if isinstance(content, Mapping) else type(content).__name__
        raise CheckpointError(f"'{path}' must hold the parameters of an encoder by name", got, "Give a model.pt.")
    names = list(state)
    while len(first := {name.partition(".")[0] for name in names}) == 1 and all("." in name for name in names):
        names = [name.removeprefix(f"{next(iter(first))}.") for name in names]
    return dict(zip(names, state.values(), strict=True))


def initialise(encoder: nn.Module, path: Path) -> None:
    """Load the parameters in `path` into an encoder of the same architecture, in place (``--init``).

    Raises:
        CheckpointError: as `read_state` and `fill` do; the message names every parameter that does not fit.
    """
    fill(encoder, read_state(path)[0], path)


def _encoder(
    state: State, settings: ModelSettings, path: Path, device: torch.device, profile: TrainProfile | None = None
) -> Encoder:
    settings = settings.model_copy(update={"channels_last": False})  # how a training lays images out, which no user of it sees
    network = build_encoder(settings, device)
    fill(network, state, path)
    network.eval().requires_grad_(False)
    return Encoder(network, settings.image_size, settings.embedding_size, device, path, settings, profile)


def _open_onnx(path: Path) -> Encoder:
    require("onnx", "onnxruntime")
    from attfc_train.export.onnx_file import interface, named_settings, read_onnx
    from attfc_train.export.session import OnnxEncoder

    model = read_onnx(path)
    image_size, width = interface(model)
    network = OnnxEncoder(model.SerializeToString(), str(path)).eval()
    width = width or network(torch.zeros(1, 3, image_size, image_size)).shape[1]
    return Encoder(network, image_size, width, torch.device("cpu"), path, named_settings(model))


def _state_of_run(folder: Path, which: Which, say: Callable[[str], None]) -> tuple[Path, State]:
    """Return the model of a run, or what stands for it: the last one for the best, a checkpoint for none.

    Args:
        say: is told where the last checkpoint is damaged and the one before is taken.

    Raises:
        CheckpointError: nothing was saved, or it is damaged.
    """
    other = "last" if which == "best" else "best"
    remedy = f"Take the other model with --which {other}, or --resume the run."
    for name in (BEST_FILE, MODEL_FILE) if which == "best" else (MODEL_FILE,):
        if (folder / name).is_file():
            return folder / name, parameters_in(load_tensors(folder / name, remedy), folder / name)
    if not has_checkpoint(folder):
        remedy = f"Continue it: {typed(['attfc-train', '--resume', str(folder)])}"
        raise CheckpointError(f"'{folder / MODEL_FILE}' must exist", "a run that has not saved yet", remedy)
    checkpoint = load_last(folder, say)
    return checkpoint.path, checkpoint.exported_encoder


def _read_safetensors(path: Path) -> tuple[State, ModelSettings | None]:
    require("safetensors")
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(f"'{path}' must exist", "no such file", "Check the path.")
    try:
        with safe_open(path, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"'{path}' must be a safetensors file", short(error), "Check the file.") from error
    return parameters_in(state, path), settings_in(metadata.get(METADATA_KEY, ""))


def require(*packages: str) -> None:
    """Refuse to go on without an optional package.

    Raises:
        UsageError: names it.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        remedy = "Install it: pip install 'attfc[export]'."
        raise UsageError("ONNX and safetensors files need the extra 'export'", f"no package '{missing[0]}'", remedy)
