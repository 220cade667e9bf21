from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
import typer.main
from rich.console import Console

import attfc_train.cli
from attfc_planner.explain.savings import profile_of, released_bytes, savings, train_command
from attfc_planner.plan.arcface_torch import read_run
from attfc_planner.screens.savings import show_savings, verdict
from attfc_train.profile.file import load_preset, with_overrides
from attfc_train.units import GIB
from tests.planner.fakes import FakeMemoryModel, make_gpu
from tests.planner.plan.test_arcface_torch import CONFIG


class Traced(FakeMemoryModel):
    """The fake, with the costs where an exact trace has them."""

    def history(self, profile):
        return SimpleNamespace(costs=[self.op_costs(profile)])


@pytest.fixture
def found(tmp_path):
    def of(capacity=24 * GIB, **changes):
        text = CONFIG
        for name, value in changes.items():
            text += f"config.{name} = {value!r}\n"
        path = tmp_path / "config.py"
        path.write_text(text)
        return savings(read_run(path), make_gpu(capacity), "bf16", lambda base, gpu: Traced(gpu.capacity_bytes))

    return of


def test_the_layers_side_by_side(found):
    kinds = [way.profile.head.kind for way in found().ways]
    assert kinds == ["partial_fc", "full_fc", "attfc"]
    assert [way.profile.head.kind for way in found(sample_rate=1).ways] == ["full_fc", "attfc"]


def test_all_ways_are_the_run_of_the_config(found):
    for way in found(gradient_acc=2, embedding_size=256).ways:
        profile = way.profile
        assert (profile.num_ids, profile.model.backbone, profile.model.embedding_size) == (2059906, "r50", 256)
        assert (profile.optim.batch_size, profile.optim.accumulation) == (256, 2)
        assert (profile.head.margin.kind, profile.head.margin.margin) == ("cosface", 0.4)
        assert profile.run.epochs == 20
    assert found(sample_rate=0.3).own.profile.head.sample_rate == 0.3
    assert found(interclass_filtering_threshold=0.4).own.profile.head.interclass_filter == 0.4


def test_the_learning_rate_belongs_to_the_batch(found):
    """The recipe's 0.1 at 384, so 0.0333 at 128 and 0.133 at 512."""
    assert found(gradient_acc=1).attfc.profile.optim.learning_rate == pytest.approx(0.0333)
    assert found().attfc.profile.optim.learning_rate == pytest.approx(0.133)


def test_what_the_released_layer_takes(tmp_path):
    """insightface#1989: 3 x 4 x 512 bytes an identity, 12.66 GB at 2,059,906, and 2 x 4 x 128 bytes a scored logit."""
    path = tmp_path / "config.py"
    path.write_text(CONFIG)
    assert released_bytes(read_run(path)) == 3 * 4 * 512 * 2059906 + 2 * 4 * 128 * round(0.2 * 2059906)


def test_the_verdict_is_last_and_its_figures_are_the_tables(found):
    answer = found()
    console = Console(file=io.StringIO(), width=80)
    show_savings(console, answer, [["attfc-plan", "--gpu", "a card"]], ["something is different"])
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80 or "config.py" in text
    assert "note: something is different" in text
    assert "attfc-plan --gpu 'a card'" in text
    words = " ".join(text.split())
    assert words.endswith(" ".join(verdict(answer)))
    saved = (answer.own.memory.total_bytes - answer.attfc.memory.total_bytes) / GIB
    assert f"AttFC takes {saved:.2f} GiB less memory than Partial FC 0.2" in words


def test_which_of_them_fits_is_said(found):
    assert "A full FC layer fits, too" in verdict(found(64 * GIB))[0]
    large = found(64 * GIB, gradient_acc=1)
    between = (large.attfc.memory.total_bytes + large.own.memory.total_bytes) // 2
    small = found(between, gradient_acc=1)
    assert [way.fits for way in small.ways] == [False, False, True]
    assert "AttFC fits; Partial FC 0.2 does not." in verdict(small)[0]
    assert "Neither fits" in verdict(found(6 * GIB))[0]


@pytest.mark.parametrize("margin", ["(1.0, 0.5, 0.0)", "(1.0, 0.3, 0.2)"])
def test_the_command_trains_exactly_what_was_compared(found, margin):
    """Every --set is a setting of the preset, and the profile that results is the one that was traced."""
    way = found(margin_list=eval(margin), gradient_acc=2).attfc
    words = train_command(way, "faces", ["faces/lfw.bin"])
    command = typer.main.get_command(attfc_train.cli.app)
    context = command.make_context("attfc-train", words[1:])
    assert not context.args
    trained = with_overrides(load_preset("attfc"), [words[place + 1] for place, word in enumerate(words) if word == "--set"])
    assert trained.model == way.profile.model
    assert trained.optim.batch_size == way.profile.optim.batch_size
    assert trained.optim.accumulation == way.profile.optim.accumulation
    assert trained.run.precision == way.profile.run.precision
    assert trained.head.margin.model_dump(exclude={"ramp_steps", "ramp_images"}) == way.profile.head.margin.model_dump(
        exclude={"ramp_steps", "ramp_images"}
    )


def test_a_profile_is_resolved(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(CONFIG)
    profile = profile_of(read_run(path), make_gpu(), "bf16", "attfc")
    assert profile.dcc_size == 2059906
