"""The import table: data flows one way, from room to room.

A room is a folder of a package, or a module that stands beside the folders. It sees only the rooms of the rows above its own;
a new room goes into the highest row that is below everything it imports. Within a room modules import each other in no circle.
"""

from __future__ import annotations

import subprocess
import sys
from graphlib import TopologicalSorter

import pytest

from tests.architecture.modules import imports, imports_when_loaded, modules

TABLE = """
attfc_train.errors attfc_train.units attfc_train.phase attfc_train.interrupt attfc_train.cuda_environment
attfc_train.streams attfc_train.urls
attfc_train.document attfc_train.files attfc_train.faults attfc_train.processes attfc_train.device_hash attfc_train.screen
attfc_train.rounding attfc_train.ranks attfc_train.exits attfc_train.command_line attfc_train.scratch attfc_train.cache_folder
attfc_train.sources
attfc_train.augment attfc_train.backbones attfc_train.losses attfc_train.cluster
attfc_train.heads
attfc_train.profile
attfc_train.data attfc_train.optim
attfc_train.step
attfc_train.evaluate
attfc_train.run
attfc_train.export
attfc_train.timing
attfc_train.api
attfc_train attfc_train.commands
attfc_train.data_writing_commands
attfc_train.data_commands
attfc_train.cli
attfc_train.__main__

attfc_planner attfc_planner.gpu attfc_planner.knobs
attfc_planner.trace attfc_planner.accuracy
attfc_planner.memory attfc_planner.speed
attfc_planner.search
attfc_planner.plan
attfc_planner.calibrate attfc_planner.explain
attfc_planner.tune
attfc_planner.screens
attfc_planner.report
attfc_planner.commands
attfc_planner.cli
attfc_planner.__main__
"""
ROWS = [line.split() for line in TABLE.strip().splitlines() if line]
ROW_OF = {name: row for row, names in enumerate(ROWS) for name in names}


def room_of(module: str) -> str:
    """``attfc_train.data.formats.recordio -> attfc_train.data``; a module outside every room is a room of its own."""
    return ".".join(module.split(".")[:2])


ONLY_IN = {
    "optuna": {
        "attfc_planner.report.study_history",
        "attfc_planner.search.study",
        "attfc_planner.tune.studies.claim",
        "attfc_planner.tune.studies.storage",
        "attfc_planner.tune.studies.study",
    },
    "sqlalchemy": {"attfc_planner.tune.studies.storage"},
    "typer": {
        "attfc_train.cli",
        "attfc_train.command_line",
        "attfc_train.commands.models",
        "attfc_train.commands.presets",
        "attfc_train.commands.profile_step",
        "attfc_train.data_commands",
        "attfc_train.data_writing_commands",
        "attfc_planner.cli",
        "attfc_planner.commands.compare_gpus",
        "attfc_planner.commands.import_config",
        "attfc_planner.commands.options",
    },
    "rich": {
        "attfc_train.screen",
        "attfc_train.run.live_line",
        "attfc_train.run.log",
        "attfc_train.commands.evaluate",
        "attfc_train.commands.evaluate_screen",
        "attfc_train.commands.evaluate_search",
        "attfc_train.commands.data_survey",
        "attfc_train.commands.profile_step_screen",
        "attfc_train.run.run",
        "attfc_planner.commands",
        "attfc_planner.screens",
    },
    "pynvml": {"attfc_planner.gpu.nvml"},
    "fsspec": {"attfc_train.data.remote.web"},
    "aiohttp": {"attfc_train.data.remote.web"},
    "triton": {"attfc_train.losses.triton", "attfc_train.losses.learning_triton"},
    "simplejpeg": {"attfc_train.data.decode", "attfc_train.data.jpeg"},
    "PIL": {"attfc_train.data.decode", "attfc_train.data.encode"},
    "onnx": {"attfc_train.export"},
    "onnxruntime": {"attfc_train.export"},
    "safetensors": {"attfc_train.export"},
    "pydantic": {
        "attfc_train.augment",
        "attfc_train.document",
        "attfc_train.heads",
        "attfc_train.run.checkpoint",
        "attfc_train.profile.prediction",
        "attfc_train.profile.profile",
        "attfc_train.profile.teacher",
        "attfc_train.profile.file",
        "attfc_train.profile.search_summary",
        "attfc_train.timing.report",
        "attfc_planner.gpu.calibration",
        "attfc_planner.gpu.catalog",
        "attfc_planner.gpu.links",
        "attfc_planner.gpu.profile",
        "attfc_planner.tune.studies.notes",
    },
}
"""Whom each dependency belongs to, modules or whole rooms: another one is a decision, not an accident."""

WITHOUT_TORCH = {
    "attfc_train.augment.kinds",
    "attfc_train.augment.settings",
    "attfc_train.backbones.kinds",
    "attfc_train",
    "attfc_train.cli",
    "attfc_train.command_line",
    "attfc_train.commands.models",
    "attfc_train.commands.presets",
    "attfc_train.commands.profile_step",
    "attfc_train.commands.training",
    "attfc_train.data_commands",
    "attfc_train.data_writing_commands",
    "attfc_train.errors",
    "attfc_train.exits",
    "attfc_train.faults",
    "attfc_train.files",
    "attfc_train.document",
    "attfc_train.run.log",
    "attfc_train.run.longer",
    "attfc_train.profile.keys",
    "attfc_train.profile.prediction",
    "attfc_train.profile.profile",
    "attfc_train.profile.file",
    "attfc_train.profile.search_summary",
    "attfc_train.screen",
    "attfc_train.streams",
    "attfc_train.timing.op_cost",
    "attfc_train.units",
    "attfc_planner.calibrate.calibrate",
    "attfc_planner.cli",
    "attfc_planner.commands.option_checks",
    "attfc_planner.explain.explain",
    "attfc_planner.explain.capacity",
    "attfc_planner.plan.plan",
    "attfc_planner.screens.plan",
    "attfc_planner.trace.record",
    "attfc_planner.trace.history",
    "attfc_planner.trace.disk_cache",
}
"""What must load at once: the command lines' help, checks of profiles, and plans whose traces are cached."""


def test_the_table_is_complete() -> None:
    rooms = {room_of(name) for name in modules()}
    assert rooms - set(ROW_OF) == set(), "give these rooms a row"
    assert set(ROW_OF) - rooms == set(), "these rooms are gone: take them out"
    assert len(ROW_OF) == sum(map(len, ROWS)), "a room stands in two rows"


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_room_sees_only_the_rows_above_it(name: str) -> None:
    """Catches an import that climbs: ``from attfc_planner.search...`` in `attfc_planner.trace`, ``.run`` in ``.step``."""
    seen = {target for target in imports(name) if target.split(".")[0] in ("attfc_train", "attfc_planner")}
    assert seen <= set(modules()), "no such module"
    others = {target for target in seen if room_of(target) != room_of(name)}
    assert {target for target in others if ROW_OF[room_of(target)] >= ROW_OF[room_of(name)]} == set()


@pytest.mark.parametrize("room", sorted(ROW_OF))
def test_the_modules_of_a_room_import_each_other_in_no_circle(room: str) -> None:
    """Catches two modules of a room that import each other, also inside functions."""
    inside = {name for name in modules() if room_of(name) == room}
    graph = {name: imports(name) & inside - {name} for name in inside}
    assert list(TopologicalSorter(graph).static_order())


def test_the_trainer_does_not_know_the_planner() -> None:
    for name in modules():
        if name.startswith("attfc_train"):
            assert not {target for target in imports(name) if target.startswith("attfc_planner")}, name


@pytest.mark.parametrize("package", sorted(ONLY_IN))
def test_dependencies_stay_where_they_belong(package: str) -> None:
    """Catches ``import rich`` in the search, and an entry that nobody needs any more."""
    users = {name for name in modules() if any(target.split(".")[0] == package for target in imports(name))}
    owners = {name: name if name in ONLY_IN[package] else room_of(name) for name in users}
    assert set(owners.values()) == ONLY_IN[package]


@pytest.mark.parametrize("name", sorted(WITHOUT_TORCH))
def test_torch_is_not_loaded_by_what_must_be_quick(name: str) -> None:
    assert not {target for target in imports_when_loaded(name) if target.split(".")[0] in ("torch", "optuna")}


def test_files_are_read_by_threads_that_no_end_waits_for() -> None:
    """Catches a `ThreadPoolExecutor` where `attfc_train.data.pool.DecodePool` belongs: a read that hangs would hold Ctrl-C."""
    pools = [name for name, path in modules().items() if "import ThreadPoolExecutor" in path.read_text(encoding="utf-8")]
    assert pools == []


def loaded_by(code: str) -> set[str]:
    """The heavy packages that are there after `code` ran in a new process."""
    listing = "import sys; print('LOADED', *sys.modules)"
    child = subprocess.run([sys.executable, "-c", f"{code}\n{listing}"], capture_output=True, text=True, check=True)
    names = {name.split(".")[0] for name in child.stdout.rpartition("LOADED")[2].split()}
    return names & {"torch", "numpy", "pydantic", "optuna", "PIL", "pynvml", "tensorboard"}


def test_loading_the_command_lines_is_cheap() -> None:
    assert loaded_by("import attfc_train.cli, attfc_planner.cli") == set()


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("attfc_train.cli", "--help"),
        ("attfc_train.cli", "evaluate --help"),
        ("attfc_train.cli", "export --help"),
        ("attfc_train.cli", "presets"),
        ("attfc_train.cli", "presets show attfc"),
        ("attfc_train.cli", "--version"),
        ("attfc_planner.cli", "--help"),
        ("attfc_planner.cli", "gpus"),
    ],
)
def test_help_and_lists_do_not_load_torch(module: str, arguments: str) -> None:
    call = f"sys.argv[1:] = {arguments.split()}\ntry: {module}.main()\nexcept SystemExit as end: assert not end.code"
    assert loaded_by(f"import sys, {module}\n{call}") <= {"pydantic"}


WRONG = (
    "",
    "--prset tiny",
    "evaluate",
    "evaluate missing --far 1e-3",
    "embed",
    "train",
    "--preset tiny --device gpu",
    "--resume missing",
    "--preset tinny",
    "--preset tiny --set optim.lr=1",
    "--preset tiny --set optim.batch_size=x",
    "--profile missing.json",
    "profile-step --preset tinny",
    "profile-step --preset tiny --steps 0",
)
"""Command lines that are refused."""


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_arguments_are_refused_before_torch_is_loaded(arguments: str) -> None:
    """Catches ``import torch`` for ``--device`` before the rest was looked at: 2 s for a word that is spelt wrong."""
    call = f"sys.argv[:] = {['attfc-train', *arguments.split()]}\ntry: main()\nexcept SystemExit as end: assert end.code"
    loaded = loaded_by(f"import sys\nfrom attfc_train.cli import main\n{call}")
    assert loaded <= {"pydantic"}, "Typer takes it to parse values"
