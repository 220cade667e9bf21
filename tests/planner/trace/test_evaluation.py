"""The evaluation pass: traced from the function that evaluates, and part of every prediction."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from attfc_planner.memory.model import MemoryModel, peak_of
from attfc_planner.memory.run import CUBLAS_HANDLES
from attfc_planner.trace.evaluation import NUM_IMAGES, evaluation_structure, learn_evaluation, traced_evaluation
from attfc_planner.trace.record import record_evaluation
from attfc_train.document import Precision
from attfc_train.step.build import build
from attfc_train.units import GIB
from tests.planner.trace.profiles import device, small_profile

CASES: list[tuple[str, Precision]] = [("tiny", "fp32"), ("tiny", "fp16"), ("r18", "bf16"), ("mbf", "bf16")]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("backbone", "precision"), CASES)
def test_fake_evaluation_is_the_real_one(backbone: str, precision: Precision) -> None:
    structure = evaluation_structure(small_profile(backbone=backbone, precision=precision, image_size=32))
    fake, real = record_evaluation(structure, [3])[0], record_evaluation(structure, [3], torch.device("cpu"))[0]
    assert fake.ops == real.ops
    np.testing.assert_array_equal(fake.nbytes, real.nbytes)
    assert (fake.events, fake.phases, fake.categories) == (real.events, real.phases, real.categories)
    assert set(fake.phases) == {"evaluation"}


@pytest.mark.parametrize("head", ["attfc", "dcq"])
def test_the_trace_is_that_of_the_encoder_which_a_run_exports(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches ``no_grad`` in the place of inference mode: autocast then keeps copies of trained weights, and of others none."""
    profile = small_profile({"kind": head}, precision="bf16", image_size=32)
    traced = record_evaluation(evaluation_structure(profile), [3])[0]
    build_exported = lambda _model, device: build(profile, device).exported_encoder  # noqa: E731
    monkeypatch.setattr("attfc_planner.trace.recorder.build_encoder", build_exported)
    exported = record_evaluation(evaluation_structure(profile), [3])[0]
    assert (traced.ops, traced.events) == (exported.ops, exported.events)
    np.testing.assert_array_equal(traced.nbytes, exported.nbytes)


@pytest.mark.parametrize(("backbone", "precision"), CASES)
def test_learned_sizes_are_exact(backbone: str, precision: Precision) -> None:
    structure = evaluation_structure(small_profile(backbone=backbone, precision=precision))
    learned, traced = learn_evaluation(structure).at(7), traced_evaluation(structure, 7)
    np.testing.assert_array_equal(learned.nbytes, traced.nbytes)
    assert (learned.events, learned.categories) == (traced.events, traced.categories)


@pytest.mark.parametrize("batch_size", [8, 64, 7000])
def test_embeddings_of_all_images_add_up(batch_size: int) -> None:
    trace = traced_evaluation(evaluation_structure(small_profile()), batch_size)
    batches = -(-NUM_IMAGES // batch_size)
    row = 4 * (64 + 1)  # a sum of D = 64 numbers and a norm
    collected = dict.fromkeys(("add", "div", "cat"), 0)
    for size, category, name in zip(trace.nbytes.tolist(), trace.categories, trace.ops, strict=True):
        if category == "embeddings":
            collected[name] += size
    assert collected["cat"] == batches * batch_size * row
    assert collected["add"] + collected["div"] == batches * batch_size * row
    images = [size for size, category in zip(trace.nbytes.tolist(), trace.categories, strict=True) if category == "input"]
    assert images == [batch_size * 3 * 64 * 64] * 2
    assert {~event for event in trace.events if event < 0} | {
        index for index, name in enumerate(trace.ops) if name == "cat"
    } == set(range(len(trace.nbytes)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MemoryModel:
    return MemoryModel(small_profile(), device(), 8 * GIB, tmp_path_factory.mktemp("cache"))


def test_a_prediction_covers_training_and_evaluation(model: MemoryModel) -> None:
    """With batches of one size training is the peak, because backward needs what an evaluation throws away."""
    profile = small_profile(batch_size=256)
    steps, evaluation = model._traces.exact(profile), model._traces.evaluation(profile)
    both = model._run(profile, steps)
    peak = peak_of(both.trace, both.trace.nbytes)
    assert peak.alive == peak_of(steps, steps.nbytes).alive
    second = len(steps.events) - steps.steps[1]
    assert len(both.trace.events) == CUBLAS_HANDLES + len(steps.events) + len(evaluation.events) + 2 * second
    for predict in (model.exact, model.estimate):
        prediction = predict(profile)
        assert prediction.peak_phase != "evaluation"
        assert "embeddings" not in {term.name for term in prediction.terms}


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_an_evaluation_can_be_the_peak(kind: str, model: MemoryModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A small training batch and a large one to evaluate: the table is that of the evaluation, beside what training keeps."""
    profile = small_profile(batch_size=8)
    judge = MemoryModel(profile, device("cpu" if kind == "cpu" else "cuda"), 8 * GIB, tmp_path)
    judge._traces = model._traces
    training = judge.exact(profile)
    floor = judge.floor_bytes(profile)
    large = model._traces.evaluation(small_profile(batch_size=2048))
    monkeypatch.setattr(model._traces, "evaluation", lambda _: large)
    for prediction in (judge.exact(profile), judge.estimate(profile)):
        terms = {term.name: term.bytes for term in prediction.terms}
        before = {term.name: term.bytes for term in training.terms}
        assert prediction.peak_phase == "evaluation"
        assert prediction.total_bytes > training.total_bytes
        kept = ("weights", "momentum", "class encoder", "container")
        assert [terms[name] for name in kept] == [before[name] for name in kept]
        assert terms["gradients"] == 0
        assert terms["activations"] > 2048 * 3 * 64 * 64 * 4
        assert terms["input"] == before["input"] + 2048 * 3 * 64 * 64, "beside the places of the training's batches"
        assert terms["embeddings"] > 0
    # Catches a floor of the train steps alone: the images in fp32 are more than all that training needs beside the context.
    assert judge.floor_bytes(profile) - floor > 2048 * 3 * 64 * 64 * 4
