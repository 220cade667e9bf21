"""Small resolved profiles for tests."""

from __future__ import annotations

from typing import Any

import torch

from attfc_train.data.batch import Batch
from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.heads.dcq.settings import DCQSettings
from attfc_train.heads.f2c.settings import F2CSettings
from attfc_train.heads.full_fc.settings import FullFCSettings
from attfc_train.heads.partial_fc.settings import PartialFCSettings
from attfc_train.heads.settings import HeadSettings, MarginSettings
from attfc_train.profile.profile import ModelSettings, OptimSettings, RunSettings, TrainProfile

ADAFACE = MarginSettings(kind="adaface", margin=0.4, gradient="exact", statistics_rate=0.1)
CURRICULARFACE = MarginSettings(kind="curricularface", gradient="exact", statistics_rate=0.1)
HEADS: dict[str, HeadSettings] = {
    "full_fc": FullFCSettings(),
    "full_fc-int8": FullFCSettings(storage="int8", momentum=False, interclass_filter=0.9, chunk_slots=16),
    "partial_fc": PartialFCSettings(sample_rate=0.5),
    "partial_fc-bf16": PartialFCSettings(sample_rate=0.3, storage="bf16", chunk_slots=16),
    "partial_fc-fp8": PartialFCSettings(sample_rate=0.5, storage="fp8", chunk_slots=16),
    "identity": AttFCSettings(chunk_slots=16),
    "identity-30%": AttFCSettings(dcc_share=0.3, num_references=2, chunk_slots=16),
    "identity-R0": AttFCSettings(num_references=0, chunk_slots=16),
    "stored-int8": AttFCSettings(queue_mode="stored", queue_length=3, storage="int8", dcc_share=0.3, chunk_slots=16),
    "identity-growing": AttFCSettings(first_scored_share=0.2, growing_share=0.9, num_references=0, chunk_slots=16),
    "identity-learned": AttFCSettings(slot_rate=0.5, dcc_share=0.5, num_references=0, batch_negatives=False, chunk_slots=16),
    "identity-learned-int8": AttFCSettings(slot_rate=0.5, storage="int8", batch_negatives=False, chunk_slots=16),
    "identity-fp8": AttFCSettings(storage="fp8", chunk_slots=16),
    "f2c": F2CSettings(dcc_share=0.3, chunk_slots=16),
    "f2c-int8": F2CSettings(dcc_share=1, storage="int8", support_vectors=1.2, chunk_slots=16),
    "fifo": AttFCSettings(policy="fifo", queue_length=1, dcc_share=0.3, num_references=2, chunk_slots=16),
    "dcq": DCQSettings(dcc_share=0.3, chunk_slots=16),
    "full_fc-adaface": FullFCSettings(margin=ADAFACE, chunk_slots=16),
    "partial_fc-curricularface": PartialFCSettings(margin=CURRICULARFACE, sample_rate=0.5, interclass_filter=0.9),
    "identity-adaface": AttFCSettings(margin=ADAFACE, num_references=0, chunk_slots=16),
    "identity-learned-curricularface": AttFCSettings(
        margin=CURRICULARFACE, slot_rate=0.1, dcc_share=0.5, num_references=0, batch_negatives=False, chunk_slots=16
    ),
    "f2c-adaface": F2CSettings(margin=ADAFACE, dcc_share=0.3, chunk_slots=16),
    "f2c-curricularface": F2CSettings(margin=CURRICULARFACE, dcc_share=0.3, chunk_slots=16),
    "dcq-adaface": DCQSettings(margin=ADAFACE, dcc_share=0.3, chunk_slots=16),
}


def small_profile(
    head: str = "identity", precision: str = "fp32", steps: int = 8, num_ids: int = 40, **optim: Any
) -> TrainProfile:
    """The tiny network at 32 pixels, batch 8."""
    return TrainProfile(
        model=ModelSettings(backbone="tiny", image_size=32, embedding_size=32),
        head=HEADS[head],
        optim=OptimSettings(**{"batch_size": 8, **optim}),
        run=RunSettings(precision=precision, steps=steps),  # type: ignore[arg-type]
    ).resolve(num_ids)


def random_batch(profile: TrainProfile, seed: int = 0) -> Batch:
    """Noise images with random labels and flips."""
    example = Batch.example(profile, torch.device("cpu"))
    generator = torch.Generator().manual_seed(seed)

    def noise(like: torch.Tensor) -> torch.Tensor:
        return torch.randint(0, 256, like.shape, dtype=torch.uint8, generator=generator)

    labels = torch.randint(0, profile.num_ids, example.labels.shape, generator=generator)
    if profile.head.is_paired:  # two thirds of a half are the other half's identities
        half = len(labels) // 2
        labels[half : half + half * 2 // 3] = labels[: half * 2 // 3]
    flips = torch.rand(example.flips.shape, generator=generator) < 0.5
    return Batch(noise(example.query), noise(example.references), flips, labels)
