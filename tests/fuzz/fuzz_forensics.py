"""Fuzz the reader of OOM reports, guided by coverage; not part of the test suite.

    pip install atheris
    python tests/fuzz/fuzz_forensics.py -max_total_time=600 -max_len=8000 CORPUS

CORPUS is a folder with logs to begin from. Whatever a log holds, reading it and
telling it must raise nothing.
"""

from __future__ import annotations

import json
import sys

import atheris

with atheris.instrument_imports(include=["forestall.forensics"]):
    from forestall.forensics import parse
    from forestall.forensics.jsonable import finding_to_json, to_json
    from forestall.forensics.rules import findings
    from forestall.forensics.story import headline, tell

PORTION_BYTES = 997


def read_and_tell(data: bytes) -> None:
    """Do with any bytes all that the command line does with a log."""
    incidents = parse(data[at : at + PORTION_BYTES] for at in range(0, len(data), PORTION_BYTES))
    for incident in incidents:
        json.dumps(to_json(incident))
        headline(incident)
        tell(incident, incidents)
        for finding in findings(incident, incidents):
            finding_to_json(finding)


if __name__ == "__main__":
    atheris.Setup(sys.argv, read_and_tell)
    atheris.Fuzz()
