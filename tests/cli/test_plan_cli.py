from __future__ import annotations

import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from attfc_planner import cli
from attfc_planner.accuracy.prior import midpoint
from attfc_planner.accuracy.prior_features import PRIORS
from attfc_planner.explain.explain import decoding_of_profile, explained_profile, hosted
from attfc_planner.gpu import detect
from attfc_planner.gpu.catalog import get_card
from attfc_planner.plan import plan, problem
from attfc_planner.speed import decode_probe
from attfc_planner.speed.loading import DecodeRate
from attfc_planner.speed.model import predict_speed
from attfc_train.data.reading import UnreadableError
from attfc_train.errors import AttfcError, InfeasiblePlanError, ProfileError, StorageError, UsageError
from attfc_train.heads.kinds import HEADS
from attfc_train.profile.file import load_preset, load_profile
from tests.planner.fakes import FakeMemoryModel

Outcome = tuple[int, str, str]
Call = Callable[..., Outcome]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """The real entry point with a memory model by formula and no probes."""
    rates = {"fp32_flops": 1e11, "memory_bandwidth_bytes_per_second": 2e10}
    monkeypatch.setattr(problem, "traced_model", lambda base, gpu, budget, profiles: FakeMemoryModel(budget))
    monkeypatch.setattr(detect, "_measured", lambda kind, key, precisions: detect.Measured(dict(rates), "2026-01-02"))
    monkeypatch.setattr(detect, "cuda_fingerprint", lambda: None)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["attfc-plan", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
        captured = capsys.readouterr()
        code = left.value.code
        return (code if isinstance(code, int) else int(code is not None)), captured.out, captured.err

    return run


def test_a_plan_is_written_and_says_what_to_type_next(call: Call, tmp_path: Path) -> None:
    code, out, err = call("--gpu", "RTX 4090", "--ids", "2059906", "--images", "42474557", "--output", "sub/best.json")
    assert (code, err) == (0, "")
    profile = load_profile(tmp_path / "sub/best.json")
    assert profile.num_ids == 2059906
    assert profile.run.precision == "bf16"
    assert profile.prediction is not None
    assert profile.prediction.hours_per_epoch is not None
    assert profile.prediction.memory.total_bytes <= profile.prediction.memory.budget_bytes
    assert profile.provenance is not None
    assert profile.provenance.gpu == "NVIDIA GeForce RTX 4090"
    assert profile.provenance.command.startswith("attfc-plan --gpu 'RTX 4090' --ids 2059906")
    assert profile.provenance.num_trials >= 40
    assert "attfc-train --profile sub/best.json --data DATA --output runs/r50-2059906" in " ".join(out.split())


@pytest.mark.parametrize("columns", ["80", "120"])
def test_all_kinds_of_heads_are_weighed(columns: str, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a word that is taken for a kind, a kind without its row, and a table wider than the terminal."""
    monkeypatch.setenv("COLUMNS", columns)
    code, out, err = call("--gpu", "rtx-4090", "--ids", "200000", "--images", "4000000", "--head", "any")
    assert (code, err) == (0, "")
    profile = load_profile(Path("best.json"))
    assert profile.search is not None
    assert profile.head.kind == "full_fc"
    assert profile.search.why_head.startswith("full_fc takes the place of the rule's choice among 5 kinds of heads, attfc, ")
    assert "takes the place of the rule's choice among 5 kinds of heads, attfc" in " ".join(out.replace("│", " ").split())
    table = out[out.index("Kinds of heads") : out.index("Memory:")]
    assert all(f" {kind} " in table for kind in HEADS if kind in PRIORS)
    assert "bytes per identity" in out
    assert max(len(line) for line in out[: out.index("Written:")].splitlines()) <= int(columns)
    code, out, err = call("report", "best.json", "-o", "report.html")
    assert (code, err) == (0, "")
    page = Path("report.html").read_text(encoding="utf-8")
    assert "bytes per identity" in page
    assert "kinds of heads" in page


@pytest.mark.parametrize("columns", ["80", "120"])
def test_the_answer_is_first_and_last(columns: str, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a verdict that scrolls away, another default than `auto`, and a table wider than the terminal."""
    monkeypatch.setenv("COLUMNS", columns)
    code, out, err = call("--gpu", "rtx-4090", "--ids", "20000", "--images", "900000")
    assert (code, err) == (0, "")
    search = load_profile(Path("best.json")).search
    assert search is not None
    assert {row.head for row in search.comparison} == {"attfc", "full_fc", "partial_fc"}
    words = " ".join(out.replace("│", " ").split())
    assert words.endswith(search.verdict)
    assert words.index(search.verdict) < words.index("Chosen setting")
    assert max(len(line) for line in out[: out.index("Written:")].splitlines()) <= int(columns)
    code, out, err = call("report", "best.json", "-o", "report.html")
    assert (code, err) == (0, "")
    page = Path("report.html").read_text(encoding="utf-8")
    assert page.index(search.verdict) < page.index('<h2 id="s1">Plan')
    assert "too much" in page or "fits" in page


def test_years_on_a_cpu_are_years(call: Call) -> None:
    """Catches a time in thousands of days, on the screen and on the page."""
    code, out, _ = call("--ids", "2000000", "--images", "400000000", "--backbone", "r200")
    assert code == 0
    assert re.search(r"time to train +about [\d,.]+ years \(", out)
    assert re.search(r"GiB +years +points", out)
    assert call("report", "best.json", "-o", "report.html")[0] == 0
    page = Path("report.html").read_text(encoding="utf-8")
    assert "years of training" in page
    assert not re.search(r"about [\d,.]+ days", page)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--max-hour", "3"], "attfc-plan must have the option, but got '--max-hour'. Nearest: --max-hours"),
        (
            ["tunee"],
            "attfc-plan must have the command, but got 'tunee'. Nearest: tune. It has import, compare-gpus, gpus, explain",
        ),
        (["--ids"], "--ids must have a value, but got none"),
        (["--ids", "many"], "--ids must be a whole number of at least 2, but got 'many'"),
        (["--ids", "1"], "--ids must be a whole number of at least 2, but got '1'"),
        (["--ids", "9", "--trials", "0"], "--trials must be a whole number from 1 to 1,000,000, but got '0'"),
        (["--ids", "9", "--image-size", "1024"], "--image-size must be a whole number from 32 to 512, but got '1024'"),
        (["--ids", "9", "--max-hours", "nan"], "--max-hours must be a number of at least 0.001, but got 'nan'"),
        (["--ids", "9", "--head", "fullfc"], "got 'fullfc'. Nearest: full_fc. Choose one of: auto, any, attfc"),
        (["--ids", "9", "--backbone", "r51"], "got 'r51'. Nearest: r50"),
        (["--ids", "9", "--prefer", "quick"], "got 'quick'. Choose one of: balanced, speed, accuracy."),
        (["--ids", "9", "--precision", "bf61"], "got 'bf61'. Nearest: bf16"),
        (["fit", "--storage", "int9"], "got 'int9'. Nearest: int8"),
        (["fit", "--share", "2"], "--share must be a number from 0.001 to 1, but got '2'"),
        (["explain"], "PROFILE must be given, but got none. See "),
        (["tune"], "--data must be given, but got none"),
    ],
)
def test_what_is_mistyped_is_one_line_without_a_box(call: Call, arguments: list[str], expected: str) -> None:
    code, out, err = call(*arguments)
    assert code == UsageError.exit_code
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert expected in err


def test_counts_are_typed_as_people_type_them(call: Call) -> None:
    assert call("--gpu", "rtx-4090", "--ids", "20k", "--images", "1,000,000", "--head", "full_fc")[0] == 0
    data = load_profile(Path("best.json")).data
    assert (data.num_ids, data.num_images) == (20_000, 1_000_000)


def test_more_identities_than_images_are_refused(call: Call) -> None:
    code, _, err = call("--gpu", "t4", "--ids", "1000", "--images", "999")
    assert code == UsageError.exit_code
    assert "--images must be at least --ids (1,000), because every identity has an image, but got 999" in err


def test_every_option_reaches_the_profile(call: Call) -> None:
    options = [
        "--backbone",
        "r18",
        "--precision",
        "fp16",
        "--image-size",
        "128",
        "--epochs",
        "2.5",
        "--seed",
        "7",
        "--trials",
        "60",
        "--compile",
    ]
    code, _, err = call("--gpu", "t4", "--ids", "5000", *options, "--max-accuracy-drop", "3")
    assert (code, err) == (0, "")
    profile = load_profile(Path("best.json"))
    assert (profile.model.backbone, profile.model.image_size) == ("r18", 128)
    assert (profile.run.precision, profile.run.epochs, profile.run.compile) == ("fp16", 2.5, True)
    assert profile.provenance is not None
    assert (profile.provenance.seed, profile.provenance.num_trials) == (7, 60)


def test_limits_and_preference_reach_the_choice(call: Call) -> None:
    options = ["--gpu", "rtx-4090", "--ids", "2059906", "--images", "42474557", "--head", "attfc"]
    options += ["--backbone", "r18", "--backbone", "r50", "--max-accuracy-drop", "20"]  # networks differ in speed and accuracy
    rates = []
    for more in (["--prefer", "speed"], ["--prefer", "accuracy"], ["--max-memory", "8"], ["--max-hours", "60"]):
        code, out, err = call(*options, *more)
        assert (code, err) == (0, "")
        profile = load_profile(Path("best.json"))
        search = profile.search
        assert search is not None
        assert profile.prediction is not None
        values = {one.name: one for one in search.constraints}
        rates.append(midpoint(profile.prediction.images_per_second))
        assert all(one.slack >= 0 for one in search.constraints)
        if more[0] == "--max-memory":
            assert values["memory"].limit == 8
        assert ("hours" in values) == (more[0] == "--max-hours")
        assert "Pareto front" in out
        if more[0] == "--prefer":
            assert search.rule.startswith(f"{more[1]}: ")
    assert rates[0] > rates[1]


def test_the_hosts_cores_reach_the_profile_and_its_explanation(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an explanation that has another ceiling than the plan, and --cores that nothing reads."""
    options = ["--gpu", "h200", "--ids", "200000", "--images", "5000000", "--backbone", "mbf", "--image-size", "224"]
    code, out, err = call(*options, "--head", "attfc", "--cores", "2")
    assert (code, err) == (0, "")
    profile = load_profile(Path("best.json"))
    assert profile.prediction is not None
    assert profile.prediction.loading is not None
    assert profile.prediction.loading.host_cores == 2
    assert profile.prediction.limited_by == "data loading (2 cores)"
    assert "Data loading limits this training: 2 cores decode" in " ".join(out.replace("│", " ").split())
    gpu = hosted(get_card("h200"), profile, None)
    assert gpu.num_cores == 2
    assert hosted(get_card("h200"), profile, 8).num_cores == 8
    assert hosted(detect.find_gpu("cpu")[0], profile, None).num_cores == detect.find_gpu("cpu")[0].num_cores
    resolved = explained_profile(profile, gpu)
    again = predict_speed(resolved, gpu, FakeMemoryModel().op_costs(resolved), decoding_of_profile(profile))
    assert again.images_per_second == profile.prediction.images_per_second
    assert again.loading.to_save() == profile.prediction.loading


@pytest.mark.parametrize("cores", ["0", "1M", "two"])
def test_cores_that_no_host_has_are_refused(cores: str, call: Call) -> None:
    """Catches a traceback from the profile, which holds no more than 10^12."""
    code, _, err = call("--gpu", "h200", "--ids", "1000", "--cores", cores)
    assert code == UsageError.exit_code
    assert "--cores must be a whole number from 1 to 65,536" in err


def test_cores_of_a_cpu_are_refused(call: Call) -> None:
    code, _, err = call("--gpu", "cpu", "--ids", "1000", "--cores", "64")
    assert code == UsageError.exit_code
    assert "--cores must be about the host of a GPU, but got 64 for" in err


@pytest.mark.parametrize(("images", "measured"), [(2, False), (20, True)])
def test_the_users_images_are_measured_where_they_do_not_stay_decoded(
    images: int, measured: bool, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a probe of what needs no decoding, and a stated rate where the data are here."""
    rate = DecodeRate.measured(1234, 112, "on 5 images of faces")
    monkeypatch.setattr(decode_probe, "measured_decoding", lambda dataset, size: rate)
    code, out, err = call("--gpu", "t4", "--data", f"synthetic:1000x{images}", "--head", "attfc")
    assert (code, err) == (0, "")
    loading = load_profile(Path("best.json")).prediction.loading  # type: ignore[union-attr]
    assert loading is not None
    assert loading.images_per_core_second.source.startswith("measured: 1,234 images") == measured
    assert ("of the host; --cores says" in " ".join(out.replace("│", " ").split())) == measured


def test_data_that_cannot_be_read_cost_a_line_and_no_plan(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise UnreadableError("the disk must be there", "nothing", "Mount it.")

    monkeypatch.setattr(decode_probe, "measured_decoding", away)
    code, _, err = call("--gpu", "t4", "--data", "synthetic:1000x20", "--head", "attfc")
    assert code == 0
    (line,) = err.splitlines()
    assert line.startswith("Warning: how fast these images decode could not be measured: the disk must be there")


def test_any_backbone_is_a_choice(call: Call) -> None:
    code, _, err = call("--gpu", "h200", "--ids", "2059906", "--backbone", "any")
    assert (code, err) == (0, "")
    profile = load_profile(Path("best.json"))
    assert profile.search is not None
    assert profile.search.knobs["backbone"] == ("mbf", "r18", "r50", "r100", "r200")
    assert profile.model.backbone in ("r100", "r200")
    assert profile.name == f"{profile.model.backbone}-2059906"


@pytest.mark.parametrize(("head", "expected"), [("full_fc", "B"), ("partial_fc", "sampled")])
def test_another_head_is_planned_with_its_own_knobs(call: Call, head: str, expected: str) -> None:
    """Catches `--head` that does not reach the profile, and AttFC's knobs or columns in a plan without a container."""
    code, out, err = call("--gpu", "rtx-4090", "--ids", "1000000", "--images", "20000000", "--head", head)
    assert (code, err) == (0, "")
    profile = load_profile(Path("best.json"))
    assert profile.head.kind == head
    assert profile.head.margin.kind == load_preset("attfc").head.margin.kind
    assert profile.provenance is not None
    assert f"--head {head}" in profile.provenance.command
    assert profile.search is not None
    knobs = {"batch_size", "gradient_checkpointing", "accumulation", "precision"} | {
        knob.name for knob in HEADS[head].settings.knobs()
    }
    assert set(profile.search.knobs) == knobs
    assert all(set(point.settings) == knobs for point in profile.search.front)
    table = out[out.index("Pareto front and runners-up") :]
    (headings,) = [line.split() for line in table.splitlines() if "hours" in line and "points" in line and "GiB" in line]
    assert expected in headings
    assert not {"DCC", "R"} & set(headings)


def test_without_a_gpu_it_says_so(call: Call) -> None:
    code, out, _ = call("--ids", "1000")
    assert code == 0
    assert "No NVIDIA GPU found: planning for this machine's CPU" in out
    assert "probes on this machine, 2026-01-02" in " ".join(out.split())
    assert load_profile(Path("best.json")).run.precision == "fp32"


def test_the_study_lies_beside_the_plan_and_a_new_one_replaces_it(call: Call) -> None:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    for trials in (50, 45):
        options = ("--gpu", "t4", "--ids", "5000", "--head", "attfc", "--output", "sub/mine.json")
        assert call(*options, "--trials", str(trials))[0] == 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            storage = JournalStorage(JournalFileBackend("sub/mine.study.jsonl"))
        study = optuna.load_study(study_name="attfc-plan", storage=storage)
        assert len(study.trials) == trials
        assert set(study.trials[0].params) == {
            "dcc_share",
            "queue_length",
            "batch_size",
            "gradient_checkpointing",
            "accumulation",
            "storage",
        }, "slots that learn have no references, and those are not searched"
        assert study.trials[0].params["storage"] in ("fp32", "bf16", "int8", "fp8")
        assert study.best_trials, "feasible ones: the constraints were kept"
    assert {path.name for path in Path("sub").iterdir()} == {"mine.json", "mine.study.jsonl"}


def test_the_output_is_checked_before_any_work(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("work was done")

    monkeypatch.setattr(plan, "make_plan", never)
    monkeypatch.setattr(detect, "find_gpu", never)
    Path("folder").mkdir()
    Path("file").write_text("mine")
    for output in ("folder", "file/best.json", "file/deep/best.json"):
        code, _, err = call("--gpu", "t4", "--ids", "10", "--output", output)
        assert code == StorageError.exit_code
        assert f"'{output}' must be writable" in err


def test_the_data_set_gives_identities_and_images(call: Call) -> None:
    code, _, err = call("--gpu", "t4", "--data", "synthetic:50x4")
    assert (code, err) == (0, "")
    data = load_profile(Path("best.json")).data
    assert (data.path, data.num_ids, data.num_images) == ("synthetic:50x4", 50, 200)


@pytest.mark.parametrize(
    ("arguments", "error", "expected"),
    [
        ([], UsageError, "--ids or --data must be given"),
        (["--train", "--ids", "10"], UsageError, "--train needs --data"),
        (
            ["--gpu", "t4", "--train", "--data", "synthetic:50x4"],
            UsageError,
            r"--train needs the GPU that was planned for \(NVIDIA T4\), but got a machine without .* Plan with --gpu auto",
        ),
        (["--data", "synthetic:50x4", "--ids", "51"], UsageError, r"--ids must agree with --data \(50\), but got 51"),
        (["--data", "synthetic:50x4", "--images", "3"], UsageError, r"--images must agree with --data \(200\), but got 3"),
        (["--gpu", "rtx-4095", "--ids", "10"], UsageError, "Nearest: .*rtx-4090"),
        (
            ["--gpu", "t4", "--ids", "10", "--precision", "bf16"],
            UsageError,
            "--precision must be one of fp16, fp32 on NVIDIA T4",
        ),
        (["--gpu", "t4", "--ids", "10", "--precision", "int4"], UsageError, "--precision must be bf16, fp16 or fp32"),
        (["--gpu", "t4", "--ids", "10", "--image-size", "100"], UsageError, "--image-size must be a multiple of 16"),
        (["--gpu", "missing.json", "--ids", "10"], ProfileError, "missing.json"),
        (["--gpu", "../t4", "--ids", "10"], ProfileError, "../t4"),
        (["--gpu", "rtx-3070", "--ids", "200000000", "--max-accuracy-drop", "0"], InfeasiblePlanError, "--max-accuracy-drop"),
        (["--gpu", "t4", "--ids", "10", "--prefer", "cheap"], UsageError, "--prefer must be speed, balanced or accuracy"),
        (["--gpu", "t4", "--ids", "10", "--max-hours", "5"], UsageError, "--max-hours needs the number of images"),
        (["--gpu", "t4", "--ids", "10", "--max-hours", "10000000"], UsageError, "--max-hours must be at most"),
        (["--gpu", "t4", "--ids", "10", "--max-memory", "20"], UsageError, "--max-memory must be at most the .* of NVIDIA T4"),
        (["--gpu", "t4", "--ids", "10", "--backbone", "r50", "--backbone", "r34"], UsageError, "published figures .*'r34'"),
        (["--gpu", "t4", "--ids", "10", "--backbone", "any", "--backbone", "r50"], UsageError, "any stands for all"),
        (
            ["--gpu", "t4", "--ids", "500000", "--images", "9000000", "--max-hours", "0.1"],
            InfeasiblePlanError,
            r"--max-hours 0.1, .* got (full_fc|attfc|partial_fc): about [\d.]+ h \(.* at best; .* Raise --max-hours to",
        ),
        (
            ["--gpu", "t4", "--ids", "500000", "--images", "9000000", "--max-hours", "0.1", "--head", "attfc"],
            InfeasiblePlanError,
            r"--max-hours 0.1 .* got about [\d.]+ h \(.*\) for the fastest setting .* Raise --max-hours to",
        ),
        (["--seed", "1", "gpus"], UsageError, "options belong behind their command"),
        (["gpus", "rtx-4095"], UsageError, "Nearest"),
    ],
)
def test_a_refusal_is_one_line_with_its_exit_code(
    call: Call, arguments: list[str], error: type[AttfcError], expected: str
) -> None:
    code, _, err = call(*arguments)
    assert code == error.exit_code
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert re.search(expected, err)
    assert not Path("best.json").exists()


def test_gpus_lists_all_cards_and_one_with_its_sources(call: Call) -> None:
    _, out, _ = call("gpus")
    for slug in ("t4", "rtx-4090", "b200"):
        assert slug in out
    _, out, _ = call("gpus", "h200")
    assert "NVIDIA H200 datasheet" in out


def test_train_launches_the_trainer_and_compares(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from attfc_planner.plan import launch

    def pretend(arguments: list[str], gpus: int) -> int:
        assert gpus == 1
        assert arguments[-2:] == ["--device", "cpu"]
        folder = Path(arguments[arguments.index("--output") + 1])
        folder.mkdir(parents=True)
        (folder / "log.jsonl").write_text(
            '{"event": "end", "step": 9, "images_per_second": 4321.0, "peak_memory_bytes": 1073741824, "accuracy": 0.934}\n'
        )
        return 0

    monkeypatch.setattr(launch, "launch", pretend)
    code, out, _ = call("--data", "synthetic:50x4", "--train")
    assert code == 0
    for measured in ("4,321.0", "1.00 GiB", "93.4 %"):
        assert measured in out


def test_memory_that_others_took_since_is_planned_for(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from attfc_planner.gpu import fingerprint
    from attfc_planner.plan import launch

    launched: list[list[str]] = []
    monkeypatch.setattr(launch, "launch", lambda arguments, gpus: launched.append(arguments) or 0)
    monkeypatch.setattr(detect, "is_here", lambda device: True)
    monkeypatch.setattr(fingerprint, "foreign_bytes", lambda kind: 23 * 1024**3)
    code, out, _ = call("--gpu", "rtx-4090", "--data", "synthetic:50x4", "--train")
    assert code == 0
    assert "Others have taken memory since" in out
    assert "23.00 GiB of it in use by others" in " ".join(out.split())
    assert len(launched) == 1


def test_help_is_fast_and_imports_nothing_heavy() -> None:
    program = (
        "import sys; sys.argv = ['attfc-plan', '--help']\n"
        "from attfc_planner.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'pydantic', 'optuna', 'numpy', 'pynvml'} & set(sys.modules)))"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert time.perf_counter() - start < 5
