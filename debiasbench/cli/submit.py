"""`debiasbench submit`: prepare, check and reproduce submissions to the leaderboard."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from debiasbench.cli.common import debug_option, interruptible, load_plugins, say
from debiasbench.cli.parsing import Group
from debiasbench.cli.session import ALL, session_options
from debiasbench.common.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from debiasbench.runs.session_options import SessionOptions
    from debiasbench.submissions.check import Result

LEADERBOARD = Path("leaderboard")
LISTS = {  # option -> file or folder in LEADERBOARD that is its default, and its help
    "published": ("records", "Folder of published records to compare with."),
    "references": ("references", "Folder of reference labels."),
    "blocked": ("blocked.toml", "List of versions that must not be used."),
}
_FOLDER = click.argument("folder", type=click.Path(path_type=Path))
_COMMIT = click.option("--commit", default="", help="Commit at which the submission was checked.")


def _published_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--published`, `--references` and `--blocked`."""
    for name, (default, what) in reversed(LISTS.items()):
        command = click.option(
            f"--{name}",
            type=click.Path(path_type=Path),
            help=f"{what}  [default: leaderboard/{default}, if it exists]",
        )(command)
    return command


@click.group(cls=Group)
def submit() -> None:
    """Prepare, check and reproduce submissions: folders of records for the leaderboard."""


@submit.command()
@click.argument("name")
@click.argument("results", nargs=-1, type=click.Path(path_type=Path))
@click.option("--method", help="Copy only the records of this method.")
@click.option("--suite", help="The suite whose settings the records have.")
@click.option("--who", help="Your name.")
@click.option("--contact", help="Where you answer questions.")
@click.option("--licence", help="CC0-1.0 or CC-BY-4.0.")
@click.option("--claims", help="authors or reimplementation.")
@click.option("--source", help="An https address of the source code.")
@click.option("--sha256", help="SHA-256 of the source distribution.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("submissions"),
    show_default=True,
    help="Folder in which the folder NAME is made.",
)
@debug_option
def prepare(
    name: str, results: tuple[Path, ...], method: str | None, folder: Path, **values: str | None
) -> None:
    """Make the folder of a submission from the records in RESULTS.

    Records and predictions are copied; submission.toml is written, with TODO where a value is
    missing.
    """
    from debiasbench.submissions.prepare import prepared

    given = {key: value for key, value in values.items() if value is not None}
    target = folder / name
    made = prepared(target, results or (Path("results"),), given, method)
    for message in made.left_out:
        say(f"Left out {message}", err=True)
    say(f"Copied {counted(len(made.records), 'record')} to {target}")
    say(
        f"Next: fill in {target / 'submission.toml'}, then\n\n"
        f"  debiasbench submit check {target}\n"
        f"  git switch -c {name}\n"
        f"  git add {target}\n"
        f"  git commit -m 'Submission {name}'\n"
        f"  git push YOUR_FORK {name}\n\n"
        "and open a pull request from your fork."
    )


@submit.command()
@_FOLDER
@_published_options
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Format of the report.",
)
@debug_option
def check(folder: Path, form: str, **lists: Path | None) -> None:
    """Check the submission in FOLDER.

    Only JSON, TOML and safetensors files are read; nothing of the submission is imported or run.
    Every finding is reported with its code. If one is an error, the exit code is 9.
    """
    from debiasbench.common.errors import RecordError
    from debiasbench.submissions.report import as_json, as_text

    result = _checked(folder, lists)
    click.echo(as_json(result) if form == "json" else as_text(result), nl=False)
    if result.errors:
        raise RecordError(f"{counted(result.errors, 'error')}: see above")


def _sample_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--nonce` and `--sample`."""
    command = click.option(
        "--sample",
        "number",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Number of records of each row to run again; those that failed are added.",
    )(command)
    return click.option(
        "--nonce",
        required=True,
        help="Text that nobody could know before, such as the commit of the merge; it chooses "
        "the records.",
    )(command)


@submit.command()
@_FOLDER
@_sample_options
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="File of specs to write.",
)
@debug_option
def sample(folder: Path, nonce: str, number: int, out: Path) -> None:
    """Write the specs of a sample of the records in FOLDER to a file, for `submit reproduce`."""
    from debiasbench.common.errors import RecordError
    from debiasbench.records.spec_file import write_specs
    from debiasbench.submissions.folder import opened
    from debiasbench.submissions.reproduce import sample as chosen

    submission = opened(folder)
    if submission.findings:
        raise RecordError(f"{folder} has errors: run `debiasbench submit check {folder}` first")
    rows = chosen((record for _, record in submission.records), nonce, number)
    write_specs(out, [record.spec for row in rows for record in row])
    say(f"Wrote {counted(sum(map(len, rows)), 'spec')} of {counted(len(rows), 'row')} to {out}")


@submit.command()
@click.argument("specs", type=click.Path(path_type=Path, dir_okay=False))
@session_options(*ALL)
@debug_option
@interruptible
def reproduce(specs: Path, options: SessionOptions) -> None:
    """Run the specs in the file SPECS again, with the installed code of the method.

    This runs the code of the submission: use a container without network and without credentials,
    in which there is neither the submission nor the file of trust levels. The records are written
    to --results, which must be empty. `submit compare`, outside of the container, judges them.
    """
    from debiasbench.common.display import display
    from debiasbench.records.spec_file import read_specs
    from debiasbench.submissions.reproduce import need_empty, run_again

    wanted = read_specs(specs)
    need_empty(options.results)
    with (
        display() as progress,
        options.open(load_plugins(), progress=progress, interruptible=True) as session,
    ):
        for run in run_again(session, wanted):
            say(f"{run.record.spec.stem}: {run.record.status}")


@submit.command()
@_FOLDER
@click.argument("again", type=click.Path(path_type=Path))
@_sample_options
@click.option(
    "--write",
    type=click.Path(path_type=Path, dir_okay=False),
    help="If all records agree, write the level reproduced to this file of trust levels.",
)
@_COMMIT
@_published_options
@debug_option
def compare(
    folder: Path,
    again: Path,
    nonce: str,
    number: int,
    write: Path | None,
    commit: str,
    **lists: Path | None,
) -> None:
    """Compare the sample of the records in FOLDER with the records in AGAIN.

    Only files are read. If a record does not agree, or one of the sample is missing, the exit code
    is 9. The level reproduced is only written for submissions that are verified.
    """
    from debiasbench.common.errors import RecordError
    from debiasbench.submissions.agreement import agreements

    result = _checked(folder, lists)
    outcomes = agreements(result, again, nonce, number)
    for outcome in outcomes:
        word = "agrees" if outcome.ok else "DIFFERS"
        say(f"{outcome.record.spec.stem} {word}: {outcome.message}")
    if failed := sum(not outcome.ok for outcome in outcomes):
        raise RecordError(
            f"{failed} of {counted(len(outcomes), 'run')} did not agree, so the whole submission "
            "is held"
        )
    if not outcomes:
        raise RecordError(f"{folder} has no record: run `debiasbench submit check {folder}`")
    say(f"{counted(len(outcomes), 'run')} agreed")
    if write is not None:
        _need_verified(result)
        _raise(write, result, "reproduced", commit or nonce)


@submit.command()
@_FOLDER
@click.option(
    "--write",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="File of trust levels, such as leaderboard/trust.json.",
)
@_COMMIT
@click.option(
    "--independent",
    is_flag=True,
    help="You know that others than the authors ran these records: write the level independent.",
)
@_published_options
@debug_option
def trust(folder: Path, write: Path, commit: str, independent: bool, **lists: Path | None) -> None:
    """Check the submission in FOLDER, and write the level that follows to a file of trust levels.

    The level is listed or verified. No file shows who ran it, so only you can say that it is
    independent; such a submission must be verified. No level of a record file is ever lowered.
    """
    from debiasbench.common.errors import RecordError
    from debiasbench.submissions.report import summary

    result = _checked(folder, lists)
    say(summary(result))
    if not result.level:
        raise RecordError(f"{folder} has errors: run `debiasbench submit check {folder}`")
    if independent:
        _need_verified(result)
    _raise(write, result, "independent" if independent else result.level, commit)


def _need_verified(result: Result) -> None:
    from debiasbench.common.errors import RecordError

    if result.level != "verified":
        raise RecordError(
            f"{result.submission.name} is not verified: no higher level is written. Run "
            f"`debiasbench submit check {result.submission.folder}`"
        )


def _checked(folder: Path, lists: dict[str, Path | None]) -> Result:
    from debiasbench.submissions.check import checked

    def place(name: str) -> Path | None:
        usual = LEADERBOARD / LISTS[name][0]
        return lists[name] or (usual if usual.exists() else None)

    published = place("published")
    return checked(
        folder,
        () if published is None else (published,),
        place("references"),
        place("blocked"),
    )


def _raise(file: Path, result: Result, level: str, commit: str) -> None:
    from debiasbench.records.trust import raised
    from debiasbench.submissions.trusted import levels

    given = levels(result, level, datetime.now(UTC).date().isoformat(), commit)
    new = raised(file, given)
    say(f"{file}: {counted(len(new), 'level')} raised, of {counted(len(given), 'record')}")
