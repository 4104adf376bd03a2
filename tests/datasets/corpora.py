"""Small files with the shape of MultiNLI, of group DRO's split of it, and of CivilComments."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

LABELS = ["contradiction", "entailment", "neutral"]
IDENTITIES = ["male", "female", "LGBTQ", "christian", "muslim", "other_religions", "black", "white"]
SECONDS = [
    "He said so.",
    "NO, he did not.",
    "They know nothing",
    "Another noise, nonetheless.",  # "no" is only a part of its words
    "I'd never!",
    "Nobody's here.",  # group DRO removes the apostrophe first: "nobodys"
    "It was never-ending",  # and the hyphen: "neverending"
]
NEGATED = [False, True, True, False, True, False, False]


def nli_row(number: int, label: str, second: str) -> dict[str, object]:
    """A line of MultiNLI, with the keys of the official files."""
    first = f"Sentence {number} — “quoted”"
    return {
        "annotator_labels": [label],
        "genre": "fiction",
        "gold_label": label,
        "pairID": f"{number}n",
        "promptID": str(number),
        "sentence1": first,
        "sentence1_binary_parse": f"( {first} )",
        "sentence1_parse": f"(ROOT {first})",
        "sentence2": second,
        "sentence2_binary_parse": f"( {second} )",
        "sentence2_parse": f"(ROOT {second})",
    }


def nli_rows(count: int = 400, seed: int = 0) -> list[dict[str, object]]:
    """Rows in which negation is more frequent with contradiction; some have no label."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        label = "-" if number % 29 == 5 else LABELS[rng.randrange(3)]
        negated = rng.random() < (0.6 if label == "contradiction" else 0.2)
        chosen = [s for s, n in zip(SECONDS, NEGATED, strict=True) if n == negated]
        rows.append(nli_row(number, label, rng.choice(chosen)))
    return rows


def multinli(root: Path, rows: list[dict[str, object]] | None = None) -> Path:
    """Write the three files of MultiNLI, and return their folder."""
    rows = nli_rows() if rows is None else rows
    folder = root / "multinli_1.0"
    folder.mkdir(parents=True, exist_ok=True)
    cuts = [0, len(rows) * 8 // 10, len(rows) * 9 // 10, len(rows)]
    for part, a, b in zip(("train", "dev_matched", "dev_mismatched"), cuts, cuts[1:], strict=False):
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows[a:b]]
        (folder / f"multinli_1.0_{part}.jsonl").write_text("".join(lines), "utf-8")
    return folder


def released_split(folder: Path, rows: list[dict[str, object]], seed: int = 1) -> list[list[int]]:
    """Write the table of group DRO as its generate_multinli.py does; return its rows."""
    rng = random.Random(seed)
    table = []
    for index, row in enumerate(rows):
        if row["gold_label"] != "-":
            negated = NEGATED[SECONDS.index(str(row["sentence2"]))]
            split = rng.choices([0, 1, 2], [5, 2, 3])[0]
            table.append([index, LABELS.index(str(row["gold_label"])), int(negated), split])
    with (folder / "metadata_random.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["", "gold_label", "sentence2_has_negation", "split"])
        writer.writerows(table)
    return table


def comment_rows(count: int = 300, seed: int = 0) -> list[dict[str, str]]:
    """Rows of CivilComments in which toxic comments mention identities more often."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        toxicity = rng.choice(["0.0", "0.166", "0.5", "0.8333333333333334"])
        often = 0.7 if float(toxicity) >= 0.5 else 0.3
        shares = {
            name: rng.choice(["0.5", "1.0"] if rng.random() < often / 4 else ["0.0", "0.49"])
            for name in IDENTITIES
        }
        mentioned = any(float(share) >= 0.5 for share in shares.values()) or number % 17 == 0
        rows.append(
            {
                "": str(number),
                "id": str(1000 + number),
                "toxicity": toxicity,
                "comment_text": f'Comment {number}, with "quotes"\nand a second line',
                "split": rng.choices(["train", "val", "test"], [6, 1, 3])[0],
                **shares,
                "identity_any": str(int(mentioned)),
            }
        )
    return rows


def civilcomments(root: Path, rows: list[dict[str, str]] | None = None) -> Path:
    """Write the table of WILDS and return it."""
    rows = comment_rows() if rows is None else rows
    folder = root / "civilcomments_v1.0"
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "all_data_with_identities.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return table
