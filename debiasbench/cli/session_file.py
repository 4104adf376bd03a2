"""`--session FILE.toml`: options of the session and of the launcher, for all commands that train.

Words after `--` go to sbatch if runs are trained on Slurm.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from debiasbench.cli.parsing import Command
from debiasbench.common.errors import OptionError, suggestion
from debiasbench.common.regular import read_regular
from debiasbench.common.wording import listed, shortened, shown
from debiasbench.runs.sbatch import Settings, sbatch_lines, words_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MOST_BYTES = 1 << 20
SLURM = "debiasbench.slurm"  # the `Settings` of an array, in a context's `meta`

# keys are options without the two dashes, in all tables
_OPTIONS: dict[str, tuple[type, ...]] = {
    "data-root": (str,),
    "results": (str,),
    "device": (str,),
    "compile": (str,),
    "deterministic": (bool,),
    "graphs": (bool,),
    "on": (str,),
    "jobs": (int,),
    "together": (int, str),
}
_TABLES: dict[str, dict[str, tuple[type, ...]]] = {
    "slurm": {"workers": (int,), "sbatch": (dict,), "setup": (list,), "python": (str,)},
    "ray": {
        "workers": (int,),
        "cpus-per-run": (int, float),
        "gpus-per-run": (int, float),
        "memory-per-run": (int, float),
        "fetch-checkpoints": (int, float),
    },
}
_WORDS = {
    str: "a text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    dict: "a table",
    list: "a list",
}


def session_file_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--session`, whose file `SessionCommand` reads."""
    return click.option(
        "--session",
        type=click.Path(path_type=Path, dir_okay=False),
        expose_value=False,
        metavar="FILE.toml",
        help="Take options of the session and of the launcher from this file, such as device, "
        "results and the tables ray and slurm. Those of the command line win.",
    )(command)


class SessionCommand(Command):
    """A command with `--session`, and with words for sbatch if it has `--on`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the words, with defaults from the session file."""
        before, after = args, []
        if "--" in args:
            place = args.index("--")
            before, after = args[:place], args[place + 1 :]
        values = self.make_parser(ctx).parse_args(list(before))[0]
        file = values.get("session")
        content = read_session(Path(file)) if isinstance(file, str) and file else {}
        on = values.get("on", content.get("on"))
        defaults = {name: value for name, value in content.items() if not isinstance(value, dict)}
        if on == "slurm":
            table = dict(content.get("slurm", {}))
            defaults |= {key: table.pop(key) for key in ("workers",) if key in table}
            # before data sets are loaded, not after
            lines = sbatch_lines([*words_of(table.pop("sbatch", {})), *after])
            ctx.meta[SLURM] = Settings(lines, table.get("setup", []), table.get("python"))
            args = before
        elif isinstance(on, str) and on.partition(":")[0] == "ray":
            defaults |= content.get("ray", {})
        ctx.default_map = {name.replace("-", "_"): value for name, value in defaults.items()}
        try:
            return super().parse_args(ctx, args)
        except click.BadParameter as error:
            name = "" if error.param is None else error.param.name or ""
            if ctx.get_parameter_source(name) == ParameterSource.DEFAULT_MAP:
                raise click.BadParameter(
                    f"{error.message} (in {file})", error.ctx, error.param
                ) from error
            raise


def read_session(file: Path) -> dict[str, Any]:
    """Read a session file; raises `OptionError`."""
    try:
        content = tomllib.loads(read_regular(file, MOST_BYTES).decode())
    except OSError as error:
        raise OptionError(f"--session: {file} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise OptionError(f"--session: {file} is not TOML: {shortened(str(error))}") from error
    _check(file, "", content, {**_OPTIONS, **dict.fromkeys(_TABLES, (dict,))})
    for name, kinds in _TABLES.items():
        _check(file, f"{name}.", content.get(name, {}), kinds)
    slurm = content.get("slurm", {})
    for name, value in slurm.get("sbatch", {}).items():
        if value is False or not isinstance(value, (str, int)):
            raise OptionError(
                f"{file}: slurm.sbatch.{shortened(name)} = {shown(value)}: must be a text, a "
                "number, or true for an option without a value"
            )
    for line in slurm.get("setup", []):
        if not isinstance(line, str):
            raise OptionError(f"{file}: slurm.setup has {shown(line)}: lines are texts")
    return content


def _check(
    file: Path, table: str, content: Mapping[str, Any], known: Mapping[str, tuple[type, ...]]
) -> None:
    """Raise `OptionError` for a key that is not known, and for a value of another type."""
    for name, value in content.items():
        if name not in known:
            raise OptionError(
                f"{file}: unknown key {shown(table + name)}.{suggestion(name, known)} Known keys: "
                f"{listed(list(known))}"
            )
        if type(value) not in known[name]:
            kinds = " or ".join(dict.fromkeys(_WORDS[kind] for kind in known[name]))
            raise OptionError(f"{file}: {table}{name} = {shown(value)}: must be {kinds}")
