"""What the report says: the plan, its memory, what it was chosen from, the study, what was measured, and how to repeat it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from html import escape

from attfc_planner.knobs.space import knobs_of
from attfc_planner.report.figures import Point, bars, digits, scatter
from attfc_planner.report.page import Section, pairs, table
from attfc_planner.report.study_history import LEAST_TRIALS, Objective
from attfc_train.document import Value
from attfc_train.profile.prediction import Interval, MemoryPrediction, Prediction
from attfc_train.profile.profile import TrainProfile
from attfc_train.profile.search_summary import FrontPoint, SearchSummary
from attfc_train.units import GIB, MIB, format_bytes

MOST_ROWS = 40
"""Of the Pareto front's table."""


def plan_section(profile: TrainProfile) -> Section:
    """The settings that matter, and what is expected of them."""
    rows = [("backbone", f"{profile.model.backbone}, {profile.model.image_size} pixels, {profile.run.precision}")]
    if profile.data.num_ids is not None:
        rows.append(("identities", f"{profile.data.num_ids:,}"))
    rows += profile.head.rows()
    parts = f" in {profile.optim.accumulation} parts" if profile.optim.accumulation > 1 else ""
    rows.append(("batch", f"{profile.optim.batch_size:,} images{parts}"))
    rows.append(("gradient checkpointing", "on" if profile.model.gradient_checkpointing else "off"))
    rows.append(("learning rate", f"{profile.optim.learning_rate:g}"))
    if profile.prediction is not None:
        rows += _expected_rows(profile.prediction)
    return Section("Plan", pairs(rows))


def _expected_rows(prediction: Prediction) -> list[tuple[str, str]]:
    rows = [("images/s", f"{_range(prediction.images_per_second, ',.0f')}; limited by {prediction.limited_by}")]
    if prediction.hours_per_epoch is not None:
        rows.append(("hours per epoch", _range(prediction.hours_per_epoch, ",.3g")))
    rows.append(("accuracy", f"{_range(prediction.accuracy, '+.2f')} points against a full FC layer"))
    sources = {"speed": prediction.images_per_second.source, "accuracy": prediction.accuracy.source}
    return rows + [(f"source of the {name}", source) for name, source in sources.items()]


def _range(interval: Interval, form: str) -> str:
    return f"{interval.low:{form}} to {interval.high:{form}}"


def memory_section(memory: MemoryPrediction) -> Section:
    """Every term with its share and source."""
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
    """The Pareto front as a picture and as a table, the rule, and how much room the constraints left."""
    chosen = _chosen(search.front, profile)
    points = [
        Point(*_place(one), _described(one), "chosen" if number == chosen else "point")
        for number, one in enumerate(search.front)
    ]
    x_name = "hours of training" if search.front and search.front[0].hours is not None else "images per second"
    described = (
        f"{len(points)} settings, of which none is faster and more accurate at once; the chosen one is larger. "
        f"Accuracy in points against a full FC layer over {x_name}."
    )
    picture = scatter(points, x_name, "Pareto front.", described) if points else ""
    names = sorted({name for one in search.front for name, value in one.settings.items()})
    varied = [name for name in names if len({one.settings.get(name) for one in search.front}) > 1]
    rows = [_front_row(one, varied) for one in search.front[:MOST_ROWS]]
    head = ("hours" if x_name.startswith("hours") else "images/s", "points", "memory", *varied)
    left = f" The first {MOST_ROWS} of {len(search.front)}." if len(search.front) > MOST_ROWS else ""
    slack = table(
        ("constraint", "value", "limit", "room"),
        [
            (one.name, digits(one.value), f"{digits(one.limit)} {one.unit}", f"{digits(one.slack)} {one.unit}")
            for one in search.constraints
        ],
        "How much room the chosen setting leaves.",
    )
    knobs = "; ".join(f"{name}: {', '.join(map(str, values))}" for name, values in search.knobs.items())
    listed = table(head, rows, f"The front, fastest first.{left}", chosen)
    body = (
        f'<p>{escape(search.rule)}</p><div class="figures">{picture}<div>{listed}{slack}</div></div>'
        f'<p class="soft">Searched: {search.num_settings:,} settings. {escape(knobs)}.</p>'
        + "".join(f'<p class="soft">Not searched: {escape(text)}</p>' for text in search.left_out)
    )
    return Section("Pareto front", body, wide=True)


def _chosen(front: Sequence[FrontPoint], profile: TrainProfile) -> int | None:
    """The point of the front that the profile is, by the knobs that can be read off it."""
    known: dict[str, Value] = {
        knob.name: getattr(getattr(profile, knob.section), knob.name) for knob in knobs_of(type(profile.head))
    }
    for number, one in enumerate(front):
        if all(known.get(name, value) == value for name, value in one.settings.items() if value is not None):
            return number
    return None


def _place(one: FrontPoint) -> tuple[float, float]:
    return (one.images_per_second if one.hours is None else one.hours), one.accuracy


def _described(one: FrontPoint) -> str:
    knobs = ", ".join(f"{name} {value}" for name, value in one.settings.items() if value is not None)
    return f"{_place(one)[0]:,.4g}, {one.accuracy:+.2f} points, {format_bytes(one.memory_bytes)}: {knobs}"


def _front_row(one: FrontPoint, varied: Sequence[str]) -> tuple[str, ...]:
    knobs = (str(one.settings.get(name, "")) for name in varied)
    return f"{_place(one)[0]:,.4g}", f"{one.accuracy:+.2f}", f"{one.memory_bytes / GIB:.2f} GiB", *knobs


def study_section(objectives: Sequence[Objective]) -> Section:
    """The trials in order and the importances, for every objective."""
    parts = [_history(one) for one in objectives if one.trials]
    parts += [_importances(one) for one in objectives]
    return Section("Study", f'<div class="figures">{"".join(parts)}</div>', wide=True)


def _history(one: Objective) -> str:
    points = [
        Point(trial.number, trial.value, f"trial {trial.number}: {trial.value:.4g}", "point" if trial.feasible else "faint")
        for trial in one.trials
    ]
    best = [
        Point(trial.number, value, "") for trial, value in zip(one.trials, one.best(), strict=True) if not math.isnan(value)
    ]
    broken = sum(not trial.feasible for trial in one.trials)
    described = (
        f"{len(points)} trials of study {one.study}, {broken} of them break a constraint (hollow), {one.not_finished} without "
        f"a result; the line is the best so far ({'highest' if one.maximised else 'lowest'})."
    )
    return scatter(points, "trial", f"{one.name[:1].upper()}{one.name[1:]}.", described, best)


def _importances(one: Objective) -> str:
    if not one.importances:
        return (
            f'<p class="soft">{escape(one.name)}: no importances, there are fewer than {LEAST_TRIALS} trials that differ.</p>'
        )
    rows = [(name, share, f"{share:.0%}", "") for name, share in one.importances.items()]
    return bars(rows, f"What {one.name} depended on in study {one.study} (PED-ANOVA over its trials).")


def measured_section(rows: Sequence[tuple[str, str, str]], run: str) -> Section:
    """Predicted beside measured."""
    return Section("Predicted and measured", table(("", "predicted", "measured"), rows, f"Run {run}."))


def commands_section(profile: TrainProfile, path: str, run: str | None) -> Section:
    """What to type to get the same again, and with what it was made."""
    made, commands = profile.provenance, []
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
