"""Settings of the full classification layer."""

from __future__ import annotations

from typing import Literal

from attfc_train.heads.settings import HeadSettings, MarginSettings


class FullFCSettings(HeadSettings):
    """A learned weight matrix over all identities: the baseline."""

    kind: Literal["full_fc"] = "full_fc"
    margin: MarginSettings = MarginSettings()
