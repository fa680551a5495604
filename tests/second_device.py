"""A pytest plugin that gives a machine without a GPU a second device: ``python -m pytest -p
tests.second_device``.

Its tensors are kept and computed on the CPU, but they are apart from the CPU's as those of a GPU
are: an operation on tensors of both raises, ``.numpy()`` raises, and random generators of the CPU
are refused. Its matrix products are rounded otherwise than the CPU's, and otherwise for batches of
other sizes. ``load_model`` and the Trainer find it and use it, as they do with a GPU, so the suite
meets what forgets to move a tensor, and what expects the same bits everywhere. Memory, speed and
sums whose order changes from run to run do not show here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "second"
CPU = torch.device("cpu")

SWAP = torch.utils.swap_tensors
COMPOSITE = torch._C._dispatch_has_kernel_for_dispatch_key
aten = torch.ops.aten
# These take tensors of the CPU beside their own, as they do on a GPU.
COPIES = {aten.copy_.default, aten._to_copy.default}
INDEXED = {
    aten.index.Tensor, aten.index_put.default, aten.index_put_.default,
    aten._unsafe_index.Tensor, aten._index_put_impl_.default, aten._unsafe_index_put.default,
}  # fmt: skip
# What makes a tensor from nothing, apart from what only fills an empty one.
FACTORIES = (
    "empty.memory_format", "empty_strided", "arange", "arange.start", "arange.start_step", "eye",
    "eye.m", "linspace", "logspace", "randperm", "randperm.generator", "tril_indices",
    "triu_indices", "scalar_tensor", "full",
)  # fmt: skip


class SecondTensor(Tensor):
    """A tensor of the second device.

    Attributes:
        inner: the tensor of the CPU that holds its values.
    """

    inner: Tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> SecondTensor:
        # A view of an ordinary tensor is an ordinary one, also in inference mode.
        with torch.inference_mode(inner.is_inference()):
            made: SecondTensor = Tensor._make_wrapper_subclass(
                cls, inner.size(), inner.stride(), inner.storage_offset(), dtype=inner.dtype,
                device=torch.device(NAME, 0), requires_grad=False,
            )  # fmt: skip
        made.inner = inner
        return made

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        """Tell torch which tensors this one is made of."""
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], *_: Any) -> SecondTensor:
        return SecondTensor(inner["inner"])

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation on the CPU, after checking that nothing of the CPU is mixed in."""
        return run(func, args, kwargs or {})

    @property
    def data(self) -> Tensor:  # type: ignore[override]
        return self.detach()

    @data.setter
    def data(self, new: Tensor) -> None:
        if not isinstance(new, SecondTensor) or new.shape != self.shape:
            raise NotImplementedError("only data of the same device and shape can be set here.")
        if new.dtype == self.dtype:
            self.inner = new.inner
            return
        other = SecondTensor(new.inner).requires_grad_(self.requires_grad)
        other.__dict__ = {**self.__dict__, **other.__dict__}
        SWAP(self, other)

    def numpy(self, *, force: bool = False) -> Any:
        """Raise, as for tensors of a GPU."""
        if force:
            return self.detach().cpu().numpy()
        raise TypeError(
            f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu() to copy the "
            "tensor to host memory first."
        )

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    def untyped_storage(self) -> torch.UntypedStorage:
        """What tells tensors that share memory from others."""
        return self.inner.untyped_storage()

    def data_ptr(self) -> int:
        """Where the values are."""
        return self.inner.data_ptr()

    def __deepcopy__(self, memo: dict[int, Any]) -> SecondTensor:
        """Copy the values, as tensors do."""
        if id(self) in memo:
            return memo[id(self)]
        if not self.is_leaf:
            raise RuntimeError("only tensors that are leaves of the graph can be copied deeply.")
        copy = SecondTensor(self.inner.detach().clone())
        copy.requires_grad_(self.requires_grad)
        if getattr(self, "_is_param", False):
            copy._is_param = True
        memo[id(self)] = copy
        return copy

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Save the values, and come back on the second device."""
        return SecondTensor, (self.inner.detach(),)

    def __repr__(self, **_: Any) -> str:
        return f"SecondTensor({self.inner!r})"


def tensors_in(values: Any) -> list[Tensor]:
    return [value for value in pytree.tree_leaves(values) if isinstance(value, Tensor)]


def check_devices(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise where a GPU would: at tensors and generators of another device.

    Single numbers of the CPU may stand beside tensors of a GPU, and so may indices.
    """
    if func in COPIES:
        return
    checked: Any = (args, kwargs)
    if func in INDEXED and isinstance(args[0], SecondTensor):
        checked = args[2:]
    strangers = [
        value for value in tensors_in(checked)
        if not isinstance(value, SecondTensor) and value.ndim > 0
    ]  # fmt: skip
    if strangers:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"{NAME}:0 and {strangers[0].device}! ({func}, {tuple(strangers[0].shape)})"
        )
    generators = [v for v in pytree.tree_leaves((args, kwargs)) if isinstance(v, torch.Generator)]
    if generators:
        raise RuntimeError(f"Expected a '{NAME}' device type for generator but found 'cpu'")


def run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result of an operation of which some tensor is of the second device."""
    if COMPOSITE(func.name(), "CompositeImplicitAutograd"):
        # In inference mode these arrive whole.
        return func.decompose(*args, **kwargs)
    check_devices(func, args, kwargs)
    outer = {
        id(value.inner): value for value in tensors_in((args, kwargs))
        if isinstance(value, SecondTensor)
    }  # fmt: skip
    leave = kwargs.get("device") is not None and torch.device(kwargs["device"]).type != NAME
    if kwargs.get("device") is not None and not leave:
        kwargs = {**kwargs, "device": CPU}
    inner_args, inner_kwargs = pytree.tree_map_only(
        SecondTensor, lambda value: value.inner, (args, kwargs)
    )
    found = PRODUCTS.get(func, func)(*inner_args, **inner_kwargs)
    if func in COPIES and not isinstance(args[0], SecondTensor):
        return args[0]

    def wrapped(value: Tensor) -> Tensor:
        known = outer.get(id(value))
        if known is None:
            return value if leave else SecondTensor(value)
        if known.shape != value.shape or known.stride() != value.stride():
            raise NotImplementedError(f"{func} changes the shape of a tensor in place.")
        return known

    return pytree.tree_map_only(Tensor, wrapped, found)


def product(one: Tensor, other: Tensor) -> Tensor:
    """Their matrix product, summed in an order that is not the CPU's and depends on the rows."""
    # Half precision is summed in single precision, as a GPU does.
    wide = torch.promote_types(one.dtype, torch.float32)
    a, b = one.to(wide), other.to(wide)
    half = a.shape[-1] // 2
    if a.shape[-2] % 2:
        found = a.flip(-1) @ b.flip(-2)
    else:
        found = a[..., :half] @ b[..., :half, :] + a[..., half:] @ b[..., half:, :]
    return found.to(one.dtype)


def sum_of(start: Tensor, one: Tensor, other: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """As :func:`product`, added to something."""
    return (beta * start + alpha * product(one, other)).to(start.dtype)


PRODUCTS = {
    aten.mm.default: product, aten.bmm.default: product, aten.addmm.default: sum_of,
    aten.baddbmm.default: sum_of,
}  # fmt: skip


def on_second(operation: Any) -> Callable[..., Tensor]:
    """What makes a tensor on the second device."""

    def make(*args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        return SecondTensor(operation(*args, device=CPU, **kwargs))

    return make


def copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    """Copy between devices where torch does not ask the class, as in ``torch.tensor``."""
    inner = [
        value.inner if isinstance(value, SecondTensor) else value for value in (target, source)
    ]
    inner[0].copy_(inner[1])
    return target


class Backend:
    """What torch asks of the module of a device."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        """Nothing: random numbers come from the generator of the CPU, which is seeded already."""

    def get_rng_state(self, device: Any = None) -> Tensor:
        return torch.empty(0, dtype=torch.uint8)

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        """Nothing, as above."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def swap(one: Tensor, other: Tensor) -> None:
    """Swap parameters as ``Module.to`` asks, but keep the hooks of those that stay here."""
    second = isinstance(one, SecondTensor) and isinstance(other, SecondTensor)
    if second and (one.shape, one.dtype) == (other.shape, other.dtype):
        one.inner = other.inner
    else:
        SWAP(one, other)


def add_device() -> torch.library.Library:
    """Make torch know the device; what is returned must be kept."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=Backend())
    torch.utils.swap_tensors = swap
    torch.serialization.add_safe_globals([SecondTensor])
    kernels = torch.library.Library("aten", "IMPL")
    for name in FACTORIES:
        packet, _, overload = name.partition(".")
        operation = getattr(getattr(aten, packet), overload or "default")
        kernels.impl(name, on_second(operation), "PrivateUse1")
    kernels.impl("_copy_from", copy_from, "PrivateUse1")
    return kernels


KERNELS = add_device()


def class_of(value: Any) -> type:
    """``type``, but a tensor of the second device is as plain as one of a GPU."""
    return Tensor if type(value) is SecondTensor else type(value)


def pytest_configure(config: Any) -> None:
    """Let the Trainer find the device, and neuroglot trust its tensors.

    Only now are the settings of the suite read, and these packages may be imported.
    """
    from accelerate.state import PartialState  # noqa: PLC0415
    from transformers import TrainingArguments  # noqa: PLC0415

    from neuroglot.models import sites  # noqa: PLC0415

    second = torch.device(NAME, 0)
    found = TrainingArguments.__dict__["_setup_devices"]

    def chosen(arguments: TrainingArguments) -> torch.device:
        device: torch.device = found.__get__(arguments)
        return device if arguments.use_cpu else second

    PartialState.default_device = property(lambda _: second)
    TrainingArguments._setup_devices = property(chosen)
    sites.type = class_of  # type: ignore[attr-defined]


def pytest_report_header(config: Any) -> str:
    return f"second device: {NAME}:0"
