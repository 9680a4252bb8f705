"""What watch prints; it goes through the library, which has its own tests."""

import json

from click.testing import CliRunner

from forestall.cli.watch import command

EVERYTHING_IS_CRITICAL = ["--low", "0.001", "--medium", "0.002", "--critical", "0.003"]


def test_the_first_line_is_how_memory_stands_now():
    done = CliRunner().invoke(command, ["--duration", "0.1"])

    assert done.exit_code == 0
    assert "available" in done.output.splitlines()[0]


def test_json_is_one_object_per_line():
    done = CliRunner().invoke(command, ["--duration", "0.1", "--json"])
    first = json.loads(done.output.splitlines()[0])

    assert done.exit_code == 0
    assert first["pressure_level"] in {"normal", "low", "medium", "critical"}
    assert first["available_bytes"] > 0


def test_a_level_that_holds_from_the_start_is_shown_once():
    levels = ["--low", "0.001", "--medium", "99", "--critical", "100"]
    done = CliRunner().invoke(command, ["--duration", "1", "--json", *levels])

    assert [json.loads(line)["reason"] for line in done.output.splitlines()] == ["asked"]


def test_critical_alerts_and_suggests():
    done = CliRunner().invoke(command, ["--duration", "1.5", *EVERYTHING_IS_CRITICAL])

    assert "memory is critical" in done.output
    # On a quiet machine the largest is the one that asks, and that one is protected.
    said = ("consider ending", "no process is large enough", "protected:")
    assert any(words in done.output for words in said)


def test_thresholds_in_the_wrong_order_are_a_usage_error():
    done = CliRunner().invoke(command, ["--duration", "0.1", "--low", "90", "--medium", "80"])

    assert done.exit_code == 2
    assert "must lie above" in done.output
