"""`debiasbench leaderboard --site` and `--page`: pages instead of tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from debiasbench.cli.common import load_plugins, say
from debiasbench.common.copies import elsewhere
from debiasbench.common.errors import OptionError, PluginError
from debiasbench.common.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from debiasbench.leaderboard.site import About


def write_pages(
    places: Iterable[Path],
    *,
    site: Path | None,
    page: Path | None,
    index: bool = True,
    methods: Sequence[str] = (),
    err: bool = False,
    **arguments: str | None,
) -> list[str]:
    """Write a site, one page, or both; return a message for each record that was left out.

    `index`: see `gather`. `methods`: only these; none stands for all. `err`: say on stderr what was
    written. `arguments`: dataset, metric, select and baseline of `boards`.
    """
    from debiasbench.leaderboard.gather import gather
    from debiasbench.leaderboard.site import LARGE, write_large, write_page, write_site
    from debiasbench.records.archive import with_archives

    places = list(places)
    problems: list[str] = []
    if site is not None and _number(with_archives(places)) > LARGE:
        gathered = gather(places, arguments["select"], index=index)
        if methods:
            gathered = gathered.of_methods(methods)
        if len(gathered.records) > LARGE:
            # plugins import torch, with which no process can be copied safely
            about = elsewhere(_about, {record.spec.method.name for record in gathered.records})
            number = write_large(gathered, site, about=about, **arguments)
            problems = gathered.problems
            count = counted(len(gathered.records), "record")
            say(f"{site}: {counted(number, 'file')}, from {count}", err=err)
            site = None
    if site is None and page is None:
        return problems
    gathered = gather(places, whole=True)
    if methods:
        gathered = gathered.of_methods(methods)
    about = _about({record.spec.method.name for record in gathered.records})
    if site is not None:
        number = write_site(gathered, site, about=about, **arguments)
        count = counted(len(gathered.records), "record")
        say(f"{site}: {counted(number, 'file')}, from {count}", err=err)
    if page is not None:
        write_page(gathered, page, about=about, **arguments)
        say(f"{page}: from {counted(len(gathered.records), 'record')}", err=err)
    return gathered.problems


def _number(places: Iterable[Path]) -> int:
    """Return how many files may be records."""
    from debiasbench.records.listing import listing

    return sum(
        sum(len(names) for _, names, _ in listing(place, [])) if place.is_dir() else 1
        for place in places
    )


def _about(names: Iterable[str]) -> Mapping[str, About]:
    """Return the sentence and the paper of each method that is installed."""
    from debiasbench.common.errors import UnknownNameError
    from debiasbench.leaderboard.site import About

    plugins = load_plugins()
    found = {}
    for name in sorted(names):
        try:
            entry, *_ = plugins.methods.find_in_spec(name)
            found[name] = About(entry.summary(), entry.load().citation)
        except (UnknownNameError, OptionError, PluginError):
            continue
    return found
