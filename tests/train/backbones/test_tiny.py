from __future__ import annotations

from tests.contracts.backbone_contract import BackboneContract


class TestTiny(BackboneContract):
    name = "tiny"
