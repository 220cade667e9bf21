"""Recording of train steps, or of an evaluation: every storage that they make and free, in order.

They run on ``cpu`` under FakeTensorMode: the dispatcher sees the same operators as on a GPU and autocast works, while
nothing is computed or held (fake ``cuda`` tensors need a driver for backward). Fallback kernels are off, so an operator
without a shape rule is an error and not a silent real computation. What kernels allocate inside themselves is not visible
here; `attfc_planner.memory.overheads` has those terms.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import groupby, pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from attfc_planner.trace.batch_places import PlainCopies, traced_batch
from attfc_planner.trace.fake_results import FakeResults
from attfc_planner.trace.history import Trace
from attfc_planner.trace.no_gc import no_collection
from attfc_planner.trace.ranks import silent, traced_ranks
from attfc_planner.trace.sum_scratch import sum_scratch
from attfc_planner.trace.torch_internals import (
    DispatchMode,
    Operator,
    fake_device_of,
    fake_tensors,
    fills_out,
    is_composite,
    is_sum_of_gradients,
    name_of,
    results_are_new,
    storage_key,
)
from attfc_train.backbones.kinds import build_encoder
from attfc_train.evaluate.embed import embed_batches
from attfc_train.phase import current_phase
from attfc_train.profile.profile import TrainProfile
from attfc_train.step.build import build
from attfc_train.step.input_buffers import InputBuffers
from attfc_train.step.state import TrainState
from attfc_train.step.step import train_step
from attfc_train.timing.counting import foreign_teacher
from attfc_train.timing.op_costs import CostTally, has_cost, is_own_kernel

State = TypeVar("State")

_DEVICE = torch.ops.prim.device.default
_ADD = torch.ops.aten.add.Tensor
_CONVOLUTIONS = {"convolution", "conv2d", "convolution_backward"}
"""Without gradients, in an evaluation, ``conv2d`` is not taken apart."""
_WITH_WORKSPACE = 2
"""Of the results of ``convolution_backward``: the gradients of input and weight; the bias's is a sum."""
_CATEGORY_OF_PHASE = {"loss": "loss", "build": "setup"}


class _Traits(NamedTuple):
    """Facts about an operator that the recorder needs at every call, read from its schema once."""

    name: str
    returns: bool
    makes_storage: bool
    makes_only_new: bool
    """Whether the results are tensors with storages of their own, and nothing else."""
    is_view: bool
    """Whether the result is a view at every call. Without autograd, composite operators such as ``to`` come here too; they may
    copy, or return what they got."""
    in_place: bool
    """Whether it writes values only: fake tensors have none, and the call can be left out."""
    into_out: bool
    """Likewise, but into the tensor that is given as ``out``, which has the result's shape already."""
    costs: bool

    @classmethod
    def of(cls, func: Operator) -> _Traits:
        name = name_of(func)
        news = results_are_new(func)
        question = func.namespace == "prim"  # such as prim::device: its result is new, and no tensor
        # ``t_`` and its like change shape and strides in place: not values only, so they must be called.
        in_place = name.endswith("_") and torch.Tag.inplace_view not in func.tags and len(news) <= 1
        fresh = any(news) and not question
        # torch.tensor(0) fills a storage before any mode sees it; lift_fresh, by its schema a view, brings it here.
        makes_storage = fresh or name == "lift_fresh"
        only_new = all(news) and fresh and name != "lift_fresh"
        is_view = func.is_view and not is_composite(func)
        writes = in_place and not makes_storage
        return cls(name, bool(news), makes_storage, only_new, is_view, writes, fills_out(func), has_cost(func))


class Recorder(DispatchMode):
    """A mode that sees every operator's results, and the death of every storage by reference count, as in a real run.

    Args:
        fake: whether the operators get fake tensors; then most calls are answered without asking torch.
    """

    def __init__(self, fake: bool) -> None:
        super().__init__()
        self._fake = fake
        self._results = FakeResults()
        self.events: list[int] = []
        self.nbytes: list[int] = []
        self.ops: list[str] = []
        self.phases: list[str] = []
        self.categories: list[str] = []
        self.steps: list[int] = []
        self.tallies: list[CostTally] = []
        # Key of a living storage -> its index, and the weak reference that tells of its death. The storage itself is not kept.
        self._alive: dict[int, tuple[int, object]] = {}
        self._traits: dict[Operator, _Traits] = {}
        self._overlooks = False

    def __torch_dispatch__(
        self, func: Operator, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operator, and write down the storages that came out."""
        if func is _DEVICE and self._fake:  # asked more often than anything else
            return fake_device_of(args[0])
        if self._overlooks:
            return func(*args, **(kwargs or {}))
        if func is _ADD and is_sum_of_gradients(args, kwargs):
            return self._added(*args)
        kwargs = kwargs or {}
        traits = self._traits.get(func)
        if traits is None:
            traits = _Traits.of(func)
            self._traits[func] = traits
        result = self._fake_result(traits, func, args, kwargs) if self._fake else func(*args, **kwargs)
        if traits.makes_storage:
            if traits.name in _CONVOLUTIONS:
                self._notice_convolution(traits.name, args, result)
            else:
                for tensor in tensors_in(result):
                    self._notice(tensor, traits.name)
                if self._fake and (scratch := sum_scratch(func, args)):
                    self.events.append(~self._born(traits.name, scratch, "convolution workspace"))
        if traits.costs and self.tallies:
            self.tallies[-1].add(func, traits.name, args, kwargs, result)
        return result

    def _fake_result(self, traits: _Traits, func: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if traits.in_place:
            return args[0] if traits.returns else None
        if traits.into_out:
            return kwargs["out"]
        if traits.is_view:
            return self._results.view(func, args, kwargs)
        return self._results.new(func, args, kwargs) if traits.makes_only_new else func(*args, **kwargs)

    def _added(self, gradient: Tensor, other: Tensor) -> Tensor:
        """Add to a gradient in place, as autograd does where no mode watches and nobody else holds it."""
        if self.tallies:
            self.tallies[-1].add(_ADD, "add", (gradient, other), {}, gradient)
        return gradient if self._fake else gradient.add_(other)

    def begin_step(self) -> None:
        """Count everything from here on to the next step."""
        self.steps.append(len(self.events))
        self.tallies.append(CostTally())

    @contextmanager
    def overlooking(self) -> Iterator[None]:
        """Write down no operator of what happens inside: neither what it costs, nor what it makes."""
        self._overlooks = True
        try:
            yield
        finally:
            self._overlooks = False

    def exchanged(self, name: str, num_bytes: int) -> None:
        """Count what a process of several would exchange now."""
        if self.tallies:
            self.tallies[-1].add_exchange(name, num_bytes)

    def adopt(self, category: str, tensor: Tensor) -> None:
        """Write down a tensor that was overlooked, unless it is known, and say whose bytes it holds."""
        self._notice(tensor, "empty")
        self.tag(category, tensor)

    def tag(self, category: str, tensor: Tensor) -> None:
        """Say whose bytes a living tensor holds."""
        entry = self._alive.get(storage_key(tensor.untyped_storage()))
        if entry is not None:
            self.categories[entry[0]] = category

    def tag_all(self, category: str) -> None:
        """Say of every living storage whose bytes it holds."""
        for index, _ in self._alive.values():
            self.categories[index] = category

    def trace(self) -> Trace:
        """Return everything so far."""
        return Trace(
            tuple(self._ordered_events()),
            np.array(self.nbytes, np.int64),
            tuple(self.ops),
            tuple(self.phases),
            tuple(self.categories),
            tuple(self.steps),
            tuple(tally.costs() for tally in self.tallies),
        )

    def _ordered_events(self) -> list[int]:
        """Return the events with every run of frees in order.

        Autocast drops its copies of the weights in the order of a hash table of addresses, which differs from run to run. The
        frees of a run happen at one instant between two births, so their order changes no peak.
        """
        ordered: list[int] = []
        for begin, end in pairwise([0, *self.steps, len(self.events)]):
            for births, run in groupby(self.events[begin:end], key=lambda event: event >= 0):
                alike = list(run)
                ordered += alike if births else sorted(alike)
        return ordered

    def _notice(self, tensor: Tensor, name: str) -> None:
        """Write down a result's storage, unless it is known already, as that of a view is."""
        storage = tensor.untyped_storage()
        key = storage_key(storage)
        nbytes = storage.nbytes()
        if nbytes == 0 or key in self._alive:
            return
        # The shape rule of BatchNorm says that the batch's mean and deviation are in half precision; kernels keep them in fp32.
        if self._fake and name == "native_batch_norm" and tensor.dim() == 1 and tensor.element_size() == 2:
            nbytes *= 2
        index = self._born(name, nbytes)

        # torch keeps one Python object for a storage, as long as the storage lives: its death is the storage's own.
        def died(_: object) -> None:
            self._alive.pop(key, None)
            self.events.append(~index)

        self._alive[key] = index, weakref.ref(storage, died)

    def _born(self, name: str, nbytes: int, category: str | None = None) -> int:
        index = len(self.nbytes)
        phase = current_phase() or "input"
        self.events.append(index)
        self.nbytes.append(nbytes)
        self.ops.append(name)
        self.phases.append(phase)
        self.categories.append(category or _CATEGORY_OF_PHASE.get(phase, "activations"))
        return index

    def _notice_convolution(self, name: str, args: tuple[Any, ...], result: Any) -> None:
        """Write down a convolution's results in the order of their birth, and a workspace for each that cuDNN computes."""
        backward = name == "convolution_backward"
        own = is_own_kernel(name, args)
        if backward and own:  # the weight's gradient first
            result = (result[1], result[0], *result[2:])
        # ``convolution(input, ...) -> output``; ``convolution_backward(gradient of the output, input, ...)``.
        moved = (args[1], args[0]) if backward else (args[0], result)
        nbytes = sum(tensor.numel() * tensor.element_size() for tensor in moved)
        for number, tensor in enumerate(result if backward else (result,)):
            if tensor is None:
                continue
            self._notice(tensor, name)
            if not own and number < _WITH_WORKSPACE:
                # A storage with the bytes of input and output, born and freed during the call.
                self.events.append(~self._born(name, nbytes, "convolution workspace"))


def record_run(
    build_state: Callable[[Recorder, torch.device], State],
    steps: Iterable[Callable[[Recorder, State, torch.device], object]],
    device: torch.device | None = None,
) -> Trace:
    """Record the construction of any state, and then steps on it.

    Args:
        build_state: makes what outlives a step, and may tag it.
        steps: each is run once; what it leaves in its own frame is freed when it returns.
        device: where they really run; None: on fake tensors.
    """
    fake = device is None
    device = device or torch.device("cpu")
    with no_collection(), _tensors(fake), Recorder(fake) as recorder:
        state = build_state(recorder, device)
        for step in steps:
            recorder.begin_step()
            step(recorder, state, device)
        trace: Trace = recorder.trace()
        del state
    return trace


def record_steps(profile: TrainProfile, batches: Sequence[TrainProfile], device: torch.device | None = None) -> Trace:
    """Record train steps: see `attfc_planner.trace.record.record`."""
    return record_run(partial(_built, profile), [partial(_trained, example) for example in batches], device)


def _built(profile: TrainProfile, recorder: Recorder, device: torch.device) -> TrainState:
    ranks = traced_ranks(profile.run.gpus, recorder.exchanged)
    state = build(profile, device, ranks, teacher=foreign_teacher(profile, device))
    state.inputs = InputBuffers(device, PlainCopies(recorder))  # as a GPU's state has them
    _tag_state(recorder, state)
    return state


def _trained(example: TrainProfile, recorder: Recorder, state: TrainState, device: torch.device) -> None:
    assert state.inputs is not None
    train_step(state, traced_batch(recorder, state.inputs, example, device))


def record_batches(profile: TrainProfile, batch_sizes: Sequence[int], device: torch.device | None = None) -> list[Trace]:
    """Record evaluations: see `attfc_planner.trace.record.record_evaluation`."""
    fake = device is None
    device = device or torch.device("cpu")
    traces = []
    with no_collection(), _tensors(fake):
        encoder = build_encoder(profile.model, device)
        for batch_size in batch_sizes:
            with Recorder(fake) as recorder:
                embed_batches(encoder, _evaluated(recorder, profile, batch_size, device), device, profile.run.precision)
            traces.append(recorder.trace())
    return traces


def head_bytes(profile: TrainProfile, device: torch.device | None = None) -> int:
    """Return the bytes of a head's buffers, parameters and momentum: see `attfc_planner.trace.record.record_head`."""
    fake = device is None
    with _tensors(fake):
        state = build(profile, device or torch.device("cpu"), traced_ranks(profile.run.gpus, silent))
        own = {id(weight) for weight in state.head.parameters()}
        pairs = zip(state.optimizer.parameters, state.optimizer.buffers, strict=True)
        momentum = [buffer for weight, buffer in pairs if id(weight) in own]
        return sum(tensor.nbytes for tensor in (*state.head.parameters(), *state.head.buffers(), *momentum))


def _tensors(fake: bool) -> AbstractContextManager[object]:
    return fake_tensors() if fake else nullcontext()


def _evaluated(recorder: Recorder, profile: TrainProfile, batch_size: int, device: torch.device) -> Iterator[Tensor]:
    """Yield two batches; each is a step of the trace, and its images are born in it, as by the copy to the device."""
    size = profile.model.image_size
    for _ in range(2):
        recorder.begin_step()
        images = torch.zeros(batch_size, 3, size, size, dtype=torch.uint8, device=device)
        recorder.tag("input", images)
        yield images
        del images  # the consumer decides how long they live


def _tag_state(recorder: Recorder, state: TrainState) -> None:
    """Name the owners of everything that outlives a step, and have gradients named when they are born."""
    recorder.tag_all("weights")  # a few scalars of the run beside the weights
    learned = [*state.feature_encoder.parameters(), *state.head.parameters()]
    for tensor in (*learned, *state.feature_encoder.buffers()):
        recorder.tag("weights", tensor)
    for name, tensor in state.head.named_buffers():
        recorder.tag("momentum" if name == "momentum" else "container", tensor)
    if state.class_encoder:
        encoder = state.class_encoder.class_encoder
        for tensor in (*encoder.parameters(), *encoder.buffers()):
            recorder.tag("class encoder", tensor)
    if state.teacher:
        for tensor in (*state.teacher.network.parameters(), *state.teacher.network.buffers()):
            recorder.tag("teacher", tensor)
    for tensor in tensors_in(state.optimizer.state_dict()):
        recorder.tag("momentum", tensor)
    for parameter in learned:
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(_gradient_tagger(recorder))


def _gradient_tagger(recorder: Recorder) -> Callable[[Tensor], None]:
    def hook(parameter: Tensor) -> None:
        if parameter.grad is not None:
            recorder.tag("gradients", parameter.grad)

    return hook


def tensors_in(value: object) -> Iterator[Tensor]:
    """Yield all tensors in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))
