"""The parts of ``attfc-train evaluate`` that search: templates of IJB, and faces among distractors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from attfc_train.commands.data_survey import progress
from attfc_train.commands.evaluate_screen import show_points
from attfc_train.data.dataset import FaceDataset
from attfc_train.data.decode import decode
from attfc_train.data.pool import DecodePool
from attfc_train.data.reading import persistently
from attfc_train.data.source import open_dataset
from attfc_train.errors import DataError
from attfc_train.evaluate.embed import embed_batches, filled
from attfc_train.evaluate.ijb_folder import embed_templates, read_ijb, searches
from attfc_train.evaluate.load import open_verification
from attfc_train.evaluate.resampling import pair_groups, people_of, rate_interval, resampled
from attfc_train.evaluate.scored import Network, Scored
from attfc_train.evaluate.templates import ijb_tar, pair_scores, rank_one_with_distractors
from attfc_train.export.model_file import Encoder
from attfc_train.run.live_line import busy

_BATCH = 64
"""Pictures at a time, for models that come without a profile."""


def network_of(encoder: Encoder) -> Network:
    """Return a model as its run fed it, or as one that came without a run."""
    profile = encoder.profile
    size, device = encoder.image_size, encoder.device
    if profile is None:
        return Network(encoder.network, size, _BATCH, device)
    return Network(encoder.network, size, profile.optim.micro_batch_size, device, profile.run.precision)


def show_ijb(encoder: Encoder, root: Path, fars: Sequence[float], console: Console) -> None:
    """Print 1:1 and 1:N of a folder of IJB.

    Raises:
        VerificationSetError: a list or a picture of the folder is missing or damaged.
    """
    folder = read_ijb(root)
    with progress(console, len(folder.pictures), "embedding") as advance:
        templates = embed_templates(network_of(encoder), folder, advance)
    scores = pair_scores(templates, *folder.pairs.T)
    groups = pair_groups(people_of(folder.pairs, folder.same), folder.same)
    view = Scored(root.name, folder.same, 2 - 2 * scores, groups, float("nan"), float("nan"))
    figure = f"{len(folder.pictures):,} pictures, {templates.names.size:,} templates"
    show_points(str(encoder.source), view, fars, console, figure)
    nearest = ", ".join(f"{far:g}: {rate:.2%}" for far, rate in ijb_tar(scores, folder.same, fars).items())
    console.print(f"TAR as InsightFace's IJB script gives it (nearest point of the curve): {nearest}")
    for name, result in searches(folder, templates).items():
        ranks = ", ".join(f"rank {k} {rate:.2%}" for k, rate in result.rank.items())
        rates = "".join(f", TPIR at FPIR {rate:g} {share:.2%}" for rate, share in result.tpir.items())
        console.print(f"1:N {name}: {ranks}{rates} ({result.num_mated:,} mated probes, {result.num_unmated:,} others)")
    console.print()


def show_distractors(encoder: Encoder, specs: Sequence[str], distractors: str, console: Console) -> None:
    """Print how often a face's other picture comes before every distractor, for each verification set.

    Raises:
        DataError: the distractors cannot be read.
    """
    with busy(console, "Opening the distractors"):
        dataset = open_dataset(distractors)
    network = network_of(encoder)
    for spec in specs:
        verification_set = open_verification(spec)
        pictures = verification_set.blocks(network.image_size, network.batch_size)
        rows = np.concatenate(list(_unit_rows(network, pictures)))
        people = people_of(verification_set.pairs, verification_set.same)[verification_set.same]
        pairs = verification_set.pairs[verification_set.same]
        both = np.concatenate([pairs, pairs[:, ::-1]])  # each picture of a pair is searched once
        with progress(console, dataset.index.num_images, "embedding") as advance:
            others = _unit_rows(network, _pictures(dataset, network, advance))
            first = rank_one_with_distractors(rows[both[:, 0]], rows[both[:, 1]], others)
        kinds = np.ones(first.size, dtype=bool)
        groups = pair_groups(np.concatenate([people, people]), kinds)
        drawn = np.array([(weights @ first) / weights.sum() for weights in resampled(groups, kinds)])
        interval = rate_interval(drawn, float(first.mean()), first.size)
        spread = f"(95 %: {interval.low:.1%} to {interval.high:.1%}, bootstrap by person)"
        console.print(f"{verification_set.name}: rank 1 {first.mean():.2%} {spread}", soft_wrap=True)
        among = f"{dataset.index.num_images:,} distractors of {dataset.name}"
        console.print(f"{first.size:,} searches among {among}, by {encoder.source}", soft_wrap=True)
    console.print()


def _unit_rows(network: Network, blocks: Iterator[Tensor]) -> Iterator[NDArray[np.float64]]:
    """Yield embeddings of length 1, block by block, float64 [b, D]."""
    for block in blocks:
        batch = filled(block, network.batch_size).to(network.device)
        sums, _ = embed_batches(network.module, [batch], network.device, network.precision)
        yield torch.nn.functional.normalize(sums[: len(block)].double(), dim=1).cpu().numpy()


def _pictures(dataset: FaceDataset, network: Network, advance: Callable[[int], None]) -> Iterator[Tensor]:
    """Yield all pictures of a data set, uint8 [b, 3, S, S]."""

    def crop(position: int) -> NDArray[np.uint8]:
        try:
            return decode(persistently(partial(dataset.encoded, position)), network.image_size)
        except DataError as error:
            raise DataError(error.rule, f"{error.got} in {dataset.locate(position)}", error.remedy) from error

    count = dataset.index.num_images
    with DecodePool() as pool:
        for start in range(0, count, network.batch_size):
            crops = np.stack(pool.map(crop, range(start, min(start + network.batch_size, count))))
            yield torch.from_numpy(crops).permute(0, 3, 1, 2)
            advance(len(crops))
