"""Settings of the full classification layer."""

from __future__ import annotations

from typing import Literal

from attfc_train.heads.learned.settings import LearnedSettings
from attfc_train.heads.settings import MarginSettings


class FullFCSettings(LearnedSettings):
    """A learned weight matrix over all identities: the baseline."""

    kind: Literal["full_fc"] = "full_fc"
    margin: MarginSettings = MarginSettings()
