"""Every kind of head passes the contract, in several settings."""

from __future__ import annotations

import pytest

from attfc_train.heads import kinds
from attfc_train.heads.settings import HeadSettings
from tests.contracts.head_contract import HeadContract
from tests.train.profiles import HEADS


class TestHeads(HeadContract):
    @pytest.fixture(params=sorted(HEADS))
    def settings(self, request: pytest.FixtureRequest) -> HeadSettings:
        return HEADS[request.param]


def test_every_kind_is_among_them() -> None:
    """Catches a new line in `attfc_train.heads.kinds.HEADS` without settings in `tests.train.profiles.HEADS`."""
    assert {settings.kind for settings in HEADS.values()} == set(kinds.HEADS)
