"""Queries a second whose images the host decodes beside a step: from cores, image size, references and format.

    queries/s = cores x images/s of a core / (1 + references),  cores = min(host's, loader's threads)

The rate of a core is stated (`STATED`), or measured on the user's data (`attfc_planner.speed.decode_probe`). Where the cores
are not known, nothing is limited; the prediction then says how many it takes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.speed.efficiency import Range
from attfc_train.profile.prediction import Interval, Loading
from attfc_train.profile.profile import MAX_DEFAULT_WORKERS, TrainProfile
from attfc_train.units import Bytes

LOADER_SHARE = Range(0.55, 0.95)
"""Images/s of the loader over (cores x images/s of a core that only decodes). By the clock it made 0.73 to 1.03 of pure
decoding on two quiet cores (LFW at 112 pixels, docs/data.md, p20 and p80); what lies below is for cores that other programs
want too."""
_OTHER_HOST = 1.3
"""Factor by which the cores of another machine may be slower or faster; an EPYC's decoded 0.8 of what the Xeon's do."""
_ELSEWHERE = ", and for the cores of another machine"
_MEASURED = "measured"
_ROUNDING = 1e-9


@dataclass(frozen=True)
class DecodeRate:
    """Images a second that one core of the loader decodes."""

    per_core: Range
    image_size: int
    """For which it holds; a pixel of a larger image is taken to cost the same."""
    source: str

    @classmethod
    def measured(cls, alone: float, image_size: int, what: str) -> DecodeRate:
        """Return the rate of a loader's core from that of one that only decodes.

        Args:
            alone: images per second of processor time. what: of which data, and when.
        """
        share = LOADER_SHARE
        source = (
            f"{_MEASURED}: {alone:,.0f} images a second of a core, {what}, times {share.low:g} to {share.high:g} for the loader"
        )
        return cls(Range(alone * share.low, alone * share.high), image_size, source)

    @classmethod
    def saved(cls, loading: Loading) -> DecodeRate:
        """Return the rate that a profile was planned with."""
        rate = loading.images_per_core_second
        return cls(Range(rate.low, rate.high), loading.image_size, rate.source)

    def on(self, gpu: GpuProfile) -> DecodeRate:
        """Return the rate for the host of a device: what was measured here is wider for another machine's cores."""
        if gpu.host_is_here or not self.source.startswith(_MEASURED) or self.source.endswith(_ELSEWHERE):
            return self
        wider = Range(self.per_core.low / _OTHER_HOST, self.per_core.high * _OTHER_HOST)
        return DecodeRate(wider, self.image_size, self.source + _ELSEWHERE)

    def queries(self, profile: TrainProfile) -> Range:
        """Return the queries a second of one core, whose references it decodes too."""
        images = (1 + profile.num_references) * (profile.model.image_size / self.image_size) ** 2
        return Range(self.per_core.low / images, self.per_core.high / images)


STATED = DecodeRate(
    Range(3500.0, 10000.0),
    112,
    "stated: JPEG of 112 x 112 pixels, as measured with LFW (docs/planning.md); --data measures yours",
)
"""The loader's reader alone makes 11,000 on an Xeon's core. Of that `LOADER_SHARE`, the low end of 0.8 of it, as an EPYC's core
decodes, over `_OTHER_HOST`: 3,700 to 10,450."""


@dataclass(frozen=True)
class LoadingSpeed:
    """Decoding beside a step."""

    rate: DecodeRate
    queries_per_core: Range
    unfed: Range
    """Queries a second of all the rest: the step, and the copy to the device."""
    host_cores: int | None
    """None: the host is not known."""
    most_threads: int
    """Threads that the loader starts at most."""
    is_kept: bool = False
    """Whether all decoded images stay in memory, so that an epoch's is the last that decodes."""
    is_shared: bool = False
    """Whether the step runs on the same cores."""
    on_card: bool = False
    """Whether the GPU decodes (``data.device``): how fast was never measured, and the host's cores limit nothing."""

    @property
    def cores(self) -> int | None:
        """Return the cores that decode."""
        return None if self.host_cores is None else min(self.host_cores, self.most_threads)

    @property
    def fed(self) -> Range | None:
        """Return the queries a second that are decoded; None where that is not known, or nothing needs to be."""
        if self.cores is None or self.is_kept or self.on_card:
            return None
        return Range(self.cores * self.queries_per_core.low, self.cores * self.queries_per_core.high)

    @property
    def ceiling(self) -> float:
        """Return the middle of what is decoded; infinite where nothing limits."""
        return math.inf if self.fed is None else _middle(self.fed)

    @property
    def needed_cores(self) -> int | None:
        """Return the fewest cores that do not limit; None where more would not help decoding alone."""
        if self.is_kept or self.is_shared or self.on_card:
            return None
        return max(1, math.ceil(_middle(self.unfed) / _middle(self.queries_per_core) * (1 - _ROUNDING)))

    @property
    def is_limit(self) -> bool:
        """Return whether the rest of the step waits for images."""
        return self.ceiling < _middle(self.unfed) * (1 - _ROUNDING)

    @property
    def words(self) -> str:
        """Return the limit, for ``limited by``."""
        return f"data loading ({cores_words(self.cores or 0)})"

    def beside(self, unfed: Range) -> LoadingSpeed:
        """Return decoding beside another step."""
        return replace(self, unfed=unfed)

    def trained(self, unfed: float, decoded: float) -> float:
        """Return the rate of step and decoding: beside a GPU the host works in parallel, a CPU does one after the other."""
        return 1 / (1 / unfed + 1 / decoded) if self.is_shared else min(unfed, decoded)

    def to_save(self) -> Loading:
        """Return what a profile keeps of it."""
        rate = self.rate.per_core
        fed = None if self.fed is None else Interval(low=_short(self.fed.low), high=_short(self.fed.high), source=self.words)
        return Loading(
            images_per_core_second=Interval(low=_short(rate.low), high=_short(rate.high), source=self.rate.source),
            image_size=self.rate.image_size,
            host_cores=self.host_cores,
            most_threads=self.most_threads,
            images_per_second=fed,
            step_images_per_second=Interval(
                low=_short(self.unfed.low), high=_short(self.unfed.high), source="without decoding"
            ),
            needed_cores=self.needed_cores,
            is_limit=self.is_limit,
            device="cuda" if self.on_card else "cpu",
        )


def loading_speed(profile: TrainProfile, gpu: GpuProfile, rate: DecodeRate, unfed: Range) -> LoadingSpeed:
    """Return what decoding gives beside a step of `profile`.

    Args:
        unfed: queries a second of the step and the copy.
    """
    data = profile.data
    on_card = data.device == "cuda"
    return LoadingSpeed(
        rate=rate.on(gpu),
        queries_per_core=rate.on(gpu).queries(profile),
        unfed=unfed,
        host_cores=gpu.num_cores,
        most_threads=(data.num_workers or MAX_DEFAULT_WORKERS) * _processes_here(profile, gpu),
        is_kept=not on_card and stays_decoded(data.num_images, profile.model.image_size, data.cache_bytes),
        is_shared=gpu.kind == "cpu",
        on_card=on_card,
    )


def _processes_here(profile: TrainProfile, gpu: GpuProfile) -> int:
    """Return the processes of one machine, each of which decodes for its own GPU."""
    gpus = profile.run.gpus
    return 1 if gpus == 1 else gpus // gpu.links_among(gpus).nodes


def stays_decoded(num_images: int | None, image_size: int, cache_bytes: Bytes) -> bool:
    """Return whether the loader keeps all images decoded, so that none is decoded twice (``data.cache_bytes``)."""
    return num_images is not None and num_images * 3 * image_size**2 <= cache_bytes


def _middle(rates: Range) -> float:
    """Return about how much a range of rates is, as everywhere where one figure stands for it."""
    return (rates.low + rates.high) / 2


def cores_words(cores: int) -> str:
    """Return text such as ``'8 cores'``."""
    return f"{cores:,} core{'' if cores == 1 else 's'}"


def decoding_words(cores: int) -> str:
    """Return text such as ``'8 cores decode'``."""
    return f"{cores_words(cores)} decode{'s' if cores == 1 else ''}"


def _short(value: float) -> float:
    return float(f"{value:.4g}")
