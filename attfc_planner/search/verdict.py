"""The answer to what is asked first: whether AttFC is needed at all, in a few sentences made of the compared figures."""

from __future__ import annotations

from collections.abc import Sequence

from attfc_planner.knobs.space import CHECKPOINTING_PHRASES
from attfc_planner.search.candidates import Candidate
from attfc_planner.search.choose import EQUAL_SPEED, TOLERANCE, Preference
from attfc_planner.search.comparison import AS_FAST, PLAIN_KINDS, Compared
from attfc_planner.search.constraints import Limits, accuracy_shortfall, missing_hours
from attfc_planner.search.words import points_words, rate_words, time_words
from attfc_train.heads.kinds import BASELINE
from attfc_train.units import Bytes, format_bytes

_NAMES = {BASELINE: "a full FC layer", "partial_fc": "Partial FC", "attfc": "AttFC"}
_NOT_NEEDED = "is not needed here"
_NO_POINTS = 0.005
"""Points that are written as none."""


def verdict(rows: Sequence[Compared], limits: Limits, prefer: Preference, is_free: bool) -> str:
    """Return the verdict on a choice.

    Args:
        rows: see `attfc_planner.search.comparison.PlainLayers.compared`; fewer than two: there is nothing to say.
        is_free: whether the kind of head was the plan's to choose.
    """
    if len(rows) < 2:
        return ""
    choice, budget_bytes = rows[0], limits.budget_bytes
    answer = _answer(rows, limits, prefer)
    sentences = [_fitting(choice.candidate, budget_bytes)] if choice.kind in PLAIN_KINDS else []
    if choice.kind != BASELINE:
        sentences.append(_full_layer(choice.candidate, [row for row in rows if row.kind == BASELINE], budget_bytes))
    others = [row for row in rows[1:] if row.kind != BASELINE]
    fitting_kinds = {row.kind for row in others if row.fits}
    sentences += [_fitting(row.candidate) for row in others if row.fits]
    sentences += [_misfit(row.candidate, budget_bytes) for row in others if row.kind not in fitting_kinds]
    if answer.endswith(_NOT_NEEDED) and not is_free:
        sentences.append("--head auto weighs them all.")
    return " ".join([f"{answer}.", *(sentence[:1].upper() + sentence[1:] for sentence in sentences)])


def _answer(rows: Sequence[Compared], limits: Limits, prefer: Preference) -> str:
    """Return whether the choice is needed, where a full FC layer and Partial FC stand beside it."""
    choice = rows[0].candidate
    if rows[0].kind in PLAIN_KINDS:
        return f"AttFC {_NOT_NEEDED}"
    name = _name(choice)
    fitting = [row.candidate for row in rows if row.kind in PLAIN_KINDS and row.fits]
    if not fitting:
        return f"{name} is needed here"
    # A layer that breaks another limit is no substitute, however little it is slower or less accurate.
    layers = [each for each in fitting if not _broken([each], limits)]
    if not layers:
        return f"{name} is not needed to fit, but to keep {' and '.join(_broken(fitting, limits))}"
    fast = [each for each in layers if each.images_per_second >= (1 - AS_FAST[prefer]) * choice.images_per_second]
    accurate = [each for each in layers if each.accuracy_points >= choice.credited_points - TOLERANCE[prefer]]
    if any(each in accurate for each in fast):
        return f"{name} {_NOT_NEEDED}"
    gains = [*([] if fast else ["time"]), *([] if accurate else ["accuracy"])] or ["time or accuracy"]
    return f"{name} is not needed to fit, but saves {' and '.join(gains)}"


def _broken(layers: Sequence[Candidate], limits: Limits) -> list[str]:
    """Return the options of the limits, but for memory, that some of the layers break."""
    broken = {
        "--max-hours": any(missing_hours(each, limits) > 0 for each in layers),
        "--max-accuracy-drop": any(accuracy_shortfall(each, limits) > 0 for each in layers),
    }
    return [option for option, is_broken in broken.items() if is_broken]


def _full_layer(choice: Candidate, full: Sequence[Compared], budget_bytes: Bytes) -> str:
    """Return a sentence about the full FC layer beside another choice."""
    misfit = next((row.candidate for row in full if not row.fits), None)
    fitting = next((row.candidate for row in full if row.fits), None)
    if fitting is None:
        return "a full FC layer does not fit." if misfit is None else _misfit(misfit, budget_bytes)
    slower = choice.images_per_second / fitting.images_per_second - 1
    told = f"({format_bytes(fitting.memory_bytes)}), takes {_time(fitting)}, {_against(slower)}, and {_accuracy(fitting)}."
    if misfit is None:
        return f"a full FC layer fits {told}"
    needs = f"would need {format_bytes(misfit.memory_bytes)} of {format_bytes(budget_bytes)} with this batch"
    return f"a full FC layer {needs}; it fits {_way(fitting, choice)} {told}"


def _against(slower: float) -> str:
    """Return how much longer than the choice something takes, in words."""
    if abs(slower) <= EQUAL_SPEED:
        return "as long"
    return f"{slower:.0%} longer" if slower > 0 else f"{-slower:.0%} less long"


def _fitting(candidate: Candidate, budget_bytes: Bytes | None = None) -> str:
    """Return a sentence about a layer that fits; that of the choice names the budget."""
    memory = format_bytes(candidate.memory_bytes)
    held = f"({memory})" if budget_bytes is None else f"({memory} of {format_bytes(budget_bytes)})"
    fits = "fits too" if budget_bytes is None else "fits"
    return f"{_name(candidate)} {fits} {held}, takes {_time(candidate)} and {_accuracy(candidate)}."


def _misfit(candidate: Candidate, budget_bytes: Bytes) -> str:
    needs = f"would need {format_bytes(candidate.memory_bytes)} of {format_bytes(budget_bytes)} with this batch"
    return f"{_name(candidate)} {needs}, and fits with no other batch or parts either."


def _name(candidate: Candidate) -> str:
    kind = candidate.profile.head.kind
    rate = candidate.setting.get("sample_rate")
    return _NAMES.get(kind, kind) + ("" if rate is None else f" at sample rate {rate:g}")


def _way(candidate: Candidate, choice: Candidate) -> str:
    """Return in what a layer differs from the choice, of what both have."""
    optim = candidate.profile.optim
    parts = f"in {optim.accumulation} parts of {optim.micro_batch_size}" if optim.accumulation > 1 else "as a whole"
    checkpointing = CHECKPOINTING_PHRASES[candidate.setting.gradient_checkpointing]
    is_split_alike = optim.micro_batch_size == choice.profile.optim.micro_batch_size
    told = [
        f"at batch {optim.batch_size}" if optim.batch_size != choice.profile.optim.batch_size else "",
        "" if is_split_alike else parts,
        f"with {checkpointing}" if checkpointing else "",
    ]
    return " ".join(filter(None, told))


def _time(candidate: Candidate) -> str:
    hours = candidate.hours_interval
    return rate_words(candidate.speed.images_per_second) if hours is None else time_words(hours)


def _accuracy(candidate: Candidate) -> str:
    is_measure = candidate.profile.head.kind == BASELINE and abs(candidate.accuracy_points) < _NO_POINTS
    return "loses no accuracy" if is_measure else f"is expected at {points_words(candidate.accuracy)}"
