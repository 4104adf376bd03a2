"""A class that is used by its place, without a package: `./my.py:Mixup`.

In a spec it has the name "my.py:Mixup@1a2b3c4d", which contains a digest of the file: another file,
or the same file after a change, is another spec.
"""

from __future__ import annotations

import hashlib
import inspect
import linecache
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from debiasbench.common.errors import OptionError, PluginError, suggestion
from debiasbench.common.foreign import contained, explained, is_interrupt

_WRITTEN = re.compile(r"(?P<path>.*\.py)(?::(?P<cls>\w+))?", re.DOTALL)
_IN_SPEC = re.compile(r"(?P<place>[^/]+\.py:\w+)@[0-9a-f]{8}")


@dataclass(frozen=True)
class FileClass:
    """A class of a file, its name in specs, and the digest of the file.

    `place`: the absolute path of the file and the class, as `load` reads them.
    """

    cls: type
    name: str
    file: str
    digest: str
    place: str = ""


def is_written(name: str) -> bool:
    """Return whether a name is the path of a Python file, with or without a class."""
    return _WRITTEN.fullmatch(name) is not None


def place_in_spec(name: str) -> str:
    """Return "my.py:Mixup" for the name "my.py:Mixup@1a2b3c4d" of a spec, otherwise ""."""
    match = _IN_SPEC.fullmatch(name)
    return match["place"] if match else ""


def load(name: str, kind: str, base: type) -> FileClass:
    """Run the file of a name such as "./my.py:Mixup", and return the class.

    `kind`, `base`: what the class must be. If the name has no class, the file must define exactly
    one of this kind. Raises `OptionError`, and `PluginError` for an error in the file.
    """
    match = _WRITTEN.fullmatch(name)
    assert match is not None
    path = Path(match["path"])
    try:
        content = path.read_bytes()
    except OSError as error:
        raise OptionError(f"{name}: cannot read {path}: {error.strerror or error}") from error
    digest = hashlib.sha256(content).hexdigest()[:8]
    module = _module(name, path, content, digest)
    own = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__
    }
    fitting = [key for key, value in own.items() if issubclass(value, base)]
    if match["cls"] is None:
        if len(fitting) != 1:
            found = f"has {', '.join(fitting)}" if fitting else f"has no {kind}"
            raise OptionError(f"{name} {found}: write {name}:CLASS")
        (chosen,) = fitting
    else:
        chosen = match["cls"]
        if chosen not in own:
            raise OptionError(
                f"{path} has no class {chosen!r}.{suggestion(chosen, own)} Classes: "
                f"{', '.join(own) or 'none'}"
            )
        if chosen not in fitting:
            raise OptionError(
                f"{name} is not a {kind}: it must derive from debiasbench.{base.__name__}"
            )
    in_spec, place = f"{path.name}:{chosen}@{digest}", f"{path.absolute()}:{chosen}"
    return FileClass(own[chosen], in_spec, path.name, digest, place)


def of_class(cls: type) -> FileClass:
    """Return a class that Python code gives, with the name that `load` gives it.

    A class of a notebook has the name "notebook:Mixup@1a2b3c4d", with a digest of its cell only.
    Raises `OptionError` for a class whose source cannot be read.
    """
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    content = _read(Path(file)) if file else _cell(cls)
    if not content:
        raise OptionError(
            f"The source of class {cls.__name__} cannot be read, so results of different versions "
            "could not be distinguished. Define it in a file or in a notebook"
        )
    digest = hashlib.sha256(content).hexdigest()[:8]
    place = Path(file).name if file else "notebook"
    return FileClass(cls, f"{place}:{cls.__name__}@{digest}", place, digest)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _cell(cls: type) -> bytes:
    """Return the notebook cell that defines a class; empty if there is none."""
    for value in vars(cls).values():
        if inspect.isfunction(value) and value.__qualname__.startswith(f"{cls.__qualname__}."):
            lines = linecache.getlines(value.__code__.co_filename)
            if lines:
                return "".join(lines).encode()
    return b""


def _module(name: str, path: Path, content: bytes, digest: str) -> ModuleType:
    """Return the module of a file; the same content is run once."""
    module_name = f"debiasbench_file_{digest}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    module = ModuleType(module_name)
    module.__file__ = str(path.resolve())
    sys.modules[module_name] = module  # dataclasses look their module up
    try:
        with contained(name):
            # not by a loader: compiled files are only as new as the clock can tell
            exec(compile(content, module.__file__, "exec"), vars(module))
    except BaseException as error:  # the code of others may raise anything
        del sys.modules[module_name]
        if is_interrupt(error):
            raise
        raise PluginError(f"{name} did not load: {explained(error, module_name)}") from error
    return module
