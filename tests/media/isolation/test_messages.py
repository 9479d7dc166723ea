from __future__ import annotations

import os
import socket
import threading

import numpy as np
import pytest

from prelabel.data.frames import VideoInfo
from prelabel.media.choose import ReaderChoice
from prelabel.media.isolation.messages import (
    Batch,
    Done,
    Next,
    Opened,
    Read,
    receive_answer,
    receive_command,
    send_answer,
    send_command,
)

BATCH = Batch(memory=3, shape=(1, 2, 3, 3), frame_indices=(7,), pts_seconds=(0.5,), dropped=(1, 2), is_last=True)


@pytest.fixture
def ends():
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def test_a_command_larger_than_a_socket_holds_comes_whole(ends):
    command = Read(np.arange(300_000), 8, (1, 2))
    sender = threading.Thread(target=send_command, args=(ends[0], command))
    sender.start()
    received = receive_command(ends[1])
    sender.join()
    assert isinstance(received, Read)
    assert np.array_equal(received.frame_indices, command.frame_indices)
    assert (received.batch_size, received.freed) == (8, (1, 2))


def test_an_answer_larger_than_a_socket_holds_comes_with_its_handle(ends):
    answer = Opened(VideoInfo(64, 48, 300_000), ReaderChoice("pyav", "cpu", "why"), tuple(range(300_000)))
    memory = os.memfd_create("sent")
    sender = threading.Thread(target=send_answer, args=(ends[0], answer, memory))
    sender.start()
    received, handle = receive_answer(ends[1])
    sender.join()
    assert received == answer
    assert os.path.sameopenfile(memory, handle)
    os.close(memory)
    os.close(handle)


def test_one_message_after_the_other_comes_as_it_was_sent(ends):
    for answer in (Done(), BATCH, Done()):
        send_answer(ends[0], answer)
        assert receive_answer(ends[1]) == (answer, None)
    send_command(ends[1], Next((4,)))
    assert receive_command(ends[0]) == Next((4,))


@pytest.mark.parametrize(
    "sent", [b"", b"\0\0\0", b"\0" * 7 + b"\2{}", b"\0" * 7 + b"\5{}", b"\0" * 7 + b"\x0f" + b'{"kind":"done"}' * 2]
)
def test_what_is_no_answer_is_an_end(ends, sent):
    ends[0].sendall(sent)
    ends[0].close()
    with pytest.raises(EOFError):
        receive_answer(ends[1])
