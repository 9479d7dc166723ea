"""One task of a classifier on the page of a run: its pictures with what was answered of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from prelabel.answers import PlacedAnswer
from prelabel.assembly.classifier_parts import ClassifierParts
from prelabel.class_store import ClassRecord
from prelabel.pages.pictures import Picture, Place
from prelabel.pages.video import NUM_PICTURES, VideoView, facts_of_media
from prelabel.preview import spread_evenly
from prelabel.report import TaskReport


@dataclass(frozen=True, slots=True)
class AnsweredMedia:
    """What a classifier said of a task's media, and what was answered.

    Attributes:
        record: the probabilities, as they are kept.
        answers: under the config of today, in the order of their frames; none of a task that it is not sure of.
        likeliest: the most probable class over all pictures.
        probability: of that class.
    """

    record: ClassRecord
    answers: tuple[PlacedAnswer, ...]
    likeliest: str
    probability: float

    @classmethod
    def of(cls, parts: ClassifierParts, record: ClassRecord) -> AnsweredMedia:
        """Returns what is answered of a record."""
        return cls(record, tuple(parts.place_answers(record)), *parts.likeliest(record))

    @property
    def frames_to_show(self) -> list[int]:
        """The frames of which the page has pictures."""
        frames: list[int] = spread_evenly(self.record.frame_index, NUM_PICTURES).tolist()
        return frames

    def said_of(self, frame: int) -> str:
        """Returns the answer that holds on a frame, with its confidence; of none the likeliest class."""
        for placed in self.answers:
            if placed.first_frame <= frame <= placed.last_frame:
                return f"{placed.answer.name} {placed.answer.confidence:.2f}"
        return f"no answer; likeliest {self.likeliest} {self.probability:.2f}"


def view_of_answered(task: TaskReport, media: AnsweredMedia, sources: Mapping[Place, str]) -> VideoView:
    """Returns a task as the page shows it.

    Args:
        task: its report.
        media: what was answered.
        sources: pictures that could be had.
    """
    info = media.record.info
    frames = [frame for frame in media.frames_to_show if (task.key, frame) in sources]
    sizes = info.sizes(np.array(frames, np.int64)).tolist()
    pictures = tuple(
        Picture(sources[task.key, frame], width, height, said := media.said_of(frame), f"Frame {frame}: {said}", ())
        for frame, (width, height) in zip(frames, sizes, strict=True)
    )
    return VideoView(task, facts_of_media(task, info), info.duration_seconds, {}, None, pictures)
