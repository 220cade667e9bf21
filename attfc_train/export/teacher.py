"""Opens the teacher of a run from whatever holds a trained network, and says which one it is.

A network of ours is built as ours, also from an ONNX file that names its parameters. Any other ONNX network is computed by
torch's operators (`attfc_train.export.onnx_network`), once it was seen to agree with ONNX Runtime.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from attfc_train.errors import CheckpointError
from attfc_train.export.model_file import ONNX, open_network, require
from attfc_train.profile.profile import TrainProfile
from attfc_train.profile.teacher import FOREIGN, NO_TEACHER, TeacherSettings
from attfc_train.step.teacher import TrainedTeacher

if TYPE_CHECKING:
    import onnx

LEAST_AGREEMENT = 0.999
"""Cosine of a foreign network's embeddings by torch and by ONNX Runtime: 16-bit files lose some digits in the latter."""


@dataclass(frozen=True, slots=True)
class _Opened:
    """A trained network and what its file says of it."""

    network: nn.Module
    backbone: str
    image_size: int
    embedding_size: int
    digest: str


def open_teacher(profile: TrainProfile) -> TrainedTeacher:
    """Open the teacher that ``teacher.path`` names: a run's folder, or a ``.pt``, ``.safetensors`` or ``.onnx`` file.

    Raises:
        CheckpointError: there is none, it is damaged, is no network that can be computed here, or does not fit the profile.
        UsageError: the package that reads such files is not installed.
    """
    assert profile.teacher.path is not None
    opened = _opened(Path(profile.teacher.path))
    _must_fit(profile, opened)
    return TrainedTeacher(opened.network, _settings(profile.teacher, opened))


def described_teacher(path: Path) -> tuple[TeacherSettings, int]:
    """Return the settings of the teacher in a file, for a plan, and the length of its embeddings.

    Raises:
        CheckpointError, UsageError: as `open_teacher`.
    """
    opened = _opened(path)
    return _settings(TeacherSettings(path=str(path)), opened), opened.embedding_size


def empty_network(settings: TeacherSettings, device: torch.device) -> nn.Module:
    """Return the network of a foreign teacher without values, for a trace.

    Raises:
        CheckpointError, UsageError: as `open_teacher`.
    """
    assert settings.path is not None
    return _foreign_network(_read_onnx(Path(settings.path)), settings.path, device, is_empty=True)


def digest_of(network: nn.Module) -> str:
    """Return a digest of all that an encoder computes with: the same from every format of file, another for other values."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        if name.endswith("num_batches_tracked"):  # a counter that only a training reads; some formats lack it
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


def _settings(settings: TeacherSettings, opened: _Opened) -> TeacherSettings:
    found = {"backbone": opened.backbone, "image_size": opened.image_size, "digest": opened.digest}
    return settings.model_copy(update=found)


def _must_fit(profile: TrainProfile, opened: _Opened) -> None:
    """Refuse a teacher whose embeddings cannot be compared with the student's, or that was not planned for.

    Raises:
        CheckpointError: names both.
    """
    path = profile.teacher.path
    width = profile.model.embedding_size
    if opened.embedding_size != width:
        raise CheckpointError(
            f"the embeddings of the teacher '{path}' must have the {width} numbers of the student's",
            f"{opened.embedding_size}",
            f"Let the student have as many: --set model.embedding_size={opened.embedding_size}.",
        )
    planned = profile.teacher if profile.teacher.digest is None else NO_TEACHER  # a digest says it all
    pairs = {"backbone": (opened.backbone, planned.backbone), "image_size": (opened.image_size, planned.image_size)}
    for name, (there, here) in pairs.items():
        if here not in (None, there):
            raise CheckpointError(
                f"the teacher '{path}' must have the teacher.{name} of the profile, {here}",
                f"{there}",
                f"Give that teacher, or take what the file has: --set teacher.{name}=null.",
            )


def _opened(path: Path) -> _Opened:
    try:
        encoder = open_network(path)
    except CheckpointError:
        if path.suffix.lower() != ONNX:
            raise
        return _opened_foreign(path)
    assert encoder.settings is not None, "a network has settings"
    digest = digest_of(encoder.network)
    return _Opened(encoder.network, encoder.settings.backbone, encoder.image_size, encoder.embedding_size, digest)


def _opened_foreign(path: Path) -> _Opened:
    model = _read_onnx(path)
    from attfc_train.export.onnx_file import interface

    network = _foreign_network(model, str(path), torch.device("cpu"))
    image_size, _ = interface(model)
    width = _agreed_width(network, model, str(path), image_size)
    return _Opened(network, FOREIGN, image_size, width, hashlib.sha256(path.read_bytes()).hexdigest()[:32])


def _read_onnx(path: Path) -> onnx.ModelProto:
    require("onnx", "onnxruntime")
    from attfc_train.export.onnx_file import read_onnx

    return read_onnx(path)


def _foreign_network(model: onnx.ModelProto, where: str, device: torch.device, is_empty: bool = False) -> nn.Module:
    from attfc_train.export.onnx_network import OnnxNetwork, UnknownOperator, read_graph

    try:
        return OnnxNetwork(read_graph(model), device, is_empty)
    except UnknownOperator as error:
        raise _not_computed(where, str(error)) from error


def _agreed_width(network: nn.Module, model: onnx.ModelProto, where: str, image_size: int) -> int:
    """Return the length of embeddings that torch and ONNX Runtime agree on.

    Raises:
        CheckpointError: they do not, or one of them cannot compute the network.
    """
    from attfc_train.export.session import OnnxEncoder

    images = torch.rand(3, 3, image_size, image_size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = OnnxEncoder(model.SerializeToString(), where)(images)
    try:
        embeddings: Tensor = network(images)
        agreement = torch.cosine_similarity(embeddings.double(), expected.double(), dim=1).min().item()
    except (
        RuntimeError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
    ) as error:  # whatever a graph may ask of an operator
        raise _not_computed(where, " ".join(str(error).split())[:120]) from error
    if not agreement >= LEAST_AGREEMENT:  # nan as well
        raise _not_computed(where, f"embeddings at cosine {agreement:.3f} of ONNX Runtime's")
    return embeddings.shape[1]


def _not_computed(where: str, got: str) -> CheckpointError:
    return CheckpointError(
        f"the teacher '{where}' must be a network that torch can compute in every step",
        got,
        "Export it again in float32 with a symbolic batch, or use the .pt file that it was made from.",
    )
