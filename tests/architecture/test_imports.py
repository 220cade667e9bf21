"""The import table: data flows one way.

A new module goes into the highest row that is below everything it imports. Modules of one row do not import each other.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.architecture.modules import imports, imports_when_loaded, modules

TABLE = """
attfc_train attfc_train.errors attfc_train.units attfc_train.allocator attfc_train.names
attfc_train.files attfc_train.exits attfc_train.phase attfc_train.interrupt attfc_train.memory_use attfc_train.frozen
attfc_train.prediction attfc_train.optim attfc_train.search_summary attfc_train.step_start
attfc_train.profile
attfc_train.profile_file attfc_train.precision attfc_train.log

attfc_train.data attfc_train.data.canvas attfc_train.data.hashing attfc_train.data.decode attfc_train.data.identity_index
attfc_train.data.batch attfc_train.data.dataset attfc_train.data.record_frames attfc_train.data.procedural_face
attfc_train.data.permutation
attfc_train.data.residency attfc_train.data.part
attfc_train.data.recordio attfc_train.data.folder attfc_train.data.synthetic attfc_train.data.sampler attfc_train.data.reader
attfc_train.data.source attfc_train.data.recordio_writer attfc_train.data.loader

attfc_train.backbones.checkpointing attfc_train.backbones.full_precision
attfc_train.backbones.iresnet attfc_train.backbones.mobilefacenet attfc_train.backbones.tiny
attfc_train.backbones

attfc_train.losses.margin
attfc_train.losses.streaming attfc_train.schedule
attfc_train.losses.chunked attfc_train.losses.reference
attfc_train.losses.triton
attfc_train.losses
attfc_train.losses.choose
attfc_train.heads.device_hash
attfc_train.heads.attention attfc_train.heads.class_sample attfc_train.heads.cosines attfc_train.heads.slot_storage
attfc_train.heads.container
attfc_train.heads.health attfc_train.heads.stored_queue
attfc_train.heads.head attfc_train.heads.container_resize
attfc_train.heads.attfc attfc_train.heads.full_fc attfc_train.heads.partial_fc
attfc_train.heads

attfc_train.momentum
attfc_train.state
attfc_train.build attfc_train.step attfc_train.checkpoint

attfc_train.evaluate attfc_train.evaluate.pairs attfc_train.evaluate.restricted_pickle attfc_train.evaluate.verification_set
attfc_train.evaluate.bins attfc_train.evaluate.drawn_pairs attfc_train.evaluate.embed
attfc_train.evaluate.load

attfc_train.staleness attfc_train.out_of_memory attfc_train.start_check
attfc_train.loop
attfc_train.run
attfc_train.report_model
attfc_train.cli

attfc_planner attfc_planner.cache attfc_planner.efficiency attfc_planner.accuracy attfc_planner.structure
attfc_planner.fake_results attfc_planner.garbage attfc_planner.measured_accuracy
attfc_planner.gpu attfc_planner.gpu.fingerprint attfc_planner.gpu.probes attfc_planner.gpu.calibration
attfc_planner.gpu.profile
attfc_planner.gpu.catalog attfc_planner.gpu.measurement_cache
attfc_planner.gpu.detect

attfc_planner.trace attfc_planner.block_pools attfc_planner.overheads attfc_planner.real_steps attfc_planner.step_probe
attfc_planner.op_costs attfc_planner.allocator attfc_planner.timeline
attfc_planner.recorder
attfc_planner.record
attfc_planner.affine
attfc_planner.evaluation attfc_planner.scaled
attfc_planner.trace_cache
attfc_planner.traces
attfc_planner.memory attfc_planner.speed
attfc_planner.memory_fit attfc_planner.speed_fit

attfc_planner.search attfc_planner.search.space
attfc_planner.search.candidates attfc_planner.search.tuned
attfc_planner.search.constraints
attfc_planner.search.plainest attfc_planner.search.screening
attfc_planner.search.study
attfc_planner.choose attfc_planner.front_table
attfc_planner.refusal attfc_planner.summary
attfc_planner.knobs attfc_planner.plan
attfc_planner.calibration_runs
attfc_planner.calibrate
attfc_planner.calibrate_screen
attfc_planner.first_use
attfc_planner.explain attfc_planner.fit attfc_planner.launch attfc_planner.screen attfc_planner.timeline_chart
attfc_planner.explain_screen attfc_planner.fit_screen attfc_planner.timeline_svg
attfc_planner.report attfc_planner.report.figures attfc_planner.report.page attfc_planner.report.study_history
attfc_planner.report.sections
attfc_planner.report.build
attfc_planner.commands
attfc_planner.plan_and_train

attfc_planner.tune attfc_planner.tune.worker
attfc_planner.tune.correction attfc_planner.tune.holdout attfc_planner.tune.leash attfc_planner.tune.lock
attfc_planner.tune.scaling attfc_planner.tune.storage attfc_planner.tune.ties attfc_planner.tune.watcher
attfc_planner.tune.budget attfc_planner.tune.claim attfc_planner.tune.question attfc_planner.tune.short_training
attfc_planner.tune.study
attfc_planner.tune.steps attfc_planner.tune.trained
attfc_planner.tune.training_trial
attfc_planner.tune.finals attfc_planner.tune.trainings attfc_planner.tune.result
attfc_planner.tune.screen attfc_planner.tune.tuned_profile
attfc_planner.tune.session

attfc_planner.option_checks
attfc_planner.tune_cli
attfc_planner.cli
"""
ROWS = [line.split() for line in TABLE.strip().splitlines() if line]
ROW_OF = {name: row for row, names in enumerate(ROWS) for name in names}

ONLY_IN = {
    "optuna": {
        "attfc_planner.report.study_history",
        "attfc_planner.search.study",
        "attfc_planner.tune.claim",
        "attfc_planner.tune.storage",
        "attfc_planner.tune.study",
    },
    "sqlalchemy": {"attfc_planner.tune.storage"},
    "typer": {"attfc_train.cli", "attfc_planner.cli", "attfc_planner.tune_cli"},
    "rich": {
        "attfc_train.cli",
        "attfc_train.log",
        "attfc_train.report_model",
        "attfc_train.run",
        "attfc_planner.calibrate_screen",
        "attfc_planner.cli",
        "attfc_planner.commands",
        "attfc_planner.explain_screen",
        "attfc_planner.first_use",
        "attfc_planner.fit_screen",
        "attfc_planner.front_table",
        "attfc_planner.plan_and_train",
        "attfc_planner.screen",
        "attfc_planner.timeline_chart",
        "attfc_planner.tune.screen",
        "attfc_planner.tune.session",
    },
    "pynvml": {"attfc_planner.gpu.fingerprint"},
    "triton": {"attfc_train.losses.triton"},
    "simplejpeg": {"attfc_train.data.decode"},
    "PIL": {"attfc_train.data.decode"},
    "pydantic": {
        "attfc_train.checkpoint",
        "attfc_train.frozen",
        "attfc_train.prediction",
        "attfc_train.profile",
        "attfc_train.profile_file",
        "attfc_train.search_summary",
        "attfc_planner.gpu.calibration",
        "attfc_planner.gpu.catalog",
        "attfc_planner.gpu.profile",
    },
}
"""Whom each dependency belongs to: another one is a decision, not an accident."""

WITHOUT_TORCH = {
    "attfc_train.cli",
    "attfc_train.errors",
    "attfc_train.exits",
    "attfc_train.files",
    "attfc_train.frozen",
    "attfc_train.log",
    "attfc_train.prediction",
    "attfc_train.profile",
    "attfc_train.profile_file",
    "attfc_train.search_summary",
    "attfc_train.units",
    "attfc_planner.calibrate",
    "attfc_planner.cli",
    "attfc_planner.option_checks",
    "attfc_planner.tune_cli",
    "attfc_planner.explain",
    "attfc_planner.first_use",
    "attfc_planner.fit",
    "attfc_planner.plan",
    "attfc_planner.screen",
    "attfc_planner.record",
    "attfc_planner.trace",
    "attfc_planner.trace_cache",
}
"""What must load at once: the command lines' help, checks of profiles, and plans whose traces are cached."""


def test_the_table_is_complete() -> None:
    assert set(modules()) - set(ROW_OF) == set(), "give these modules a row"
    assert set(ROW_OF) - set(modules()) == set(), "these modules are gone: take them out"
    assert len(ROW_OF) == sum(map(len, ROWS)), "a module stands in two rows"


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_row_sees_only_the_rows_above_it(name: str) -> None:
    seen = {target for target in imports(name) if target.split(".")[0] in ("attfc_train", "attfc_planner")}
    assert seen <= set(modules()), "no such module"
    against = {target for target in seen if ROW_OF[target] >= ROW_OF[name]}
    assert against == set()


def test_the_trainer_does_not_know_the_planner() -> None:
    for name in modules():
        if name.startswith("attfc_train"):
            assert not {target for target in imports(name) if target.startswith("attfc_planner")}, name


@pytest.mark.parametrize("package", sorted(ONLY_IN))
def test_dependencies_stay_where_they_belong(package: str) -> None:
    users = {name for name in modules() if any(target.split(".")[0] == package for target in imports(name))}
    assert users == ONLY_IN[package]


@pytest.mark.parametrize("name", sorted(WITHOUT_TORCH))
def test_torch_is_not_loaded_by_what_must_be_quick(name: str) -> None:
    assert not {target for target in imports_when_loaded(name) if target.split(".")[0] in ("torch", "optuna")}


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
        ("attfc_train.cli", "presets"),
        ("attfc_planner.cli", "--help"),
        ("attfc_planner.cli", "gpus"),
    ],
)
def test_help_and_lists_do_not_load_torch(module: str, arguments: str) -> None:
    call = f"sys.argv[1:] = {arguments.split()}\ntry: {module}.main()\nexcept SystemExit as end: assert not end.code"
    assert loaded_by(f"import sys, {module}\n{call}") <= {"pydantic"}
