"""Embedding and evaluation with a small network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attfc_train.backbones.kinds import build_backbone
from attfc_train.errors import VerificationSetError
from attfc_train.evaluate.embed import embed, evaluate
from attfc_train.evaluate.load import load_verification, load_verification_sets

CPU = torch.device("cpu")
SIZE = 32


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads cost more than they bring at these sizes."""
    former = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(former)


def encoder() -> nn.Module:
    torch.manual_seed(0)
    return build_backbone("tiny", embedding_size=16, image_size=SIZE, gradient_checkpointing=False, device=CPU)


def images(num: int) -> Tensor:
    return torch.randint(0, 256, (num, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_sum_over_mirror_images_for_any_batch_size(batch_size: int) -> None:
    model, faces = encoder(), images(7)
    embedded = embed(model, faces, batch_size=batch_size, device=CPU)
    with torch.no_grad():
        plain, mirrored = (model.eval()(view.float() / 127.5 - 1) for view in (faces, faces.flip(3)))
    np.testing.assert_allclose(embedded.embeddings, (plain + mirrored).numpy(), rtol=1e-4, atol=1e-5)
    norms = (plain.norm(dim=1) + mirrored.norm(dim=1)) / 2
    np.testing.assert_allclose(embedded.norms, norms.numpy(), rtol=1e-4)
    assert embedded.embeddings.dtype == np.float32
    assert embedded.images_per_second > 0


def test_every_pass_has_the_same_size() -> None:
    sizes: list[int] = []
    model = encoder()
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    embed(model, images(7), batch_size=3, device=CPU)
    assert sizes == [3] * 6


def test_the_encoder_is_left_as_it_was() -> None:
    model = encoder()
    model.get_submodule("bn").eval()
    modes = [module.training for module in model.modules()]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    embed(model, images(5), batch_size=2, device=CPU, precision="bf16")
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    model(torch.zeros(2, 3, SIZE, SIZE)).sum().backward()  # still trainable afterwards


def test_the_mode_returns_after_an_error() -> None:
    model = encoder()
    with pytest.raises(RuntimeError):
        embed(model, torch.zeros(2, 5, SIZE, SIZE, dtype=torch.uint8), batch_size=2, device=CPU)
    assert model.training


def test_bfloat16_is_close() -> None:
    model = encoder()
    for _ in range(3):
        model(torch.rand(16, 3, SIZE, SIZE) * 2 - 1)  # sensible running statistics
    exact, rough = (embed(model, images(6), batch_size=6, device=CPU, precision=p).embeddings for p in ("fp32", "bf16"))
    cosines = (exact * rough).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(rough, axis=1)
    assert cosines.min() > 0.99
    assert (exact != rough).any()


def test_synthetic_pairs_end_to_end() -> None:
    verification_set = load_verification("synthetic:30x3", SIZE, num_pairs=60)
    assert verification_set.num_pairs == 60
    again = load_verification("synthetic:30x3", SIZE, num_pairs=60)
    assert torch.equal(verification_set.images(SIZE), again.images(SIZE))
    results = evaluate(encoder(), [verification_set], image_size=SIZE, batch_size=16, device=CPU)
    result = results[verification_set.name]
    assert 0.3 <= result.accuracy <= 1
    assert result.num_pairs == 60
    assert result.embedding_norm > 0
    assert result.images_per_second > 0


def test_sets_of_the_same_name_are_told_apart() -> None:
    specs = ("synthetic:20x2", "synthetic:20x2")
    loaded = load_verification_sets(specs[:1], SIZE)
    assert len(loaded) == 1
    assert [each.name for each in load_verification_sets(specs, SIZE)] == list(specs)


@pytest.mark.parametrize("spec", ["no/such/folder", "no/such.bin", "synthetic:many"])
def test_bad_specs_are_one_line(spec: str) -> None:
    with pytest.raises(VerificationSetError) as caught:
        load_verification(spec, SIZE)
    assert "\n" not in str(caught.value)


def test_raw_pixels_on_real_faces(faces: Path) -> None:
    """Raw pixels verify these faces well above chance, which needs decoding, pairs and labels that agree."""
    loaded = load_verification(str(faces / "lfw_fold8.bin"), 112)
    result = evaluate(nn.Flatten(), [loaded], image_size=112, batch_size=128, device=CPU)["lfw_fold8"]
    assert 0.6 < result.accuracy < 0.7
    assert set(result.tar) == {1e-1, 1e-2}
    drawn = load_verification(str(faces / "lfw_train"), SIZE, num_pairs=100)
    assert drawn.num_pairs == 100
