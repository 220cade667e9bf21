"""The kinds of heads side by side: the choice of each by the same rule, and why one of them was taken."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from attfc_planner.knobs.spaces import Spaces
from attfc_planner.search.candidates import Candidate, Evaluate
from attfc_planner.search.choose import TOLERANCE, Preference, describe, pick
from attfc_planner.search.comparison import AS_FAST
from attfc_planner.search.constraints import Limits
from attfc_planner.search.refusal import miss
from attfc_train.units import GIB

_NO_SHARE: Final = 0.005
"""Share that is written as none."""


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


def why_head(choices: Sequence[HeadChoice], winner: Candidate, prefer: Preference, replaced: Candidate | None = None) -> str:
    """Return in one line why the winner's kind was taken, and what the others would cost.

    Args:
        replaced: the rule's choice, whose place the winner takes (`attfc_planner.search.comparison.PlainLayers.stand_in`).
    """
    kind = winner.profile.head.kind
    told = {kind} if replaced is None else {kind, replaced.profile.head.kind}
    others = [each for each in choices if each.kind not in told]
    fitting = [each.chosen for each in others if each.chosen is not None]
    if replaced is None:
        second = pick(fitting, prefer)
        parts = [f"{kind} is the rule's choice among {len(choices)} kinds of heads"]
    else:
        second = None
        parts = [_standing_in(winner, replaced, len(choices), prefer)]
    if second is not None:
        parts.append(f"the next best is {describe(second).removeprefix('head ')}: {_costs(second, winner)}")
    further = [each for each in fitting if each is not second]
    parts += [f"{describe(each).removeprefix('head ')} fits too: {_costs(each, winner)}" for each in further]
    parts += [f"{each.kind} is not within the limits: {each.missing}" for each in others if each.chosen is None]
    return "; ".join(parts) + "."


def _standing_in(winner: Candidate, replaced: Candidate, num_kinds: int, prefer: Preference) -> str:
    """Return by which figures a layer took the place of the rule's choice."""
    slower = 1 - winner.images_per_second / replaced.images_per_second
    speed = f"{slower:.0%} slower" if slower >= _NO_SHARE else "no slower"
    less = "" if math.isinf(TOLERANCE[prefer]) else f" ({TOLERANCE[prefer]:g} less will do)"
    choice = describe(replaced).removeprefix("head ")
    return (
        f"{winner.profile.head.kind} takes the place of the rule's choice among {num_kinds} kinds of heads, {choice} "
        f"({_costs(replaced, winner)}): a layer of all identities approximates nothing; it is {speed} "
        f"({AS_FAST[prefer]:.0%} will do) and lies at {winner.accuracy_points:+z.2f} points{less}, where of that choice's "
        f"{replaced.accuracy_points:+z.2f} a prior is credited with {replaced.credited_points:+z.2f}"
    )


def _costs(other: Candidate, winner: Candidate) -> str:
    """Return what another candidate takes more: time, points and memory."""
    time = winner.images_per_second / other.images_per_second - 1
    points = other.accuracy_points - winner.accuracy_points
    gib = (other.memory_bytes - winner.memory_bytes) / GIB
    # z: what rounds to nothing has no minus.
    return f"{time:+z.0%} time, {points:+z.2f} points, {gib:+z.1f} GiB"
