"""The memory table: its terms, its peak, its cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from attfc_planner.memory.model import MemoryModel, peak_of
from attfc_planner.memory.overheads import (
    CHECKPOINTING_PROCESS,
    CUDA_CONTEXT,
    LEAST_HEADROOM,
    convolution_workspaces,
    headroom,
    unseen_terms,
)
from attfc_planner.trace.history import CATEGORIES, Trace
from attfc_planner.trace.store import Traces
from attfc_train.backbones.kinds import Checkpointing
from attfc_train.profile.prediction import MemoryPrediction
from attfc_train.step.build import build
from attfc_train.units import GIB, MIB
from tests.planner.trace.profiles import device, small_profile

TERMS = {
    "weights",
    "gradients",
    "momentum",
    "class encoder",
    "container",
    "activations",
    "loss",
    "input",
    "workspace",
    "context",
    "headroom",
    "fragmentation",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def model(folder: Path) -> MemoryModel:
    return MemoryModel(small_profile(), device(), 8 * GIB, folder)


def terms_of(prediction: MemoryPrediction) -> dict[str, int]:
    return {term.name: term.bytes for term in prediction.terms}


def test_every_term_is_there_once_with_a_source(model: MemoryModel) -> None:
    prediction = model.estimate(small_profile(batch_size=512))
    names = [term.name for term in prediction.terms]
    assert len(names) == len(set(names))
    assert set(names) - {"convolution workspace"} == TERMS
    assert all(term.source.split(":")[0] in {"traced", "table", "rule", "measured"} for term in prediction.terms)
    assert prediction.budget_bytes == 8 * GIB


def test_terms_say_what_the_state_holds(model: MemoryModel) -> None:
    terms = terms_of(model.estimate(small_profile({"dcc_size": 5000}, num_ids=20_000)))
    assert terms["container"] == 5000 * 64 * 4 + 5000 * 8 + 5000 * 4 + 20_001 * 4
    copies = build(small_profile(), torch.device("cpu")).start.num_bytes
    assert 0 <= terms["weights"] - terms["class encoder"] - copies < 64, "the feature encoder, and a few scalars of the run"
    assert copies < terms["weights"] / 100
    assert terms["context"] == CUDA_CONTEXT
    assert terms["headroom"] == LEAST_HEADROOM


def test_step_part_is_what_the_allocator_reserves(model: MemoryModel) -> None:
    profile = small_profile(batch_size=512)
    terms = terms_of(model.estimate(profile))
    run = model._run(profile, model._traces.estimated(profile))
    rest = sum(terms[name] for name in ("context", "headroom"))
    replayed = run.replay(model.sizes(run.trace), True, model.gpu.capacity_bytes)
    assert sum(terms.values()) - rest == replayed.peak_reserved


def test_more_of_anything_needs_no_less(model: MemoryModel) -> None:
    base = model.estimate(small_profile(batch_size=256)).total_bytes
    assert model.estimate(small_profile(batch_size=512)).total_bytes > base
    assert model.estimate(small_profile({"dcc_size": 100_000}, batch_size=256, num_ids=200_000)).total_bytes > base
    wide, all_blocks = (model.estimate(small_profile(batch_size=256, checkpointing=way)).total_bytes for way in ("wide", True))
    assert max(all_blocks, wide) < base


def test_floor_is_below_the_estimate(model: MemoryModel) -> None:
    profile = small_profile(batch_size=256)
    prediction = model.estimate(profile)
    terms = terms_of(prediction)
    floor = model.floor_bytes(profile)
    assert floor <= prediction.total_bytes - terms["headroom"]
    assert floor >= prediction.total_bytes - terms["headroom"] - terms["fragmentation"]


def test_other_processes_count(model: MemoryModel, folder: Path) -> None:
    crowded = MemoryModel(small_profile(), device(foreign_bytes=GIB), 8 * GIB, folder)
    assert terms_of(crowded.estimate(small_profile()))["foreign"] == GIB


def test_measured_figures_replace_the_tables(folder: Path) -> None:
    measured = {"context_bytes": 300.0 * MIB, "cublas_workspace_bytes": 7.0 * MIB, "headroom_bytes": 64.0 * MIB}
    terms = terms_of(MemoryModel(small_profile(), device(measured=measured), 8 * GIB, folder).estimate(small_profile()))
    assert (terms["context"], terms["workspace"], terms["headroom"]) == (300 * MIB, 7 * MIB, 64 * MIB)


def test_cpu_has_no_allocator_terms(folder: Path) -> None:
    terms = terms_of(MemoryModel(small_profile(), device("cpu"), 8 * GIB, folder).estimate(small_profile()))
    assert not {"fragmentation", "convolution workspace"} & set(terms)
    assert terms["weights"] > 0


def test_cpu_prediction_covers_the_process(folder: Path) -> None:
    """Three real steps in a process of their own stay below the prediction, and above half of it."""
    profile = small_profile(batch_size=128)
    terms = terms_of(MemoryModel(profile, device("cpu"), 8 * GIB, folder).estimate(profile))
    script = """
import sys, torch
from attfc_train.step.build import build
from attfc_train.data.batch import Batch
from attfc_train.run.device_memory import memory_use
from attfc_train.profile.profile import TrainProfile
from attfc_train.step.step import train_step
profile = TrainProfile.model_validate_json(sys.stdin.read())
state, batch = build(profile, torch.device("cpu")), Batch.example(profile, torch.device("cpu"))
for _ in range(3):
    train_step(state, batch)
print(memory_use(state.device).peak)  # not ru_maxrss, which starts with what the parent held when it forked
"""
    run = subprocess.run([sys.executable, "-c", script], input=profile.model_dump_json(), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert sum(terms.values()) / 2 < int(run.stdout) < sum(terms.values())


def test_verification_sets_lie_in_a_cpus_memory() -> None:
    plain = small_profile()
    image = 3 * plain.model.image_size**2
    validated = plain.model_copy(update={"run": plain.run.model_copy(update={"val": ("lfw.bin", "synthetic:9x9")})})
    cpu = device().model_copy(update={"kind": "cpu"})
    without, both = (next(t for t in unseen_terms(one, cpu, 0) if t.name == "data").bytes for one in (plain, validated))
    assert both - without == 2 * 12_000 * image
    assert not [term for term in unseen_terms(validated, device(), 0) if term.name == "data"]


@pytest.mark.parametrize("way", ["wide", True])
def test_checkpointing_makes_a_cpus_process_larger(way: Checkpointing) -> None:
    """torch imports its compiler with it; a GPU's context stays as it is."""
    for kind, more in (("cpu", CHECKPOINTING_PROCESS), ("cuda", 0)):
        plain, saving = (
            next(
                term.bytes for term in unseen_terms(small_profile(checkpointing=on), device(kind), 0) if term.name == "context"
            )
            for on in (False, way)
        )
        assert saving - plain == more


def test_headroom_grows_with_the_need() -> None:
    assert headroom(0, device()).bytes == 512 * MIB
    assert headroom(100 * GIB, device()).bytes == 6 * GIB


def test_convolution_workspace_rule() -> None:
    moved = np.array([1, 100 * MIB])
    assert convolution_workspaces(moved, device()).tolist() == [64 * MIB, 100 * MIB]
    assert convolution_workspaces(moved, device("cpu")).tolist() == [0, 0]


def test_peak_of_a_history_by_hand() -> None:
    trace = Trace(
        events=(0, 1, 2, ~1, 3, ~3, ~2),
        nbytes=np.array([1000, 5000, 2000, 3000]),
        ops=("empty", "convolution", "mm", "add"),
        phases=("build", "forward", "loss", "backward"),
        categories=("weights", "activations", "loss", "activations"),
        steps=(1,),
        costs=((),),
    )
    peak = peak_of(trace, trace.nbytes)
    assert (peak.phase, peak.operator) == ("loss", "mm")
    assert {name: size for name, size in peak.alive.items() if size} == {"weights": 1000, "activations": 5000, "loss": 2000}
    assert set(peak.alive) == set(CATEGORIES)
    assert (list(trace.births(-1)), list(trace.births(0))) == ([0], [1, 2, 3])


def test_cache_is_used_and_damage_is_repaired(tmp_path: Path) -> None:
    profile = small_profile()
    first = MemoryModel(profile, device(), GIB, tmp_path).estimate(profile)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 3
    times = [path.stat().st_mtime_ns for path in files]
    assert MemoryModel(profile, device(), GIB, tmp_path).estimate(profile) == first
    assert [path.stat().st_mtime_ns for path in files] == times
    files[0].write_bytes(files[0].read_bytes()[:-100])
    for path in files[1:]:
        path.write_bytes(b"not a trace")
    assert MemoryModel(profile, device(), GIB, tmp_path).estimate(profile) == first
    assert all(path.stat().st_mtime_ns > before for path, before in zip(files, times, strict=True))


def test_names_and_rates_share_a_trace(folder: Path) -> None:
    traces = Traces(folder)
    profile = small_profile()
    optim = profile.optim.model_copy(update={"learning_rate": 0.02})
    other = profile.model_copy(update={"name": "other", "optim": optim})
    assert traces.exact(profile) is traces.exact(other)


def test_prepare_traces_several_structures(tmp_path: Path, model: MemoryModel) -> None:
    prepared = MemoryModel(small_profile(), device(), 8 * GIB, tmp_path)
    variants = [small_profile(checkpointing=checkpointing) for checkpointing in (False, True)]
    prepared.prepare(variants)
    assert len(list(tmp_path.iterdir())) == 4
    assert [prepared.estimate(variant) for variant in variants] == [model.estimate(variant) for variant in variants]


def test_cached_plans_do_not_import_torch(folder: Path, model: MemoryModel) -> None:
    model.estimate(small_profile())
    model.exact(small_profile())
    script = """
import sys
from pathlib import Path
from attfc_planner.memory.model import MemoryModel
from tests.planner.trace.profiles import device, small_profile
model = MemoryModel(small_profile(), device(), 1 << 33, Path(sys.argv[1]))
model.estimate(small_profile(batch_size=96)), model.exact(small_profile()), model.op_costs(small_profile())
assert "torch" not in sys.modules
"""
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", script, str(folder)], check=True, env=environment, cwd=root)
