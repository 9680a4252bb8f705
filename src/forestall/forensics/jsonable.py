"""Incidents as plain JSON values: what the log does not say is not there."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from forestall.forensics.causes import Finding
from forestall.forensics.model import Evidence, Incident

_LATER = frozenset({"marks", "counts", "first_line", "zones", "tasks", "lines"})


def to_json(incident: Incident) -> dict[str, Any]:
    """Give an incident as a dictionary of plain values, without absent ones."""
    result: dict[str, Any] = {}
    for item in fields(Incident):
        if item.name in _LATER:
            continue
        plain = _plain(getattr(incident, item.name))
        if plain is not None and plain not in ([], {}) and plain is not False:
            result[item.name] = plain
    result["victims"] = [_plain(victim) for victim in incident.victims]
    result["complete"] = incident.complete
    if incident.zones:
        result["zones"] = [_plain(zone) for zone in incident.zones]
    if incident.tasks:
        result["tasks"] = [_plain(task) for task in incident.tasks]
    result["lines"] = [list(span) for span in incident.lines]
    if not incident.counts:
        result["counted_elsewhere"] = True
    evidence = {name: _plain(mark) for name, mark in incident.marks.items()}
    if evidence:
        result["evidence"] = evidence
    for name in ("tasks_lost", "repeats"):
        if not result.get(name):
            result.pop(name, None)
    return result


def finding_to_json(finding: Finding) -> dict[str, Any]:
    """Give a finding as a dictionary of plain values."""
    return {
        "rule": finding.rule,
        "family": finding.cause.family.value,
        "cause": finding.cause.title,
        "confidence": finding.confidence,
        "sentence": finding.sentence,
        "advice": finding.advice,
        "command": finding.command,
        "evidence": [_plain(mark) for mark in finding.evidence],
    }


def _plain(value: object) -> Any:  # noqa: ANN401 - JSON is what it is
    if isinstance(value, Evidence):
        return {"line": value.line, "text": value.text}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if hasattr(value, "__dataclass_fields__"):
        inner = {f.name: _plain(getattr(value, f.name)) for f in fields(value)}  # type: ignore[arg-type]
        return {name: one for name, one in inner.items() if one is not None and one != []}
    return value
