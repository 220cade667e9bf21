"""What people write behind --gpu: a card, a name that leaves two open, or a device that is none of NVIDIA's cards."""

from __future__ import annotations

import sys

import pytest

from attfc_planner import cli
from attfc_planner.gpu.catalog import get_card
from attfc_planner.gpu.detect import find_gpu
from attfc_train.errors import UsageError

Outcome = tuple[int, str, str]


def plan(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> Outcome:
    monkeypatch.setattr(sys, "argv", ["attfc-plan", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    captured = capsys.readouterr()
    return int(left.value.code or 0), " ".join(captured.out.split()), captured.err


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "RTX 3060",
            "--gpu must name one card, but got 'RTX 3060', which stands for 2. "
            "Give one of: rtx-3060-8 (7.41 GiB), rtx-3060-12 (11.44 GiB).",
        ),
        (
            "RTX 4090 Laptop",
            "--gpu must be a desktop or data-centre card, but got 'RTX 4090 Laptop', a laptop's chip, which has other memory, "
            "clocks and power than the card of that number. On that machine --gpu auto measures it; elsewhere give a GPU "
            "profile file (docs/planning.md, Cards).",
        ),
        (
            "MI300X",
            "--gpu must be a device that runs CUDA, but got 'MI300X', a device of AMD's. "
            "Give an NVIDIA card ('attfc-plan gpus' lists them), or cpu for this machine's processor.",
        ),
        ("mps", "--gpu must be a device that runs CUDA, but got 'mps', a device of Apple's."),
        ("A100-10C", "--gpu must be a whole card, but got 'A100-10C', a part of one (MIG or vGPU)."),
        ("rtx 4095", "a GPU profile file or a card of the catalogue, but got 'rtx 4095'. Nearest: rtx-4090, "),
    ],
)
@pytest.mark.parametrize("command", [("--ids", "5000", "--gpu"), ("fit", "--gpu"), ("gpus",)], ids=["plan", "fit", "gpus"])
def test_a_word_that_names_no_card_is_refused_in_one_line(
    command: tuple[str, ...],
    word: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, err = plan(monkeypatch, capsys, *command, word)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize("word", ["8xh100-sxm", "8 x H100-SXM", "8XH100 SXM", "8*h100-sxm", "8×h100-sxm"])
def test_several_cards_are_planned_as_one_and_said_so(word: str) -> None:
    device, note = find_gpu(word)
    assert device == get_card("h100-sxm")
    assert note is not None
    assert note.startswith(f"8 x {device.name}: planned for one of them. attfc-train uses one card")


def test_one_card_of_a_kind_needs_no_words_and_several_of_none_are_refused() -> None:
    assert find_gpu("1x rtx-4090") == find_gpu("rtx-4090")
    with pytest.raises(UsageError, match=r"a card of the catalogue, but got 'h1oo'. Nearest: "):
        find_gpu("8xh1oo")
    with pytest.raises(UsageError, match=r"got '0xh100-sxm'"):
        find_gpu("0xh100-sxm")


def test_the_list_has_both_sizes_of_a_card(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = plan(monkeypatch, capsys, "gpus")
    assert (code, err) == (0, "")
    assert "rtx-4060-ti-8 7.46 GiB" in out
    assert "rtx-4060-ti-16 15.42 GiB" in out


def test_a_card_without_kernels_in_todays_torch_is_planned_for_with_a_line_that_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--backbone", "mbf", "--share", "0.1", "--storage", "fp32")
    code, out, err = plan(monkeypatch, capsys, "fit", "--gpu", "v100-32", *options)
    assert (code, err) == (0, "")
    assert "NVIDIA V100 SXM2 32 GB has compute capability 7.0, and torch's usual builds (CUDA 13) begin at 7.5" in out
