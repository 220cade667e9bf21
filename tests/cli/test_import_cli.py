"""``attfc-plan import``, as it is typed."""

from __future__ import annotations

import sys

import pytest

from attfc_planner import cli
from tests.planner.plan.test_arcface_torch import CONFIG


@pytest.fixture
def plan(monkeypatch, capsys):
    def call(*arguments, code=0) -> str:
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.setattr(sys, "argv", ["attfc-plan", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        output, errors = capsys.readouterr()
        assert (left.value.code, "Traceback" in errors) == (code, False), output + errors
        return " ".join((output + errors).split())

    return call


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(CONFIG)
    return path


@pytest.mark.parametrize("network", ["vit_b", "r2060", "mbf_large", "a\nb"])
def test_an_unknown_network_is_named_with_those_that_are_known(config, plan, network):
    config.write_text(CONFIG.replace('"r50"', repr(network)))
    shown = plan("import", config, "--gpu", "rtx-4090", code=2)
    assert "config.network must be one that attfc has: r18, r34, r50, r100, r200, mbf" in shown
    assert "--backbone r50" in shown


def test_a_file_that_is_no_config(tmp_path, plan):
    (tmp_path / "c.py").write_text("print('hello')\n")
    assert "must be a config of arcface_torch" in plan("import", tmp_path / "c.py", code=3)
    assert "must be a config of arcface_torch" in plan("import", tmp_path / "missing.py", code=3)
    assert "must be a config of arcface_torch" in plan("import", tmp_path, code=3)


def test_a_wrong_precision(config, plan):
    assert "--precision must be bf16, fp16 or fp32" in plan("import", config, "--gpu", "rtx-4090", "--precision", "fp8", code=2)


@pytest.mark.slow
def test_a_small_run_on_the_cpu(config, plan, tmp_path, monkeypatch):
    """Real traces of the three layers; the data set is not here, and fp16 is not on a CPU."""
    monkeypatch.setenv("ATTFC_CACHE_DIR", str(tmp_path / "cache"))
    text = CONFIG.replace('"r50"', '"mbf"').replace("2059906", "300").replace("42474557", "3000")
    config.write_text(text.replace("batch_size = 128", "batch_size = 8"))
    shown = plan("import", config, "--gpu", "cpu")
    assert "mbf, 300 identities, Partial FC 0.2, batch size 32, on one" in shown
    assert "full FC layer" in shown
    assert "has no fp16 arithmetic, so all rows are fp32" in shown
    assert "config.rec '/data/WebFace42M' is not here" in shown
    assert "attfc-plan --gpu cpu --ids 300 --images 3000 --backbone mbf --precision fp32 --epochs 20" in shown
    assert "--set optim.batch_size=32 --set optim.accumulation=4" in shown
