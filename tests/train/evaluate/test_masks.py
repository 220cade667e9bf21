"""The second figure of a verification set: a mask on the second image of each pair, the same one for everybody."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from attfc_train.evaluate.embed import embed, evaluate
from attfc_train.evaluate.load import load_verification, open_verification
from attfc_train.evaluate.masks import with_masks
from attfc_train.evaluate.pairs import verify, verify_distances
from attfc_train.evaluate.scored import Network, score, score_masked

CPU = torch.device("cpu")
SIZE = 32
SPEC = "synthetic:30x4"


class Model(nn.Module):
    """Pixels times a fixed matrix, and a place for what it was given."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(16, 3 * SIZE * SIZE, generator=generator) / 50)

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight.t()


def noise(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_a_mask_belongs_to_the_place_of_the_picture() -> None:
    """Catches masks that depend on the block a picture comes in: another batch size would give another accuracy."""
    images = noise(600)
    whole = with_masks(images)
    blocks = [with_masks(block, first) for block, first in ((images[:100], 0), (images[100:299], 100), (images[299:], 299))]
    assert torch.equal(torch.cat(blocks), whole)
    assert torch.equal(with_masks(images), whole)
    assert whole.dtype == torch.uint8
    assert torch.equal(whole[:, :, :8], images[:, :, :8]), "foreheads"
    assert (whole[:, :, 26:30, 12:20] != images[:, :, 26:30, 12:20]).float().mean() > 0.95, "mouths"


def expected(masks_on: tuple[bool, bool]) -> float | None:
    """The area under the curve with masks on the first or the second images of all pairs, in the plain way."""
    opened = load_verification(SPEC, SIZE, num_pairs=200)
    views = [
        embed(Model(), with_masks(opened.images(SIZE)) if masked else opened.images(SIZE), batch_size=50, device=CPU)
        for masked in masks_on
    ]
    rows = [views[side].embeddings[opened.pairs[pair, side]] for pair in range(opened.num_pairs) for side in (0, 1)]
    return verify(np.stack(rows), opened.same).auc


def test_the_second_image_of_a_pair_wears_the_mask() -> None:
    """Catches a mask on both images, or on the first; and a plain figure that is no longer plain."""
    opened = load_verification(SPEC, SIZE, num_pairs=200)
    arguments = {"image_size": SIZE, "batch_size": 37, "device": CPU}
    plain = evaluate(Model(), [opened], **arguments)[opened.name]  # type: ignore[arg-type]
    both = evaluate(Model(), [opened], **arguments, masked=True)[opened.name]  # type: ignore[arg-type]
    assert plain.masked is None
    assert both.masked is not None
    assert both.auc == plain.auc == expected((False, False))
    assert both.masked.auc == expected((False, True))
    assert len({both.auc, both.masked.auc, expected((True, True)), expected((True, False))}) == 4, "they differ"


def test_the_command_has_the_figures_of_the_training() -> None:
    """Catches pictures of a block that are numbered from its start, and names that cannot be told apart."""
    network = Network(Model(), SIZE, 7, CPU)
    done: list[int] = []
    opened = open_verification(SPEC, num_pairs=200)
    plain, masked = score_masked(network, opened, done.append)
    assert sum(done) == 2 * len(opened.encoded)
    loaded = load_verification(SPEC, SIZE, num_pairs=200)
    trained = evaluate(network.module, [loaded], image_size=SIZE, batch_size=64, device=CPU, masked=True)[loaded.name]
    assert trained.masked is not None
    for scored, accuracy in ((plain, trained.accuracy), (masked, trained.masked.accuracy)):
        assert verify_distances(scored.distances, scored.same).accuracy == accuracy
    np.testing.assert_array_equal(plain.distances, score(network, opened).distances)
    assert (plain.is_masked, masked.is_masked) == (False, True)
    assert (plain.name, masked.name) == (opened.name, f"{opened.name}, masked")
