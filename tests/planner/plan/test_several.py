"""Plans for several GPUs: the batch of all, the launch, what is refused, and that a plan for one is what it was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from attfc_planner.commands.option_checks import checked_link
from attfc_planner.gpu.catalog import get_card
from attfc_planner.knobs.space import LEAST_PART, Setting, space_for
from attfc_planner.plan.launch import launch, torchrun_arguments, train_command
from attfc_planner.plan.plan import Plan, make_plan
from attfc_planner.plan.problem import pose
from attfc_planner.plan.request import PlanRequest
from attfc_planner.screens.plan import several_rows
from attfc_train.errors import UsageError
from attfc_train.profile.file import load_profile, save_profile
from attfc_train.profile.profile import TrainProfile
from attfc_train.ranks.ranks import ALONE, Ranks
from attfc_train.run.several import plan_words, shared_profile
from attfc_train.timing.op_cost import BESIDE, OpCost
from tests.planner.fakes import FakeMemoryModel


class Exchanging(FakeMemoryModel):
    """Several GPUs add up 100 MB of gradients a step."""

    def op_costs(self, profile: TrainProfile) -> tuple[OpCost, ...]:
        share = profile.model_copy(update={"optim": profile.optim.model_copy(update={"batch_size": profile.gpu_batch_size})})
        backward = OpCost("convolution_backward", "conv", "backward", 10**12, 10**9, 100)
        exchange = OpCost(BESIDE, "exchange", "backward", 0, 10**8, 4)
        return (*super().op_costs(share), backward, *([exchange] if profile.run.gpus > 1 else []))


def planned(gpus: int, **given: object) -> Plan:
    request = PlanRequest(num_ids=100_000, num_images=10**7, head="full_fc", gpus=gpus, **given)  # type: ignore[arg-type]
    return make_plan(pose(request, get_card("h100-sxm"), lambda *_: Exchanging()))


@pytest.fixture(scope="module")
def plan() -> Plan:
    return planned(4)


def test_the_batch_is_that_of_all_and_each_has_an_equal_share(plan: Plan) -> None:
    profile = plan.profile
    assert profile.run.gpus == 4
    assert profile.optim.batch_size == 4 * profile.gpu_batch_size
    assert profile.gpu_part_size >= LEAST_PART
    several = profile.prediction.several if profile.prediction else None
    assert several is not None
    assert several.sent_bytes == 2 * 3 / 4 * 10**8
    assert 0 < several.efficiency < 1
    assert 0 < several.hidden_ms < several.communication_ms.high
    assert any("another GPU stops helping" in line or "More GPUs help" in line for _, line, _ in several_rows(profile))


def test_the_launch_starts_a_process_a_gpu(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    command = train_command(plan, ["--profile", "best.json"])
    assert command == ["torchrun", "--nproc-per-node", "4", "-m", "attfc_train", "--profile", "best.json"]
    assert torchrun_arguments(8, 2)[:2] == ["--nnodes", "2"]
    assert torchrun_arguments(8, 2)[-2:] == ["--nproc-per-node", "4"]
    assert train_command(planned(1), ["--profile", "best.json"]) == ["attfc-train", "--profile", "best.json"]
    commands: list[Sequence[str]] = []

    class Child:
        def __init__(self, command: Sequence[str]) -> None:
            commands.append(command)

        def __enter__(self) -> Child:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def wait(self) -> int:
            return 0

    monkeypatch.setattr("subprocess.Popen", Child)
    assert launch(["--profile", "best.json"], 4) == 0
    assert commands[0][-7:] == ["torch.distributed.run", *torchrun_arguments(4), "-m", "attfc_train", "--profile", "best.json"]


def test_a_plan_for_one_says_nothing_of_several(tmp_path: Path) -> None:
    """Catches a document, and so a digest of traces and checkpoints, that changed for one GPU."""
    profile = planned(1).profile
    document = profile.model_dump(mode="json")
    assert "gpus" not in document["run"]
    assert "several" not in document["prediction"]
    assert "gpus" not in document["search"]["knobs"]
    assert several_rows(profile) == []
    names = Setting.of({}).names
    assert "gpus" not in (*names, *space_for(1000, kind="full_fc").names)


def test_the_trainer_keeps_the_prediction_for_as_many_processes_alone(plan: Plan, tmp_path: Path) -> None:
    """Catches a memory that was predicted for a part of the head and is compared with the whole of it."""
    path = tmp_path / "best.json"
    save_profile(plan.profile, path)
    profile = load_profile(path)
    assert profile == plan.profile
    resolved = profile.resolve(profile.num_ids)
    four = Ranks(1, 4)
    assert shared_profile(resolved, four).prediction == profile.prediction
    assert plan_words(resolved, four) is None
    for ranks in (ALONE, Ranks(0, 2)):
        assert shared_profile(resolved, ranks).prediction is None
        assert shared_profile(resolved, ranks).run.gpus == ranks.size
        words = plan_words(resolved, ranks)
        assert words is not None
        assert "torchrun --nproc-per-node 4" in words


def test_parts_that_are_small_on_each_gpu_are_not_searched() -> None:
    space = space_for(10**6, kind="full_fc", gpus=8)
    assert min(space["batch_size"].values) == 8 * 32  # type: ignore[type-var]
    first = next(iter(space))
    assert first.gpus == 8
    assert first.divides
    assert not first.turned(accumulation=2).divides  # 16 each
    assert first.turned(batch_size=512, accumulation=2).divides
    assert not first.turned(batch_size=300).divides


def test_what_the_trainer_refuses_is_refused() -> None:
    with pytest.raises(UsageError, match="several processes need a head whose centers they can share"):
        pose(PlanRequest(num_ids=1000, head="f2c", gpus=2), get_card("h100-sxm"), lambda *_: Exchanging())
    left_out = pose(PlanRequest(num_ids=1000, head="any", gpus=2), get_card("h100-sxm"), lambda *_: Exchanging()).left_out
    assert any(line.startswith("head f2c: several processes") for line in left_out)
    with pytest.raises(UsageError, match="a center each"):
        pose(PlanRequest(num_ids=3, head="full_fc", gpus=4), get_card("h100-sxm"), lambda *_: Exchanging())


@pytest.mark.parametrize(
    ("link", "gpus", "nodes", "train", "rule"),
    [
        ("ib", 8, 1, False, "--link must be"),
        ("pcie", 1, 1, False, "--nodes and --link need --gpus"),
        (None, 1, 2, False, "--nodes and --link need --gpus"),
        (None, 8, 2, True, "--train starts on this machine alone"),
    ],
)
def test_options_that_cannot_be_together(link: str | None, gpus: int, nodes: int, train: bool, rule: str) -> None:
    with pytest.raises(UsageError, match=rule):
        checked_link(link, gpus, nodes, train)
    checked_link(None, 8, 1, True)
