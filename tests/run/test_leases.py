from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from prelabel.errors import MachineError
from prelabel.store.leases import Leases

HOLD = """
import sys, time
from pathlib import Path
from prelabel.store.leases import Leases
leases = Leases(Path(sys.argv[1]))
assert leases.take("a")
print("taken", flush=True)
time.sleep(60)
"""


def test_a_task_is_in_one_hand_at_a_time(tmp_path):
    with Leases(tmp_path / "leases") as one, Leases(tmp_path / "leases") as other:
        assert one.take("a")
        assert one.take("a")
        assert not other.take("a")
        assert other.take("b")
        one.give_back("a")
        assert other.take("a")


def test_leaving_gives_all_back_and_the_file_stays_empty(tmp_path):
    with Leases(tmp_path / "leases") as leases:
        leases.take("a")
        leases.take("b")
    assert (tmp_path / "leases").read_bytes() == b""
    with Leases(tmp_path / "leases") as leases:
        assert leases.take("a")
        assert leases.take("b")


def test_giving_back_what_another_holds_does_nothing(tmp_path):
    with Leases(tmp_path / "leases") as one, Leases(tmp_path / "leases") as other:
        one.take("a")
        other.give_back("a")
        assert not other.take("a")


@pytest.mark.timeout(60)
def test_a_killed_worker_holds_up_nobody(tmp_path):
    worker = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "leases")], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    assert worker.stdout.readline() == "taken\n"
    with Leases(tmp_path / "leases") as leases:
        assert not leases.take("a")
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        assert leases.take("a")
    worker.stdout.close()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="cannot be locked"):
        Leases(tmp_path / "file" / "leases").take("a")
