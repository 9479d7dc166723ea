from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from prelabel.assembly.assemble import Assembly, assemble
from prelabel.config.load import check_config
from prelabel.errors import AccountError, ClassifyError, SetupError
from prelabel.models.classifiers.openai import OpenAIClassifier, read_answer
from prelabel.run.checks import prepare
from prelabel.run.runner import run_tasks
from prelabel.runtime.interrupts import StopSignal
from prelabel.runtime.progress import NullProgress
from prelabel.testing import check_classifier
from tests.models.classifiers.chat_server import KEY, ChatServer, completion
from tests.run.agents.test_classification import BLUE, GREY, RED, paint

SURE = math.exp(-0.3)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    with ChatServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setattr("prelabel.models.classifiers.openai._FIRST_WAIT_SECONDS", 0.01)
        yield server
    assert server.wrong == []


def asking(**options: object) -> OpenAIClassifier:
    return OpenAIClassifier(**({"model": "gpt-x", "classes": ("red", "blue")} | options))


def picture(*colour: int, width: int = 40, height: int = 30) -> torch.Tensor:
    return torch.tensor(colour, dtype=torch.uint8).expand(height, width, 3).contiguous()


def test_it_keeps_a_classifier_s_contract(server):
    check_classifier(asking(classes=("red", "green", "blue")))


def test_the_answer_s_confidence_is_the_probability_of_its_tokens(server):
    rows = asking().classify([picture(*RED), picture(*BLUE), picture(0, 250, 0)])
    assert rows == pytest.approx(np.array([[SURE, 0], [0, SURE], [0, 0]]), abs=1e-6)


def test_pictures_are_sent_small(server):
    asking(imgsz=100).classify([picture(*RED, width=4000, height=3000), picture(*BLUE, width=50, height=20)])
    assert sorted(server.sizes) == [(50, 20), (100, 75)]


def test_requests_run_beside_each_other_but_not_more_than_allowed(server):
    together = threading.Barrier(3, timeout=30)  # breaks unless three requests meet

    def meet():
        together.wait()
        return 200, {}, completion("red")

    server.script = [meet] * 3
    asking(workers=3).classify([picture(n, 0, 0) for n in range(0, 240, 20)])
    assert server.most_at_once == 3


def test_not_more_requests_a_minute_than_allowed_are_sent(server):
    began = time.monotonic()
    asking(requests_per_minute=1200).classify([picture(n, 0, 0) for n in range(0, 200, 20)])
    assert len(server.times) == 10
    assert server.times[-1] - began >= 9 * 0.05


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_service_is_asked_again(server, status):
    server.script = [lambda: (status, {"Retry-After": "0"}, {"error": {"message": "busy"}})] * 3
    assert asking(workers=1).classify([picture(*RED)])[0, 0] == pytest.approx(SURE)
    assert len(server.times) == 4


def test_it_waits_as_long_as_the_service_asks(server):
    server.script = [lambda: (429, {"retry-after-ms": "300"}, {"error": {"message": "slow down"}})]
    asking(workers=1).classify([picture(*RED)])
    assert server.times[1] - server.times[0] >= 0.3


def test_a_service_that_goes_on_failing_fails_the_picture_and_answers_are_not_paid_twice(server):
    classifier = asking(workers=1, attempts=2)
    classifier.classify([picture(*RED)])
    server.script = [lambda: (500, {}, b"oops")] * 2
    with pytest.raises(ClassifyError, match="no answer after 2 tries: 500: oops"):
        classifier.classify([picture(*RED), picture(*BLUE)])
    asked = len(server.times)
    classifier.classify([picture(*RED)])
    assert len(server.times) == asked


NO_ANSWERS = {
    "refusals": completion("red", refusal="I cannot help with that", content=None),
    "invalid_answers": completion("purple"),
    "not JSON": {**completion("red"), "choices": [{"message": {"content": "It is red."}, "finish_reason": "stop"}]},
    "nothing": {"choices": []},
    "filtered": {"choices": [{"message": {"content": ""}, "finish_reason": "content_filter"}]},
    "a number": completion(7),
}


@pytest.mark.parametrize("name", NO_ANSWERS)
def test_what_is_no_answer_is_none_and_is_counted(server, name):
    server.script = [lambda: (200, {}, NO_ANSWERS[name])]
    classifier = asking()
    assert classifier.classify([picture(*RED)]).tolist() == [[0, 0]]
    assert classifier.usage["refusals"] + classifier.usage["invalid_answers"] == 1
    if name in classifier.usage:
        assert classifier.usage[name] == 1


def test_tokens_and_cost_are_counted(server):
    classifier = asking(price_in=0.15, price_out=0.6)
    classifier.classify([picture(*RED), picture(*BLUE)])
    counted = {name: classifier.usage[name] for name in ("requests", "prompt_tokens", "completion_tokens", "cost")}
    assert counted == {"requests": 2, "prompt_tokens": 200, "completion_tokens": 10, "cost": pytest.approx(36e-6)}


def test_a_confidence_that_was_not_measured_is_told(server):
    server.script = [lambda: (200, {}, completion("red"))]
    classifier = asking()
    assert classifier.classify([picture(*RED)]).tolist() == [[1, 0]]
    assert "1 answers came without log-probabilities" in classifier.usage_warnings(classifier.usage)[0]


def test_tokens_may_fall_anywhere_and_letters_may_be_escaped():
    tokens = [('{"answer', 0.0), ('": "C', -0.5), ("af\\u00e9", -0.25), ('"}', -3.0)]
    said = read_answer(completion("Café", tokens), ["Café"])
    assert said.confidence == pytest.approx(math.exp(-0.75))


@pytest.mark.parametrize(
    ("status", "message", "complaint"),
    [
        (401, f"Incorrect API key provided: {KEY}", "does not take the key in OPENAI_API_KEY"),
        (404, "The model does not exist", "has no model 'gpt-x'"),
    ],
)
def test_what_would_fail_every_picture_ends_the_run_and_tells_no_key(server, status, message, complaint):
    server.script = [lambda: (status, {}, {"error": {"message": message}})]
    with pytest.raises(AccountError, match=complaint) as caught:
        asking().classify([picture(*RED)])
    assert KEY not in str(caught.value)
    assert len(server.times) == 1


def test_a_request_that_is_refused_fails_its_picture(server):
    server.script = [lambda: (400, {}, {"error": {"message": "image too large"}})]
    with pytest.raises(ClassifyError, match=r"refused the request \(400\): image too large"):
        asking().classify([picture(*RED)])


def test_a_service_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setattr("prelabel.models.classifiers.openai._FIRST_WAIT_SECONDS", 0.01)
    with pytest.raises(ClassifyError, match=r"127\.0\.0\.1: no answer after 2 tries: ConnectionError"):
        asking(attempts=2).classify([picture(*RED)])


def test_without_a_key_nothing_begins(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(SetupError, match="set OPENAI_API_KEY"):
        asking()


def config(folder: Path, **more: object) -> Assembly:
    ontology = {
        "objects": [],
        "classifications": [
            {
                "id": "1",
                "featureNodeHash": "clsColou",
                "attributes": [
                    {
                        "id": "1.1",
                        "name": "Colour",
                        "type": "radio",
                        "required": False,
                        "dynamic": False,
                        "featureNodeHash": "attColou",
                        "options": [
                            {"id": f"1.1.{n}", "label": label, "value": label, "featureNodeHash": f"opt{label:0>5}"[:8]}
                            for n, label in enumerate(("red", "blue"), start=1)
                        ],
                    }
                ],
            }
        ],
    }
    (folder / "ontology.json").write_text(json.dumps(ontology))
    values = {
        "source": {
            "path": str(folder / "photos"),
            "output": str(folder / "out"),
            "ontology": str(folder / "ontology.json"),
        },
        "classifier": {"use": "openai", "model": "gpt-x", "price_in": 1.0},
        "routing": {"red": "Reds", "otherwise": "Others"},
    }
    return assemble(check_config(values | more, "test.yaml"), Path())


def test_a_folder_goes_through_the_service_bound_to_the_ontology_s_options(server, tmp_path):
    for name, colour in {"a.png": RED, "b.png": BLUE, "c.png": (0, 250, 0), "d.png": GREY}.items():
        paint(tmp_path / "photos" / name, colour)
    server.script = [lambda: (200, {}, completion("red", refusal="no", content=None))]
    assembly = config(tmp_path)
    prepare(assembly)
    assert tuple(assembly.classification.classifier.class_names) == ("red", "blue")
    report = run_tasks(assembly, NullProgress(), StopSignal())
    assert [task.status for task in report.tasks] == ["done"] * 4
    assert (report.usage["requests"], report.usage["prompt_tokens"], report.usage["refusals"]) == (4, 400, 1)
    assert report.usage["cost"] == pytest.approx(400e-6)
    assert sum(report.pathways.values()) == 4


def test_a_key_that_is_not_taken_ends_the_run(server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
    for n in range(3):
        paint(tmp_path / "photos" / f"{n}.png", RED, (30 + n, 20))
    report = run_tasks(config(tmp_path), NullProgress(), StopSignal())
    assert "does not take the key in OPENAI_API_KEY" in report.aborted
    assert "sk-wrong" not in report.aborted
    assert report.failed == []
