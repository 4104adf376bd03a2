"""Sites for tests: records of few and of many methods, and pages as lists of elements."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from debiasbench.leaderboard.gather import Gathered, gather
from debiasbench.leaderboard.site import write_site
from debiasbench.records.correct import Correct
from debiasbench.records.metrics import GroupCounts, accuracies
from debiasbench.records.record import Curves, Record, SplitResult, to_json
from debiasbench.specs.spec import Choice
from tests.leaderboard.test_leaderboard import ERM, LFF, REST, run

METHOD = "<img src=x onerror=1>"
FORMULA = '=HYPERLINK("http://evil.example","x")'


def usual() -> list[Record]:
    """Return records of three methods on two data sets, one of which failed."""
    other = Choice("toy", {"ratio": 0.01})
    moved = [replace(r, spec=replace(r.spec, dataset=other)) for r in [*ERM, *REST]]
    second = [
        _with_curves(replace(r, id=r.spec.id, task=replace(r.task, fingerprint="beef")))
        for r in moved
    ]
    return [*ERM, *LFF, *REST, run("lff", 9, failed=True), *second]


def _with_curves(record: Record) -> Record:
    """Return a record of two epochs, of which every rule keeps the second, with their curves."""
    outcomes = {rule: replace(one, epoch=2) for rule, one in record.outcomes.items()}
    values = {"loss": [2.0, 1.5], "val_loss": [2.0, 1.0]}
    for name, value in outcomes["last"].val.metrics.items():
        values[f"val_{name}"] = [value / 2, value]
    assert record.cost is not None
    cost = replace(record.cost, stages=[{"name": "train", "epochs": 2}])
    return replace(record, outcomes=outcomes, cost=cost, curves=[Curves("train", values)])


def hostile() -> list[Record]:
    """Return records whose every text would do harm in a page, a file name or a spreadsheet."""
    made = []
    for seed in range(3):
        record = run(METHOD, seed, (9, 5 + seed, 4, 10), options={'"><b>': FORMULA})
        task = replace(
            record.task,
            classes=["</script><script>alert(1)</script>", "\x1b[31mred"],
            biases=["</style><b>", "\u202egnp"],
            fingerprint="../../../etc/passwd",
        )
        spec = replace(record.spec, dataset=Choice("../../evil", {"x": "<u>"}), model=Choice("<i>"))
        made_by = replace(
            record.provenance, hardware="<marquee>", git="<s>", plugins={"method": "&"}
        )
        made.append(replace(record, spec=spec, id=spec.id, task=task, provenance=made_by))
    failed = run("../up", 7, failed=True)
    return [*made, *ERM[:2], failed]


def gathered(folder: Path, records: list[Record]) -> Gathered:
    """Write records into a folder, and gather them."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, record in enumerate(records):
        (folder / f"{i}.json").write_text(to_json(record))
    return gather([folder], whole=True)


def site(folder: Path, records: list[Record], **words: Any) -> Path:
    """Write the site of some records, and return its folder."""
    write_site(gathered(folder / "records", records), folder / "site", **words)
    return folder / "site"


def many(methods: int, seeds: int = 5, side: int = 10, samples: int = 5) -> Gathered:
    """Return records of many methods with predictions on `side` classes and biases."""
    rng = np.random.default_rng(0)
    groups = side * side
    group = np.repeat(np.arange(groups), samples).astype(np.uint16)
    aligned = np.eye(side, dtype=bool).tolist()
    sizes = [samples] * groups
    records, own, paths = [], {}, {}
    for m in range(methods):
        for seed in range(seeds):
            right = rng.random(groups * samples) < 0.3 + 0.5 * m / methods
            hits = np.bincount(group[right], minlength=groups).tolist()
            supervision = ("none", "none") if m % 3 else ("conflict", "none")
            record = run(f"method-{m:03d}", seed, supervision=supervision)
            counts = GroupCounts.of(hits, sizes, aligned, sizes)
            result = SplitResult(hits, accuracies(counts))
            task = replace(
                record.task,
                classes=[f"class {i}" for i in range(side)],
                biases=[f"bias {i}" for i in range(side)],
                aligned=aligned,
                group_counts=dict.fromkeys(("train", "val", "test"), sizes),
            )
            outcomes = {n: replace(o, val=result, test=result) for n, o in record.outcomes.items()}
            record = replace(record, task=task, outcomes=outcomes)
            records.append(record)
            own[record.id] = Correct(group, np.packbits(right).tobytes())
            paths[record.id] = Path(f"{record.id}.json")
    task = records[0].task
    records = [replace(record, task=task) for record in records]
    return Gathered(records, {"val_unbiased": own}, set(), [], paths)


@dataclass
class Page(HTMLParser):
    """The elements of a page, and the text outside of scripts and styles."""

    path: Path
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    raw: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._inside = ""
        self.source = self.path.read_bytes().decode()
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in {"script", "style"}:
            self.raw.setdefault(self._inside, []).append(data)
        else:
            self.texts.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())
