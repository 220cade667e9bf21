"""A teacher opens from everything that holds a trained network, and one that does not fit says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from attfc_train.data.batch import Batch
from attfc_train.errors import CheckpointError
from attfc_train.export.teacher import described_teacher, digest_of, empty_network, open_teacher
from attfc_train.export.write import export
from attfc_train.profile.file import save_profile
from attfc_train.profile.profile import ModelSettings, TrainProfile
from attfc_train.profile.teacher import TeacherSettings
from attfc_train.run.checkpoint import Checkpoints, save_model
from attfc_train.run.loop import MODEL_FILE, PROFILE_FILE
from attfc_train.step.build import build
from attfc_train.step.step import train_step
from tests.train.export.networks import CPU, TINY, needs, noise, opened, trained
from tests.train.profiles import random_batch, small_profile


def student(path: Path, **teacher: Any) -> TrainProfile:
    """A student of 16 numbers, as `TINY` has."""
    profile = small_profile()
    model = profile.model.model_copy(update={"embedding_size": 16})
    return profile.model_copy(update={"model": model, "teacher": TeacherSettings(path=str(path), **teacher)})


def foreign(path: Path, settings: ModelSettings) -> Path:
    """An ONNX file with names of its own, which no backbone has."""
    needs("onnx", "onnxruntime")
    import onnx

    model = onnx.load(export(opened(settings), path, "fp32", noise(settings.image_size)).path)
    names = {each.name: f"w{number}" for number, each in enumerate(model.graph.initializer)}
    for each in model.graph.initializer:
        each.name = names[each.name]
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    del model.metadata_props[:]
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("ending", ["run", "checkpoint.pt", "model.pt", "safetensors", "onnx", "wrapped.pt"])
def test_every_file_of_a_network_is_the_same_teacher(ending: str, tmp_path: Path) -> None:
    """Catches a digest of a file and not of what it holds: a run and its export would be two teachers."""
    network = trained(TINY)
    path = tmp_path / ending
    if ending == "safetensors":
        needs("safetensors")
        path = export(opened(TINY), tmp_path / "model.safetensors", "fp32", noise(32)).path
    elif ending == "onnx":
        needs("onnx", "onnxruntime")
        path = export(opened(TINY), tmp_path / "model.onnx", "fp32", noise(32)).path
    elif ending == "run":
        path.mkdir()
        save_model(path / MODEL_FILE, network)
        save_profile(student(path), path / PROFILE_FILE)
    elif ending == "checkpoint.pt":
        state = build(student(path).model_copy(update={"teacher": TeacherSettings()}), CPU)
        state.feature_encoder.load_state_dict(network.state_dict())
        if state.class_encoder is not None:
            state.class_encoder.class_encoder.load_state_dict(network.state_dict())
        Checkpoints(tmp_path, 1).save(state, None)
    elif ending == "wrapped.pt":  # as other trainers of the field save
        named = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
        torch.save({"epoch": 3, "state_dict_backbone": named}, path)
    else:
        save_model(path, network)
    teacher = open_teacher(student(path))
    assert (teacher.settings.backbone, teacher.settings.image_size) == ("tiny", 32)
    assert teacher.settings.digest == digest_of(network)
    assert teacher.settings.weight == 7
    torch.testing.assert_close(teacher.network(noise(32)), network(noise(32)))


def test_another_value_anywhere_is_another_teacher() -> None:
    """Catches a digest of the weights alone: running statistics decide an embedding too."""
    network = trained(TINY)
    digests = {digest_of(network)}
    for name, tensor in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            tensor.add_(1)  # read by nothing
        elif name in ("features.running_var", "features.bias"):
            tensor.view(-1)[-1] += 1e-3
            digests.add(digest_of(network))
    assert len(digests) == 3


@pytest.mark.parametrize("backbone", ["tiny", "r18", "vargfacenet", "shufflemixfacenet_xs"])
def test_a_foreign_onnx_network_teaches_and_traces(backbone: str, tmp_path: Path) -> None:
    """Catches a shape that is read as a tensor, in a graph with splits, shuffles and pools."""
    settings = ModelSettings(backbone=backbone, image_size=32, embedding_size=16)
    path = foreign(tmp_path / "x.onnx", settings)
    profile = student(path)
    teacher = open_teacher(profile)
    assert (teacher.settings.backbone, teacher.settings.image_size) == ("onnx", 32)
    torch.testing.assert_close(teacher.network(noise(32)), trained(settings)(noise(32)), rtol=1e-4, atol=1e-4)
    known = profile.model_copy(update={"teacher": teacher.settings})
    real = train_step(build(known, CPU, teacher=teacher.network), random_batch(known))
    with FakeTensorMode(allow_fallback_kernels=False):
        state = build(known, CPU, teacher=empty_network(known.teacher, CPU))
        metrics = train_step(state, Batch.example(known, CPU))
    assert metrics.teacher_distance is not None
    assert real.teacher_distance is not None
    assert 0 < real.teacher_distance.item() < 4
    assert described_teacher(path) == (teacher.settings, 16)


def test_an_exporter_that_folds_batchnorm_is_understood(tmp_path: Path) -> None:
    needs("onnx", "onnxruntime")
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    torch.manual_seed(0)
    convolution, linear = torch.nn.Conv2d(3, 4, 3, 2), torch.nn.Linear(4 * 15 * 15, 16)
    weights = {
        "c": convolution.weight,
        "cb": convolution.bias,
        "slope": torch.rand(4, 1, 1),
        "l": linear.weight,
        "lb": linear.bias,
    }
    nodes = [
        helper.make_node("Conv", ["x", "c", "cb"], ["a"], strides=[2, 2], pads=[0, 0, 0, 0]),
        helper.make_node("PRelu", ["a", "slope"], ["b"]),
        helper.make_node("Shape", ["b"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"], axis=0),
        helper.make_node("Unsqueeze", ["n", "axes"], ["n1"]),
        helper.make_node("Concat", ["n1", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["b", "shape"], ["f"]),
        helper.make_node("Gemm", ["f", "l", "lb"], ["e"], transB=1),
    ]
    constants = [numpy_helper.from_array(tensor.detach().numpy(), name) for name, tensor in weights.items()]
    constants.append(helper.make_tensor("zero", TensorProto.INT64, [], [0]))
    constants += [helper.make_tensor(name, TensorProto.INT64, [1], [value]) for name, value in (("axes", 0), ("rest", -1))]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info("e", TensorProto.FLOAT, ["N", 16])],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7), tmp_path / "x.onnx")
    teacher = open_teacher(student(tmp_path / "x.onnx"))
    slope = weights["slope"].reshape(-1)
    expected = linear(torch.nn.functional.prelu(convolution(noise(32)), slope).flatten(1))
    torch.testing.assert_close(teacher.network(noise(32)), expected.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("operator", ["Softmax", "DequantizeLinear"])
def test_a_graph_that_torch_cannot_compute_is_refused(operator: str, tmp_path: Path) -> None:
    needs("onnx", "onnxruntime")
    encoder = opened(TINY)
    if operator == "DequantizeLinear":
        path = export(encoder, tmp_path / "x.onnx", "int8", noise(32)).path
    else:
        import onnx
        from onnx import helper

        path = foreign(tmp_path / "x.onnx", TINY)
        model = onnx.load(path)
        model.graph.node[-1].output[0] = "before"
        model.graph.node.append(helper.make_node("Softmax", ["before"], [model.graph.output[0].name]))
        onnx.save(model, path)
    with pytest.raises(CheckpointError, match=operator) as raised:
        open_teacher(student(path))
    assert "Export it again" in raised.value.remedy


@pytest.mark.parametrize(
    ("settings", "teacher", "rule", "got", "remedy"),
    [
        (ModelSettings(backbone="tiny", image_size=32, embedding_size=24), {}, "16 numbers", "24", "embedding_size=24"),
        (TINY, {"backbone": "r18"}, "teacher.backbone of the profile, r18", "tiny", "teacher.backbone=null"),
        (TINY, {"image_size": 112}, "teacher.image_size of the profile, 112", "32", "teacher.image_size=null"),
    ],
)
def test_what_does_not_fit_is_refused(
    settings: ModelSettings, teacher: dict[str, Any], rule: str, got: str, remedy: str, tmp_path: Path
) -> None:
    save_model(tmp_path / "model.pt", trained(settings))
    with pytest.raises(CheckpointError) as raised:
        open_teacher(student(tmp_path / "model.pt", **teacher))
    assert rule in raised.value.rule
    assert got in raised.value.got
    assert remedy in raised.value.remedy


@pytest.mark.parametrize("content", [None, b"", b"no model", b"PK\x03\x04"])
@pytest.mark.parametrize("ending", [".pt", ".onnx", ".safetensors"])
def test_no_model_is_no_teacher(content: bytes | None, ending: str, tmp_path: Path) -> None:
    needs("onnx", "onnxruntime", "safetensors")
    path = tmp_path / f"teacher{ending}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match="teacher"):
        open_teacher(student(path))
