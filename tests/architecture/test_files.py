"""One concept, one file, small enough to read in one go and large enough to be worth opening."""

from __future__ import annotations

import ast
from fnmatch import fnmatch

import pytest

from tests.architecture.modules import modules, tree

LEAST_LINES, MOST_LINES = 40, 400
LONGER: dict[str, str] = {
    "attfc_planner.trace.structure": "a class for every kind of head, beside each other, and the knobs that they share",
    "attfc_train.profile.profile": "the schema of one document, whose sections check each other",
}
"""Modules that may be longer, each with its reason."""
SHORTER = {
    "attfc_*.__main__": "python -m needs a file of that name",
    "attfc_planner.commands.*": "one file a command, however little is left to do once its options are checked",
    "attfc_planner.gpu.versions": "plans, tunings and explanations ask it",
    "attfc_planner.trace.no_gc": "several rooms trace and import without the garbage collector",
    "attfc_planner.trace.sum_scratch": "a rule of torch's CUDA kernels, with its source, beside the recorder that asks it",
    "attfc_planner.tune.stages.watcher": "the protocol between every stage and its screen",
    "attfc_train.augment.*": "one file an augmentation, however little it does",
    "attfc_train.backbones.channels_last": "a backbone, what builds them, the counting of costs and the planner's trace ask it",
    "attfc_train.backbones.full_precision": "every backbone ends with it",
    "attfc_train.backbones.squeeze_excite": "two backbones have it",
    "attfc_train.data.formats.packages": "readers and writers of several formats need optional packages, and say so alike",
    "attfc_train.data.sampling.shares": "every sampler can be shared",
    "attfc_train.data.unreadable": "errors that reading, its threads and remote data share",
    "attfc_train.heads.attention": "the head and the stored queue attend alike",
    "attfc_train.heads.dcq.head": "a head beside its settings, which AttFC's does the work of",
    "attfc_train.heads.full_fc.head": "a learned layer and nothing more",
    "attfc_train.heads.f2c.resize": "the pool's own part of taking over a saved one; the rest is the container's",
    "attfc_train.heads.*.settings": "settings stand beside their head, in a file free of torch",
    "attfc_train.screen": "every command's console, apart from the streams, which load without rich",
}
"""Modules that may be shorter, by name or pattern, each with its reason: several callers, or a contract."""

PRINTING = {"attfc_train.exits", "attfc_train.ranks.watch"}
"""The second where it ends a process whose main thread waits for ever. The rest logs, or draws with rich."""

MOST_FUNCTION_LINES = 40
LONG_FUNCTIONS = {
    "attfc_planner.commands.compare_gpus.compare_gpus": "a command's options, each with its help",
    "attfc_planner.cli.plan": "a command's options, each with its help",
    "attfc_planner.cli.tune": "a command's options, each with its help",
    "attfc_train.cli.evaluate": "a command's options, each with its help",
    "attfc_train.cli.train": "a command's options, each with its help",
    "attfc_train.commands.profile_step.profile_step": "a command's options, each with its help",
    "attfc_train.data_commands.check": "a command's options, each with its help",
    "attfc_train.data_commands.cluster": "a command's options, each with its help",
    "attfc_train.data_commands.coreset": "a command's options, each with its help",
    "attfc_train.losses.learning_triton._gradient": "a kernel cannot call what is not inlined by hand",
    "attfc_train.losses.learning_triton._learn": "a kernel cannot call what is not inlined by hand",
    "attfc_train.losses.triton._score": "a kernel cannot call what is not inlined by hand",
}
USUAL_FUNCTION_LINES, SHARE_OF_USUAL = 10, 0.77


def num_lines(name: str) -> int:
    return len(modules()[name].read_text(encoding="utf-8").splitlines())


def is_package(name: str) -> bool:
    return modules()[name].name == "__init__.py"


FILES = sorted(name for name in modules() if not is_package(name))


@pytest.mark.parametrize("name", FILES)
def test_length(name: str) -> None:
    """Catches ``cat attfc_planner/trace/affine.py attfc_planner/trace/align.py``, and `units` without its reason."""
    lines = num_lines(name)
    assert lines <= MOST_LINES or name in LONGER, f"{lines} lines: which of its concepts deserves its own file?"
    spared = any(fnmatch(name, pattern) for pattern in SHORTER)
    assert lines >= LEAST_LINES or spared, f"{lines} lines: whose file does it belong to?"


def test_the_reasons_for_length_are_current() -> None:
    """Catches a reason that outlived its file, or the file's being short."""
    assert [name for name in LONGER if name not in modules() or num_lines(name) <= MOST_LINES] == []
    short = [name for name in FILES if num_lines(name) < LEAST_LINES]
    assert [pattern for pattern in SHORTER if not any(fnmatch(name, pattern) for name in short)] == []


@pytest.mark.parametrize("name", sorted(modules()))
def test_every_module_says_what_it_is_for(name: str) -> None:
    assert ast.get_docstring(tree(name))


FRONT_DOOR = "attfc_train"
"""Gives other programs its public names, each loaded when it is asked for."""


@pytest.mark.parametrize("name", sorted(name for name in modules() if is_package(name) and name != FRONT_DOOR))
def test_a_package_file_says_what_the_room_is_for_and_nothing_else(name: str) -> None:
    """Catches an import in ``attfc_train/heads/__init__.py``, which would load torch with every profile."""
    assert len(tree(name).body) == 1


@pytest.mark.parametrize("name", sorted(set(modules()) - PRINTING))
def test_nothing_prints(name: str) -> None:
    """Except where a module is run as a program."""
    parts = [part for part in tree(name).body if not (isinstance(part, ast.If) and "__main__" in ast.unparse(part.test))]
    names = [node for part in parts for node in ast.walk(part) if isinstance(node, ast.Name)]
    assert [node.lineno for node in names if node.id == "print"] == []


def functions() -> dict[str, int]:
    """Every function by module and name, with its lines, the docstring left out."""
    found = {}
    for name in modules():
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.FunctionDef):
                found[f"{name}.{node.name}"] = max(_lines(node), found.get(f"{name}.{node.name}", 0))
    return found


def test_no_function_is_long_without_a_reason() -> None:
    """Catches `attfc_planner.plan.plan.finished_profile` written into `make_plan`: 57 lines."""
    long = {name for name, lines in functions().items() if lines > MOST_FUNCTION_LINES}
    assert long == set(LONG_FUNCTIONS)


def test_most_functions_are_seen_at_a_glance() -> None:
    """Catches a twentieth of all functions growing beyond ten lines: 79 % are within them."""
    lines = list(functions().values())
    assert sum(count <= USUAL_FUNCTION_LINES for count in lines) >= SHARE_OF_USUAL * len(lines)


def _lines(function: ast.FunctionDef) -> int:
    """Without the docstring."""
    documentation = ast.get_docstring(function, clean=False)
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1 - (documentation.count("\n") + 1 if documentation else 0)
