"""The kinds of heads side by side: the choice of each by the same rule, and why one of them was taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attfc_planner.knobs.spaces import Spaces
from attfc_planner.search.candidates import Candidate, Evaluate
from attfc_planner.search.choose import Preference, describe, pick
from attfc_planner.search.constraints import Limits
from attfc_planner.search.refusal import miss
from attfc_train.units import GIB


@dataclass(frozen=True)
class HeadChoice:
    """The setting that the rule chooses among those of one kind of head."""

    kind: str
    chosen: Candidate | None
    """None: no setting of this kind respects the limits."""
    missing: str = ""
    """What such a setting is short of."""


def head_choices(
    spaces: Spaces,
    fronts: Sequence[Sequence[Candidate]],
    winner: Candidate,
    evaluate: Evaluate,
    limits: Limits,
    prefer: Preference,
    device: str,
) -> tuple[HeadChoice, ...]:
    """Return the choice of every kind of head, in the order of the spaces; the winner stands for its own.

    Args:
        fronts: of every space, see `attfc_planner.search.study.plain_fronts`.
    """
    choices = []
    for space, kind, front in zip(spaces, spaces.kinds, fronts, strict=True):
        chosen = winner if kind == winner.setting.head else pick(front, prefer)
        missing = "" if chosen else miss(space, evaluate, limits, device).short
        choices.append(HeadChoice(str(kind), chosen, missing))
    return tuple(choices)


def why_head(choices: Sequence[HeadChoice], winner: Candidate, prefer: Preference) -> str:
    """Return in one line why the winner's kind was taken, and what the others would cost."""
    kind = winner.profile.head.kind
    others = [each for each in choices if each.kind != kind]
    fitting = [each.chosen for each in others if each.chosen is not None]
    second = pick(fitting, prefer)
    parts = [f"{kind} is the rule's choice among {len(choices)} kinds of heads"]
    if second is not None:
        parts.append(f"the next best is {describe(second).removeprefix('head ')}: {_costs(second, winner)}")
    parts += [f"{each.profile.head.kind} fits too: {_costs(each, winner)}" for each in fitting if each is not second]
    parts += [f"{each.kind} is not within the limits: {each.missing}" for each in others if each.chosen is None]
    return "; ".join(parts) + "."


def _costs(other: Candidate, winner: Candidate) -> str:
    """Return what another candidate takes more: time, points and memory."""
    time = winner.images_per_second / other.images_per_second - 1
    points = other.accuracy_points - winner.accuracy_points
    gib = (other.memory_bytes - winner.memory_bytes) / GIB
    # z: what rounds to nothing has no minus.
    return f"{time:+z.0%} time, {points:+z.2f} points, {gib:+z.1f} GiB"
