"""The guest's programs compile without a warning."""

import shutil
import subprocess

import pytest

from arena import programs

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")


def test_actor_and_monitor_compile_and_refuse_to_run_without_orders(tmp_path):
    made = programs.ensure(tmp_path)
    done = subprocess.run([made["monitor"]], capture_output=True, check=False)

    assert set(made) == {"actor", "monitor"}
    assert done.returncode == 2
    assert programs.ensure(tmp_path) == made
