"""Nobody asks of which class a head or its settings are: one asks the object.

Only `attfc_train.heads` may tell them apart; the planner registers by kind what only the planner knows, in dicts that need no
class either (`PRIORS`, `HEAD_FEATURES`, `STRUCTURES`).
"""

from __future__ import annotations

import ast

import pytest

from attfc_planner.accuracy.features import HEAD_FEATURES
from attfc_planner.accuracy.prior_features import PRIORS
from attfc_planner.trace.structure import STRUCTURES
from attfc_train.heads.kinds import HEADS
from tests.architecture.modules import modules, tree

ROOTS = {"HeadSettings", "Head"}
ASKING = {"isinstance", "issubclass"}


def kinds() -> set[str]:
    """The names of all classes of heads and of their settings, by what they inherit."""
    found = set(ROOTS)
    classes = [node for name in modules() for node in ast.walk(tree(name)) if isinstance(node, ast.ClassDef)]
    for _ in classes:
        found |= {node.name for node in classes if {ast.unparse(base).split("[")[0] for base in node.bases} & found}
    return found


@pytest.mark.parametrize("name", sorted(name for name in modules() if not name.startswith("attfc_train.heads")))
def test_nobody_asks_for_the_class_of_a_head(name: str) -> None:
    """Catches ``isinstance(profile.head, AttFCSettings)``, ``type(head) is FullFCHead`` and ``case AttFCSettings():``."""
    classes = kinds()
    assert {"AttFCSettings", "PartialFCSettings", "FullFCHead", "AttFCHead"} <= classes
    asked = []
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ASKING:
            asked += [_names(argument) for argument in node.args[1:]]
        elif isinstance(node, ast.Compare) and any(isinstance(part, ast.Call) for part in [node.left, *node.comparators]):
            asked += [_names(part) for part in [node.left, *node.comparators] if isinstance(part, ast.Name | ast.Attribute)]
        elif isinstance(node, ast.MatchClass):
            asked.append(_names(node.cls))
    assert [names & classes for names in asked if names & classes] == []


def _names(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)} | {
        part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)
    }


def test_a_kind_is_named_by_its_settings() -> None:
    """Catches two kinds whose settings have one another's name."""
    assert {name: kind.settings().kind for name, kind in HEADS.items()} == {name: name for name in HEADS}


def test_what_the_planner_knows_is_known_of_kinds_that_there_are() -> None:
    """Catches a prior for ``atfc``, which no profile can have."""
    assert set(PRIORS) | set(HEAD_FEATURES) | set(STRUCTURES) <= set(HEADS)


@pytest.mark.parametrize("kind", sorted(HEADS))
def test_a_knob_is_a_field_with_values_that_the_schema_takes(kind: str) -> None:
    """Catches ``sample_rate`` with a value of 0, or a knob whose field has another name."""
    settings = HEADS[kind].settings
    for knob in settings.knobs():
        assert knob.name in settings.model_fields
        for value in knob.values:
            assert getattr(settings.model_validate({knob.name: value}), knob.name) == value
