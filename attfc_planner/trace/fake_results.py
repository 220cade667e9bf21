"""Results of operators on fake tensors, worked out once for every operator and the form of its arguments.

FakeTensorMode works a result out anew wherever the arguments lie elsewhere in their storage, as the chunks of a container do,
and looking up what it knows takes a sixth of a millisecond; a train step asks it thousands of times for the same few hundred
results. Here it is asked the first time only, so every shape rule is still its own. Then tensors of the forms that it gave
are made: shape, strides and type, each with a storage of its own. Operators that do anything else are always its business.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from attfc_planner.trace.torch_internals import (
    FakeTensor,
    FakeTensorMode,
    Operator,
    constant_of,
    fake_device_of,
    fake_mode_of,
    in_kernel,
    storage_key,
)


class _Form(NamedTuple):
    """A description of a new tensor: all that tells it from another while nothing has values."""

    mode: FakeTensorMode
    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    def make(self) -> FakeTensor:
        """Return such a tensor with a storage of its own, as FakeTensorMode makes them: a meta tensor in a wrapper."""
        with in_kernel(self.mode):
            element = torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device="meta")
        return FakeTensor(self.mode, element, self.device)


_Forms = _Form | tuple[_Form | None, ...]


class _Unusual(Exception):
    """An argument that is a real tensor or has a value, or a result that is no plain new tensor."""


class FakeResults:
    """Calls of operators with fake tensors; only for operators that change no values anybody will read."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], _Forms | None] = {}

    def view(self, func: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of an operator whose results share its first argument's storage.

        The kernel for ``meta`` is every device's: shape, strides and offset follow from those of the argument alone.
        """
        base = args[0]
        if type(base) is not FakeTensor or constant_of(base) is not None:
            return func(*args, **kwargs)
        mode = fake_mode_of(base)
        device = fake_device_of(base)
        with in_kernel(mode):
            result = func(*args, **kwargs)
        if isinstance(result, Tensor):
            return FakeTensor(mode, result, device)
        return type(result)(FakeTensor(mode, view, device) for view in result)

    def new(self, func: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of an operator whose results are new tensors."""
        try:
            key = func, _form_of(args), _form_of(tuple(kwargs.items()))
        except _Unusual:
            return func(*args, **kwargs)
        forms = self._known.get(key)
        if forms is None:
            result = func(*args, **kwargs)
            if key not in self._known:
                # _unsafe_view and its like share a storage and do not say so in their schema. None stands for: ask every time.
                is_new = not _storages(result) & _storages([*args, *kwargs.values()])
                self._known[key] = _forms_of(result) if is_new else None
            return result
        if isinstance(forms, _Form):
            return forms.make()
        return tuple(form and form.make() for form in forms)


def _form_of(value: Any) -> Any:
    """Return what of an argument a result's form can depend on; not where it lies in its storage.

    Raises:
        _Unusual: it has a value, on which the form might depend.
    """
    if isinstance(value, FakeTensor):
        if constant_of(value) is not None:
            raise _Unusual
        return value.shape, value.stride(), value.dtype, fake_device_of(value)
    if isinstance(value, Tensor):
        raise _Unusual
    if isinstance(value, list | tuple):
        return tuple(map(_form_of, value))
    return type(value), value  # 2 and 2.0 are equal, and make results of different types


def _storages(value: object) -> set[int]:
    """Return the keys of the storages of all tensors in an argument or a result."""
    if isinstance(value, Tensor):
        return {storage_key(value.untyped_storage())}
    return set().union(*map(_storages, value)) if isinstance(value, list | tuple) else set()


def _forms_of(result: Any) -> _Forms | None:
    """Return the forms of one new tensor or several; None where a tensor made of them would not be the same."""
    try:
        return tuple(each if each is None else _form(each) for each in result) if type(result) is tuple else _form(result)
    except _Unusual:
        return None


def _form(result: Any) -> _Form:
    if type(result) is not FakeTensor or constant_of(result) is not None:
        raise _Unusual
    form = _Form(fake_mode_of(result), result.shape, result.stride(), result.dtype, fake_device_of(result))
    # A result may be a part of a larger storage of its own; `make` gives exactly the bytes that shape and strides ask for.
    if result.storage_offset() or form.make().untyped_storage().nbytes() != result.untyped_storage().nbytes():
        raise _Unusual
    return form
