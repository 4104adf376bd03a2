"""Settings of Python, NumPy and torch that apply to a whole process: notice and undo changes.

Other people's code may change them, for example when a plugin is imported; the results of all
methods would then depend on which plugins are installed. Only what can be read is covered, so not
functions that were replaced.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

VARIABLES = (  # environment variables that change results or what debiasbench does
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "DEBIASBENCH_DATA",
    "DEBIASBENCH_DEVICE",
    "DEBIASBENCH_PLUGINS",
    "MKL_NUM_THREADS",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)
_UNREADABLE = object()
"""The value of a setting that cannot be read now."""


@dataclass(frozen=True)
class Setting:
    """A setting that can be read and written.

    `silent`: whether a change is undone without mention, because it cannot change a result.
    """

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]
    silent: bool = False


class Changes:
    """What code changed inside `restored`: the names of the settings."""

    def __init__(self) -> None:
        self.names: list[str] = []


@contextmanager
def restored(*, signals: bool = True) -> Iterator[Changes]:
    """Undo all changes of global settings at the end of the context.

    `signals`: whether handlers of signals are among them; only in the main thread.
    Settings of NumPy and torch count from the moment when they are imported, also if that happens
    inside the context. Nothing is imported here.
    """
    before: list[tuple[Setting, Any]] = _values(_python(signals))
    changes = Changes()
    libraries: dict[str, Callable[[Any], Iterator[Setting]]] = {"numpy": _numpy, "torch": _torch}
    missing = {name for name in libraries if name not in sys.modules}
    for name in libraries.keys() - missing:
        before += _values(libraries[name](sys.modules[name]))
    try:
        with _after_import(missing, lambda m: before.extend(_values(libraries[m.__name__](m)))):
            yield changes
    finally:
        changes.names += [setting.name for setting, value in before if _changed(setting, value)]
        _write(before)


class Kept:
    """The global settings as they are now, with where is printed, without handlers of signals."""

    def __init__(self) -> None:
        self._values = _values(_python(signals=False))
        if "torch" in sys.modules:
            self._values += _values(_accelerators(sys.modules["torch"]))
        names = vars(os)  # `contained` replaces these three
        self._values += _values(
            iter(
                [
                    Setting("sys.stdout", *_attribute(sys, "stdout")),
                    Setting("sys.stderr", *_attribute(sys, "stderr")),
                    Setting(
                        "os._exit", lambda: names["_exit"], partial(names.__setitem__, "_exit")
                    ),
                ]
            )
        )
        for name, settings in (("numpy", _numpy), ("torch", _torch)):
            if name in sys.modules:
                self._values += _values(settings(sys.modules[name]))

    def restore(self) -> None:
        """Set all settings to what they were; raises the first error when all others are set."""
        _write(self._values)


def _write(values: Sequence[tuple[Setting, Any]]) -> None:
    """Set settings to values; raise the first error when all others are set."""
    problems = []
    for setting, value in values:
        try:
            # the one before may have changed this one: torch has several names for a precision
            if _differs(setting, value):
                setting.write(value)
        except (OSError, RuntimeError, ValueError) as error:  # such as a folder that is gone
            problems.append(error)
    if problems:
        raise problems[0]


def _values(settings: Iterator[Setting]) -> list[tuple[Setting, Any]]:
    return [(setting, _read(setting)) for setting in settings]


def _read(setting: Setting) -> Any:
    try:
        return setting.read()
    except (AttributeError, OSError, RuntimeError):
        return _UNREADABLE  # torch refuses to read a precision that was set in the other way


def _differs(setting: Setting, before: Any) -> bool:
    return before is not _UNREADABLE and bool(_read(setting) != before)


def _changed(setting: Setting, before: Any) -> bool:
    return not setting.silent and _differs(setting, before)


@contextmanager
def _after_import(names: set[str], call: Callable[[ModuleType], object]) -> Iterator[None]:
    """Inside the context, call `call` with each module of `names` right after it is imported."""

    class Finder:
        """Lets the other finders find a module, and adds the call to its loader."""

        @staticmethod
        def find_spec(
            name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
        ) -> ModuleSpec | None:
            if name not in names:
                return None
            names.discard(name)
            for finder in sys.meta_path:
                spec = None if finder is Finder else finder.find_spec(name, path, target)
                if spec is not None:
                    _add_call(spec.loader, call)
                    return spec
            return None

    finder: Any = Finder
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def _add_call(loader: Any, call: Callable[[ModuleType], object]) -> None:
    execute = loader.exec_module

    def execute_and_call(module: ModuleType) -> None:
        del loader.exec_module
        execute(module)
        call(module)

    loader.exec_module = execute_and_call


# --- the settings -----------------------------------------------------------------------------


def _python(signals: bool) -> Iterator[Setting]:
    yield Setting("the current folder", os.getcwd, os.chdir)
    yield Setting("the umask", _umask, os.umask)
    for name in VARIABLES:
        yield Setting(f"the environment variable {name}", *_variable(name))
    if signals and threading.current_thread() is threading.main_thread():
        yield Setting("signal handlers", _handlers, _set_handlers)
    yield Setting("warning filters", _error_filters, _restore_error_filters)
    yield Setting("random numbers of Python", random.getstate, random.setstate, silent=True)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _variable(name: str) -> tuple[Callable[[], str | None], Callable[[str | None], None]]:
    def write(value: str | None) -> None:
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value

    return lambda: os.environ.get(name), write


@cache
def _signals() -> list[int]:
    return [int(number) for number in signal.valid_signals()]


def _handlers() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in _signals()}


def _set_handlers(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        # None is a handler that was not set by Python
        if handler is not None and signal.getsignal(number) != handler:
            signal.signal(number, handler)


def _error_filters() -> list[Any]:
    """Return the filters that turn warnings into errors; others decide only what is shown."""
    return [each for each in warnings.filters if each[0] == "error"]


def _restore_error_filters(kept: list[Any]) -> None:
    filters: Any = warnings.filters
    filters[:] = kept + [each for each in filters if each[0] != "error"]


def _numpy(numpy: Any) -> Iterator[Setting]:
    yield Setting("numpy.seterr", numpy.geterr, lambda value: numpy.seterr(**value))
    legacy = numpy.random.get_state()
    yield Setting(
        "random numbers of NumPy",
        lambda: [getattr(part, "tobytes", lambda p=part: p)() for part in numpy.random.get_state()],
        lambda _value: numpy.random.set_state(legacy),
        silent=True,
    )


def _torch(torch: Any) -> Iterator[Setting]:
    yield from _torch_arithmetic(torch)
    yield Setting("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype)
    device = torch.get_default_device()
    yield Setting(
        "torch's default device",
        torch.get_default_device,
        lambda _value: torch.set_default_device(None if device.type == "cpu" else device),
    )
    yield Setting("torch's gradient mode", torch.is_grad_enabled, torch.set_grad_enabled)
    yield Setting(
        "torch's anomaly detection", torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly
    )
    yield Setting("torch's threads", torch.get_num_threads, torch.set_num_threads)
    accelerator = torch.accelerator.current_accelerator()
    for kind in ("cpu",) if accelerator is None else ("cpu", accelerator.type):
        yield _autocast(torch, kind)
    yield Setting("torch's nesting of autocast", *_nesting(torch))
    for name, library in (
        ("hooks of all modules", "torch.nn.modules.module"),
        ("hooks of all optimizers", "torch.optim.optimizer"),
    ):
        yield Setting(name, *_hooks(sys.modules[library]))
    state = torch.random.get_rng_state()
    yield Setting(
        "random numbers of torch",
        lambda: torch.random.get_rng_state().numpy().tobytes(),
        lambda _value: torch.random.set_rng_state(state),
        silent=True,
    )


def _accelerators(torch: Any) -> Iterator[Setting]:
    """Yield the random numbers of each accelerator."""
    if not torch.accelerator.is_available():
        return
    module = torch.get_device_module(torch.accelerator.current_accelerator())
    for index in range(torch.accelerator.device_count()):
        yield Setting(
            f"random numbers of device {index}",
            partial(_bytes_of_generator, module, index),
            partial(_set_generator, module, index, module.get_rng_state(index)),
            silent=True,
        )


def _bytes_of_generator(module: Any, index: int) -> bytes:
    state: bytes = module.get_rng_state(index).numpy().tobytes()
    return state


def _set_generator(module: Any, index: int, state: Any, _value: bytes) -> None:
    module.set_rng_state(state, index)


def _torch_arithmetic(torch: Any) -> Iterator[Setting]:
    yield Setting(
        "torch's float32 matmul precision",
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    )
    backends = torch.backends
    flags = {
        "torch.backends": (backends, ["fp32_precision"]),
        "torch.backends.cuda.matmul": (
            backends.cuda.matmul,
            [
                "allow_tf32",  # the older names come first, since writing them changes the others
                "fp32_precision",
                "allow_fp16_accumulation",
                "allow_fp16_reduced_precision_reduction",
                "allow_bf16_reduced_precision_reduction",
            ],
        ),
        "torch.backends.cudnn": (
            backends.cudnn,
            [
                "allow_tf32",
                "fp32_precision",
                "enabled",
                "benchmark",
                "benchmark_limit",
                "deterministic",
            ],
        ),
        "torch.backends.cudnn.conv": (backends.cudnn.conv, ["fp32_precision"]),
        "torch.backends.cudnn.rnn": (backends.cudnn.rnn, ["fp32_precision"]),
        "torch.backends.mkldnn": (
            backends.mkldnn,
            ["fp32_precision", "enabled", "deterministic"],
        ),
        "torch.backends.mkldnn.matmul": (backends.mkldnn.matmul, ["fp32_precision"]),
        "torch.backends.mkldnn.conv": (backends.mkldnn.conv, ["fp32_precision"]),
        "torch.backends.mkldnn.rnn": (backends.mkldnn.rnn, ["fp32_precision"]),
        "torch.backends.opt_einsum": (backends.opt_einsum, ["enabled", "strategy"]),
    }
    for place, (library, names) in flags.items():
        for name in names:
            yield Setting(f"{place}.{name}", *_attribute(library, name))
    for kind in ("flash", "mem_efficient", "math", "cudnn"):
        yield Setting(
            f"torch.backends.cuda.enable_{kind}_sdp",
            getattr(backends.cuda, f"{kind}_sdp_enabled"),
            getattr(backends.cuda, f"enable_{kind}_sdp"),
        )
    yield Setting(
        "torch's deterministic algorithms",
        lambda: (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        lambda value: torch.use_deterministic_algorithms(value[0], warn_only=value[1]),
    )
    # there is no way to ask; the smallest normal number halved is 0 if denormals are flushed
    yield Setting(
        "torch's flushing of denormal numbers",
        lambda: float(torch.tensor([2.0**-126], dtype=torch.float32, device="cpu").div(2)) == 0,
        torch.set_flush_denormal,
    )


def _attribute(library: Any, name: str) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    return lambda: getattr(library, name), lambda value: setattr(library, name, value)


def _autocast(torch: Any, kind: str) -> Setting:
    def write(value: tuple[bool, Any]) -> None:
        torch.set_autocast_enabled(kind, value[0])
        torch.set_autocast_dtype(kind, value[1])

    return Setting(
        f"torch's autocast on {kind}",
        lambda: (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)),
        write,
    )


def _nesting(torch: Any) -> tuple[Callable[[], int], Callable[[int], None]]:
    """Return functions for the number of autocast contexts that were entered and not left.

    Unless it is 0 outside all contexts, torch keeps half-precision copies of weights that have
    changed since.
    """

    def read() -> int:
        torch.autocast_increment_nesting()
        depth: int = torch.autocast_decrement_nesting()
        return depth

    def write(depth: int) -> None:
        while read() > depth:
            torch.autocast_decrement_nesting()
        while read() < depth:
            torch.autocast_increment_nesting()
        if depth == 0:
            torch.clear_autocast_cache()

    return read, write


def _hooks(library: Any) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    def read() -> dict[str, Any]:
        return {
            name: dict(value) if isinstance(value, dict) else value
            for name, value in vars(library).items()
            if name.startswith("_global_") and "hook" in name
        }

    def write(before: dict[str, Any]) -> None:
        for name, value in before.items():
            if isinstance(value, dict):
                hooks = getattr(library, name)
                hooks.clear()
                hooks.update(value)
            else:
                setattr(library, name, value)

    return read, write
