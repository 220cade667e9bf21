"""The sections of the report: plan, memory, Pareto front, study, measurements, and the commands to repeat it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from html import escape

from attfc_planner.knobs.space import HEAD, knobs_of
from attfc_planner.report.figures import Point, bars, digits, scatter
from attfc_planner.report.page import Section, pairs, table
from attfc_planner.report.study_history import LEAST_TRIALS, Objective
from attfc_planner.screens.comparison import batch_words, fits_word, head_words
from attfc_planner.screens.front_table import ALIKE
from attfc_planner.screens.plan import head_keeps
from attfc_planner.search.words import TimeUnit, points_words, time_words, unit_for
from attfc_train.document import Value
from attfc_train.profile.prediction import Interval, MemoryPrediction, Prediction
from attfc_train.profile.profile import TrainProfile
from attfc_train.profile.search_summary import ConstraintSlack, FrontPoint, HeadFigures, SearchSummary
from attfc_train.units import GIB, MIB, format_bytes

MOST_ROWS = 40
"""Rows of the Pareto front's table."""


def comparison_section(search: SearchSummary) -> Section:
    """Return the verdict, and the choice beside a full FC layer and Partial FC."""
    unit = unit_for([each.hours for each in search.comparison if each.hours is not None])
    lines = "".join(f"<p>{escape(line)}</p>" for line in (search.verdict, *search.notes) if line)
    head = ("head", "", "batch", "B/id", "memory", "", "images/s", f"{unit.name} (from, to)", "points")
    rows = [_compared_row(each, unit) for each in search.comparison]
    body = table(head, rows, "About how much each needs and reaches; in brackets from where to where that may be.", chosen=0)
    return Section("Is AttFC needed?" if rows else "Note", lines + (body if rows else ""), wide=True)


def _compared_row(figures: HeadFigures, unit: TimeUnit) -> tuple[str, ...]:
    kept = "-" if figures.bytes_per_identity is None else f"{figures.bytes_per_identity:,.0f}"
    about, ends = ("-", "") if figures.hours is None else unit.about_and_ends(figures.hours)
    return (
        head_words(figures),
        figures.role,
        batch_words(figures),
        kept,
        format_bytes(figures.memory_bytes),
        fits_word(figures),
        _about(figures.images_per_second, ",.0f"),
        f"{about} ({ends})" if ends else about,
        _about(figures.accuracy, "+.2f"),
    )


def _about(interval: Interval, form: str) -> str:
    return f"{(interval.low + interval.high) / 2:{form}} ({_range(interval, form)})"


def plan_section(profile: TrainProfile) -> Section:
    """Return the settings that matter, and what is expected of them."""
    rows = [("backbone", f"{profile.model.backbone}, {profile.model.image_size} pixels, {profile.run.precision}")]
    if profile.data.num_ids is not None:
        rows.append(("identities", f"{profile.data.num_ids:,}"))
    rows += profile.head.rows()
    parts = f" in {profile.optim.accumulation} parts" if profile.optim.accumulation > 1 else ""
    rows.append(("batch", f"{profile.optim.batch_size:,} images{parts}"))
    rows.append(("gradient checkpointing", "on" if profile.model.gradient_checkpointing else "off"))
    rows.append(("learning rate", f"{profile.optim.learning_rate:g}"))
    if profile.prediction is not None:
        rows += [*head_keeps(profile), *_expected_rows(profile.prediction)]
    return Section("Plan", pairs(rows))


def _expected_rows(prediction: Prediction) -> list[tuple[str, str]]:
    rows = [("images/s", f"{_range(prediction.images_per_second, ',.0f')}; limited by {prediction.limited_by}")]
    if prediction.hours_per_epoch is not None:
        rows.append(("time per epoch", time_words(prediction.hours_per_epoch)))
    if prediction.hours is not None:
        rows.append(("time to train", time_words(prediction.hours)))
    rows.append(("accuracy", f"{points_words(prediction.accuracy)} against a full FC layer"))
    sources = {"speed": prediction.images_per_second.source, "accuracy": prediction.accuracy.source}
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
        f'<div class="figures">{_front_picture(search, chosen)}{tables}</div>'
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


def _front_picture(search: SearchSummary, chosen: int | None) -> str:
    unit = unit_for(_hours(search))
    points = [
        Point(*_place(member, unit), _label(member, unit), "chosen" if number == chosen else "point")
        for number, member in enumerate(search.front)
    ]
    x_name = f"{unit.name} of training" if _has_hours(search) else "images per second"
    description = (
        f"{len(points)} settings, of which none is faster and more accurate at once; the chosen one is larger. "
        f"Accuracy in points against a full FC layer over {x_name}."
    )
    return scatter(points, x_name, "Pareto front.", description) if points else ""


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
    return scatter(points, "trial", f"{objective.name[:1].upper()}{objective.name[1:]}.", description, line)


def _importances(objective: Objective) -> str:
    name = objective.name
    if not objective.importances:
        return f'<p class="soft">{escape(name)}: no importances, there are fewer than {LEAST_TRIALS} trials that differ.</p>'
    rows = [(knob, share, f"{share:.0%}", "") for knob, share in objective.importances.items()]
    return bars(rows, f"What {name} depended on in study {objective.study} (PED-ANOVA over its trials).")


def measured_section(rows: Sequence[tuple[str, str, str]], run: str) -> Section:
    """Return predicted beside measured."""
    return Section("Predicted and measured", table(("", "predicted", "measured"), rows, f"Run {run}."))


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
    body = "".join(f"<pre><code>{escape(command)}</code></pre>" for command in commands)
    if made is not None:
        body += (
            f'<p class="soft">Planned {escape(made.created)} with attfc {escape(made.attfc_version)}, torch '
            f"{escape(made.torch_version)}, for {escape(made.gpu)} ({escape(made.gpu_source)}); seed {made.seed}, "
            f"{made.num_trials} trials.</p>"
        )
    return Section("Again", body)
