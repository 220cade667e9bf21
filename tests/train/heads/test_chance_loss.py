"""The loss of telling nobody apart: what a head says it is, and what it is."""

from __future__ import annotations

import math
from statistics import median

import pytest
import torch

from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.heads.containers.writes import commit
from attfc_train.heads.dcq.settings import DCQSettings
from attfc_train.heads.f2c.settings import F2CSettings
from attfc_train.heads.full_fc.settings import FullFCSettings
from attfc_train.heads.head import Head
from attfc_train.heads.kinds import HeadSite, build_head
from attfc_train.heads.partial_fc.settings import PartialFCSettings
from attfc_train.heads.running_margin import RunningCosine
from attfc_train.heads.settings import HeadSettings, MarginSettings
from attfc_train.losses.margin import Margin
from attfc_train.losses.reference import chance_loss
from attfc_train.optim import schedule

CPU = torch.device("cpu")
NUM_IDS, DIM, BATCH = 60, 16, 12
MARGINS = (Margin("arcface", 0.5), Margin("cosface", 0.2), Margin("combined", 0.3, "exact", 1.1, 0.1))
SETTINGS: dict[str, HeadSettings] = {
    "full_fc": FullFCSettings(),
    "partial_fc": PartialFCSettings(sample_rate=0.5),
    "identity": AttFCSettings(chunk_slots=16),
    "identity-R0": AttFCSettings(num_references=0, chunk_slots=16),
    "identity-20%": AttFCSettings(dcc_share=0.2, chunk_slots=16),
    "identity-20%-alone": AttFCSettings(dcc_share=0.2, batch_negatives=False, chunk_slots=16),
    "identity-growing": AttFCSettings(first_scored_share=0.3, growing_share=1.0, chunk_slots=16),
    "fifo": AttFCSettings(policy="fifo", queue_length=1, dcc_share=0.5, num_references=2, chunk_slots=16),
    "f2c": F2CSettings(dcc_share=0.5, chunk_slots=16),
    "f2c-everyone": F2CSettings(dcc_share=1.0, chunk_slots=16),
    "dcq": DCQSettings(dcc_share=0.5, chunk_slots=16),
}


@pytest.mark.parametrize("margin", MARGINS, ids=lambda margin: margin.kind)
@pytest.mark.parametrize("cosine", [0.0, 0.3, 0.95, 1.0])
def test_it_is_the_loss_of_equal_cosines(margin: Margin, cosine: float) -> None:
    """Catches a wrong sign of the margin, and n + 1 classes in place of n others."""
    cosines = torch.full((41,), cosine, dtype=torch.float64)
    logits = 30.0 * torch.cat([margin.apply(cosines[:1]), cosines[1:]])
    assert chance_loss(cosine, 40, margin, 30.0) == pytest.approx(float(-torch.log_softmax(logits, 0)[0]), rel=1e-9)


@pytest.mark.parametrize("cosine", [0.0, 0.3, 0.95])
def test_margins_with_statistics_are_those_of_a_query_like_most(cosine: float) -> None:
    """AdaFace is CosFace's there. Catches negatives of CurricularFace that count as they are."""
    site = HeadSite(NUM_IDS, DIM, BATCH, BATCH, seed=3, total_steps=60)
    told = {}
    for kind in ("adaface", "curricularface", "arcface", "cosface"):
        margin = MarginSettings.model_validate({"kind": kind, "margin": 0.4, "scale": 8.0})
        head = build_head(FullFCSettings(margin=margin), site, CPU)
        if isinstance(head.running, RunningCosine):
            head.running.hardness.fill_(0.6)
        labels = torch.arange(BATCH)
        features = torch.randn(BATCH, DIM, generator=torch.Generator().manual_seed(0))
        head(features, torch.empty(0), labels, head.begin_step(labels, 0), schedule.margin(margin, 0))
        told[kind] = head.chance_loss(cosine, schedule.margin(margin, 0), {})
    assert told["adaface"] == pytest.approx(told["cosface"])
    own = math.cos(math.acos(cosine) + 0.4)
    others = cosine * (0.6 + cosine)
    expected = math.log(1 + (NUM_IDS - 1) * math.exp(8.0 * (others - own)))
    assert told["curricularface"] == pytest.approx(expected, rel=1e-5)


def test_no_others_and_large_scales_are_no_trouble() -> None:
    """Catches log 0, and exp of 256 x 2."""
    assert chance_loss(0.5, 0, MARGINS[0], 64.0) == 0
    assert chance_loss(0.0, 10**9, Margin("cosface", 0.0), 256.0) == pytest.approx(9 * math.log(10), rel=1e-9)
    assert math.isfinite(chance_loss(0.0, 10**9, Margin("cosface", 0.99), 256.0))


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_head_tells_the_loss_of_features_and_centers_that_are_alike(kind: str) -> None:
    """Catches a head that counts identities in place of filled slots, or forgets a micro-batch's fresh centers."""
    settings = SETTINGS[kind].resolved(NUM_IDS)
    head = build_head(settings, HeadSite(NUM_IDS, DIM, BATCH, BATCH, seed=3, total_steps=60), CPU)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.fill_(1.0)  # the rows of a learned layer
    generator = torch.Generator().manual_seed(0)
    steps = [one_step(head, settings, torch.randperm(NUM_IDS, generator=generator)[:BATCH], step) for step in range(60)]
    # As the watch does, medians: which queries have a slot, and which slots are scored, differs from step to step.
    losses, told = zip(*steps[40:], strict=True)
    assert median(told) == pytest.approx(median(losses), abs=0.1)


def one_step(head: Head, settings: HeadSettings, labels: torch.Tensor, step: int) -> tuple[float, float]:
    """The loss of a step in which all images look the same, and the head's word for it."""
    margin = MARGINS[1]
    weights = head.begin_step(labels, step)
    parts = [(labels, weights)]
    if settings.is_paired:
        halves = labels.view(2, -1)
        parts = list(zip((halves, halves.flip(0)), weights.chunk(2), strict=True))
    outputs = []
    for part, part_weights in parts:
        features = torch.ones(len(part_weights), DIM, requires_grad=True)
        references = torch.ones(1 if settings.is_paired else settings.references_per_query, len(part_weights), DIM)
        outputs.append(head(features, references, part, part_weights, margin))
    enqueue = head.prepare_enqueue(torch.cat([output.centers for output in outputs]), labels, step)
    commit(enqueue.writes)
    told = head.chance_loss(1.0, margin, enqueue.observed)
    assert told is not None
    return sum(output.loss.item() for output in outputs), told
