"""The table of quantities: one meaning each, metrics as conventions want them."""

from forestall.fields import BY_NAME, FIELDS, UNKNOWN, Metric, Unit


def test_no_name_means_two_things():
    assert len(BY_NAME) == len(FIELDS)


def test_unknown_is_never_zero():
    for field in FIELDS:
        assert field.show(None) == UNKNOWN


def test_every_field_has_words():
    for field in FIELDS:
        assert field.title == field.title.upper()
        assert field.help.endswith(".")


def test_metrics_are_named_in_base_units_and_counters_end_in_total():
    for field in FIELDS:
        if field.metric is Metric.NONE:
            assert not field.metric_name
            continue
        assert field.metric_name.startswith("forestall_")
        assert field.metric_name.endswith("_total") == (field.metric is Metric.COUNTER)
        suffixes = {Unit.BYTES: "bytes", Unit.SHARE: "ratio", Unit.DURATION: "seconds"}
        assert suffixes.get(field.unit, "") in field.metric_name


def test_no_metric_names_a_process():
    assert all(
        BY_NAME[name].metric is Metric.NONE for name in ("pid", "name", "uid", "unit", "points")
    )


def test_values_are_written_with_their_units():
    assert BY_NAME["rss_bytes"].show(3 << 29) == "1.50 GiB"
    assert BY_NAME["used_share"].show(0.5) == "50%"
    assert BY_NAME["change_points"].show(-3) == "-3"
    assert BY_NAME["change_points"].show(0) == ""
    assert BY_NAME["late_ns_max"].measure(2_000_000_000) == 2.0
