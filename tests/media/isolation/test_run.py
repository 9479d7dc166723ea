"""A run whose decoder breaks on some of the videos: those fail, or are labelled in part; the others are done."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.make_media import NUM_FRAMES, RECIPES, write_clip
from tests.media.isolation.clock import let_time_fly_for
from tests.run.test_run import DETECTOR, assembly_of
from tests.running import run_whole

READER = """
import os
from pathlib import Path
from prelabel.media.pyav import PyAVReader
from tests.media.isolation.misbehaving import EVENTS

FOLDER = Path(__file__).parent

class Named(PyAVReader):
    def __init__(self, media, device="auto"):
        super().__init__(media, device="cpu")
        self.how = media.paths[0].stem

    def batches(self, frame_indices, batch_size):
        for number, batch in enumerate(super().batches(frame_indices, batch_size)):
            if number == 2 and self.how in EVENTS:
                Path(FOLDER, f"begun {self.how}").write_text(str(os.getpid()))
                EVENTS[self.how]()
            yield batch
"""
REASONS = {
    "segfault.mp4": "was killed by SIGSEGV",
    "hang.mp4": "hung for ",
    "exit.mp4": "ended with exit code 3",
    "raise.mp4": "the reader raised RuntimeError: out of luck",
}


@pytest.mark.slow
@pytest.mark.parametrize("frames", ["strict", "warn"])
def test_decoder_that_breaks_on_a_video_costs_that_video(
    frames: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_time_fly_for(tmp_path / "begun hang", monkeypatch)
    (tmp_path / "clips").mkdir()
    (tmp_path / "mine.py").write_text(DETECTOR)
    (tmp_path / "named.py").write_text(READER)
    for name in ("a.mp4", "z.mp4", *REASONS):
        write_clip(tmp_path / "clips" / name, RECIPES["h264"])
    reader = {"use": "named.py:Named", "isolate": "always", "stall_seconds": 50}
    report = run_whole(
        assembly_of(tmp_path, frames=frames, reader=reader, detector={"batch_size": 6}, retries={"attempts": 1})
    )
    found = {task.title: task for task in report.tasks}
    assert sorted(found) == sorted(["a.mp4", "z.mp4", *REASONS])
    for title in ("a.mp4", "z.mp4"):
        assert (found[title].status, found[title].num_inferred) == ("done", NUM_FRAMES)
    for title, reason in REASONS.items():
        task = found[title]
        if frames == "strict":
            assert (task.status, reason in task.reason) == ("failed", True), task
        else:
            assert (task.status, task.num_inferred) == ("done", 12)
            assert f"{title}: after frame 11: " in (task.partial or "")
            assert reason in (task.partial or "")
