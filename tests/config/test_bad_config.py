"""What is wrong with a config is one line and exit 2, before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from prelabel.cli import app as cli
from prelabel.testing.encord_server import AGENT, ANNOTATE
from tests.encord_fixtures import Platform
from tests.kept import write_grey_clip

DETECTOR = """
from prelabel import Detections

class Fine:
    class_names = ("Pedestrian", "Vehicle")

    def __init__(self, conf: float = 0.5): ...

    def detect(self, batch):
        raise AssertionError("no frame may be looked at")

class NoNames:
    def detect(self, batch): ...

class NoDetect:
    class_names = ("Pedestrian",)

class Breaks:
    def __init__(self):
        raise RuntimeError("no licence")
"""
SOURCE = "source: {path: clips, output: out}\n"
FINE = SOURCE + "detector: {use: 'mine.py:Fine'}\n"
ENCORD = "detector: {use: 'mine.py:Fine'}\nsource: {use: encord, output: out, "


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("ENCORD_PROJECT_HASH", "ENCORD_DOMAIN", "ENCORD_SSH_KEY", "ENCORD_SSH_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    write_grey_clip(tmp_path / "clips" / "a.mp4", 64, 48, 2)
    (tmp_path / "mine.py").write_text(DETECTOR)
    (tmp_path / "broken.py").write_text("class Fine(:\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.json").write_text("[1]")
    return tmp_path


def complaint(config: bytes | str, monkeypatch, capsys, *arguments: str, command: str = "run") -> str:
    """Returns the one line that the command line says of a config; exit code 2 and nothing on standard output."""
    Path("config.yaml").write_bytes(config if isinstance(config, bytes) else config.encode())
    monkeypatch.setattr("sys.argv", ["prelabel", command, "config.yaml", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr()
    assert ended.value.code == 2, told
    assert told.out == ""
    assert "Traceback" not in told.err
    (line,) = told.err.strip().splitlines()
    assert line.startswith("prelabel: ")
    assert not Path("out/report.json").exists()
    return line


FILES = [
    ("", "expected sections"),
    ("\n\n# nothing\n", "expected sections"),
    ("- a\n- b\n", "got a list, expected sections"),
    ("just text", "got text without a key, expected sections"),
    ("42", "got text without a key, expected sections"),
    (b"\xff\xfe\x00source", "is no text, expected YAML"),
    (b"source: {path: caf\xe9}\n", "is no text, expected YAML"),
    (b"a: \x00\n", "is not YAML"),
    ("source: {path: [}\n", "is not YAML: line 1, column 17: expected the node content, but found '}' while"),
    ("source:\n\tpath: clips\n", "is not YAML: line 2, column 1: a tab, expected spaces"),
    (FINE + "source: {path: other}\n", "'source' occurs twice"),
    (SOURCE + "detector: {use: a, use: b}\n", "'use' occurs twice"),
    ("a: &a [*a]\n" + FINE, "is not YAML"),
    ("? [1, 2]\n: 3\n" + FINE, "found unhashable key"),
    ("1: 2\n" + FINE, "1: is not a key of the config"),
    (FINE + "source: !!python/object/apply:os.system ['true']\n", "is not YAML"),
    (FINE + "---\n" + FINE, "is not YAML"),
    (SOURCE, "detector: is missing"),
    ("detector: {use: 'mine.py:Fine'}\n", "source: is missing"),
]


@pytest.mark.parametrize(("config", "said"), FILES)
def test_a_file_that_is_no_config(folder, config, said, monkeypatch, capsys):
    assert said in complaint(config, monkeypatch, capsys)


VALUES = [
    ("sources.path=clips", "sources: is not a key of the config: did you mean 'source'"),
    ("source=null", "source: "),
    ("source=clips", "source: got 'clips', expected a section with keys"),
    ("source.path=null", "source.path: "),
    ("source.path=''", "is empty, expected a file, a folder or a glob"),
    ("source.path=nowhere", "there is nothing at nowhere"),
    ("source.path=empty", "no video or image at empty"),
    ("source.path={a: b}", "source.path: got {'a': 'b'}"),
    ("source.ontology=nowhere.json", "nowhere.json: cannot be read"),
    ("source.ontology=mine.py", "mine.py: is not JSON"),
    ("source.ontology=list.json", "list.json"),
    ("source.ontology=clips", "clips: cannot be read"),
    ("source.truth=nowhere.json", "source.truth: nowhere.json: there is no such file"),
    ("source.truth=list.json", "source.truth: list.json: got a list, expected COCO"),
    ("source.truth=mine.py", "source.truth: mine.py: is not JSON"),
    ("source.output=mine.py", "mine.py is a file, expected a folder"),
    ("source.output=mine.py/out", "mine.py is a file, expected a folder"),
    ("source.preview=film", "source.preview: got 'film'"),
    ("reader.stride=0", "reader.stride: got 0, expected 1 or more"),
    ("reader.stride=2.5", "reader.stride: got 2.5"),
    ("reader.stride=.nan", "reader.stride: got nan"),
    ("reader.use=vlc", "known: decord, images, nvdec, pyav, torchcodec"),
    ("reader.device=tpu", "reader.device: got 'tpu', expected text of the form auto|cpu|cuda|cuda:N"),
    ("reader={use: pyav, device: cuda}", "reader.use: pyav, device cuda: it decodes on the CPU"),
    ("reader.frame_ranges=[[9, 1]]", "frame_ranges: got [9, 1]"),
    ("reader.frame_ranges=7", "reader.frame_ranges: got 7"),
    ("detector=7", "detector: "),
    ("detector={weigths: demo}", "detector.weigths: is not a key of the config: did you mean 'weights'?"),
    ("detector.use=nowhere.py:Fine", "nowhere.py"),
    ("detector.use=mine.py", "mine.py"),
    ("detector.use=mine.py:Fin", "did you mean 'Fine'"),
    ("detector.use=broken.py:Fine", "broken.py"),
    ("detector.use=mine.py:NoNames", "lacks `class_names`"),
    ("detector.use=mine.py:NoDetect", "lacks `class_names` or `detect(batch)`"),
    ("detector.use=mine.py:Breaks", "no licence"),
    ("detector.use=no_such_package:Fine", "no_such_package"),
    ("detector.conv=0.5", "did you mean 'conf'"),
    ("detector.confidence=0.5", "did you mean 'conf'"),
    ("detector.batch_sise=8", "did you mean 'batch_size'"),
    ("detector.batch_size=big", "detector.batch_size: got 'big', expected an integer or 'auto'"),
    ("reader.strid=2", "reader.strid: is not a key of the section: did you mean 'stride'"),
    ("reader={use: pyav, strid: 2}", "reader.strid: 'pyav' has no such option: did you mean 'stride'"),
    ("detector.batch_size=0", "detector.batch_size: got 0"),
    ("detector.batch_size=-99999999999999999999", "detector.batch_size: got -99999999999999999999"),
    ("labels.conf=2", "labels.conf: got 2"),
    ("labels.conf=.nan", "labels.conf: got nan"),
    ("labels.conf={Pedestrain: 0.5}", "did you mean 'Pedestrian'"),
    ("labels.classes={Pedestrain: A}", "did you mean 'Pedestrian'"),
    ("labels.classes=[A]", "labels.classes: got ['A']"),
    ("labels.classes={Pedestrian: null, Vehicle: null}", "labels.classes: ignores every class of the detector"),
    ("labels.prompts={Lorry: [truck, '']}", "labels.prompts.Lorry.1: is empty, expected a name"),
    ("labels.classes={Pedestrian: ''}", "labels.classes.Pedestrian: is empty, expected a name"),
    ("labels.zones.include=[[[0, 0], [1, 1]]]", "labels.zones.include.0: got [[0, 0], [1, 1]], expected 3 or more"),
    ("labels.prompts={Lorry: truck, Van: [truck]}", "labels: prompts: 'truck' stands for 'Lorry' and 'Van'"),
    ("labels.prompts=[truck]", "labels.prompts: got ['truck'], expected a mapping"),
    ("labels.prompts={Lorry: truck}", "labels.prompts: this detector has fixed classes (Pedestrian, Vehicle"),
    ("labels.max_row_mb=.inf", "labels.max_row_mb: got inf"),
    ("labels.max_row_mb=-1", "labels.max_row_mb: got -1"),
    ("labels.instances=all", "labels.instances: got 'all'"),
    ("tracker.min_length=many", "tracker.min_length: got 'many'"),
    ("retries.attempts=0", "retries.attempts: got 0"),
    ("retries.attempts=1000000000", "retries.attempts: got 1000000000"),
    ("retries.wait_seconds=-1", "retries.wait_seconds: got -1"),
    ("retries.wait_seconds=.nan", "retries.wait_seconds: got nan"),
    ("frames=loose", "frames: got 'loose'"),
    ("sink.use=mine.py:Nowhere", "mine.py"),
    ("sink.use=mine.py:NoDetect", "lacks `write(task, info, detections)`"),
    ("classifier={use: 'mine.py:Fine'}", "detector and classifier"),
    ("on_failure.pathway=Trouble", "on_failure: "),
    ("report.gpu_hour_price=-1", "report.gpu_hour_price: got -1"),
    ("report.gpu_hour_price=2.50 USD", "report.gpu_hour_price: got '2.50 USD'"),
    ("report.price=2.5", "report.price: is not a key of the config: did you mean "),
    ("report.pictures=-1", "report.pictures: got -1"),
    ("retries.atempts=3", "retries.atempts: is not a key of the config: did you mean 'attempts'"),
    ("labels.size.min_sid_px=3", "labels.size.min_sid_px: is not a key of the config: did you mean 'min_side_px'"),
]


@pytest.mark.parametrize(("setting", "said"), VALUES)
def test_a_value_that_cannot_be(folder, setting, said, monkeypatch, capsys):
    assert said in complaint(FINE, monkeypatch, capsys, "--set", setting)


@pytest.mark.usefixtures("encord_environment")
@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ("stage: Agent, project_hash: {hash}}}\npathway: Annotate 1\n", f"no stage 'Agent': known: {AGENT}"),
        (f"stage: {ANNOTATE}, project_hash: {{hash}}}}}}\npathway: Annotate 1\n", "which only people work at"),
        (f"stage: {AGENT}, project_hash: {{hash}}}}}}\npathway: Annotate 2\n", "'Annotate 1', 'Straight to review'"),
        (f"stage: {AGENT}, project_hash: {{hash}}}}}}\n", "pathway: is missing: name the one"),
        (f"stage: {AGENT}, project_hash: nonsense}}}}\npathway: Annotate 1\n", "expected a uuid"),
        (f"stage: {AGENT}, project_hash: 00000000-0000-4000-8000-000000000000}}}}\npathway: A\n", "has no project"),
        ("project_hash: {hash}}}\npathway: Annotate 1\n", "source.stage: is missing"),
        (
            f"stage: {AGENT}, project_hash: {{hash}}}}}}\npathway: Annotate 1\non_failure: {{{{pathway: Trouble}}}}\n",
            "no pathway 'Trouble'",
        ),
        (
            f"stage: {AGENT}, project_hash: {{hash}}}}}}\npathway: Annotate 1\n"
            "labels: {{classes: {{Vehicle: Bus}}}}\n",
            "'Bus'",
        ),
    ],
)
def test_a_missing_stage_or_pathway_is_answered_with_those_that_exist(
    platform: Platform, folder, rest, said, monkeypatch, capsys, encord_key
):
    monkeypatch.setenv("ENCORD_SSH_KEY", encord_key)
    monkeypatch.setenv("ENCORD_DOMAIN", platform.server.url)
    assert said in complaint(ENCORD + rest.format(hash=platform.project.uuid), monkeypatch, capsys)
    assert platform.server.calls_of("download") == platform.server.calls_of("act_on_tasks") == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere.yaml", "there is no such config"),
        ("clips", "is a folder, expected a config; `prelabel init clips`"),
        ("clip.mp4", "is a video, expected a config; `prelabel init clip.mp4`"),
        ("photo.jpg", "is an image, expected a config"),
    ],
)
def test_what_is_no_config_is_told_apart(folder, name, said, monkeypatch, capsys):
    for media in ("clip.mp4", "photo.jpg"):
        (folder / media).touch()
    monkeypatch.setattr("sys.argv", ["prelabel", "check", name])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
