"""A CUDA device made of host memory, to find what only a GPU would show: mixed devices, copies read too early, waits.

Inside `fake_cuda()` there is a device `cuda:0`. Its tensors are `FakeCuda`: they hold their values in host memory and
compute there with the same kernels, so that results are those of the CPU to the bit. But

- an operation that mixes them with tensors of the host raises, as on a GPU;
- a copy to the host that does not wait is filled with garbage until its event is synchronised;
- a copy that was started from pageable memory, a value that Python asks for, or a shape that depends on values makes
  the host wait: each is written down, with the line of ours that asked for it.

There are no streams: work is done when it is asked for. So an error of order between two streams stays unseen.
"""
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes, return_and_correct_aliasing

ROOT = Path(__file__).resolve().parents[1]
OURS = tuple(f"{ROOT}/{folder}/" for folder in ("models", "util", "dataloader", "benchmarks"))
DEVICE = torch.device("cuda", 0)
aten = torch.ops.aten

WAITING = {                                                         # what makes the host wait for the device
    aten._local_scalar_dense.default: "value", aten.nonzero.default: "shape", aten.masked_select.default: "shape",
           aten.equal.default: "value", aten.is_nonzero.default: "value", aten._unique2.default: "shape",
           aten.repeat_interleave.Tensor: "shape"}


class FakeCuda(Tensor):
    """A tensor on `cuda:0`; `held` has its values, in host memory.

    To C++ it lies on the meta device, for which autograd needs no driver.
    """
    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl     # results are what `run` returns

    @staticmethod
    def __new__(cls, held: Tensor) -> "FakeCuda":
        with torch.inference_mode(False):                           # views of weights must not be inference tensors
            wrapper = Tensor._make_wrapper_subclass(cls, held.shape, strides=held.stride(), dtype=held.dtype,
                                                    storage_offset=held.storage_offset(), device="meta")
        wrapper.held = held.detach()
        return wrapper

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        assert _current is not None, f"{func}: a tensor of the fake device outside of it"
        return _current.run(func, args, kwargs or {})

    @property
    def device(self) -> torch.device:
        return DEVICE

    @property
    def is_cuda(self) -> bool:
        return True

    @property
    def is_meta(self) -> bool:
        return False

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, value: "FakeCuda") -> None:
        Tensor.data.__set__(self, value)
        self.held = value.held

    def __deepcopy__(self, memo: dict) -> "FakeCuda":
        copied = FakeCuda(self.held.clone())
        copied.requires_grad_(self.requires_grad)
        memo[id(self)] = copied = nn.Parameter(copied, self.requires_grad) if isinstance(self, nn.Parameter) else copied
        return copied

    def __reduce_ex__(self, protocol: int) -> tuple:
        """In a file it is what loading with map_location="cpu" makes of it."""
        return self.held.__reduce_ex__(protocol)

    def detach(self) -> "FakeCuda":
        return FakeCuda(self.held)                                  # PyTorch's does not work in inference mode

    def numpy(self, **_):
        raise TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu() first")

    def tolist(self):
        return self.cpu().tolist()

    def __repr__(self, **_) -> str:
        return f"FakeCuda({self.held!r})"


class Device(TorchDispatchMode):
    """The fake device while it is there.

    Attributes:
        waits: how often the host waited, by (what, where): what is download, upload, value, shape or event.
    """

    def __init__(self):
        super().__init__()
        self.waits: Counter[tuple[str, str]] = Counter()
        self.travelling: list[Copy] = []
        self._pinned: dict[int, torch.UntypedStorage] = {}
        self._lock = threading.RLock()
        self.capturing: Graph | None = None

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return self.run(func, args, kwargs or {})

    def run(self, func, args: tuple, kwargs: dict) -> Any:
        """One operation. Inference mode hands over compound ones, too: they are taken apart, as otherwise."""
        if torch.is_inference_mode_enabled() and func not in WAITING and _is_compound(func):
            with self:                                              # not `decompose`: it has kernels of its own
                return func._op_dk(torch._C.DispatchKey.CompositeImplicitAutograd, *args, **kwargs)
        fakes = [x for x in _leaves((args, kwargs)) if isinstance(x, FakeCuda)]
        target = kwargs.get("device")
        on_device = torch.device(target).type in ("cuda", "meta") if target is not None else bool(fakes)
        if func is aten.copy_.default:
            return self._copy(*args, **kwargs)
        if func is aten._to_copy.default and on_device != bool(fakes):
            return self._move(on_device, *args, **kwargs)
        if not on_device and not fakes:
            pin = kwargs.pop("pin_memory", None)
            result = func(*args, **kwargs)
            return self.pin(result) if pin else result
        if fakes:
            self._check(func, args, kwargs)
        own = {**kwargs, **({"device": "cpu"} if target is not None else {})}
        pin = own.pop("pin_memory", None)
        result = func(*_held(args), **_held(own))
        if self.capturing is not None:
            self.capturing.steps.append((func, _held(args), _held(own), result))
        if not on_device:                                          # such as empty_like(x, device="cpu")
            return self.pin(result) if pin else result
        result = _mapped(lambda x: FakeCuda(x) if isinstance(x, Tensor) else x, result)
        return return_and_correct_aliasing(func, args, kwargs, result) if fakes and _has_aliases(func) else result

    def _check(self, func, args: tuple, kwargs: dict) -> None:
        """What a GPU would not do, and what it would let the host wait for."""
        for x in _leaves((args, kwargs)):
            if isinstance(x, Tensor) and not isinstance(x, FakeCuda) and (x.ndim or func in NO_SCALARS):
                raise RuntimeError("Expected all tensors to be on the same device, but found at least two devices, "
                                   f"cuda:0 and cpu! ({func})")
        masks = args[1] if func in (aten.index.Tensor, aten.index_put_.default) else ()
        if func in WAITING or any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in masks):
            self.note(WAITING.get(func, "shape"))

    def _move(self, up: bool, x: Tensor, *, non_blocking: bool = False, device=None, pin_memory=None, **kwargs
              ) -> Tensor:
        """x.to(device)."""
        if up:
            if not (non_blocking and self.is_pinned(x)):
                self.note("upload")
            return FakeCuda(aten._to_copy.default(x, **kwargs).clone())
        result = aten._to_copy.default(x.held, **kwargs)
        result = result.clone() if result is x.held else result
        if non_blocking:
            return self._send(result.clone(), self.pin(result))
        self.note("download")
        return result

    def _copy(self, target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
        """target.copy_(source)."""
        up, down = (isinstance(x, FakeCuda) for x in (target, source))
        if up and not down and not (non_blocking and self.is_pinned(source)):
            self.note("upload")
        if down and not up:
            if non_blocking and self.is_pinned(target):
                return self._send(source.held.to(target.dtype).clone(), target)
            self.note("download")
        _held(target).copy_(_held(source))
        return target

    def _send(self, values: Tensor, target: Tensor) -> Tensor:
        """A copy to pinned memory starts: until somebody waits for it, there is garbage."""
        with self._lock:
            self.travelling.append(Copy(values, target))
        target.fill_(GARBAGE) if target.dtype != torch.bool else target.logical_not_()
        return target

    def arrive(self, copies: list["Copy"]) -> None:
        with self._lock, _disable_current_modes(), torch.inference_mode():
            for copy in copies:
                if copy in self.travelling:
                    copy.target.copy_(copy.values)
                    self.travelling.remove(copy)

    def note(self, what: str) -> None:
        """The host waits."""
        if self.capturing is not None:
            raise RuntimeError(f"operation not permitted when stream is capturing: {what} in {_ours()}")
        self.waits[what, _ours()] += 1

    def is_pinned(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._pinned

    def pin(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self._pinned[storage._cdata] = storage                      # kept, so that no other gets its address
        return tensor


class Functions(TorchFunctionMode):
    """Constants from Python go to the device behind the dispatcher's back."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and torch.device(kwargs.get("device") or "cpu").type == "cuda":
            return func(*args, **{**kwargs, "device": "cpu"}).to(DEVICE)
        if func is Tensor.new_tensor and isinstance(args[0], FakeCuda):
            values = args[1].held if isinstance(args[1], FakeCuda) else args[1]
            made = args[0].held.new_tensor(values)
            return FakeCuda(made) if values is not args[1] else made.to(DEVICE)
        return func(*args, **kwargs)


class Copy:
    """What is on its way to the host."""

    def __init__(self, values: Tensor, target: Tensor):
        self.values, self.target = values, target


class Event:
    """torch.cuda.Event: what had been started when it was recorded is there after `synchronize`."""

    def __init__(self, **_):
        self._before: list[Copy] = []

    def record(self, stream=None) -> None:
        self._before = list(_current.travelling)

    def synchronize(self) -> None:
        _current.arrive(self._before)


class Stream:
    """torch.cuda.current_stream()."""

    def synchronize(self) -> None:
        _current.note("event")
        _current.arrive(list(_current.travelling))

    def is_capturing(self) -> bool:
        return _current.capturing is not None

    def wait_stream(self, other: "Stream") -> None:
        """There is one order of work only."""


class Graph:
    """torch.cuda.CUDAGraph: what was computed while it was captured, to be computed again in the same memory."""

    def __init__(self):
        self.steps: list[tuple] = []

    def replay(self) -> None:
        with _disable_current_modes(), torch.inference_mode():
            for func, args, kwargs, result in self.steps:
                again = func(*args, **kwargs)
                for old, new in zip(_leaves(result), _leaves(again)):
                    if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)


@contextmanager
def _capture(graph: Graph, **_) -> Iterator[None]:
    _current.capturing = graph
    try:
        yield
    finally:
        _current.capturing = None


GARBAGE = 85
NO_SCALARS = {aten.cat.default, aten.stack.default, aten.index_select.default, aten.index_copy.default}
"""Operations that do not even take scalars from the host."""

_current: Device | None = None


def _held(tree: Any) -> Any:
    return _mapped(lambda x: x.held if isinstance(x, FakeCuda) else x, tree)


def _mapped(change: Callable[[Any], Any], tree: Any) -> Any:
    """Arguments or results of an operation; PyTorch's own functions for trees take half of the time."""
    if isinstance(tree, (list, tuple)):
        return type(tree)([_mapped(change, x) for x in tree])
    return {key: _mapped(change, x) for key, x in tree.items()} if isinstance(tree, dict) else change(tree)


def _leaves(tree: Any) -> list:
    if isinstance(tree, (list, tuple, dict)):
        return [leaf for x in (tree.values() if isinstance(tree, dict) else tree) for leaf in _leaves(x)]
    return [tree]


@cache
def _is_compound(func) -> bool:
    """Whether it consists of other operations."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


@cache
def _has_aliases(func) -> bool:
    """Whether results may share memory with arguments."""
    return any(value.alias_info is not None for value in (*func._schema.arguments, *func._schema.returns))


def _ours() -> str:
    """File and function of the innermost line on the stack that is the repository's own."""
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(OURS):
            return f"{code.co_filename[len(str(ROOT)) + 1:]}:{code.co_name}"
        frame = frame.f_back
    return "elsewhere"


def _pin_memory(tensor: Tensor, *_) -> Tensor:
    if isinstance(tensor, FakeCuda):
        raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")
    return _current.pin(tensor.clone())


@contextmanager
def fake_cuda() -> Iterator[Device]:
    """Inside the block there is a device `cuda:0`."""
    global _current
    there = {"_lazy_init": lambda: None, "is_available": lambda: True, "device_count": lambda: 1, "Event": Event,
             "current_stream": lambda *_: Stream(), "set_device": lambda *_: None, "get_rng_state_all": list,
             "get_device_name": lambda *_: "fake", "max_memory_allocated": lambda *_: 2_000_000_000,
             "memory_allocated": lambda *_: 1_000_000_000,
             "reset_peak_memory_stats": lambda *_: None, "CUDAGraph": Graph, "graph": _capture, "Stream": Stream,
             "stream": lambda _: nullcontext(), "synchronize": lambda *_: Stream().synchronize()}
    forget_kept_tensors()
    with ExitStack() as stack:
        for name, value in there.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        stack.enter_context(mock.patch.object(Tensor, "pin_memory", _pin_memory))
        for name, value in {"is_available": lambda: True, "current_stream": lambda *_: Stream()}.items():
            stack.enter_context(mock.patch.object(torch.accelerator, name, value))
        _current = Device()
        stack.callback(_leave)
        stack.enter_context(_current)
        stack.enter_context(Functions())
        yield _current


def _leave() -> None:
    global _current
    _current = None
    forget_kept_tensors()


def forget_kept_tensors() -> None:
    """Tensors that functions keep from call to call belong to one device."""
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ("models", "util"):
            for value in vars(module).values():
                if hasattr(value, "cache_clear"):
                    value.cache_clear()
