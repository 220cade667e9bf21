"""What a user should know before a training is begun: limits that may be missed, and data that are too few."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attfc_planner.plan.request import PlanRequest
from attfc_planner.search.candidates import Candidate
from attfc_planner.search.words import feeding_words, rate_words, time_words
from attfc_planner.speed.loading import decoding_words
from attfc_train.profile.search_summary import ConstraintSlack

LEAST_IDS = 1_000
"""Identities below which a network that is trained from scratch does not learn to tell strangers apart."""
USUAL_IDS = 10_000
"""The smallest published set on which an r50 is trained from scratch has about as many: CASIA-WebFace, 10,575 (Yi et al. 2014,
arXiv 1411.7923). Below, what strangers are told apart by gets poorer: a small network of 2014, trained again on parts of that
set, fell on LFW from 79.9 % with 8,460 identities to 73.5 with 264 (github.com/joyhuang9473/deepid-implementation)."""
LEAST_IMAGES_PER_ID = 2
_SMALLER = {"r18": "mbf", "r34": "mbf", "r50": "mbf", "r100": "r50", "r200": "r50"}
"""Backbone -> a smaller one to advise."""
_TOY = "tiny"
"""The backbone to try the tool with: nobody expects it to recognise strangers."""


def notes_of(request: PlanRequest, winner: Candidate, constraints: Sequence[ConstraintSlack]) -> tuple[str, ...]:
    """Return the notes on a plan, a line each, the gravest first."""
    backbone = winner.profile.model.backbone
    return (
        *(_few_identities(request.num_ids, backbone) if backbone != _TOY else ()),
        *_few_images(request.num_ids, request.num_images),
        *_unfed(winner),
        *_missed_hours(winner, constraints),
        *_teacher(winner),
        *_compiled(winner),
        *_channels_last(winner),
    )


def _few_identities(num_ids: int, backbone: str) -> Iterator[str]:
    if num_ids >= USUAL_IDS:
        return
    smaller = f"a smaller network (--backbone {_SMALLER[backbone]}), " if backbone in _SMALLER else ""
    remedy = f"more identities, {smaller}or fine-tuning a trained model: attfc-train --init MODEL"
    usual = f"the smallest published set for that has about {USUAL_IDS:,}"
    if num_ids < LEAST_IDS:
        yield (
            f"{num_ids:,} identities are too few to train {backbone} from scratch: it will not learn to tell strangers apart "
            f"({usual}). What works: {remedy}."
        )
    else:
        yield (
            f"{num_ids:,} identities are few for {backbone} from scratch: expect several points less than is published "
            f"({usual}). What helps: {remedy}."
        )


def _few_images(num_ids: int, num_images: int | None) -> Iterator[str]:
    if num_images is not None and num_images < LEAST_IMAGES_PER_ID * num_ids:
        yield (
            f"{num_images:,} images of {num_ids:,} identities are {num_images / num_ids:.1f} each: an identity with one image "
            f"teaches nothing of what its images share. Leave such identities out, or add images."
        )


def _missed_hours(winner: Candidate, constraints: Sequence[ConstraintSlack]) -> Iterator[str]:
    hours = winner.hours_interval
    limit = next((each for each in constraints if each.name == "hours"), None)
    if limit is not None and hours is not None and limit.may_be_missed:
        yield f"Training takes {time_words(hours)}; your limit of {limit.limit:g} h may be missed."


def _unfed(winner: Candidate) -> Iterator[str]:
    speed = winner.speed.loading
    loading = speed.to_save()
    if not loading.is_limit or speed.cores is None or loading.needed_cores is None or loading.images_per_second is None:
        return
    yield (
        f"Data loading limits this training: {decoding_words(speed.cores)} {rate_words(loading.images_per_second)}, and "
        f"without that it would be {rate_words(loading.step_images_per_second)}. {feeding_words(loading)}."
    )


def _teacher(winner: Candidate) -> Iterator[str]:
    if winner.profile.teacher.is_on:
        yield "Memory and time count the teacher's forward pass. The accuracy does not: nothing is known of what it adds."


def _compiled(winner: Candidate) -> Iterator[str]:
    if winner.profile.run.compile:
        yield (
            "Memory and speed are those of encoders as they are written. Compiled ones take no more memory after the first "
            "step (docs/how-true.md); how much faster they are here, attfc-train profile-step measures."
        )


def _channels_last(winner: Candidate) -> Iterator[str]:
    if winner.profile.model.channels_last:
        yield (
            "Speed is that of images and filters with their channels apart. How much faster channels-last ones are here, "
            "attfc-train profile-step measures."
        )
