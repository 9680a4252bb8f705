"""The config command, and the reader of what runs here."""

import tomllib

import pytest

from forestall.cli import main
from forestall.inspect.surroundings import read_surroundings

STAT = "{pid} ({name}) S 1 1 1 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 1 0 {start} 1 1 0\n"


def process(root, pid, name, flags=0, **files):
    folder = root / "proc" / str(pid)
    folder.mkdir(parents=True)
    (folder / "stat").write_text(STAT.format(pid=pid, name=name, flags=flags, start=pid))
    for file, text in files.items():
        (folder / file).write_text(text)
    return folder


@pytest.fixture
def settings_file(tmp_path):
    return tmp_path / "forestall.toml"


def test_checking_good_settings_is_fine_or_finds_something_odd(settings_file, capsys):
    settings_file.write_text('[victims]\nnever = ["^no-such-thing$"]\n')

    assert main.run(["config", "check", "--config", str(settings_file)]) == 1
    assert "matches nothing that runs here" in capsys.readouterr().out


def test_a_channel_that_waits_for_what_nobody_tells_looks_odd(settings_file, capsys):
    settings_file.write_text(
        '[alerts.pager]\ntype = "terminals"\nevents = ["decison", "kernel-kill", "went-down"]\n'
    )

    assert main.run(["config", "check", "--config", str(settings_file)]) == 1
    shown = capsys.readouterr().out
    assert "'decison' is no kind of event; did you mean decision?" in shown
    assert "kernel-kill" not in shown
    assert "went-down" not in shown


def test_checking_bad_settings_reports_all_of_it(settings_file, capsys):
    settings_file.write_text('a = 1\n[timing]\ngrace = 1\nb = 2\n[guard]\nnice = "x"\nlog = "y"\n')

    assert main.run(["config", "check", "--config", str(settings_file)]) == 3
    assert "5 problems" in capsys.readouterr().err


def test_show_prints_toml_with_origins(settings_file, capsys):
    settings_file.write_text('[timing]\ngrace = "2s"\n')

    assert main.run(["config", "show", "--config", str(settings_file)]) == 0
    shown = capsys.readouterr().out
    assert tomllib.loads(shown)["timing"]["grace"] == "2s"
    assert str(settings_file) in shown
    assert main.run(["config", "show", "--defaults", "--plain"]) == 0
    assert "#" not in capsys.readouterr().out.replace("# only_uid", "").replace("# Wh", "")


def test_what_runs_here_is_read_and_what_cannot_be_read_is_unknown(tmp_path):
    process(tmp_path, 7, "a) S (", cmdline="a\0--b\0", cgroup="0::/x.slice/y.service\n")
    process(tmp_path, 8, "kworker", flags=0x00200000)
    process(tmp_path, 9, "old", oom_score_adj="-17\n").joinpath("exe").symlink_to("/bin/old")
    (tmp_path / "proc/10").mkdir()

    around = read_surroundings(str(tmp_path))
    first, second = around.processes or ()

    assert (first.pid, first.name, first.cmdline) == (7, "a) S (", "a --b")
    assert (first.unit, first.exe, first.oom_score_adj) == ("y.service", None, None)
    assert (second.name, second.exe, second.oom_score_adj) == ("old", "/bin/old", -17)
    assert around.memory is None
    assert around.psi is False
