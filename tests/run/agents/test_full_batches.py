from __future__ import annotations

import numpy as np
import pytest
import torch

from prelabel.errors import AccountError, ClassifyError, ReadError
from prelabel.run.agents.pictures import Classified, EndOfTask, FullBatches, Picture, prepare_image, spread
from tests.answering import ColourClassifier


def picture(frame_index: int = 0, value: int = 0) -> Picture:
    return Picture(frame_index, torch.full((2, 3, 3), value, dtype=torch.uint8))


def tasks(*values: list[int]):
    """Yields a stream: for each task pictures of these values, and its end."""
    for number, of_task in enumerate(values):
        for frame_index, value in enumerate(of_task):
            yield picture(frame_index, value)
        yield EndOfTask(number)


def run(stream, classifier=None, batch_size=4) -> list[Classified]:
    return list(FullBatches(classifier or ColourClassifier(), batch_size).run(stream))


def means(seen: Classified) -> list[int]:
    return np.rint(seen.probabilities.mean(axis=1) * 255).astype(int).tolist()


def test_batches_are_full_whichever_tasks_their_pictures_are_of():
    classifier = ColourClassifier()
    found = run(tasks([1], [2], [3, 4, 5], [6], [], [7, 8, 9]), classifier)
    assert classifier.batch_sizes == [4, 4, 1]
    assert [seen.end.task for seen in found] == [0, 1, 2, 3, 4, 5]
    assert [means(seen) for seen in found] == [[1], [2], [3, 4, 5], [6], [], [7, 8, 9]]
    assert found[2].frame_index.tolist() == [0, 1, 2]


def test_a_task_is_handed_on_as_soon_as_its_last_picture_was_seen():
    taken = []

    def stream():
        for number in range(8):
            taken.append(number)
            yield picture()
            yield EndOfTask(number)

    first = next(FullBatches(ColourClassifier(), 4).run(stream()))
    assert (first.end.task, taken) == (0, [0, 1, 2, 3])


class Prepares(ColourClassifier):
    """Takes pictures that it has made numbers of."""

    def prepare(self, image):
        return np.rint(np.asarray(image).mean(keepdims=True)).astype(np.uint8)

    def classify_prepared(self, images):
        assert {image.shape for image in images} == {(1, 1, 1)}
        return np.repeat(np.stack(images).reshape(-1, 1), 3, axis=1) / np.float32(255)


def test_a_classifier_gets_what_it_has_prepared():
    stream = [Picture(0, prepare_image(Prepares(), np.full((2, 3, 3), 9, np.uint8))), EndOfTask(0)]
    (seen,) = run(stream, Prepares())
    assert (seen.error, means(seen)) == (None, [9])


def test_a_classifier_that_prepares_nothing_gets_a_tensor_of_its_own():
    memory = np.full((2, 3, 3), 9, np.uint8)
    image = prepare_image(ColourClassifier(), memory)
    memory[:] = 0
    assert torch.equal(image, torch.full((2, 3, 3), 9, dtype=torch.uint8))


def test_a_picture_that_the_classifier_cannot_stand_costs_its_task_only():
    found = run(tasks([1], [2, 13, 3], [4], [5]))
    assert [str(seen.error or "") for seen in found] == ["", "the classifier raised RuntimeError: thirteen", "", ""]
    assert [means(seen) for seen in found if seen.error is None] == [[1], [4], [5]]


def test_a_task_that_could_not_be_read_keeps_its_reason():
    broken = EndOfTask(0, error=ReadError("cut off"))
    found = run([picture(), broken, picture(value=5), EndOfTask(1)])
    assert [str(seen.error) for seen in found] == ["cut off", "None"]


def test_large_pictures_make_small_batches(monkeypatch):
    monkeypatch.setattr("prelabel.run.agents.pictures.MAX_BATCH_BYTES", 2 * picture().num_bytes)
    classifier = ColourClassifier()
    run(tasks([1, 2, 3, 4, 5]), classifier, batch_size=100)
    assert classifier.batch_sizes == [2, 2, 1]


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        (np.zeros((1, 2)), r"returned shape \(1, 2\), expected \(1, 3\)"),
        (np.full((1, 3), 1.5), "a value outside 0..1"),
        (np.full((1, 3), np.nan), "a value outside 0..1, or NaN"),
        ("nothing", "raised ValueError"),
    ],
)
def test_a_classifier_that_breaks_its_contract_is_told(rows, complaint):
    class Broken(ColourClassifier):
        def classify(self, images):
            return rows

    (seen,) = run(tasks([1]), Broken())
    with pytest.raises(Exception, match=complaint):
        raise seen.error


def test_a_classifier_that_can_see_nothing_at_all_ends_the_run():
    class Locked(ColourClassifier):
        def classify(self, images):
            raise AccountError("the key is not known")

    with pytest.raises(AccountError):
        run(tasks([1]), Locked())


def test_frames_of_a_video_are_spread_evenly():
    assert spread(np.arange(100), 4).tolist() == [12, 37, 62, 87]
    assert spread(np.arange(10, 13), 8).tolist() == [10, 11, 12]
    assert spread(np.arange(5), None).tolist() == [0, 1, 2, 3, 4]


def test_whatever_a_preparation_raises_is_an_error_of_the_task():
    class Exits(Prepares):
        def prepare(self, image):
            raise SystemExit(3)

    with pytest.raises(ClassifyError, match="the classifier raised SystemExit: 3"):
        prepare_image(Exits(), np.zeros((2, 3, 3), np.uint8))


def test_a_classifier_with_a_method_of_the_same_name_prepares_nothing():
    class Warms(ColourClassifier):
        def prepare(self):
            """Loads something."""

    image = prepare_image(Warms(), np.full((2, 3, 3), 9, np.uint8))
    (seen,) = run([Picture(0, image), EndOfTask(0)], Warms())
    assert (seen.error, means(seen)) == (None, [9])
