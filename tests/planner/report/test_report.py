"""The page: complete, self-contained, well-formed, with text for everything that is drawn."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from attfc_planner.report.build import report_html
from attfc_planner.report.figures import Point, Row, bars, intervals, scatter
from attfc_planner.report.study_history import LEAST_TRIALS, Objective, Trial, read_objectives
from attfc_train.errors import ProfileError, StorageError
from attfc_train.profile.file import save_profile
from attfc_train.profile.prediction import Interval, Loading
from tests.planner.report.conftest import planned_profile, write_study

VOID = {"meta", "line", "circle", "path", "text"} - {"text"}


class Elements(HTMLParser):
    """Checks that tags nest, and collects them with what is written between."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(html: str) -> Elements:
    elements = Elements()
    elements.feed(html)
    elements.close()
    assert elements.open == []
    return elements


def test_everything_is_there_and_nothing_is_fetched(planned: Path) -> None:
    html = report_html(planned, None, None)
    elements = parsed(html)
    text = " ".join(elements.text)
    for piece in (
        "Plan",
        "Memory",
        "Pareto front",
        "Study",
        "Again",
        "r50 <2 million> on RTX 4090",
        "activations",
        "9,216 MiB",
    ):
        assert piece in text, piece
    for piece in ("attfc-plan --gpu rtx-4090 --ids 2059906", "attfc-train --profile", "storage", "limited by", "13.5 GiB"):
        assert piece in text, piece
    assert "batch_size" in text, "knobs that the front varies, and importances"
    assert not re.search(r"(src|href)=|url\(|@import|https?://|fetch|import\(|XMLHttp|WebSocket|sendBeacon", html)
    policy = next(attributes["content"] for tag, attributes in elements.found if "http-equiv" in attributes)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'", "the browser sees to it"
    assert "Predicted and measured" not in text


def test_figures_have_text_alternatives(planned: Path) -> None:
    elements = parsed(report_html(planned, None, None))
    drawn = [attributes for tag, attributes in elements.found if tag == "svg"]
    assert len(drawn) == 5, "speed and accuracy of the heads, the front, and the history of two objectives"
    assert all(figure.get("role") == "img" and len(figure.get("aria-label") or "") > 40 for figure in drawn)
    tags = [tag for tag, _ in elements.found]
    assert tags.count("figcaption") == tags.count("figure") == 5
    assert tags.count("caption") >= 4
    assert ("html", {"lang": "en"}) in elements.found


def test_the_verdict_is_the_first_thing(planned: Path) -> None:
    """Catches a verdict below the figures that it is drawn from."""
    html = report_html(planned, None, None)
    assert html.index("AttFC is not needed here") < min(html.index("<svg"), html.index("<table"))
    assert html.index("AttFC is not needed here") < html.index("<h2", html.index("<h2") + 1)


def test_every_axis_says_what_it_counts(planned: Path) -> None:
    """Catches an axis whose name stands in the caption alone, or without its unit."""
    html = report_html(planned, None, None)
    figures = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    names = [re.findall(r'<text class="axis"[^>]*>([^<]*)</text>', figure) for figure in figures]
    assert names == [
        ["images per second"],
        ["points against a full FC layer"],
        ["hours of training", "points against a full FC layer"],
        ["number of the trial", "hours of training"],
        ["number of the trial", "points"],
    ]
    assert all('viewBox="0 0 420 ' in figure for figure in figures), "they shrink with the window"


def test_intervals_are_drawn_where_they_are_known(planned: Path) -> None:
    """Catches middles alone, between which nobody could tell."""
    html = report_html(planned, None, None)
    speed, points, front, *_ = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    for figure in (speed, points):
        assert figure.count('<line class="whisker') == figure.count("<circle") == 3
    ((low, high), *_) = re.findall(r'whisker chosen-line" x1="([\d.]+)" x2="([\d.]+)"', speed)
    middle = re.search(r'<circle class="chosen" cx="([\d.]+)"', speed)
    assert middle is not None
    assert float(middle[1]) == pytest.approx((float(low) + float(high)) / 2, abs=0.1)
    assert front.count('<line class="whisker chosen-line"') == 1, "accuracy; the time of an unknown number of images is not"


def test_a_figure_measured_outside_its_interval_has_room() -> None:
    svg = intervals(
        [Row("speed", Interval(low=10, high=20, source=""), 15, "15", measured=40)], "images per second", "Speed.", "what it is"
    )
    parsed(svg)
    (x,) = map(float, re.findall(r'<line class="measured" x1="([\d.]+)"', svg))
    ((low, high),) = re.findall(r'<line class="whisker point-line" x1="([\d.]+)" x2="([\d.]+)"', svg)
    assert float(high) < x <= 406
    assert float(low) >= 12


def test_no_column_needs_a_wide_window(planned: Path) -> None:
    """Catches a table of fixed width, or one whose cells could not be told apart without its head."""
    html = report_html(planned, None, None)
    elements = parsed(html)
    style = html[html.index("<style>") : html.index("</style>")]
    assert not re.search(r"[^-]width: ?\d+px", style)
    assert not re.search(r"min-width: (?!0|1px|[45]rem)", style.replace("(min-width: 900px)", ""))
    for table, head, body in re.findall(r'<table class="(few|some|many)">.*?<thead>(.*?)</thead>(.*?)</table>', html):
        assert f".{table} thead {{ display: none }}" in style
        names = re.findall(r"<th[^>]*>([^<]*)</th>", head)
        assert all(names), "a column without a name would be a cell without one"
        for row in re.findall(r"<tr.*?</tr>", body):
            assert re.findall(r'<span class="column">([^<]*)</span>', row) == names
    classes = [attributes.get("class") for tag, attributes in elements.found if tag == "table"]
    assert set(classes) <= {"few", "some", "many", "bars", "pairs"}
    assert html.count('<div class="scroll"><table') == sum(name != "pairs" for name in classes)


def test_data_loading_is_on_the_page_as_on_the_screen(tmp_path: Path) -> None:
    """Catches a page that says nothing of a training that waits for images."""
    profile = planned_profile()
    assert profile.prediction is not None
    loading = Loading(
        images_per_core_second=Interval(low=2500, high=7000, source="stated: somewhere"),
        image_size=112,
        host_cores=2,
        most_threads=16,
        images_per_second=Interval(low=2500, high=7000, source="2 cores"),
        step_images_per_second=Interval(low=9000, high=21000, source="without decoding"),
        needed_cores=7,
        is_limit=True,
    )
    prediction = profile.prediction.model_copy(update={"loading": loading})
    save_profile(profile.model_copy(update={"prediction": prediction}), tmp_path / "best.json")
    text = " ".join(parsed(report_html(tmp_path / "best.json", None, None)).text)
    assert "2 cores decode about 4,750 images/s with 1 reference each (2,500 to 7,000); 7 cores would keep up" in text
    assert "2,500 to 7,000 images a second of a core; stated: somewhere" in text


def test_every_command_has_a_button(planned: Path) -> None:
    """Catches a button that is there though nothing would copy: it is shown by the script alone."""
    html = report_html(planned, None, None)
    commands = re.findall(r'<div class="command"><pre><code>(.*?)</code></pre><button type="button" class="copy" hidden>', html)
    assert len(commands) == html.count("<pre") == 2
    assert html.count("<script") == 1
    assert "button.hidden = false" in html


def test_the_chosen_setting_is_marked_on_the_front(planned: Path) -> None:
    whole = report_html(planned, None, None)
    html = whole[whole.index("Pareto front") :]
    assert len(re.findall(r'<circle class="chosen"', html)) == 1
    row = re.search(r"<tr class=chosen>(.*?)</tr>", html)
    assert row is not None
    assert "24" in row[1]
    assert "256" in row[1]


def test_a_plan_without_search_or_study_has_what_there_is(tmp_path: Path) -> None:
    profile = planned_profile().model_copy(update={"search": None, "provenance": None})
    save_profile(profile, tmp_path / "best.json")
    text = " ".join(parsed(report_html(tmp_path / "best.json", None, None)).text)
    assert "Memory" in text
    assert "Pareto" not in text
    assert "Study" not in text


def test_what_cannot_be_reported_is_said(planned: Path, tmp_path: Path) -> None:
    save_profile(planned_profile().model_copy(update={"prediction": None}), tmp_path / "bare.json")
    with pytest.raises(ProfileError, match="must hold a prediction"):
        report_html(tmp_path / "bare.json", None, None)
    with pytest.raises(ProfileError, match="must hold a run that has ended"):
        report_html(planned, None, tmp_path / "nothing")
    with pytest.raises(StorageError, match=r"readable study.*No such file"):
        report_html(planned, tmp_path / "nothing.jsonl", None)
    (tmp_path / "text.jsonl").write_text("no journal\n")
    with pytest.raises(StorageError, match="must be an Optuna journal"):
        report_html(planned, tmp_path / "text.jsonl", None)
    (tmp_path / "other.jsonl").write_text(
        '{"op_code": 77, "worker_id": "x"}\n{"op_code": 4, "trial_id": 8, "worker_id": "x"}\n'
    )
    with pytest.raises(StorageError, match="must be an Optuna journal"):
        report_html(planned, tmp_path / "other.jsonl", None)


def test_importances_find_the_knob_that_matters(planned: Path) -> None:
    objectives = read_objectives(planned.with_name("best.study.jsonl"))
    assert [(objective.name, objective.maximised, objective.not_finished) for objective in objectives] == [
        ("hours", False, 1),
        ("points", True, 1),
    ]
    for objective in objectives:
        assert next(iter(objective.importances)) == "batch_size"
        assert sum(objective.importances.values()) == pytest.approx(1)
        assert sum(not trial.feasible for trial in objective.trials) == 4


def test_few_trials_have_no_importances(tmp_path: Path) -> None:
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        write_study(tmp_path / "few.jsonl", LEAST_TRIALS - 1)
    assert [objective.importances for objective in read_objectives(tmp_path / "few.jsonl")] == [{}, {}]


@pytest.mark.parametrize(
    "values", [(math.inf, -math.inf, 1.0), (math.inf,) * 3, (1e308, -1e308, 5e-324), (5e-324, 1e-323, 0.0)]
)
def test_infinity_in_a_study_is_no_result(values: tuple[float, ...], planned: Path, tmp_path: Path) -> None:
    """Catches an axis that ends nowhere, and one whose ticks are nothing apart."""
    path = tmp_path / "odd.jsonl"
    storage = JournalStorage(JournalFileBackend(str(path)))
    study = optuna.create_study(storage=storage, directions=["maximize"])
    for value in (*values, 3.0):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        study.tell(trial, value)
    (objective,) = read_objectives(path)
    assert [trial.value for trial in objective.trials] == [*filter(math.isfinite, values), 3.0]
    assert objective.not_finished == len(values) + 1 - len(objective.trials)
    html = report_html(planned, path, None)
    assert re.findall(r">[-+]?(?:inf|nan)<", html) == []


def test_the_best_so_far_counts_feasible_trials_only() -> None:
    trials = (Trial(0, 9.0, False), Trial(1, 3.0, True), Trial(2, 5.0, True), Trial(3, 7.0, False), Trial(4, 2.0, True))
    for maximised, expected in ((True, [3, 5, 5, 5]), (False, [3, 3, 3, 2])):
        best = Objective("s", "v", maximised, trials, {}, 0).best()
        assert math.isnan(best[0])
        assert best[1:] == expected


finite = st.floats(-1e9, 1e9)


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=20))
def test_any_points_lie_on_the_paper(places: list[tuple[float, float]]) -> None:
    svg = scatter([Point(x, y, "a <b>") for x, y in places], "x & y", "z <z>", "z", "what it is")
    parsed(svg)
    drawn = re.findall(r'<circle class="point" cx="([\d.-]+)" cy="([\d.-]+)"', svg)
    assert len(drawn) == len(places)
    assert all(50 <= float(x) <= 420 and 0 <= float(y) <= 220 for x, y in drawn)


@given(st.lists(st.tuples(st.text(max_size=5), st.floats(0, 1e15)), max_size=5))
def test_bars_are_shares_of_the_longest(rows: list[tuple[str, float]]) -> None:
    html = bars([(name, length, "1", "<") for name, length in rows], "caption")
    parsed(html)
    widths = [float(width) for width in re.findall(r"width:([\d.]+)%", html)]
    assert len(widths) == len(rows)
    assert all(0 <= width <= 100 for width in widths)
