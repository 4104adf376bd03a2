"""Records of older schemas, rewritten in the current schema: pure functions on JSON objects."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

from debiasbench.common.canonical import digest
from debiasbench.common.errors import RecordError
from debiasbench.common.wording import shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

SCHEMA = 2
"""The schema that records are written in."""


def upgraded(data: dict[str, Any]) -> dict[str, Any]:
    """Return a record's JSON object in the current schema; `data` itself is not changed.

    Raises `RecordError` for a schema that this version cannot read, for an id that is not the hash
    of the stored spec, and for an older record in which something is missing.
    """
    schema = data["schema"]
    if schema == SCHEMA:
        return data
    if not isinstance(schema, int) or schema not in STEPS:
        known = ", ".join(str(number) for number in (*STEPS, SCHEMA))
        raise RecordError(
            f"has record schema {shortened(repr(schema))}; this version of debiasbench reads "
            f"schemas {known}"
        )
    try:
        if (expected := spec_id(data["spec"])) != data["id"]:
            raise RecordError(f"was changed by hand: its spec hashes to {expected}, not to its id")
        while data["schema"] != SCHEMA:
            data = STEPS[data["schema"]](data)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RecordError(
            f"is damaged: a part of schema {schema} is missing or has the wrong type "
            f"({type(error).__name__}: {error})"
        ) from error
    return data


def spec_id(spec: Mapping[str, Any]) -> str:
    """Return the id of a spec that is a JSON object; see `Spec.id`."""
    return digest({name: value for name, value in spec.items() if value is not None})[:16]


def _from_1(data: dict[str, Any]) -> dict[str, Any]:
    """Resolve the training settings that schema 1 left to the machine.

    Schema 2 adds `provenance.code`, which is unknown for older records. A spec of schema 2 never
    holds "auto": precision "auto", or none at all, becomes what `provenance.arithmetic` says,
    which is fp32 for records older than that entry; micro-batch "auto" becomes the smallest
    micro-batch of any stage. The defaults fp32 and no micro-batch are left out, so that most
    records keep their id.
    """
    provenance = data["provenance"]
    training = dict(data["spec"]["training"])
    precision = training.pop("precision", "auto")
    if precision == "auto":
        precision = provenance.get("arithmetic", {}).get("precision", "fp32")
    micro_batch = training.pop("micro_batch", None)
    if micro_batch == "auto":
        stages = (data.get("cost") or {}).get("stages", [])  # a failed run has no cost
        micro_batch = min(filter(None, (s.get("micro_batch") for s in stages)), default=None)
    spec = {**data["spec"], "training": _with_settings(training, precision, micro_batch)}
    return {
        **data,
        "schema": 2,
        "id": spec_id(spec),
        "spec": spec,
        "provenance": {**provenance, "code": None},
    }


STEPS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1}
"""Schema -> the function that rewrites a record of it in the next schema."""


def former_ids(spec: Mapping[str, Any]) -> Iterator[str]:
    """Yield the ids that records of `spec`, a JSON object, may have had in schema 1.

    A record has one of these names only if its machine made of "auto" what `spec` says, so whoever
    looks for a record must read the file.
    """
    training = dict(spec["training"])
    precision = training.pop("precision", "fp32")
    micro_batch = training.pop("micro_batch", None)
    for named, parts in product((None, "auto", precision), (micro_batch, "auto")):
        settings = {**training} if named is None else {**training, "precision": named}
        if parts is not None:
            settings["micro_batch"] = parts
        former = spec_id({**spec, "training": settings})
        if former != spec_id(spec):
            yield former


def _with_settings(
    training: dict[str, Any], precision: str, micro_batch: int | None
) -> dict[str, Any]:
    settings = dict(training)
    if precision != "fp32":
        settings["precision"] = precision
    if micro_batch is not None:
        settings["micro_batch"] = micro_batch
    return settings
