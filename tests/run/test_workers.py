"""Runs whose model is in workers on a real Ray cluster: results, deaths, secrets, mistakes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from prelabel.assembly.assemble import assemble
from prelabel.cli.commands import relabel_kept, run_config
from prelabel.config.load import check_config, load_config
from prelabel.config.sections import WorkersSection
from prelabel.data.frames import MediaLocation
from prelabel.errors import ConfigError, FetchError, MachineError, PluginError
from prelabel.labels.row.ready import unlabelled_video
from prelabel.run.actor import Job, TaskStarted, _plugin_folder
from prelabel.run.placement import describe_workers
from prelabel.run.ray_cluster import connect, divide, import_ray
from prelabel.run.work import Work
from prelabel.run.workers import RayWorkers
from prelabel.store.raw_detections import read_raw
from prelabel.testing.encord_server import EncordServer
from prelabel.testing.encord_server.faults import CarryOut, Status
from prelabel.testing.encord_server.wire import Answer
from tests.kept import write_grey_clip
from tests.killing import KillPoint, Scene

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PLUGIN = '''
import ctypes, importlib, os, signal, time
from pathlib import Path
import numpy as np
from prelabel import Detections
from prelabel.media.pyav import PyAVReader

def once(flag):
    """Returns whether the flag was there, and takes it away."""
    try:
        os.unlink(flag)
    except FileNotFoundError:
        return False
    return True

class Thing:
    class_names = ("thing",)

    def __init__(self, folder: str, die_at: str = "", seconds: float = 0.0, hold_after: int = 0):
        self.folder, self.seconds, self.hold_after, self.calls = Path(folder), seconds, hold_after, 0
        (self.folder / f"pid-{os.getpid()}").write_text(" ".join(os.environ))
        if once(self.folder / "die at start"):
            os.kill(os.getpid(), signal.SIGKILL)
        if die_at:
            module, _, name = die_at.partition(":")
            owner, _, method = name.rpartition(".")
            owner = getattr(importlib.import_module(module), owner)
            original = getattr(owner, method)
            def dies(*args, **kwargs):
                if once(self.folder / "die"):
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(*args, **kwargs)
            setattr(owner, method, dies)

    def detect(self, batch):
        time.sleep(self.seconds)
        self.calls += 1
        while self.calls > self.hold_after > 0 and not (self.folder / "go on").exists():
            time.sleep(0.05)
        brightness = [int(frame[0, 0, 0]) for frame in batch.data]
        if max(brightness) > 200:
            os.kill(os.getpid(), signal.SIGKILL)
        if once(self.folder / "die in a batch"):
            os.kill(os.getpid(), signal.SIGKILL)
        if once(self.folder / "hang"):
            ctypes.PyDLL(None).sleep(600)  # keeps the interpreter's lock
        return [Detections([(index, 2, 20 + index, 20)], [0.75], [0]) for index in batch.frame_indices.tolist()]

class Faulty(PyAVReader):
    """Fails on a video called 2b."""

    def __init__(self, media, device="auto", exits=True):
        super().__init__(media, device=device)
        self.fails, self.exits = media.paths[0].stem == "2b", exits

    def batches(self, frame_indices, batch_size):
        for batch in super().batches(frame_indices, batch_size):
            yield batch
            if self.fails and self.exits:
                os._exit(3)
            if self.fails:
                raise BaseException("a panic of native code")

class Shade:
    class_names = ("dark", "bright")

    def classify(self, images):
        bright = [float(image.float().mean() > 127) for image in images]
        return np.array([[1 - share, share] for share in bright], np.float32)

class Broken:
    class_names = ("thing",)

    def __init__(self):
        raise ValueError("the weights are torn")

    def detect(self, batch):
        return []
'''


TOO_SLOW = "The current node timed out during startup"


def patiently(start: Callable[[], Any]) -> Any:
    """Starts something of Ray, which gives itself 30 seconds: a busy machine needs several tries."""
    for _ in range(4):
        try:
            return start()
        except Exception as error:
            if TOO_SLOW not in str(error):
                raise
    return start()


@pytest.fixture(scope="module")
def cluster() -> Iterator[ModuleType]:
    """A Ray cluster with four cores and one GPU, according to Ray."""
    pytest.importorskip("ray")
    ray = import_ray()
    init, resources = ray.init, {"num_cpus": 4, "num_gpus": 1}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ray, "init", lambda **options: init(**options | resources))
        assert connect(ray, WorkersSection())
    yield ray
    ray.shutdown()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(PLUGIN)
    for number in range(6):
        write_grey_clip(tmp_path / "clips" / f"{number}.mp4", 96, 64, 12)
    return tmp_path


def config_in(folder: Path, **changes: object) -> Path:
    values = {
        "source": {"path": str(folder / "clips"), "output": str(folder / "out")},
        "detector": {"use": "mine.py:Thing", "folder": str(folder), "batch_size": 4},
        "reader": {"isolate": "never"},
        "retries": {"attempts": 1},
        "workers": {"num": 2, "gpus": 0, "cpus": 1},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values | changes))
    return path


def work_of(folder: Path, name: str) -> Work:
    path = folder / "clips" / f"{name}.mp4"
    return Work(path.name, path.name, "", None, MediaLocation("video", (path,)))


def report_of(folder: Path) -> dict:
    return json.loads((folder / "out" / "report.json").read_text())


def rows_of(folder: Path) -> dict[str, list]:
    """The boxes of each label row, by its file."""
    rows = {}
    for path in sorted((folder / "out").glob("*.labels.json")):
        unit = next(iter(json.loads(path.read_text())["data_units"].values()))
        rows[path.name] = [
            (int(frame), one["boundingBox"], one["confidence"])
            for frame, labels in unit["labels"].items()
            for one in labels["objects"]
        ]
    return rows


def test_workers_label_as_this_process_does_and_each_knows_what_the_other_has_done(cluster, folder, monkeypatch):
    monkeypatch.chdir(folder)
    with monkeypatch.context() as patched:
        patched.setattr("prelabel.run.agents.box_labels.write_detections", labels_nothing)
        assert run_config(config_in(folder)) == 0
    rows, report = rows_of(folder), report_of(folder)
    assert {len(boxes) for boxes in rows.values()} == {12}
    assert len(rows) == 6
    assert sum(worker["tasks"] for worker in report["workers"]) == 6
    assert sum(worker["frames"] for worker in report["workers"]) == 72
    assert {worker["name"] for worker in report["workers"]} == {"worker 1", "worker 2"}

    assert run_config(config_in(folder, workers=None)) == 0
    assert {task["status"] for task in report_of(folder)["tasks"]} == {"already done"}

    assert run_config(config_in(folder, workers=None), ["source.output=plain"]) == 0
    (folder / "out").rename(folder / "by workers")
    (folder / "plain").rename(folder / "out")
    assert rows_of(folder) == rows


def test_images_of_many_tasks_are_classified_by_workers(cluster, folder, monkeypatch):
    monkeypatch.chdir(folder)
    images = folder / "images"
    images.mkdir()
    for number in range(9):
        Image.fromarray(np.full((8, 8, 3), 20 * number + 40, np.uint8)).save(images / f"{number}.png")
    config = config_in(
        folder,
        detector=None,
        classifier={"use": "mine.py:Shade", "batch_size": 4},
        source={"path": "images", "output": "out"},
    )
    config.write_text(config.read_text().replace("detector: null\n", ""))
    assert run_config(config) == 0
    answers = {task["title"]: task["instances"] for task in report_of(folder)["tasks"]}
    assert answers == {f"{n}.png": {"bright" if 20 * n + 40 > 127 else "dark": 1} for n in range(9)}


FUNCTIONS = """
import os
from pathlib import Path

def count(task, media, folder):
    (Path(folder) / f"pid-{os.getpid()}").touch()
    return f"{task.title}: {media.info.num_frames}"

def look(task, label_row):
    return None

def by_kind(task):
    return "Annotate 1" if (task.kind, task.metadata) == ("video", {}) and task.uuid else None
"""


def config_of_function(here: Path, **agent: str) -> Path:
    (here / "functions.py").write_text(FUNCTIONS)
    config = config_in(here, detector=None, agent=agent)
    config.write_text(config.read_text().replace("detector: null\n", ""))
    return config


def test_a_function_that_gets_nothing_of_the_sdk_runs_in_workers(cluster, folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert run_config(config_of_function(folder, use="functions.py:count", folder=str(folder))) == 0
    report = report_of(folder)
    assert {task["pathway"] for task in report["tasks"]} == {f"{number}.mp4: 12" for number in range(6)}
    assert sum(worker["tasks"] for worker in report["workers"]) == 6
    assert pids_in(folder).isdisjoint({os.getpid()})


def test_a_function_in_a_worker_knows_what_the_platform_says_of_its_task(
    cluster, encord_server: EncordServer, tmp_path: Path, monkeypatch
):
    scene = Scene(encord_server, tmp_path, num_tasks=2, workers=1)
    for name, value in scene.environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "functions.py").write_text(FUNCTIONS)
    config = scene.config()
    text = config.read_text().replace(
        "detector: {use: 'tests.killing:Fixed', batch_size: 5}", "agent: {use: 'functions.py:by_kind'}"
    )
    config.write_text(text.replace("pathway: Annotate 1\n", ""))
    assert run_config(config) == 0
    assert len(encord_server.world.moves) == 2
    assert not encord_server.world.downloads
    assert sum(worker["tasks"] for worker in report_of(tmp_path)["workers"]) == 2


def test_workers_label_stored_detections_as_this_process_does(cluster, folder, monkeypatch):
    monkeypatch.chdir(folder)
    config = config_in(folder, workers=None)
    assert run_config(config) == 0
    shutil.copytree(folder / "out", folder / "copy")
    changed = ["labels.instances=tracks", "labels.size.min_side_px=17"]
    assert relabel_kept(config, [*changed, "source.output=copy"]) == 0

    with monkeypatch.context() as patched:
        patched.setattr("prelabel.run.agents.box_labels.write_detections", labels_nothing)
        patched.setattr("prelabel.run.agents.detection.load_labelled", labels_nothing)
        assert relabel_kept(config, changed, num_workers=2) == 0
    report, rows = report_of(folder), rows_of(folder)
    assert sum(worker["tasks"] for worker in report["workers"]) == 6
    assert {task["status"] for task in report["tasks"]} == {"done"}
    assert {len(boxes) for boxes in rows.values()} == {12}
    shutil.rmtree(folder / "out")
    (folder / "copy").rename(folder / "out")
    assert rows_of(folder) == rows


MOMENTS = {
    "fetch": "prelabel.data.frames:Media.__post_init__",
    "decode": "prelabel.inference.decoding:VideoDecoding._batches",
    "result": "prelabel.run.agents.detection:DetectionAgent._result",
}


@pytest.mark.parametrize("moment", ["start", "batch", *MOMENTS])
def test_the_tasks_of_a_dead_worker_are_done_again(cluster, folder, monkeypatch, moment):
    monkeypatch.chdir(folder)
    flag = {"start": "die at start", "batch": "die in a batch"}.get(moment, "die")
    (folder / flag).write_text("")
    detector = {"use": "mine.py:Thing", "folder": str(folder), "batch_size": 4, "die_at": MOMENTS.get(moment, "")}
    assert run_config(config_in(folder, detector=detector)) == 0
    assert not (folder / flag).exists()
    assert {len(boxes) for boxes in rows_of(folder).values()} == {12}
    assert len(rows_of(folder)) == 6


def test_a_video_that_ends_each_worker_is_set_aside_and_all_others_are_done(cluster, folder, monkeypatch):
    monkeypatch.chdir(folder)
    Image.fromarray(np.full((64, 96, 3), 255, np.uint8)).save(folder / "clips" / "2b.png")
    assert run_config(config_in(folder)) == 1
    tasks = {task["title"]: task for task in report_of(folder)["tasks"]}
    assert tasks["2b.png"]["status"] == "failed"
    assert "3 workers ended while they had it" in tasks["2b.png"]["reason"]
    assert sum(task["status"] == "done" for task in tasks.values()) == 6


def test_a_reader_that_ends_each_worker_costs_its_video_alone(cluster, folder, monkeypatch):
    monkeypatch.chdir(folder)
    write_grey_clip(folder / "clips" / "2b.mp4", 96, 64, 12)
    assert run_config(config_in(folder, reader={"use": "mine.py:Faulty", "isolate": "never"})) == 1
    tasks = {task["title"]: task for task in report_of(folder)["tasks"]}
    assert "3 workers ended while they had it" in tasks["2b.mp4"]["reason"]
    assert sum(task["status"] == "done" for task in tasks.values()) == 6


def test_a_reader_that_raises_no_exception_fails_its_task_and_the_worker_goes_on(folder, make_actor):
    write_grey_clip(folder / "clips" / "2b.mp4", 96, 64, 12)
    reader = {"use": "mine.py:Faulty", "isolate": "never", "exits": False}
    actor = make_actor(check_config(yaml.safe_load(config_in(folder, reader=reader).read_text()), "test"), folder)
    for name, reason in (("2b", "2b.mp4: the reader raised BaseException: a panic of native code"), ("3", None)):
        ((result,), _) = actor.infer([work_of(folder, name)])
        assert (result.failure and result.failure.reason) == reason


def test_a_worker_that_keeps_the_interpreter_to_itself_is_restarted(cluster, folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "hang").write_text("")
    workers = {"num": 1, "gpus": 0, "cpus": 1, "stall_seconds": 10}
    assert run_config(config_in(folder, workers=workers)) == 0
    assert len(rows_of(folder)) == 6


def test_a_model_that_does_not_load_ends_the_run_with_its_reason(cluster, folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(PluginError, match=r"'mine\.py:Broken' raised ValueError: the weights are torn$"):
        run_config(config_in(folder, detector={"use": "mine.py:Broken"}))


@pytest.mark.parametrize(
    ("workers", "complaint"),
    [
        (
            {"num": 9, "gpus": 0, "cpus": 1},
            "9 workers with 1 CPU each do not fit: the cluster has 4 CPU and 1 GPU",
        ),
        ({"num": 2, "gpus": 1, "cpus": 1}, "2 workers with 1 CPU and 1 GPU each do not fit"),
    ],
)
def test_more_than_the_cluster_has_is_refused(cluster, folder, monkeypatch, workers, complaint):
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigError, match=complaint):
        run_config(config_in(folder, workers=workers))


def test_workers_of_two_stages_share_the_cluster(cluster, folder):
    values = yaml.safe_load(config_in(folder).read_text())
    config = check_config(values, "test")
    config = config.model_copy(update={"workers": config.workers.model_copy(update={"num": 1, "cpus": 4})})
    stages = [RayWorkers(config, folder, lambda: None, num_stages=2) for _ in range(2)]
    assert [stage.model.class_names for stage in stages] == [("thing",)] * 2
    for stage in stages:
        stage.close()


def test_a_file_that_a_worker_cannot_see_is_named(tmp_path, make_actor):
    actor = make_actor(job_in(tmp_path).config, tmp_path)
    work = Work("a.mp4", "a.mp4", "", None, MediaLocation("video", (tmp_path / "a.mp4",)))
    with pytest.raises(FetchError, match=r"a\.mp4: worker on .* cannot see it"), actor._open(work):
        pass


def test_a_worker_labels_what_it_has_detected_so_that_the_run_need_not(folder, make_actor):
    values = yaml.safe_load(config_in(folder, labels={"instances": "tracks"}).read_text())
    actor = make_actor(check_config(values, "test"), folder)
    work = replace(work_of(folder, "0"), expected_row=unlabelled_video("data"))
    ((result,), status) = actor.infer([work])
    assert len(read_raw(result.found.raw_file).detections) == 12
    assert len(set(result.found.read_detections().instance)) == 1
    assert result.found.report.instances == {"thing": 1}
    assert result.found.row.written.num_instances == 1
    assert TaskStarted("0.mp4", 12, "0.mp4") in status.events


def test_a_worker_labels_stored_detections_without_reading_media(folder, make_actor):
    values = yaml.safe_load(config_in(folder).read_text())
    actor = make_actor(check_config(values, "test"), folder)
    ((detected,), _) = actor.infer([work_of(folder, "0")])
    assert detected.found.row is None  # labels that go to a sink of the user's own have no row
    stored = Work("0.mp4", "0.mp4", "", None, MediaLocation("none"), raw_file=detected.found.raw_file)
    ((labelled,), status) = actor.infer([stored])
    assert labelled.is_cached
    assert labelled.found.raw_file == b""
    assert labelled.found.labelled_file == detected.found.labelled_file
    assert status.events == ()


def test_plug_in_files_travel_to_a_worker_on_another_machine(tmp_path):
    job = job_in(tmp_path / "not here", {"parts/mine.py": b"content"})
    assert (_plugin_folder(job) / "parts" / "mine.py").read_bytes() == b"content"


def job_in(folder: Path, plugin_files: dict[str, bytes] | None = None) -> Job:
    values = {"source": {"path": "clips"}, "detector": {"use": "mine.py:Thing", "folder": "."}}
    return Job(check_config(values, "test"), folder, plugin_files or {}, None, 1, uses_gpu=False, cache_bytes=10**9)


def test_a_cluster_that_is_not_there_is_named(folder):
    ended = prelabel_run(config_in(folder, workers={"num": 2, "address": "127.0.0.1:1"}), folder).communicate()
    assert "workers.address: cannot join 127.0.0.1:1" in ended[1]
    assert "Traceback" not in ended[1]


def prelabel_run(config: Path, folder: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "prelabel", "run", str(config)],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(process: subprocess.Popen[str], event: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["event"] == event:
            return
    pytest.fail(f"ended without {event}")


def pids_in(folder: Path) -> set[int]:
    return {int(path.name.removeprefix("pid-")) for path in folder.glob("pid-*")}


def are_alive(pids: set[int]) -> list[int]:
    return [
        pid
        for pid in pids
        if Path(f"/proc/{pid}/cmdline").exists() and b"ray::" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def test_workers_end_with_a_killed_run_and_the_next_run_goes_on(folder):
    detector = {"use": "mine.py:Thing", "folder": str(folder), "batch_size": 4, "hold_after": 3}
    process = prelabel_run(config_in(folder, detector=detector), folder)
    wait_for(process, "task_done")
    workers = pids_in(folder)
    assert are_alive(workers)
    process.kill()
    process.communicate()
    while are_alive(workers):
        time.sleep(0.2)
    (folder / "go on").touch()
    process = prelabel_run(config_in(folder, detector=detector, workers=None), folder)
    process.communicate()
    assert process.returncode == 0
    assert {len(boxes) for boxes in rows_of(folder).values()} == {12}
    statuses = [task["status"] for task in report_of(folder)["tasks"]]
    assert "already done" in statuses
    assert len(statuses) == 6


def test_a_stop_request_ends_a_run_with_workers_after_their_tasks(folder):
    detector = {"use": "mine.py:Thing", "folder": str(folder), "batch_size": 4, "hold_after": 3}
    process = prelabel_run(config_in(folder, detector=detector, workers={"num": 1, "gpus": 0, "cpus": 1}), folder)
    wait_for(process, "task_done")
    process.send_signal(signal.SIGINT)
    wait_for(process, "stopping")
    (folder / "go on").touch()
    process.communicate()
    assert process.returncode == 130
    assert 2 <= len(rows_of(folder)) <= 3  # the worker has two tasks, and may have got a third before the signal


def test_the_tasks_of_a_removed_machine_are_done_again(folder, monkeypatch):
    monkeypatch.chdir(folder)
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = patiently(lambda: Cluster(initialize_head=True, head_node_args={"num_cpus": 0}))
    try:
        nodes = [patiently(lambda: cluster.add_node(num_cpus=1)) for _ in range(2)]
        detector = {"use": "mine.py:Thing", "folder": str(folder), "batch_size": 4, "seconds": 0.4}
        workers = {"num": 2, "gpus": 0, "cpus": 1, "address": cluster.address}
        process = prelabel_run(config_in(folder, detector=detector, workers=workers), folder)
        for line in process.stdout:
            if json.loads(line)["event"] == "task_done":
                break
        cluster.remove_node(nodes[0], allow_graceful=False)
        _, said = process.communicate()
    finally:
        cluster.shutdown()
    assert process.returncode == 0, said
    assert {len(boxes) for boxes in rows_of(folder).values()} == {12}
    assert len(rows_of(folder)) == 6


@pytest.mark.parametrize(("killed_at", "workers_afterwards"), [("save_label_rows", 0), ("act_on_tasks", 1)])
def test_a_stage_whose_run_is_killed_is_labelled_once(
    encord_server: EncordServer, tmp_path: Path, killed_at: str, workers_afterwards: int
):
    scene = Scene(encord_server, tmp_path, num_tasks=5, workers=1)
    assert scene.run(KillPoint(killed_at, "after")) == -signal.SIGKILL
    scene.check()
    scene.workers = workers_afterwards
    assert scene.run() == 0
    scene.check_done()


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path, since Ray's sockets lie below it."""
    with tempfile.TemporaryDirectory(prefix="r") as folder:
        yield Path(folder)


def test_the_key_and_links_stay_with_the_run(encord_server: EncordServer, tmp_path: Path, short: Path):
    scene = Scene(encord_server, tmp_path, num_tasks=2, workers=1)
    (tmp_path / "mine.py").write_text(PLUGIN.replace('"thing",', '"Pedestrian",'))
    config = scene.config()
    detector = f"detector: {{use: 'mine.py:Thing', folder: '{tmp_path}'}}"
    config.write_text(config.read_text().replace("detector: {use: 'tests.killing:Fixed', batch_size: 5}", detector))
    process = prelabel_run(config, tmp_path, **scene.environment, RAY_TMPDIR=str(short))
    told, said = process.communicate()
    assert process.returncode == 0, said
    (names,) = [path.read_text().split() for path in tmp_path.glob("pid-*")]
    assert "PATH" in names
    assert not [name for name in names if name.startswith("ENCORD_SSH")]
    secrets = [scene.environment["ENCORD_SSH_KEY"].splitlines()[1], *(link.url for link in encord_server.world.links)]
    kept = [path for place in (short, tmp_path / "out") for path in place.rglob("*") if path.is_file()]
    assert any("raylet" in path.name for path in kept)
    texts = [told, said, *(path.read_text(errors="replace") for path in kept)]
    assert not [secret for secret in secrets for text in texts if secret in text]


def labels_nothing(*_: object, **__: object) -> None:
    pytest.fail("the run makes labels that a worker should have made")


def test_each_video_of_a_stage_is_fetched_once_and_its_row_is_made_by_a_worker(
    cluster, encord_server: EncordServer, tmp_path: Path, monkeypatch
):
    scene = Scene(encord_server, tmp_path, num_tasks=7, workers=2)
    monkeypatch.setattr("prelabel.run.agents.box_labels.write_detections", labels_nothing)
    monkeypatch.setattr("prelabel.run.agents.detection.load_labelled", labels_nothing)
    for name, value in scene.environment.items():
        monkeypatch.setenv(name, value)
    assert run_config(scene.config()) == 0
    scene.check_done()
    assert len(encord_server.world.downloads) == 7


class Together:
    """Carries out no request before another one has come."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2, timeout=120)

    def __call__(self, carry_out: CarryOut, stopping: threading.Event) -> Answer:
        self.barrier.wait()
        return carry_out()


def test_the_tasks_of_several_workers_are_saved_at_the_same_time(
    cluster, encord_server: EncordServer, tmp_path: Path, monkeypatch
):
    scene = Scene(encord_server, tmp_path, num_tasks=2, workers=2)
    for name, value in scene.environment.items():
        monkeypatch.setenv(name, value)
    encord_server.faults.add("save_label_rows", Together(), times=2)
    assert run_config(scene.config()) == 0
    scene.check_done()


def test_a_refused_link_is_replaced(cluster, encord_server: EncordServer, tmp_path: Path, monkeypatch):
    scene = Scene(encord_server, tmp_path, num_tasks=2, workers=1)
    for name, value in scene.environment.items():
        monkeypatch.setenv(name, value)
    config = scene.config()
    config.write_text(config.read_text().replace("retries: {wait_seconds: 0}", "retries: {attempts: 1}"))
    encord_server.faults.add("download", Status(403))
    assert run_config(config) == 0
    scene.check_done()


@pytest.mark.parametrize(
    ("workers", "said"),
    [
        ({"num": 2}, "2, on Ray, started on this machine"),
        ({}, "one per GPU, on Ray, started on this machine"),
        ({"address": "auto"}, "one per GPU, on the Ray cluster at auto"),
    ],
)
def test_check_says_where_the_model_will_run(folder, workers, said):
    assert checked(config_in(folder, workers=workers)).startswith(said)


def test_check_says_why_a_function_stays_in_the_run(folder):
    assert checked(config_of_function(folder, use="functions.py:count", folder="x")).startswith("2, on Ray")
    said = checked(config_of_function(folder, use="functions.py:look"))
    assert said == "none: this process calls the function, because it gets label_row"


def checked(config: Path) -> str:
    """What `prelabel check` says of workers."""
    return describe_workers(assemble(load_config(config), config.parent))


@pytest.mark.parametrize(
    ("nodes", "section", "expected"),
    [
        ([{"CPU": 8}], {}, (1, 0.0, 8)),
        ([{"CPU": 8, "GPU": 4}], {}, (4, 1.0, 2)),
        ([{"CPU": 0}, {"CPU": 16, "GPU": 2}, {"CPU": 4, "GPU": 2}], {}, (4, 1.0, 2)),  # a head without work
        ([{"CPU": 8, "GPU": 1}], {"gpus": 0.5}, (2, 0.5, 4)),
        ([{"CPU": 8}, {"CPU": 8}], {"num": 3}, (3, 0.0, 4)),
    ],
)
def test_a_cluster_is_divided_so_that_each_worker_fits_on_a_machine(nodes, section, expected):
    assert divide(nodes, WorkersSection(**section)) == expected


def test_any_number_of_workers_on_one_machine_is_refused(folder):
    process = prelabel_run(config_in(folder, workers={"num": 9999}), folder)
    _, said = process.communicate()
    assert process.returncode == 2
    assert "workers: 9999 workers with 1 CPU each do not fit: the cluster has" in said


@pytest.mark.parametrize(("failures", "ends"), [([TOO_SLOW] * 3, True), (["no"], False)])
def test_a_busy_machine_gets_several_tries_to_start_ray(failures, ends):
    left = list(failures)

    def init(**_: object) -> None:
        if left:
            raise Exception(left.pop())

    ray = SimpleNamespace(init=init, is_initialized=lambda: False)
    if ends:
        assert connect(ray, WorkersSection())
    else:
        with pytest.raises(MachineError, match="Ray does not start on this machine: no"):
            connect(ray, WorkersSection())
