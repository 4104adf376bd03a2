"""From files to a table in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from debiasbench.common.errors import OptionError, UnknownNameError
from debiasbench.leaderboard import kept
from debiasbench.leaderboard.board import boards
from debiasbench.leaderboard.columns import COLUMNS, PANEL, PANEL_RULE, PANELS, chosen, ordered
from debiasbench.leaderboard.render import FORMATS, WRITERS, grid, written
from debiasbench.records.archive import with_archives

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from debiasbench.leaderboard.board import Board
    from debiasbench.leaderboard.gather import Gathered
    from debiasbench.leaderboard.grid import Grid


def table(
    places: Iterable[Path],
    form: str,
    *,
    dataset: str | None = None,
    metric: str | None = None,
    select: str | None = None,
    baseline: str | None = None,
    pivot: str | None = None,
    panel: str | None = None,
    across: bool = False,
    protocol: bool = False,
    sensitivity: bool = False,
    methods: Sequence[str] = (),
    columns: str | None = None,
    sort: str | None = None,
    styled: bool = False,
    index: bool = True,
) -> tuple[str, list[str]]:
    """Compare all records in files and folders; return the text and a message for each bad record.

    Records that contradict themselves are left out. `form` is one of `FORMATS`. `pivot` is an
    option whose values become columns, see `pivots`. `panel`: "groups" compares what methods
    inferred of the training samples with the truth, see `panels`. `columns`: names of `COLUMNS`, or
    of `PANEL`, separated by commas. `sort`: the column that orders the rows of each section,
    instead of the accuracy, or of the AUC in a panel. `across`: compare methods over data sets, see
    `across`. `protocol`: compare selection rules, see `protocols`; `select` is then the rule that
    the others are compared with. `sensitivity`: compare selection rules, metrics and validation
    splits, see `sensitivities`. `methods`: only the records of these methods; all without any.
    `index`: see `gather`.
    `styled`: whether the text goes to a terminal, where strong rows are bold. The other arguments
    are those of `boards`.

    Raises `RecordError` if there is no record to compare, and `OptionError` for options that do not
    go together.
    """
    kinds = {"across": across, "protocol": protocol, "sensitivity": sensitivity}
    _check_kinds(kinds, baseline, pivot=pivot, panel=panel, columns=columns, sort=sort)
    _check(form, pivot=pivot, columns=columns, baseline=baseline, sort=sort)
    if panel is not None:
        _check_panel(panel, metric=metric, select=select, baseline=baseline, pivot=pivot)
    known = COLUMNS if panel is None else PANEL
    names = None if columns is None else chosen(columns, known)
    rule = select if panel is None else PANEL_RULE
    places = with_archives(places)
    shared = {"dataset": dataset, "metric": metric, "select": select}
    made: str | list[Grid]  # text, or what is written in any layout
    is_plain = (
        not (across or protocol or sensitivity or methods) and panel is None and pivot is None
    )

    def write(of: Sequence[Board]) -> str:
        return _written(_laid_out(of, form, names, sort), form, styled=styled)

    layout = [*shared.values(), baseline, form, names, sort, *_screen(form, styled=styled)]
    unchanged = kept.known(places, baseline=baseline, **shared) if is_plain and index else None
    if unchanged is not None and (text := unchanged.text(layout, write)) is not None:
        return text, unchanged.problems
    from debiasbench.leaderboard.gather import gather  # what reads records takes long to import

    gathered = gather(places, rule, whole=protocol or sensitivity, index=index)
    if methods:
        gathered = gathered.of_methods(methods)
    if panel is not None:
        made = _panels(gathered, form, dataset, names, sort)
    elif across:
        made = _across(gathered, form, baseline, shared)
    elif protocol:
        made = _protocols(gathered, form, shared)
    elif sensitivity:
        made = _sensitivities(gathered, form, baseline, shared)
    elif pivot is not None:
        made = _pivots(gathered, pivot, shared)
    else:
        keep = kept.keeping(places, gathered) if index and not methods else None
        of = boards(gathered.records, baseline=baseline, keep=keep, **gathered.evidence, **shared)
        text = write(of)
        if keep is not None:
            keep.keep_text(layout, text)
        return text, gathered.problems
    return _written(made, form, styled=styled), gathered.problems


def _screen(form: str, *, styled: bool) -> list[object]:
    """Return what else the text of a table follows from if it goes to a terminal."""
    if form != "text":
        return []
    import shutil
    from importlib.metadata import version

    return [shutil.get_terminal_size().columns, styled, version("rich")]


def _written(made: str | list[Grid], form: str, *, styled: bool) -> str:
    if isinstance(made, str):
        return made
    return written(made, form, styled=styled)


def _panels(
    gathered: Gathered,
    form: str,
    dataset: str | None,
    names: Sequence[str] | None,
    sort: str | None,
) -> str | list[Grid]:
    from debiasbench.leaderboard import panel as panelled

    made = panelled.panels(gathered.records, dataset=dataset, unverified=gathered.unverified)
    if sort is not None:
        made = [ordered(board, sort, PANEL) for board in made]
    if form not in WRITERS:
        return panelled.FLAT[form](made)
    return [panelled.grid(board, form, names) for board in made]


def _across(
    gathered: Gathered, form: str, baseline: str | None, shared: Mapping[str, str | None]
) -> str | list[Grid]:
    from debiasbench.leaderboard import across_text
    from debiasbench.leaderboard.across import across

    made = across(
        gathered.records,
        baseline=baseline,
        **gathered.evidence,
        **shared,
    )
    return across_text.FLAT[form](made) if form not in WRITERS else across_text.grids(made)


def _protocols(gathered: Gathered, form: str, shared: Mapping[str, str | None]) -> str | list[Grid]:
    from debiasbench.leaderboard import protocol_text
    from debiasbench.leaderboard.protocol import protocols

    made = protocols(
        gathered.records,
        **gathered.evidence,
        **shared,
    )
    if form not in WRITERS:
        return protocol_text.FLAT[form](made)
    return [grid for one in made for grid in protocol_text.grids(one)]


def _sensitivities(
    gathered: Gathered, form: str, baseline: str | None, shared: Mapping[str, str | None]
) -> str | list[Grid]:
    from debiasbench.leaderboard import sensitivity_text
    from debiasbench.leaderboard.sensitivity import sensitivities

    made = sensitivities(gathered.records, baseline=baseline, **gathered.evidence, **shared)
    if form not in WRITERS:
        return sensitivity_text.FLAT[form](made)
    return [grid for one in made for grid in sensitivity_text.grids(one)]


def _pivots(gathered: Gathered, option: str, shared: Mapping[str, str | None]) -> list[Grid]:
    from debiasbench.leaderboard import pivot as pivoted

    made = pivoted.pivots(
        gathered.records,
        option,
        **gathered.evidence,
        **shared,
    )
    return [pivoted.grid(one) for one in made]


def _laid_out(
    made: Sequence[Board], form: str, names: Sequence[str] | None, sort: str | None
) -> str | list[Grid]:
    if sort is not None:
        made = [ordered(board, sort) for board in made]
    return FORMATS[form](made) if form not in WRITERS else [grid(b, form, names) for b in made]


def _check(form: str, **given: str | None) -> None:
    """Raise `OptionError` for options of which one has no meaning beside another."""
    pivot, columns, baseline, sort = (given[n] for n in ("pivot", "columns", "baseline", "sort"))
    if pivot is not None:
        _check_alone("pivot", baseline=baseline, columns=columns, sort=sort)
        if form not in WRITERS:
            raise OptionError(
                f"--pivot cannot be combined with --format {form}, which has a row for each value"
            )
    if columns is not None and form not in WRITERS:
        raise OptionError(
            f"--columns cannot be combined with --format {form}, which has all columns"
        )
    named = [name.strip() for name in (columns or "").split(",")]
    if baseline is None and (sort == "difference" or "difference" in named):
        raise OptionError("The column difference needs --baseline NAME")


def _check_panel(panel: str, **given: str | None) -> None:
    """Raise `OptionError` for a panel that there is not, and for options without meaning for it."""
    if panel not in PANELS:
        raise UnknownNameError("panel", panel, PANELS)
    _check_alone(f"panel {panel}", **given)


def _check_kinds(kinds: Mapping[str, bool], baseline: str | None, **given: str | None) -> None:
    """Raise `OptionError` for two kinds of tables, and for options without meaning for one."""
    asked = [name for name, wanted in kinds.items() if wanted]
    if len(asked) > 1:
        raise OptionError(f"--{asked[1]} cannot be combined with --{asked[0]}")
    for name in asked:
        of_protocol = {"baseline": baseline} if name == "protocol" else {}
        _check_alone(name, **given, **of_protocol)


def _check_alone(option: str, **given: str | None) -> None:
    """Raise `OptionError` for a given option, because it has no meaning beside `option`."""
    for name, value in given.items():
        if value is not None:
            raise OptionError(f"--{option} cannot be combined with --{name}")
