"""A config is read and never executed, whatever stands in it."""

from __future__ import annotations

import sys
import time

import pytest

from attfc_planner.plan.literal_config import read_config
from attfc_train.errors import ProfileError

HEAD = "from easydict import EasyDict as edict\nconfig = edict()\n"


@pytest.fixture
def read(tmp_path):
    def from_text(text, head=HEAD):
        path = tmp_path / "c.py"
        path.write_text(head + text, encoding="utf-8")
        return read_config(path)

    return from_text


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("300 * 10000", 3_000_000),
        ("-(2 ** 10) + 7 // 2 - 8 % 3", -1023),
        ("0.1 / 2", 0.05),
        ("(1.0, 0.5, 0.0)", [1.0, 0.5, 0.0]),
        ("['lfw', 'agedb_30']", ["lfw", "agedb_30"]),
        ("{'a': 1}", {"a": 1}),
        ("'/data/' + 'faces'", "/data/faces"),
        ("None", None),
        ("True", True),
        ("5e-4", 5e-4),
    ],
)
def test_literals_and_arithmetic(read, expression, value):
    assert read(f"config.x = {expression}\n").values == {"x": value}


def test_values_that_stand_above(read):
    config = read("n = 4\nconfig.batch_size = 128\nconfig.lr = 0.1 * config.batch_size / 512 * n\nconfig['e'] = n // 2\n")
    assert config.values == {"batch_size": 128, "lr": 0.1, "e": 2}
    assert config.passed_over == []


def test_the_last_value_counts_and_can_be_changed_in_place(read):
    assert read("config.a = 1\nconfig.a = 5\nconfig.a *= 2\nconfig.b: int = 3\n").values == {"a": 10, "b": 3}


def test_the_object_may_have_another_name_and_first_values(read):
    assert read("import easydict\ncfg = easydict.EasyDict(a=1, b=2)\ncfg.b = 7\n", head="").values == {"a": 1, "b": 7}


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('touch {mark}')",
        "open('{mark}', 'w')",
        "[open('{mark}', 'w') for i in (1,)]",
        "(lambda: open('{mark}', 'w'))()",
        "f\"{{open('{mark}', 'w')}}\"",
        "eval(\"open('{mark}', 'w')\")",
        "unknown",
        "config.never",
        "1 if True else 2",
        "9 ** 9 ** 9",
        "'x' * 10 ** 9",
        "[0] * 10 ** 9",
        "1 / 0",
        "10 ** 400",
        "1j",
        "b'x'",
        "1e999",
        "True + 1",
        "{{unknown: 1}}",
        "-'x'",
        "~5",
    ],
)
def test_everything_else_is_named_and_not_executed(read, tmp_path, expression):
    mark = tmp_path / "executed"
    config = read("config.x = 1\nconfig.x = " + expression.format(mark=mark) + "\nconfig.y = config.x\n")
    assert not mark.exists()
    assert config.values == {}, "the former value is not kept for one that is not known"
    assert config.unknown["x"].startswith("line 4: ")
    assert "config.x is not evaluated" in config.unknown["y"]


@pytest.mark.parametrize(
    "statement",
    [
        "if True:\n    config.x = 2",
        "for config.x in (1, 2): pass",
        "def f():\n    config.x = 2",
        "with open('f') as config.x: pass",
        "config.x, config.z = 1, 2",
        "del config.x",
        "class A:\n    config.x = 3",
    ],
)
def test_what_a_statement_may_change_is_not_known_any_more(read, statement):
    config = read(f"config.x = 1\n{statement}\n")
    assert "x" not in config.values
    assert "line 4" in config.unknown["x"]
    assert config.passed_over[0].startswith("line 4: ")


@pytest.mark.parametrize("statement", ["config.update({'x': 2})", "from configs.base import *", "print('hello')"])
def test_calls_and_imports_of_everything_are_named(read, statement):
    assert read(f"config.x = 1\n{statement}\n").passed_over == [f"line 4: {statement}"]


@pytest.mark.parametrize(
    "text",
    [
        "config = edict(\n",
        "x" * 300_000,
        "# nothing\n",
        "config.x = " + "(" * 5000 + ")" * 5000,
        "config.x" + ".y" * 50_000 + " = 1",
        "\0",
        "config.x = " + "9" * 5000,
    ],
    ids=["syntax", "size", "nothing", "parentheses", "attributes", "zero byte", "digits"],
)
def test_what_is_no_config_is_refused_quickly(read, text):
    since = time.monotonic()
    with pytest.raises(ProfileError, match="must be a config of arcface_torch"):
        read(text)
    assert time.monotonic() - since < 20


def test_deep_arithmetic_is_not_known(read):
    depth = min(900, sys.getrecursionlimit() // 2)
    config = read("config.x = " + "+".join(["1"] * depth) + "\nconfig.y = 1\n")
    assert config.values == {"y": 1}
    assert "too deep" in config.unknown["x"]


def test_other_files_are_recognised(tmp_path):
    (tmp_path / "c.py").write_bytes(b"PK\x03\x04 zip")
    with pytest.raises(ProfileError, match="a zip archive"):
        read_config(tmp_path / "c.py")
    with pytest.raises(ProfileError):
        read_config(tmp_path / "missing.py")
