"""Which rule protects whom, and who holds a session together."""

import pytest

from forestall.core.errors import RuleError
from forestall.core.model import Role, Standing
from forestall.core.rules import DEFAULT_VICTIM_RULES, Field, VictimRule
from forestall.core.standing import Facts, Matcher, role_of, unit_of


def rule(field, pattern, standing=Standing.AVOID, label="r"):
    return VictimRule(standing, field, pattern, label)


def test_the_first_rule_that_matches_counts():
    matcher = Matcher(
        (
            rule(Field.NAME, "^my", Standing.NEVER, "first"),
            rule(Field.NAME, "^mysqld$", Standing.PREFER, "second"),
        )
    )

    assert matcher.standing(Facts("mysqld")) == (Standing.NEVER, "first")
    assert matcher.standing(Facts("nginx")) == (Standing.NORMAL, "")


@pytest.mark.parametrize(
    ("field", "pattern", "facts"),
    [
        (Field.EXE, "^/opt/", Facts("x", exe="/opt/a")),
        (Field.CMDLINE, r"train\.py", Facts("python3", cmdline="python3 train.py")),
        (Field.CGROUP, "^/user", Facts("x", cgroup="/user.slice/a.scope")),
        (Field.UNIT, r"^db\.service$", Facts("x", cgroup="/system.slice/db.service/worker")),
        (Field.UID, "1000", Facts("x", uid=1000)),
    ],
)
def test_each_field_is_matched_and_unknown_matches_nothing(field, pattern, facts):
    matcher = Matcher((rule(field, pattern),))

    assert matcher.standing(facts)[0] is Standing.AVOID
    assert matcher.standing(Facts("x"))[0] is Standing.NORMAL
    assert matcher.needs == {field}


def test_even_a_pattern_that_matches_everything_does_not_match_the_unknown():
    assert Matcher((rule(Field.EXE, ""),)).standing(Facts("x")) == (Standing.NORMAL, "")


@pytest.mark.parametrize(
    ("field", "pattern"), [(Field.NAME, "("), (Field.UID, "root"), (Field.UID, "²")]
)
def test_a_bad_pattern_is_refused_with_its_label(field, pattern):
    with pytest.raises(RuleError, match="r: "):
        Matcher((rule(field, pattern),))


@pytest.mark.parametrize("name", ["\udcff\udcfe", "a\nb", "", "\x1b[31m"])
def test_hostile_names_match_like_any_text(name):
    matcher = Matcher(DEFAULT_VICTIM_RULES)

    assert matcher.standing(Facts(name)) == (Standing.NORMAL, "")
    assert role_of(Facts(name)) is Role.NONE


def test_the_built_in_lists_avoid_databases_and_prefer_browser_tabs():
    matcher = Matcher(DEFAULT_VICTIM_RULES)

    assert matcher.standing(Facts("mysqld"))[0] is Standing.AVOID
    assert matcher.standing(Facts("Isolated Web Co"))[0] is Standing.PREFER


@pytest.mark.parametrize(
    "name",
    [
        "tmux: server",
        "sshd-session",
        "gnome-terminal-",
        "gnome-session-b",
        "containerd-shim",
        "(sd-pam)",
        "systemd",
        "kwin_wayland",
        "Xorg",
        "SCREEN",
    ],
)
def test_what_holds_a_session_is_known_by_the_name_the_kernel_shows(name):
    assert role_of(Facts(name, pid=7, session_id=3)) is Role.SESSION


@pytest.mark.parametrize(
    "name", ["python3", "systemd-journal", "steam", "stress", "Xorgy", "login2", "Xorg\n"]
)
def test_a_name_that_merely_begins_like_one_holds_nothing(name):
    assert role_of(Facts(name, pid=7, session_id=7)) is Role.NONE


def test_a_shell_holds_a_session_only_if_it_leads_one():
    """A shell that runs a build script is the root of a family like any other."""
    assert role_of(Facts("bash", pid=7, session_id=7)) is Role.SESSION
    assert role_of(Facts("bash", pid=8, session_id=7)) is Role.NONE
    assert role_of(Facts("python3", pid=7, session_id=7)) is Role.NONE


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app-firefox-1.scope",
            "app-firefox-1.scope",
        ),
        ("/system.slice/db.service/payload", "db.service"),
        ("/user.slice", ""),
        ("/", ""),
        ("", ""),
    ],
)
def test_the_unit_is_the_innermost_service_or_scope(cgroup, unit):
    assert unit_of(cgroup) == unit
