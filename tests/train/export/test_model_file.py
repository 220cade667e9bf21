"""Encoders come back from every file that holds one, and a file that holds none says what it is."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from attfc_train.backbones.kinds import BACKBONES
from attfc_train.errors import AttfcError, CheckpointError, UsageError
from attfc_train.export import model_file
from attfc_train.export.model_file import initialise, open_encoder, open_network, read_state
from attfc_train.export.weights import differences, recognised
from attfc_train.export.write import export
from attfc_train.profile.file import save_profile
from attfc_train.profile.profile import ModelSettings, TrainProfile
from attfc_train.run.checkpoint import Checkpoints, save_model
from attfc_train.run.loop import BEST_FILE, MODEL_FILE, PROFILE_FILE
from attfc_train.step.build import build
from tests.train.export.networks import CPU, TINY, needs, noise, opened, trained
from tests.train.profiles import small_profile

NAMESAKES = [name for name in BACKBONES if name.startswith(("vargfacenet", "mixfacenet", "shufflemixfacenet"))]


def equal(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "settings",
    [
        TINY,
        ModelSettings(backbone="tiny", image_size=64, embedding_size=256),
        ModelSettings(backbone="r18", image_size=48, embedding_size=64),
        ModelSettings(backbone="mbf", image_size=112, embedding_size=512),
        *(ModelSettings(backbone=name, image_size=48, embedding_size=64) for name in NAMESAKES),
    ],
    ids=str,
)
def test_a_network_is_recognised_by_its_parameters(settings: ModelSettings) -> None:
    """Catches a size that is taken for the usual one, a width that is taken from another layer, and networks whose
    parameters have the names or the shapes of another's."""
    assert recognised(trained_cheaply(settings)) == settings


def trained_cheaply(settings: ModelSettings) -> dict[str, Tensor]:
    return model_file.build_encoder(settings, CPU).state_dict()


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_parameters_come_back_bit_by_bit(ending: str, tmp_path: Path) -> None:
    if ending == ".safetensors":
        needs("safetensors")
    encoder = opened(TINY)
    written = export(encoder, tmp_path / f"model{ending}", "fp32", noise(32))
    assert written.cosine is None
    assert equal(dict(read_state(written.path)[0]), encoder.network.state_dict())
    again = open_encoder(written.path)
    assert again.settings == TINY
    assert not again.network.training
    assert torch.equal(again.network(noise(32)), encoder.network(noise(32)))


def test_the_state_dict_loads_strictly_where_the_fields_does(tmp_path: Path) -> None:
    encoder = opened(TINY)
    written = export(encoder, tmp_path / "model.pt", "fp32", noise(32))
    state = torch.load(written.path, weights_only=True)
    trained(TINY).load_state_dict(state, strict=True)
    assert all(type(value) is Tensor and value.is_contiguous() for value in state.values())


def test_the_program_runs_without_our_code(tmp_path: Path) -> None:
    encoder = opened(TINY)
    written = export(encoder, tmp_path / "model.pt2", "fp32", noise(32))
    program = torch.export.load(written.path).module()
    for size in (1, 2, 32):
        torch.testing.assert_close(program(noise(32, size)), encoder.network(noise(32, size)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("wrap", ["state_dict", "state_dict_backbone", "backbone", "module", "module.backbone", "half"])
def test_the_fields_ways_to_wrap_are_understood(wrap: str, tmp_path: Path) -> None:
    state = {name: value for name, value in trained(TINY).state_dict().items() if "num_batches" not in name}
    content: dict[str, Any] = {wrap: state, "epoch": 3}
    if wrap.startswith("module"):
        content = {f"{wrap}.{name}": value for name, value in state.items()}
    if wrap == "half":
        content = {name: value.half() for name, value in state.items()}
    torch.save(content, tmp_path / "theirs.pt")
    encoder = open_encoder(tmp_path / "theirs.pt")
    assert encoder.settings == TINY
    assert torch.equal(encoder.network.fc.weight, state["fc.weight"].to(torch.float16 if wrap == "half" else None).float())  # type: ignore[union-attr]


def test_a_run_gives_its_best_model_else_its_last_else_a_checkpoint(tmp_path: Path) -> None:
    profile = small_profile()
    state = build(profile, CPU)
    save_profile(profile, tmp_path / PROFILE_FILE)
    with pytest.raises(CheckpointError, match="has not saved yet"):
        open_encoder(tmp_path)
    Checkpoints(tmp_path, 2).save(state, None)
    assert equal(open_encoder(tmp_path).network.state_dict(), state.feature_encoder.state_dict())
    last, best = (model_file.build_encoder(profile.model, CPU) for _ in range(2))
    save_model(tmp_path / MODEL_FILE, last)
    assert open_encoder(tmp_path, "best").source == tmp_path / MODEL_FILE
    save_model(tmp_path / BEST_FILE, best)
    assert equal(open_encoder(tmp_path, "best").network.state_dict(), best.state_dict())
    assert equal(open_encoder(tmp_path, "last").network.state_dict(), last.state_dict())
    assert open_encoder(tmp_path / "checkpoint.pt").settings == profile.model


def test_every_parameter_that_does_not_fit_is_named(tmp_path: Path) -> None:
    """Catches a message that stops after the first."""
    state = dict(trained(TINY).state_dict())
    state["fc.weight"] = torch.zeros(16, 7)
    state["bn.bias"] = state["bn.bias"] * float("nan")
    state["bn.weight"] = torch.ones(256, dtype=torch.int32)
    del state["features.weight"]
    state["head.weight"] = torch.zeros(3)
    assert differences(trained(TINY).state_dict(), state) == [
        "bn.weight is int32",
        "bn.bias is not finite",
        "fc.weight is [16, 7], not [16, 1024]",
        "features.weight is missing",
        "head.weight is left over",
    ]
    torch.save(state, tmp_path / "other.pt")
    before = {name: value.clone() for name, value in trained(TINY).state_dict().items()}
    network = trained(TINY)
    with pytest.raises(CheckpointError) as caught:
        initialise(network, tmp_path / "other.pt")
    for name in ("bn.weight", "bn.bias", "fc.weight", "features.weight", "head.weight"):
        assert name in str(caught.value)
    assert equal(network.state_dict(), before), "nothing is loaded by half"


def test_a_file_of_another_network_says_how_to_take_it(tmp_path: Path) -> None:
    other = ModelSettings(backbone="r18", image_size=64, embedding_size=32)
    save_model(tmp_path / "r18.pt", model_file.build_encoder(other, CPU))
    with pytest.raises(CheckpointError) as caught:
        initialise(trained(TINY), tmp_path / "r18.pt")
    message = str(caught.value)
    assert "--set model.backbone=r18 --set model.image_size=64 --set model.embedding_size=32" in message
    for block in ("stages.0", "layer1.0", "layer4.1", "fc.weight", "features.bias"):
        assert block in message
    assert len(message) < 5000, "by block, where there are many"


def test_initialising_takes_the_parameters(tmp_path: Path) -> None:
    source = trained(TINY)
    save_model(tmp_path / "model.pt", source)
    network = model_file.build_encoder(TINY, CPU)
    initialise(network, tmp_path / "model.pt")
    assert equal(network.state_dict(), source.state_dict())


def _huge_header(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")


def _truncated(path: Path) -> None:
    torch.save(trained(TINY).state_dict(), path)
    path.write_bytes(path.read_bytes()[:-500])


class _Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("/tmp/attfc_was_run"),))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("missing.pt", lambda path: None),
        ("missing.safetensors", lambda path: None),
        ("text.pt", lambda path: path.write_text("hello")),
        ("text.safetensors", lambda path: path.write_text("hello, this is no safetensors file")),
        ("huge.safetensors", _huge_header),
        ("truncated.pt", _truncated),
        ("program.pt", lambda path: torch.save({"weight": _Evil()}, path)),
        ("list.pt", lambda path: torch.save([torch.zeros(3)], path)),
        ("numbers.pt", lambda path: torch.save({"lr": 0.1}, path)),
        ("empty.pt", lambda path: torch.save({}, path)),
        ("optimizer.pt", lambda path: torch.save({"state": {}, "param_groups": []}, path)),
        ("unknown.pt", lambda path: torch.save({"conv.weight": torch.zeros(3, 3)}, path)),
        ("folder", lambda path: path.mkdir()),
    ],
)
def test_what_is_no_model_is_one_line(name: str, write: Any, tmp_path: Path) -> None:
    if name.endswith(".safetensors"):
        needs("safetensors")
    write(tmp_path / name)
    with pytest.raises(AttfcError) as caught:
        open_network(tmp_path / name)
    assert caught.value.exit_code in (3, 5)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)
    assert not Path("/tmp/attfc_was_run").exists()


@pytest.mark.parametrize("ending", [".onnx", ".safetensors"])
def test_a_missing_package_is_named(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_file.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"attfc\[export\]"):
        read_state(tmp_path / f"model{ending}")
    with pytest.raises(UsageError, match=r"attfc\[export\]"):
        export(opened(TINY), tmp_path / f"model{ending}", "fp32", noise(32))


def test_an_unknown_format_and_a_precision_that_it_has_not(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'model\.tflite'.*\.onnx, \.safetensors, \.pt2, \.pt"):
        export(opened(TINY), tmp_path / "model.tflite", "fp32", noise(32))
    with pytest.raises(UsageError, match=r"fp16 for 'model\.pt'"):
        export(opened(TINY), tmp_path / "model.pt", "fp16", noise(32))


def test_the_profile_names_the_model() -> None:
    """`ModelSettings` is what files name: another field of it must be thought of here.

    The last two change no embedding of a trained model: files do not name them.
    """
    fields = ["backbone", "embedding_size", "image_size", "gradient_checkpointing", "batchnorm_variance"]
    assert list(TrainProfile().model.model_dump()) == fields
