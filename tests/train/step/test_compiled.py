"""Compiled encoders compute what written ones do, go on where they stopped, and leave verification as it is."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from attfc_train.errors import UsageError
from attfc_train.profile.profile import TrainProfile
from attfc_train.run.checkpoint import Checkpoints, load_last
from attfc_train.step.build import build
from attfc_train.step.compiled import as_written, compile_encoders
from attfc_train.step.state import TrainState
from tests.train.profiles import small_profile
from tests.train.step.states import flat, made

CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")  # of its own compiler


def compiled_profile(**optim: int) -> TrainProfile:
    profile = small_profile("identity-30%", **optim)
    model = profile.model.model_copy(update={"gradient_checkpointing": "wide"})  # which compiled blocks do in their own way
    return profile.model_copy(update={"model": model, "run": profile.run.model_copy(update={"compile": True})})


def built(profile: TrainProfile) -> TrainState:
    state = build(profile, CPU)
    compile_encoders(state)
    return state


def graphs() -> int:
    """Return how many graphs were compiled in this process."""
    return int(counters["stats"]["unique_graphs"])


@pytest.mark.skipif(
    shutil.which("g++") is None or not (Path(sysconfig.get_path("include")) / "Python.h").exists(),
    reason="needs g++ and the headers of Python, with which torch compiles for a CPU",
)
def test_a_compiled_step_learns_what_a_written_one_does_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    profile = compiled_profile(accumulation=2)
    written = build(profile, CPU)
    before = graphs()
    compiled = built(profile)
    losses = made(compiled, 0, 2)
    assert graphs() >= before + 3, "the line that tries the compiler, and a pass of either encoder"
    Checkpoints(tmp_path, keep=1).save(compiled, None)
    losses += made(compiled, 2, 4)

    assert losses == pytest.approx(made(written, 0, 4), rel=1e-4)
    torch.testing.assert_close(flat(compiled), flat(written), rtol=1e-3, atol=1e-4)

    resumed = built(profile)
    load_last(tmp_path, print).restore(resumed)
    made(resumed, 2, 4)
    assert torch.equal(flat(resumed), flat(compiled))

    load_last(tmp_path, print).restore(written)  # a run goes on without being compiled, too
    assert made(written, 2, 4) == pytest.approx(losses[2:], rel=1e-4)

    number = graphs()
    images = torch.zeros(3, 3, 32, 32)  # of another size than a part of the batch
    with as_written(compiled), torch.no_grad():
        expected = compiled.feature_encoder.forward(images)
        assert torch.equal(compiled.feature_encoder(images), expected)
    assert graphs() == number


def test_nothing_is_compiled_unless_asked_for() -> None:
    before = graphs()
    state = built(small_profile())
    made(state, 0, 1)
    assert graphs() == before


def test_a_compiler_that_is_missing_is_told_before_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    torch.compiler.reset()
    with pytest.raises(UsageError, match=r"run\.compile must find a compiler that works") as caught:
        compile_encoders(build(compiled_profile(), CPU))
    assert "run.compile=false" in caught.value.remedy
