"""Settings files in, rules or every problem out."""

import re

import pytest

from forestall.config import forms
from forestall.config.conditions import SIGNALS, parse_condition, render_condition
from forestall.config.errors import ConfigError
from forestall.config.read import default_paths, load, load_text
from forestall.config.show import defaults, render
from forestall.config.table import BY_KEY
from forestall.core.model import Level, Stage, Standing
from forestall.core.rules import DEFAULT_RULES, Condition, Field, Limit, Options, Rules, Signal
from forestall.core.units import GIB, MIB, MS, SECOND


def problems_of(text):
    with pytest.raises(ConfigError) as caught:
        load_text(text, "here.toml")
    return {problem.key: problem.what for problem in caught.value.problems}


def test_without_files_everything_has_its_default(tmp_path):
    settings = load(root=tmp_path)

    assert settings.rules == DEFAULT_RULES
    assert settings.options == Options()
    assert settings.files == ()


def test_five_mistakes_are_five_problems():
    text = """
[timing]
grace = 5
intervall = "1s"
[levels]
low = "170%"
[victims]
avoid = ["("]
[triggers.exhausted]
when = ["availble < 5%"]
"""

    assert problems_of(text) == {
        "timing.grace": 'write a duration in quotes, such as "5s"',
        "timing.intervall": "there is no such setting; did you mean interval?",
        "levels.low": "must lie between 0% and 100%",
        "victims.avoid[0]": "'(' is no regular expression: missing ), unterminated subpattern"
        " at position 0",
        "triggers.exhausted.when[0]": "there is no signal 'availble'; did you mean available?",
    }


def test_a_problem_names_the_file_that_made_it(tmp_path):
    (tmp_path / "a.toml").write_text('[timing]\ngrace = "5 parsecs"\n')
    (tmp_path / "b.toml").write_text("[timing\n")

    with pytest.raises(ConfigError) as caught:
        load([tmp_path / "a.toml", tmp_path / "b.toml", tmp_path / "missing.toml"])

    by_file = {problem.file: str(problem) for problem in caught.value.problems}
    assert "timing.grace: 'parsecs' is no unit of time" in by_file[str(tmp_path / "a.toml")]
    assert "is not TOML" in by_file[str(tmp_path / "b.toml")]
    assert "cannot be read" in by_file[str(tmp_path / "missing.toml")]


def test_a_later_file_wins_key_by_key_and_origins_say_so(tmp_path):
    drop_ins = tmp_path / "etc/forestall/forestall.toml.d"
    drop_ins.mkdir(parents=True)
    main = tmp_path / "etc/forestall/forestall.toml"
    main.write_text('[timing]\ngrace = "3s"\ninterval = "500ms"\n')
    (drop_ins / "20-b.toml").write_text('[timing]\ngrace = "2s"\n')
    (drop_ins / "10-a.toml").write_text('[timing]\ngrace = "1s"\n')

    settings = load(root=tmp_path)

    assert [path.name for path in default_paths(tmp_path)] == [
        "forestall.toml",
        "10-a.toml",
        "20-b.toml",
    ]
    assert settings.rules.grace_ns == 2 * SECOND
    assert settings.rules.interval_ns == 500 * MS
    assert settings.origins["timing.grace"] == str(drop_ins / "20-b.toml")
    assert settings.origins["timing.interval"] == str(main)
    assert "timing.settle" not in settings.origins


def test_a_list_replaces_and_its_twin_adds(tmp_path):
    (tmp_path / "a.toml").write_text('[victims]\nprefer = ["^one$"]\nprefer_more = ["^two$"]\n')
    (tmp_path / "b.toml").write_text('[victims]\nprefer_more = ["^three$"]\n')

    rules = load([tmp_path / "a.toml", tmp_path / "b.toml"]).rules.victim_rules

    preferred = [rule.pattern for rule in rules if rule.standing is Standing.PREFER]
    assert preferred == ["^one$", "^two$", "^three$"]
    assert any(rule.label == "built-in avoid list" for rule in rules)


def test_what_somebody_wrote_counts_before_what_is_built_in():
    rules = load_text('[victims]\nprefer_more = ["^mysqld$"]\nnever = ["^pay$"]\n').rules

    order = [(rule.standing, rule.label.startswith("built-in")) for rule in rules.victim_rules]
    assert order == [
        (Standing.NEVER, False),
        (Standing.PREFER, False),
        (Standing.AVOID, True),
        (Standing.PREFER, True),
    ]


def test_entries_may_look_at_other_things_than_the_name():
    text = '[victims]\navoid = [{ exe = "^/opt/" }, { uid = 1000 }, { unit = "^db@" }]\n'

    rules = load_text(text).rules.victim_rules

    assert [(rule.field, rule.pattern) for rule in rules[:3]] == [
        (Field.EXE, "^/opt/"),
        (Field.UID, "1000"),
        (Field.UNIT, "^db@"),
    ]


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ('""', "would match every process"),
        ("5", "in quotes"),
        ('{ name = "a", exe = "b" }', "only one"),
        ('{ exee = "a" }', "did you mean exe?"),
        ('{ uid = "root" }', "id -u NAME"),
        ("{ uid = true }", "id -u NAME"),
        ("{ exe = 5 }", "in quotes"),
    ],
)
def test_an_entry_that_cannot_be_understood_is_explained(entry, says):
    assert says in problems_of(f"[victims]\nnever = [{entry}]\n")["victims.never[0]"]


def test_a_default_trigger_can_be_changed_in_part_and_taken_out():
    text = """
[triggers.thrash]
for = "3s"
[triggers.soon]
enabled = false
[triggers.mine]
stage = "terminate"
when = ["available < 5%", "stall_full[2s] > 25%"]
"""

    triggers = {trigger.name: trigger for trigger in load_text(text).rules.triggers}
    thrash = next(one for one in DEFAULT_RULES.triggers if one.name == "thrash")

    assert triggers["thrash"].hold_ns == 3 * SECOND
    assert triggers["thrash"].conditions == thrash.conditions
    assert "soon" not in triggers
    assert triggers["mine"].stage is Stage.TERMINATE
    assert triggers["mine"].conditions == (
        Condition(Signal.AVAILABLE, below=True, amount=Limit(0.05)),
        Condition(Signal.STALL_FULL, below=False, number=0.25, window_ns=2 * SECOND),
    )


def test_a_new_trigger_needs_its_stage_and_its_conditions():
    assert problems_of("[triggers.exhausted1]\n") == {
        "triggers.exhausted1.stage": "is missing; did you mean exhausted?",
        "triggers.exhausted1.when": "is missing; did you mean exhausted?",
    }


def test_levels_out_of_order_are_refused():
    found = problems_of('[levels]\nlow = "90%"\n')

    assert found == {"levels.low": "medium must lie above low: they are 85% and 90%"}


def test_the_numbers_of_the_seeds_are_settings():
    settings = load_text('[levels]\nlow = "60%"\nmedium = "80%"\ncritical = "90%"\n')

    shares = {rule.level: rule.used_share for rule in settings.rules.levels}
    assert shares == {Level.LOW: 0.6, Level.MEDIUM: 0.8, Level.CRITICAL: 0.9}


def test_options_are_read_from_the_guards_section():
    settings = load_text('[guard]\ndry_run = true\nonly_uid = 1000\nrecord_ring = "1MiB"\n')

    assert settings.options == Options(dry_run=True, only_uid=1000, record_ring_bytes=MIB)


def test_every_signal_of_the_core_can_be_written_in_settings():
    names = sorted(form.signal.value for form in SIGNALS)

    assert names == sorted(signal.value for signal in Signal)


def test_every_field_of_rules_and_options_is_a_setting():
    """A new field without a row here would have a value that nobody can set or see."""
    fields = {setting.field for setting in BY_KEY.values()}
    elsewhere = {"levels", "triggers", "victim_rules"}

    assert set(Rules._fields) | set(Options._fields) == fields - {""} | elsewhere


@pytest.mark.parametrize("form", SIGNALS, ids=lambda form: form.signal.value)
def test_the_example_of_every_signal_reads_and_renders(form):
    condition = parse_condition(form.example)

    assert condition.signal is form.signal
    assert parse_condition(render_condition(condition)) == condition


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("available <= 5%", "write < or >"),
        ("available", "is no comparison"),
        ("available < 5% and swap_free < 5%", "one comparison each"),
        ("5% < available < 7%", "one comparison each"),
        ("stall_full > 5%", "stall_full[2s]"),
        ("stall_full[2h] > 5%", "between 100ms and 30s"),
        ("stall_full[2s > 5%", "not closed"),
        ("available[2s] < 5%", "has no window"),
        ("available < min(5%, 6%)", "one percentage and one size"),
        ("available < avg(5%, 6MiB)", "write min("),
        ("available < 256MB", "did you mean MiB?"),
        ("available < 256", "a unit is missing"),
        ("available < 101%", "between 0% and 100%"),
        ("time_left < 2", "a unit is missing"),
        ("available < nan%", "is no number"),
        ("available < -5%", "is no number"),
        ("x" * 300, "longer than"),
    ],
)
def test_a_condition_that_cannot_be_understood_is_explained(text, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        parse_condition(text)


def test_what_show_prints_reads_back_as_the_same_rules():
    text = """
[timing]
grace = "2.5s"
[levels]
margin = "1.5%"
[victims]
recovery = "max(7%, 3GiB)"
avoid_more = ["^a\\\\.b$", { cmdline = "--type=\\"renderer\\"" }, { uid = 7 }]
prefer = []
[triggers.low]
enabled = false
[triggers.mine]
stage = "warn"
when = ["refaults[500ms] > 20MiB", "time_left < 90s"]
for = "1500ms"
[guard]
log = "plain"
"""
    settings = load_text(text, "settings")

    again = load_text(render(settings), "settings")

    assert again.rules == settings.rules
    assert again.options == settings.options


def test_show_says_where_each_value_came_from():
    shown = render(load_text('[timing]\ngrace = "2s"\n', "mine.toml")).splitlines()

    assert [line.split() for line in shown if line.startswith("grace")] == [
        ["grace", "=", '"2s"', "#", "mine.toml"]
    ]
    assert render(defaults()).count("# built-in") > 20


def test_a_file_name_cannot_break_out_of_its_comment(tmp_path):
    hostile = tmp_path / "a\nlow = 5 #.toml"
    hostile.write_text('[timing]\ngrace = "2s"\n[victims]\nnever = ["x"]\n')
    settings = load([hostile])

    assert load_text(render(settings)).rules.grace_ns == 2 * SECOND


@pytest.mark.parametrize(
    ("share", "text"), [(0.07, "7%"), (0.025, "2.5%"), (1.0, "100%"), (0.0, "0%"), (0.29, "29%")]
)
def test_shares_are_written_without_the_noise_of_binary(share, text):
    assert forms.share_text(share) == text
    assert forms.parse_share(text) == pytest.approx(share, abs=1e-15)


def test_sizes_use_the_largest_unit_that_keeps_them_whole():
    assert [forms.size_text(size) for size in (0, 1, 1536, 4 * GIB, 1536 * MIB)] == [
        "0B",
        "1B",
        "1536B",
        "4GiB",
        "1536MiB",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 5000,
        "a = " + "9" * 5000,
        "[timing]\ngrace = 1979-05-27\n",
        "timing = 5\n",
        "[[timing]]\n",
        "triggers = 5\n",
        "[triggers]\nx = 5\n",
        "[triggers.'a b']\nstage = 'kill'\nwhen = ['available < 5%']\n",
        "[triggers.x]\nstage = 5\nwhen = 5\nfor = 5\nenabled = 5\n",
        "[victims]\navoid = 'x'\n",
        "[victims]\navoid = [" + "'x'," * 300 + "]\n",
        "[guard]\nsocket = 'here'\n",
        "[guard]\nlog = 'loud'\n",
        "[guard]\nonly_uid = -1\n",
    ],
)
def test_odd_files_are_refused_with_our_own_error(text):
    assert problems_of(text)
