"""Drop-ins for units: what is written, what is refused, what is taken back."""

import pytest

from forestall.admin import directives
from forestall.admin.commands import Done
from forestall.admin.errors import AdminError
from forestall.admin.units import Units, templates
from tests.fakes.systemd import FakeSystemd


@pytest.fixture
def box(tmp_path):
    system = FakeSystemd(tmp_path)
    system.unit("mysql.service")
    system.unit("nginx.service", OOMScoreAdjust="0")
    system.unit("bystander.service")
    adj = tmp_path / "proc/50/oom_score_adj"
    adj.parent.mkdir(parents=True)
    adj.write_text("0\n")
    return system


def units(box):
    return Units(box, box.root)


def at(box, unit):
    return box.root / f"etc/systemd/system/{unit}.d/50-forestall.conf"


def test_the_seeds_mysql_override_with_the_number_it_meant(box):
    change = units(box).plan("mysql", {"OOMScoreAdjust": "-10", "OOMPolicy": "continue"})

    effects = {effect.name: effect for effect in units(box).apply(change)}

    assert at(box, "mysql.service").read_text() == (
        directives.MARK + "[Service]\nOOMScoreAdjust=-588\nOOMPolicy=continue\n"
    )
    assert "old oom_adj" in change.notes[0]
    assert (effects["OOMScoreAdjust"].now, effects["OOMScoreAdjust"].in_force) == ("0", False)
    assert "systemctl restart mysql.service" in effects["OOMScoreAdjust"].then
    assert effects["OOMPolicy"].in_force
    assert ("systemctl", "daemon-reload") in box.told
    assert any(words[:2] == ("systemd-analyze", "verify") for words in box.told)


def test_undo_takes_away_what_was_written_and_no_more(box):
    theirs = at(box, "mysql.service").with_name("10-theirs.conf")
    theirs.parent.mkdir(parents=True)
    theirs.write_text("[Service]\nNice=5\n")
    one = units(box)
    one.apply(one.plan("mysql", {"OOMScoreAdjust": "-500"}))
    one.apply(one.plan("nginx", {"OOMScoreAdjust": "-500"}))

    one.undo("mysql")
    one.undo("nginx.service")

    left = [path for path in (box.root / "etc").rglob("*") if path.is_file()]
    assert left == [theirs]
    assert not at(box, "nginx.service").parent.exists()
    with pytest.raises(AdminError, match="nothing of ours"):
        one.undo("mysql")


def test_an_undo_is_told_before_it_is_done(box):
    one = units(box)
    one.apply(one.plan("mysql", {"OOMScoreAdjust": "-500"}))

    assert one.ours("mysql") == at(box, "mysql.service")
    assert at(box, "mysql.service").exists()
    assert one.undo("mysql") == at(box, "mysql.service")
    assert not at(box, "mysql.service").exists()


def test_a_second_call_adds_to_the_first(box):
    one = units(box)
    one.apply(one.plan("mysql", {"OOMScoreAdjust": "-500"}))

    one.apply(one.plan("mysql", {"MemoryHigh": "512MiB"}))

    text = at(box, "mysql.service").read_text()
    assert "OOMScoreAdjust=-500\nMemoryHigh=512M\n" in text


def test_a_file_changed_by_hand_is_nobodys_to_overwrite(box):
    one = units(box)
    one.apply(one.plan("mysql", {"OOMScoreAdjust": "-500"}))
    path = at(box, "mysql.service")
    path.write_text(path.read_text() + "Nice=3\n")

    with pytest.raises(AdminError, match="by hand"):
        one.plan("mysql", {"OOMScoreAdjust": "-400"})
    with pytest.raises(AdminError, match="by hand"):
        one.undo("mysql")


@pytest.mark.parametrize(
    ("unit", "wanted", "why"),
    [
        ("mysqld", {"OOMPolicy": "stop"}, "no unit mysqld.service"),
        ("mysql", {"OOMScoreAdjust": "-1001"}, "systemd would ignore"),
        ("mysql", {"OOMScoreAdjust": "low"}, "whole number"),
        ("mysql", {"OOMPolicy": "ignore"}, "continue, stop, kill"),
        ("mysql", {"MemoryMax": "0"}, "more than nothing"),
        ("mysql", {"MemoryMax": "lots"}, "512M"),
        ("mysql", {"MemoryMax": "120%"}, "100%"),
        ("mysql", {"ManagedOOMSwap": "kill"}, "systemd-oomd is not here"),
        ("../etc", {"OOMPolicy": "stop"}, "no name of a unit"),
        ("work.slice", {"OOMPolicy": "stop"}, "no such setting"),
        ("mysql", {}, "nothing to set"),
    ],
)
def test_what_systemd_would_ignore_is_refused(box, unit, wanted, why):
    box.unit("work.slice")

    with pytest.raises(AdminError, match=why):
        units(box).plan(unit, wanted)
    assert not (box.root / "etc").exists()


def test_an_old_systemd_is_told_nothing_it_does_not_know(box):
    box.version = 241

    with pytest.raises(AdminError, match="since 243"):
        units(box).plan("mysql", {"OOMPolicy": "continue"})


def test_a_unit_under_another_name_gets_the_file_itself(box):
    box.unit("mysql.service", Id="mariadb.service")
    box.unit("mariadb.service")

    change = units(box).plan("mysql", {"OOMPolicy": "continue"})

    assert change.path == at(box, "mariadb.service")


def test_a_masked_unit_is_refused(box):
    box.unit("mysql.service", LoadState="masked")

    with pytest.raises(AdminError, match="masked"):
        units(box).plan("mysql", {"OOMPolicy": "continue"})


def test_the_ssh_service_must_not_pass_its_immunity_to_every_shell(box):
    box.unit("ssh.service")

    with pytest.raises(AdminError, match="all shells"):
        units(box).plan("ssh", {"OOMScoreAdjust": "-17"})


def test_debians_postgresql_service_runs_nothing_itself(box):
    box.unit("postgresql.service", Type="oneshot", MainPID="0")
    box.unit("postgresql@15-main.service")
    box.unit("postgresql@.service")

    with pytest.raises(AdminError, match=r"postgresql@15-main\.service"):
        units(box).plan("postgresql", {"OOMPolicy": "continue"})
    one = units(box)
    one.apply(one.plan("postgresql@", {"OOMPolicy": "continue"}))
    assert at(box, "postgresql@.service").exists()


def test_a_template_never_weakens_what_the_package_gives(box):
    box.unit("postgresql@15-main.service", OOMScoreAdjust="-900")

    strong = units(box).plan("postgresql@15-main", {}, template=True)
    plain = units(box).plan("mysql", {}, template=True)

    assert strong.settings == {"OOMPolicy": "continue"}
    assert plain.settings == {"OOMScoreAdjust": "-588", "OOMPolicy": "continue"}
    with pytest.raises(AdminError, match="no template"):
        units(box).plan("bystander", {}, template=True)


def test_there_are_templates_for_what_the_seed_names():
    known = [pattern for pattern, _ in templates()]

    for unit in ("mysql*", "postgresql*", "mongod*", "nginx*", "apache2*", "httpd*"):
        assert f"{unit}.service" in known


def test_what_verify_complains_about_is_not_put_in_place(box):
    box.analyze = Done(
        status=0, err="/x/mysql.service.d/50-forestall.conf:3: Unknown key, ignoring"
    )
    one = units(box)

    with pytest.raises(AdminError, match="would not take it"):
        one.apply(one.plan("mysql", {"OOMScoreAdjust": "-500"}))
    assert not at(box, "mysql.service").exists()


def test_a_drop_in_that_loses_to_another_is_taken_back(box):
    other = at(box, "mysql.service").with_name("90-other.conf")
    other.parent.mkdir(parents=True)
    other.write_text("[Service]\nOOMScoreAdjust=100\n")
    one = units(box)

    with pytest.raises(AdminError, match="another drop-in"):
        one.apply(one.plan("mysql", {"OOMScoreAdjust": "-500"}))
    assert [path.name for path in other.parent.iterdir()] == ["90-other.conf"]


def test_a_limit_holds_at_once_where_the_kernel_shows_it(box):
    limit = box.root / "sys/fs/cgroup/system.slice/mysql.service/memory.max"
    limit.parent.mkdir(parents=True)
    limit.write_text("536870912\n")
    one = units(box)

    (effect,) = one.apply(one.plan("mysql", {"MemoryMax": "512M"}))

    assert effect.in_force


def test_limits_that_contradict_each_other_are_said(box):
    change = units(box).plan("mysql", {"MemoryHigh": "2G", "MemoryMax": "1G"})

    assert any("never counts" in note for note in change.notes)


@pytest.mark.parametrize(
    ("text", "written"),
    [("512MiB", "512M"), ("2G", "2G"), ("50%", "50%"), ("infinity", "infinity"), ("1.5G", "1.5G")],
)
def test_sizes_as_people_write_them(text, written):
    assert directives.read_size(text) == written
