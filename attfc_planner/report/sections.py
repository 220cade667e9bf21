"""The sections of the report: plan, memory, Pareto front, study, measurements, and the commands to repeat it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import replace
from html import escape

from attfc_planner.accuracy.prior import midpoint
from attfc_planner.knobs.space import GRADIENT_CHECKPOINTING, HEAD, knobs_of
from attfc_planner.report.figures import Mark, Point, Row, bars, digits, intervals, scatter
from attfc_planner.report.measured import Measured
from attfc_planner.report.page import Section, command, pairs, table
from attfc_planner.report.study_history import LEAST_TRIALS, Objective
from attfc_planner.screens.comparison import batch_words, fits_word, head_words
from attfc_planner.screens.front_table import ALIKE
from attfc_planner.screens.plan import head_keeps, loading_row, several_rows
from attfc_planner.search.words import TimeUnit, about_hours, points_words, rate_words, time_words, unit_for
from attfc_train.document import Value
from attfc_train.profile.prediction import Interval, MemoryPrediction, Prediction
from attfc_train.profile.profile import TrainProfile
from attfc_train.profile.search_summary import ConstraintSlack, FrontPoint, HeadFigures, SearchSummary
from attfc_train.units import GIB, MIB, format_bytes

MOST_ROWS = 40
"""Rows of the Pareto front's table."""
_POINTS = "points against a full FC layer"
_AXES = {
    "accuracy points": _POINTS,
    "accuracy": "verification accuracy (share of pairs)",
    "hours": "hours of training",
    "hours a million images": "hours of training a million images",
    "images/s": "images per second",
}
"""Name of a study's objective -> its axis, with the unit."""


def comparison_section(search: SearchSummary) -> Section:
    """Return the verdict, and the choice beside a full FC layer and Partial FC."""
    unit = unit_for([each.hours for each in search.comparison if each.hours is not None])
    lines = "".join(f"<p>{escape(line)}</p>" for line in (search.verdict, *search.notes) if line)
    timed = all(each.hours is not None for each in search.comparison)
    head = ("head", "judged", "batch", "B/id", "memory", "fits?", "images/s", *([unit.name] if timed else []), "points")
    rows = [_compared_row(each, unit) for each in search.comparison]
    body = table(head, rows, "About how much each needs and reaches; in brackets from where to where that may be.", chosen=0)
    return Section(
        "Is AttFC needed?" if rows else "Note",
        lines + (_compared_figures(search, unit, timed) + body if rows else ""),
        wide=True,
    )


def _compared_figures(search: SearchSummary, unit: TimeUnit, timed: bool) -> str:
    """Return pictures of speed, or of time where it is known, and of accuracy."""
    speeds = [_speed_row(each, unit, timed) for each in search.comparison]
    points = [
        Row(_compared_name(each), each.accuracy, midpoint(each.accuracy), points_words(each.accuracy), _mark(each))
        for each in search.comparison
    ]
    x_name = f"{unit.name} of training" if timed else "images per second"
    title = "Time." if timed else "Speed."
    about = "The line reaches from where to where it may be; hollow points need too much memory, the red one is chosen."
    return (
        '<div class="figures">'
        f"{intervals(speeds, x_name, title, f'{x_name[:1].upper()}{x_name[1:]} of each head. {about}')}"
        f"{intervals(points, _POINTS, 'Accuracy.', f'Points of verification accuracy against a full FC layer. {about}')}</div>"
    )


def _speed_row(figures: HeadFigures, unit: TimeUnit, timed: bool) -> Row:
    name = _compared_name(figures)
    if timed and figures.hours is not None:
        hours = figures.hours
        return Row(name, _in_unit(hours, unit), about_hours(hours) / unit.hours, time_words(hours), _mark(figures))
    rate = figures.images_per_second
    return Row(name, rate, midpoint(rate), rate_words(rate), _mark(figures))


def _in_unit(hours: Interval, unit: TimeUnit) -> Interval:
    return Interval(low=hours.low / unit.hours, high=hours.high / unit.hours, source=hours.source)


def _compared_name(figures: HeadFigures) -> str:
    fits = "" if figures.fits else ", too much memory"
    return f"{head_words(figures)}, {figures.role}{fits}"


def _mark(figures: HeadFigures) -> Mark:
    return "chosen" if figures.role == "chosen" else "point" if figures.fits else "faint"


def _compared_row(figures: HeadFigures, unit: TimeUnit) -> tuple[str, ...]:
    kept = "-" if figures.bytes_per_identity is None else f"{figures.bytes_per_identity:,.0f}"
    times = [] if figures.hours is None else ["{} ({})".format(*unit.about_and_ends(figures.hours))]
    return (
        head_words(figures),
        figures.role,
        batch_words(figures),
        kept,
        format_bytes(figures.memory_bytes),
        fits_word(figures),
        _about(figures.images_per_second, ",.0f"),
        *times,
        _about(figures.accuracy, "+.2f"),
    )


def _about(interval: Interval, form: str) -> str:
    return f"{midpoint(interval):{form}} ({_range(interval, form)})"


def plan_section(profile: TrainProfile) -> Section:
    """Return the settings that matter, and what is expected of them."""
    rows = [("backbone", f"{profile.model.backbone}, {profile.model.image_size} pixels, {profile.run.precision}")]
    if profile.data.num_ids is not None:
        rows.append(("identities", f"{profile.data.num_ids:,}"))
    rows += profile.head.rows()
    parts = f" in {profile.optim.accumulation} parts" if profile.optim.accumulation > 1 else ""
    rows.append(("batch", f"{profile.optim.batch_size:,} images{parts}"))
    assert GRADIENT_CHECKPOINTING.row is not None
    rows.append(GRADIENT_CHECKPOINTING.row(profile.model))
    rows.append(("learning rate", f"{profile.optim.learning_rate:g}"))
    if profile.prediction is not None:
        rows += [*head_keeps(profile), *_expected_rows(profile.prediction, profile.num_references)]
        rows += [(name, words) for name, words, _ in several_rows(profile)]
    return Section("Plan", pairs(rows))


def _expected_rows(prediction: Prediction, num_references: int) -> list[tuple[str, str]]:
    rows = [("images/s", f"{_range(prediction.images_per_second, ',.0f')}; limited by {prediction.limited_by}")]
    loading = loading_row(prediction.loading, num_references)
    rows += [(name, words) for name, words, _ in loading]
    if prediction.hours_per_epoch is not None:
        rows.append(("time per epoch", time_words(prediction.hours_per_epoch)))
    if prediction.hours is not None:
        rows.append(("time to train", time_words(prediction.hours)))
    rows.append(("accuracy", f"{points_words(prediction.accuracy)} against a full FC layer"))
    sources = {"speed": prediction.images_per_second.source, **{name: source for name, _, source in loading if source}}
    sources["accuracy"] = prediction.accuracy.source
    return rows + [(f"source of the {name}", source) for name, source in sources.items()]


def _range(interval: Interval, form: str) -> str:
    return f"{interval.low:{form}} to {interval.high:{form}}"


def memory_section(memory: MemoryPrediction) -> Section:
    """Return every term with its share and source."""
    total = memory.total_bytes
    ordered = sorted(memory.terms, key=lambda term: -term.bytes)
    rows = [(term.name, term.bytes, f"{term.bytes / MIB:,.0f} MiB", term.source) for term in ordered]
    fits = "fits" if total <= memory.budget_bytes else "does not fit"
    caption = (
        f"{format_bytes(total)} at the peak (phase {memory.peak_phase}, operator {memory.peak_operator}), "
        f"{total / memory.budget_bytes:.0%} of {format_bytes(memory.budget_bytes)}: {fits}."
    )
    return Section("Memory", bars(rows, caption))


def front_section(search: SearchSummary, profile: TrainProfile) -> Section:
    """Return the Pareto front as a picture and as a table, the rule, and how much room the constraints left."""
    chosen = _chosen(search.front, profile)
    knobs = "; ".join(f"{name}: {', '.join(map(str, values))}" for name, values in search.knobs.items())
    tables = f"<div>{_front_table(search, chosen)}{_slack_table(search.constraints)}</div>"
    body = (
        f"<p>{escape(search.rule)}</p>{_why_head(search)}"
        f'<div class="figures">{_front_picture(search, chosen, profile.prediction)}{tables}</div>'
        f'<p class="soft">Searched: {search.num_settings:,} settings. {escape(knobs)}.</p>'
        + "".join(f'<p class="soft">Not searched: {escape(text)}</p>' for text in search.left_out)
    )
    return Section("Pareto front", body, wide=True)


def _why_head(search: SearchSummary) -> str:
    return f"<p>{escape(search.why_head)}</p>" if search.why_head else ""


def _hours(search: SearchSummary) -> list[float]:
    return [member.hours for member in search.front if member.hours is not None]


def _has_hours(search: SearchSummary) -> bool:
    return bool(search.front) and search.front[0].hours is not None


def _front_picture(search: SearchSummary, chosen: int | None, prediction: Prediction | None) -> str:
    unit = unit_for(_hours(search))
    points = [Point(*_place(member, unit), _label(member, unit)) for member in search.front]
    x_name = f"{unit.name} of training" if _has_hours(search) else "images per second"
    description = f"{len(points)} settings, of which none is faster and more accurate at once"
    if chosen is not None:
        across, up = _chosen_spans(prediction, unit, _has_hours(search))
        points[chosen] = replace(points[chosen], mark="chosen", across=across, up=up)
        description += "; the chosen one is larger, with its interval, which goes on where it reaches an edge"
    description += f". Accuracy in {_POINTS} over {x_name}."
    return scatter(points, x_name, _POINTS, "Pareto front.", description) if points else ""


def _chosen_spans(prediction: Prediction | None, unit: TimeUnit, timed: bool) -> tuple[Interval | None, Interval | None]:
    """Return the intervals of the chosen setting's time or speed, and of its accuracy, as far as they are known."""
    if prediction is None:
        return None, None
    if not timed:
        return prediction.images_per_second, prediction.accuracy
    return None if prediction.hours is None else _in_unit(prediction.hours, unit), prediction.accuracy


def _front_table(search: SearchSummary, chosen: int | None) -> str:
    """Return the front with a column for every knob in which its members differ."""
    front = search.front
    names = sorted({name for member in front for name in member.settings})
    varied = [name for name in names if len({member.settings.get(name) for member in front}) > 1]
    unit = unit_for(_hours(search))
    head = (unit.name if _has_hours(search) else "images/s", "points", "memory", *varied)
    shown = [place for place, member in enumerate(front) if member.row in (None, place)]
    cut = f" The first {MOST_ROWS} of {len(shown)}." if len(shown) > MOST_ROWS else ""
    alike = f" {len(front) - len(shown)} more are alike to one of these: {ALIKE}." if len(shown) < len(front) else ""
    rows = [_front_row(front[place], varied, unit) for place in shown[:MOST_ROWS]]
    stressed = shown.index(chosen) if chosen in shown else None
    return table(head, rows, f"The front, fastest first.{cut}{alike}", stressed)


def _slack_table(constraints: Sequence[ConstraintSlack]) -> str:
    rows = [
        (each.name, _valued(each), f"{digits(each.limit)} {each.unit}", f"{digits(each.slack)} {each.unit}{_warning(each)}")
        for each in constraints
    ]
    return table(("constraint", "value", "limit", "room"), rows, "How much room the chosen setting leaves.")


def _valued(constraint: ConstraintSlack) -> str:
    """Return the value, with the ends of its interval where it has one."""
    if constraint.low is None or constraint.high is None:
        return digits(constraint.value)
    return f"{digits(constraint.value)} ({digits(constraint.low)} to {digits(constraint.high)})"


def _warning(constraint: ConstraintSlack) -> str:
    return ", may be missed" if constraint.may_be_missed else ""


def _chosen(front: Sequence[FrontPoint], profile: TrainProfile) -> int | None:
    """Return the place on the front of the profile's setting, by the knobs that can be read off the profile."""
    own: dict[str, Value] = {
        knob.name: getattr(getattr(profile, knob.section), knob.name)
        for knob in knobs_of(type(profile.head))
        if knob is not HEAD
    }
    own[HEAD.name] = profile.head.kind
    for number, member in enumerate(front):
        if all(own.get(name, value) == value for name, value in member.settings.items() if value is not None):
            return number
    return None


def _place(member: FrontPoint, unit: TimeUnit) -> tuple[float, float]:
    return (member.images_per_second if member.hours is None else member.hours / unit.hours), member.accuracy


def _label(member: FrontPoint, unit: TimeUnit) -> str:
    knobs = ", ".join(f"{name} {value}" for name, value in member.settings.items() if value is not None)
    return f"{_place(member, unit)[0]:,.4g}, {member.accuracy:+.2f} points, {format_bytes(member.memory_bytes)}: {knobs}"


def _front_row(member: FrontPoint, varied: Sequence[str], unit: TimeUnit) -> tuple[str, ...]:
    knobs = (str(member.settings.get(name, "")) for name in varied)
    return f"{_place(member, unit)[0]:,.4g}", f"{member.accuracy:+.2f}", f"{member.memory_bytes / GIB:.2f} GiB", *knobs


def study_section(objectives: Sequence[Objective]) -> Section:
    """Return the trials in order and the importances, for every objective."""
    parts = [_history(objective) for objective in objectives if objective.trials]
    parts += [_importances(objective) for objective in objectives]
    return Section("Study", f'<div class="figures">{"".join(parts)}</div>', wide=True)


def _history(objective: Objective) -> str:
    """Return the trials as a plot, with the best value so far as a line from the first feasible trial on."""
    trials = objective.trials
    points = [
        Point(trial.number, trial.value, f"trial {trial.number}: {trial.value:.4g}", "point" if trial.feasible else "faint")
        for trial in trials
    ]
    best = zip(trials, objective.best(), strict=True)
    line = [Point(trial.number, value, "") for trial, value in best if not math.isnan(value)]
    broken = sum(not trial.feasible for trial in trials)
    description = (
        f"{len(points)} trials of study {objective.study}, {broken} of them break a constraint (hollow), "
        f"{objective.not_finished} without a result; "
        f"the line is the best so far ({'highest' if objective.maximised else 'lowest'})."
    )
    title = f"{objective.name[:1].upper()}{objective.name[1:]}."
    return scatter(points, "number of the trial", _AXES.get(objective.name, objective.name), title, description, line)


def _importances(objective: Objective) -> str:
    name = objective.name
    if not objective.importances:
        return f'<p class="soft">{escape(name)}: no importances, there are fewer than {LEAST_TRIALS} trials that differ.</p>'
    rows = [(knob, share, f"{share:.0%}", "") for knob, share in objective.importances.items()]
    return bars(rows, f"What {name} depended on in study {objective.study} (PED-ANOVA over its trials).")


def measured_section(measured: Measured, prediction: Prediction) -> Section:
    """Return predicted beside measured, and the speed as a picture."""
    body = table(("figure", "predicted", "measured"), measured.rows, f"Run {measured.run}.")
    if measured.images_per_second is not None:
        rate = prediction.images_per_second
        row = Row("predicted", rate, midpoint(rate), rate_words(rate), measured=measured.images_per_second)
        description = f"Predicted {rate_words(rate)}; the upright line is what was measured."
        body = f'<div class="figures">{intervals([row], "images per second", "Speed.", description)}<div>{body}</div></div>'
    return Section("Predicted and measured", body, wide=True)


def commands_section(profile: TrainProfile, path: str, run: str | None) -> Section:
    """Return the commands that give the same again, and the versions that it was made with."""
    made = profile.provenance
    commands = []
    if made is not None:
        commands.append(made.command)
    data = [] if profile.data.path else ["--data", "DATA"]
    commands.append(shlex.join(["attfc-train", "--profile", path, *data]))
    if run is not None:
        commands.append(shlex.join(["attfc-train", "evaluate", run]))
    body = "".join(map(command, commands))
    if made is not None:
        body += (
            f'<p class="soft">Planned {escape(made.created)} with attfc {escape(made.attfc_version)}, torch '
            f"{escape(made.torch_version)}, for {escape(made.gpu)} ({escape(made.gpu_source)}); seed {made.seed}, "
            f"{made.num_trials} trials.</p>"
        )
    return Section("Again", body, wide=True)
