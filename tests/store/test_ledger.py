from __future__ import annotations

import sqlite3
import threading
from contextlib import closing

import pytest

from prelabel.errors import MachineError
from prelabel.store.ledger import Entry, Ledger


def test_an_entry_is_on_disk_when_record_returns(tmp_path):
    path = tmp_path / "state" / "ledger.sqlite"
    ledger = Ledger(path)
    ledger.record(Entry("a", "a.mp4", "inferred", "f1"))
    with closing(Ledger(path)) as other:  # the first is still open, as after a kill
        assert other.entry("a").step == "inferred"
    ledger.close()


def test_a_later_step_replaces_the_earlier_one(tmp_path):
    with closing(Ledger(tmp_path / "l.sqlite")) as ledger:
        ledger.record(Entry("a", "a.mp4", "inferred", "f1"))
        ledger.record(Entry("a", "a.mp4", "done", "f1", 12))
        entries = ledger.entries()
    assert [(entry.step, entry.num_instances) for entry in entries] == [("done", 12)]
    assert entries[0].updated_at


def test_an_unknown_step_is_refused(tmp_path):
    with closing(Ledger(tmp_path / "l.sqlite")) as ledger, pytest.raises(sqlite3.IntegrityError):
        ledger.record(Entry("a", "a.mp4", "finished", "f1"))


def test_a_file_that_is_no_ledger_is_named(tmp_path):
    path = tmp_path / "l.sqlite"
    path.write_bytes(b"not a database, but long enough to be read as one" * 10)
    with pytest.raises(MachineError, match=r"l\.sqlite"):
        Ledger(path)


def test_threads_may_record_at_once(tmp_path):
    with closing(Ledger(tmp_path / "l.sqlite")) as ledger:

        def work(number: int) -> None:
            for index in range(10):
                ledger.record(Entry(f"{number}-{index}", "t", "done", "f"))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(ledger.entries()) == 40


def test_failures_are_counted_until_the_task_is_done(tmp_path):
    with closing(Ledger(tmp_path / "l.sqlite")) as ledger:

        def after(step):
            ledger.record(Entry("a", "a.mp4", step, "f1"))
            return ledger.entry("a").num_failures

        assert [after(step) for step in ("failed", "inferred", "failed", "labelled", "done", "failed")] == [
            1,
            1,
            2,
            2,
            0,
            1,
        ]


def test_a_ledger_of_a_later_version_is_left_alone(tmp_path):
    path = tmp_path / "l.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(MachineError, match="later version"):
        Ledger(path)


def test_instances_of_an_earlier_entry_stay_where_it_is_asked_for(tmp_path):
    with closing(Ledger(tmp_path / "l.sqlite")) as ledger:
        ledger.record(Entry("a", "a.mp4", "inferred", "f1"), keeps_instances=True)
        first = ledger.entry("a").num_instances
        ledger.record(Entry("a", "a.mp4", "done", "f1", 12))
        ledger.record(Entry("a", "a.mp4", "failed", "f2", 3, "why"), keeps_instances=True)
        entry = ledger.entry("a")
    assert (first, entry.num_instances, entry.step) == (0, 12, "failed")
