"""The run that a config of InsightFace's arcface_torch describes, in attfc's terms; what is not the same is named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from attfc_planner.plan.literal_config import LiteralConfig, read_config
from attfc_train.document import Precision
from attfc_train.errors import ProfileError
from attfc_train.heads.settings import MarginSettings

BASE: Final = "base.py"
"""What the trainer puts every config over: a file beside it."""
DEFAULTS: Final[dict[str, Any]] = {
    "margin_list": [1.0, 0.5, 0.0],
    "network": "r50",
    "embedding_size": 512,
    "sample_rate": 1,
    "interclass_filtering_threshold": 0,
    "fp16": False,
    "batch_size": 128,
    "optimizer": "sgd",
    "lr": 0.1,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "gradient_acc": 1,
}
"""What arcface_torch's own configs/base.py says (insightface 1bde35a), where no base.py lies beside the config."""
NETWORKS: Final = ("r18", "r34", "r50", "r100", "r200", "mbf")
"""Networks that have the same name and form here."""

_LOSSES: Final = {"arcface": [1.0, 0.5, 0.0], "cosface": [1.0, 0.0, 0.4]}
"""Margins of the ``loss`` of older configs."""
_RATES: Final = frozenset({"lr", "warmup_epoch", "momentum", "weight_decay"})
_TAKEN: Final = frozenset({*DEFAULTS, "loss", "num_classes", "num_image", "num_epoch", "rec", "val_targets"})
_NO_MATTER: Final = frozenset(
    (
        *("output", "resume", "save_all_states", "verbose", "frequent", "seed", "num_workers", "dali", "dali_aug", "score"),
        *("suffix_run_name", "save_artifacts", "using_wandb", "warmup_step", "total_step"),
        *("wandb_key", "wandb_entity", "wandb_project", "wandb_log_all", "wandb_resume"),
    )
)
"""Options about files and screens, which change neither memory nor speed of a step."""


@dataclass(frozen=True)
class ForeignRun:
    """What the config trains, on one card."""

    path: Path
    network: str
    num_ids: int
    num_images: int | None
    epochs: float | None
    batch_size: int
    """Queries of an optimiser step of one process: its batch times the accumulation."""
    accumulation: int
    embedding_size: int
    precision: Precision
    sample_rate: float
    """1: a full FC layer."""
    interclass_filter: float
    margin: MarginSettings
    data: str | None
    val: tuple[str, ...]
    notes: tuple[str, ...]
    """What is different here, not known or passed over; a line each."""

    @property
    def head(self) -> str:
        """The kind of head here."""
        return "full_fc" if self.sample_rate >= 1 else "partial_fc"


def read_run(path: Path, network: str | None = None) -> ForeignRun:
    """Return the run of a config file.

    Args:
        network: takes the place of the config's.

    Raises:
        ProfileError: the file cannot be read, says nothing of what is needed, or something that cannot be.
    """
    own = read_config(path)
    base = path.with_name(BASE)
    released = LiteralConfig(base, dict(DEFAULTS))
    is_beside = path.name != BASE and base.is_file()
    config = _Values((released.updated(read_config(base)) if is_beside else released).updated(own), own)
    config.say_defaults(is_beside)
    accumulation = config.whole("gradient_acc", 1, 1024)
    data, val = _data(config)
    return ForeignRun(
        path=path,
        network=config.text("network") if network is None else network,
        num_ids=config.whole("num_classes", 2, 10**12),
        num_images=config.whole("num_image", 2, 10**12) if config.has("num_image") else None,
        epochs=config.number("num_epoch", 0.001, 10**6) if config.has("num_epoch") else None,
        batch_size=config.whole("batch_size", 2, 2**16) * accumulation,
        accumulation=accumulation,
        embedding_size=config.whole("embedding_size", 8, 4096),
        precision="fp16" if config.truth("fp16") else "fp32",
        sample_rate=config.number("sample_rate", 1e-6, 1),
        interclass_filter=config.number("interclass_filtering_threshold", 0, 0.999),
        margin=_margin(config),
        data=data,
        val=val,
        notes=tuple(config.notes()),
    )


class _Values:
    """The values of a config, checked as they are taken."""

    def __init__(self, config: LiteralConfig, own: LiteralConfig) -> None:
        self._config = config
        self._own = own
        self._notes: list[str] = []

    def say_defaults(self, is_beside: bool) -> None:
        """Name the options that the config does not set."""
        missing = [name for name in DEFAULTS if not self.sets(name) and name not in _RATES and name in self._config.values]
        if self.sets("loss") and "margin_list" in missing:
            missing.remove("margin_list")
        if missing:
            source = f"{f'{BASE} beside it, or ' if is_beside else ''}arcface_torch's own {BASE}"
            taken = ", ".join(f"{name} {_short(self._config.values[name])}" for name in missing)
            self._notes.append(f"not in the config, so from {source}: {taken}")

    def has(self, name: str) -> bool:
        """Return whether the config gives a value; one that was not evaluated is none.

        Raises:
            ProfileError: it gives one that was not evaluated.
        """
        if name in self._config.unknown:
            raise self._error(name, "a literal or arithmetic", self._config.unknown[name])
        return self._config.values.get(name) is not None

    def sets(self, name: str) -> bool:
        """Return whether the config itself, and not its base, sets an option."""
        return name in self._own.values or name in self._own.unknown

    def number(self, name: str, least: float, most: float) -> float:
        """Return a number within bounds."""
        value = self._config.values[name] if self.has(name) else None
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise self._error(name, f"a number from {least:g} to {most:g}", _short(value))
        return value

    def whole(self, name: str, least: int, most: int) -> int:
        """Return a whole number within bounds."""
        value = self.number(name, least, most)
        if value != int(value):
            raise self._error(name, "a whole number", _short(value))
        return int(value)

    def text(self, name: str) -> str:
        """Return a text."""
        value = self._config.values[name] if self.has(name) else None
        if not isinstance(value, str) or not value:
            raise self._error(name, "a text", _short(value))
        return value

    def truth(self, name: str) -> bool:
        """Return a truth value."""
        value = self._config.values[name] if self.has(name) else None
        if value not in (True, False):
            raise self._error(name, "True or False", _short(value))
        return bool(value)

    def numbers(self, name: str, count: int) -> list[float] | None:
        """Return so many numbers; None where the config does not give the option."""
        if not self.has(name):
            return None
        value = self._config.values[name]
        is_list = isinstance(value, list) and len(value) == count
        if not is_list or not all(isinstance(each, int | float) and not isinstance(each, bool) for each in value):
            raise self._error(name, f"{count} numbers", _short(value))
        return [float(each) for each in value]

    def names(self, name: str) -> list[str]:
        """Return a list of texts; none where the config does not give it or another thing."""
        value = self._config.values.get(name)
        return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []

    def notes(self) -> Iterator[str]:
        """Yield what is not taken over, after the defaults."""
        yield from self._notes
        values = self._config.values
        optimizer = values.get("optimizer", "sgd")
        if optimizer != "sgd":
            yield f"optimizer {_short(optimizer)}: all rows are with attfc's SGD; AdamW keeps one more number a weight"
        yield from self._rates()
        others = [name for name in self._own.values if name not in _TAKEN | _NO_MATTER | _RATES]
        others += [f"{name} ({why})" for name, why in self._config.unknown.items() if name not in _NO_MATTER]
        if others:
            yield f"options not known here and passed over: {', '.join(others)}"
        if self._config.passed_over:
            yield f"not executed: {'; '.join(self._config.passed_over)}"

    def _rates(self) -> Iterator[str]:
        given = [f"{name} {_short(self._own.values[name])}" for name in sorted(_RATES) if name in self._own.values]
        if given:
            yield f"{', '.join(given)}: attfc-plan takes these from its recipe, the rate for the batch size"

    def _error(self, name: str, wanted: str, got: str) -> ProfileError:
        remedy = "Write the number itself into a copy of the config." if name in self._config.unknown else "Mend the config."
        return ProfileError(f"config.{name} of '{self._config.path}' must be {wanted}", got, remedy)


def _margin(config: _Values) -> MarginSettings:
    """Return the margin of ``margin_list``, or of the ``loss`` of older configs, whichever the config itself sets."""
    if config.sets("loss") and not config.sets("margin_list"):
        loss = config.text("loss")
        if loss not in _LOSSES:
            raise ProfileError(f"config.loss must be {' or '.join(_LOSSES)}", f"'{loss}'", "Use margin_list.")
        own: list[float] | None = _LOSSES[loss]
    else:
        own = config.numbers("margin_list", 3)
    multiplier, angle, cosine = own or DEFAULTS["margin_list"]
    try:
        if multiplier == 1 and cosine == 0:
            return MarginSettings(kind="arcface", margin=angle)
        if multiplier == 1 and angle == 0:
            return MarginSettings(kind="cosface", margin=cosine)
        return MarginSettings(kind="combined", multiplier=multiplier, margin=angle, cosine_margin=cosine)
    except ValueError as error:
        got = f"{multiplier:g}, {angle:g}, {cosine:g}"
        raise ProfileError("config.margin_list must hold margins that attfc has", got, "Choose usual ones.") from error


def _data(config: _Values) -> tuple[str | None, tuple[str, ...]]:
    """Return the data set and the verification sets beside it; neither for ``rec = "synthetic"``."""
    if not config.has("rec"):
        return None, ()
    folder = config.text("rec")
    if folder == "synthetic":
        return None, ()
    return folder, tuple(str(Path(folder, f"{name}.bin")) for name in config.names("val_targets"))


def _short(value: Any) -> str:
    text = repr(value)
    return "none" if value is None else text if len(text) <= 60 else f"{text[:57]}..."
