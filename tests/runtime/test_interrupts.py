from __future__ import annotations

import os
import signal
import time

import pytest

from prelabel.runtime.interrupts import Stopped, StopSignal, stop_on_signals


def test_the_first_signal_stops_soon_and_the_second_now():
    stop, told = StopSignal(), []
    with stop_on_signals(stop, told.append):
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.is_set
        stop.check()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped):
            stop.check()
    assert told == ["stopping after the current tasks; once more stops now", "stopping now"]


def test_the_handlers_from_before_come_back():
    before = signal.getsignal(signal.SIGINT)
    with stop_on_signals(StopSignal(), print):
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_waiting_ends_as_soon_as_somebody_asks():
    stop = StopSignal()
    stop.ask()
    began = time.monotonic()
    stop.wait(60)
    assert time.monotonic() - began < 30
