"""Every number of every document has bounds, and none beyond them is more than one line."""

from __future__ import annotations

import contextlib
import copy
import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from attfc_planner.accuracy.fitted import Fitted
from attfc_planner.gpu.calibration import Calibration
from attfc_planner.gpu.catalog import load_catalog
from attfc_planner.gpu.profile import GpuProfile
from attfc_train.document import MOST, Frozen
from attfc_train.errors import ProfileError
from attfc_train.heads.kinds import HEADS
from attfc_train.profile.file import load_preset, parse_profile, resolve_profile, with_overrides
from attfc_train.profile.profile import TrainProfile
from attfc_train.timing.report import StepReport
from tests.architecture.modules import modules

DOCUMENTS: tuple[type[BaseModel], ...] = (TrainProfile, GpuProfile, Calibration)
"""What attfc reads as JSON; their nodes are in their schemas."""
BEYOND = (2**63, -(2**63) - 1, 10**19, 10**400, -(10**400), 10**4000)


def integers(node: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every node of a schema that is an integer."""
    if isinstance(node, dict):
        if node.get("type") == "integer" and not {"const", "enum"} & set(node):
            yield place, node
        for name, child in node.items():
            yield from integers(child, f"{place}/{name}")
    elif isinstance(node, list):
        for child in node:
            yield from integers(child, place)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_integer_has_bounds(document: type[BaseModel]) -> None:
    """Catches a new field that is ``int`` and nothing else: 10^400 steps gave a traceback."""
    found = dict(integers(document.model_json_schema(), document.__name__))
    assert len(found) >= 2
    assert [place for place, node in found.items() if not {"maximum", "exclusiveMaximum"} & set(node)] == []
    assert [place for place, node in found.items() if not {"minimum", "exclusiveMinimum"} & set(node)] == []


def subclasses(base: type) -> Iterator[type]:
    for child in base.__subclasses__():
        yield child
        yield from subclasses(child)


def test_every_document_is_looked_at() -> None:
    """Catches a document that is no part of those above, but for two.

    The fitted prior is the package's own, and no user hands one in; the times of a step are written, never read.
    """
    own = {child for child in subclasses(Frozen) if child.__module__ in modules()} - {Fitted, StepReport}
    schemas = json.dumps([document.model_json_schema() for document in (*DOCUMENTS, StepReport)])
    bases = {child for child in own if any(other in child.__subclasses__() for other in own)}
    assert {child.__name__ for child in own - bases if f'"{child.__name__}"' not in schemas} == set()


def numbers(node: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the places of all numbers of a document, and of what may be one."""
    for name, child in node.items() if isinstance(node, dict) else ():
        if isinstance(child, dict):
            yield from numbers(child, (*place, name))
        elif child is None or (isinstance(child, int | float) and not isinstance(child, bool)):
            yield (*place, name)


def changed(document: dict[str, Any], place: tuple[str, ...], value: object) -> dict[str, Any]:
    copied = copy.deepcopy(document)
    node = copied
    for name in place[:-1]:
        node = node[name]
    node[place[-1]] = value
    return copied


def documents() -> Iterator[dict[str, Any]]:
    for kind in HEADS:
        yield with_overrides(load_preset("tiny"), [f"head.kind={kind}"]).model_dump(mode="json")


def refusal(document: dict[str, Any], num_ids: int, num_images: int) -> str:
    """Return how a profile is refused for a data set; empty where it is not."""
    try:
        resolve_profile(parse_profile(document, "a profile"), num_ids, num_images)
    except ProfileError as error:
        return str(error)
    return ""


CASES = [(document, place) for document in documents() for place in numbers(document)]


@pytest.mark.parametrize(("document", "place"), CASES, ids=[f"{d['head']['kind']}-{'.'.join(p)}" for d, p in CASES])
def test_no_number_is_more_than_one_line(document: dict[str, Any], place: tuple[str, ...]) -> None:
    """Catches an OverflowError behind the schema, of a float or of what is made of a large count."""
    for value in (*BEYOND, math.inf, -math.inf, math.nan, 1e308, -1e308, MOST, MOST + 1, 0, -1):
        for num_ids, num_images in ((10, 100), (MOST, MOST)):
            assert len(refusal(changed(document, place, value), num_ids, num_images)) < 800


@pytest.mark.parametrize("value", BEYOND)
def test_no_number_of_a_gpu_profile_is_more_than_an_error_of_the_schema(value: int) -> None:
    card = load_catalog()[0].model_dump(mode="json")
    for place in numbers(card):
        with contextlib.suppress(ValidationError):  # and nothing else
            GpuProfile.model_validate(changed(card, place, value))


@pytest.mark.parametrize("field", ["run.steps", "head.dcc_size", "run.save_every", "data.num_ids", "optim.warmup_steps"])
@pytest.mark.parametrize("value", [10**19, 10**400])
def test_set_refuses_them_too(field: str, value: int) -> None:
    with pytest.raises(ProfileError, match=field):
        with_overrides(load_preset("tiny"), [f"{field}={value}"])


def test_a_huge_version_is_shown_in_part() -> None:
    with pytest.raises(ProfileError, match="schema_version") as refused:
        parse_profile({"schema_version": 10**4000}, "a profile")
    assert len(str(refused.value)) < 300
