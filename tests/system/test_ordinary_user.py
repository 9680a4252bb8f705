"""What a user without rights is told: exit 4, what is missing, and nothing was changed.

Everything runs in a process of its own that gives root away first, after the
commands are imported: the clone may lie where nobody else may read.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

NOBODY = 65534
SCRIPT = """
import importlib, os, sys
"\x1b".encode("unicode_escape")  # its codec is a module of its own
from forestall.cli.main import run
from forestall.cli.table import all_rows
for row in all_rows():
    importlib.import_module(f"forestall.cli.{row.module}")
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(*[int(sys.argv[1])] * 3)
    os.setresuid(*[int(sys.argv[1])] * 3)
sys.exit(run(sys.argv[2:]))
"""


@pytest.fixture
def ordinary(tmp_path):
    def run(*words):
        return subprocess.run(
            [sys.executable, "-c", SCRIPT, str(NOBODY), *words],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "XDG_RUNTIME_DIR": str(tmp_path),
                "NO_COLOR": "1",
            },
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )

    return run


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("protect apply --yes", "changing oom_score_adj of others takes root"),
        ("protect undo --yes", "changing oom_score_adj of others takes root"),
        ("protect follow", "changing oom_score_adj of others takes root"),
        ("peers install earlyoom --yes", "setting up earlyoom takes root"),
        ("peers remove earlyoom --yes", "removing earlyoom takes root"),
        ("setup --yes", "setting this machine up takes root"),
        ("install --yes", "installing a service takes root"),
    ],
)
def test_what_is_missing_is_named_and_the_code_says_so(ordinary, words, what):
    done = ordinary(*words.split())

    assert done.returncode == 4, done
    assert done.stdout == ""
    assert done.stderr == f"forestall: {what}; try sudo\n"


def test_peers_settings_are_not_written_for_somebody_without_rights(ordinary):
    done = ordinary("peers", "import", "earlyoom", "/dev/null", "--write")

    assert done.returncode == 4, done
    assert "50-from-earlyoom.toml takes root; try sudo" in done.stderr


@pytest.mark.parametrize(
    "words",
    ["scores --json", "protect plan --json", "peers --json", f"explain {os.getpid()} --json"],
)
def test_looking_takes_no_right(ordinary, words):
    done = ordinary(*words.split())

    assert done.returncode in {0, 1}, done
    assert json.loads(done.stdout) is not None


def test_a_plan_needs_nothing_that_is_roots_and_an_undo_names_it(ordinary, tmp_path):
    """After root has applied, its ledger is there and closed to others."""
    if os.geteuid() != 0:
        pytest.skip("whoever wrote the ledger can read it")
    root = Path(tempfile.mkdtemp(prefix="forestall-test-", dir="/tmp"))
    try:
        root.chmod(0o755)
        (root / "proc/sys/kernel/random").mkdir(parents=True)
        (root / "proc/sys/kernel/random/boot_id").write_text("b\n")
        ledger = root / "var/lib/forestall/protect.json"
        ledger.parent.mkdir(parents=True)
        ledger.write_text('{"version": 1, "boot_id": "b", "entries": []}')
        ledger.chmod(0o600)
        plan = ordinary("protect", "plan", "--root", str(root))
        undo = ordinary("protect", "undo", "--dry-run", "--root", str(root))
    finally:
        shutil.rmtree(root)

    assert plan.returncode == 0, plan
    assert undo.returncode == 4, undo
    assert undo.stderr == f"forestall: reading {ledger} takes root; try sudo\n"


@pytest.mark.parametrize("words", ["setup --dry-run --json", "peers install earlyoom --dry-run"])
def test_what_would_be_done_is_told_without_rights(ordinary, words):
    done = ordinary(*words.split())

    assert "takes root" not in done.stderr
    assert done.returncode == 0 or "python" in done.stderr or "already" in done.stderr, done
