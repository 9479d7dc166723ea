from __future__ import annotations

from pathlib import Path

import pytest

from prelabel.config.load import WORDS_WEIGHTS, load_config, load_configs
from prelabel.errors import ConfigError

SMALL = "source: {path: clips}\ndetector: {use: torchvision, weights: demo}\n"


@pytest.fixture
def write(tmp_path):
    def write(text: str = SMALL) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return path

    return write


def test_a_small_config_is_filled_with_defaults(write):
    config = load_config(write())
    assert config.source.use == "folder"
    assert (config.reader.use, config.reader.stride, config.detector.batch_size) == ("auto", 1, "auto")
    assert config.labels.unmapped == "ignore"


def test_settings_are_laid_over_the_file(write):
    config = load_config(
        write(), ["detector.conf=0.4", "labels.classes={car: Vehicle, dog: null}", "source.path=my.mp4"]
    )
    assert config.detector.options["conf"] == 0.4
    assert config.labels.classes == {"car": "Vehicle", "dog": None}
    assert config.source.path == Path("my.mp4")


def test_a_path_that_lies_beside_the_config_is_found_there(write, tmp_path, monkeypatch):
    (tmp_path / "clips").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_config(write()).source.path == tmp_path / "clips"


def test_a_glob_is_looked_up_beside_the_config_too(write, tmp_path, monkeypatch):
    for name in ("clips", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "clips" / "a.mp4").touch()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_config(write(), ["source.path=clips/*.mp4"]).source.path == tmp_path / "clips" / "*.mp4"


def test_a_tilde_is_the_home_of_whoever_runs_it(write, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    config = load_config(write(), ["source.path=~/clips", "source.output=~/out", "detector.weights=~/best.pt"])
    assert (config.source.path, config.source.output) == (tmp_path / "me/clips", tmp_path / "me/out")
    assert config.detector.options["weights"] == str(tmp_path / "me/best.pt")


def test_outputs_are_written_below_the_working_directory_whatever_lies_beside_the_config(write, tmp_path, monkeypatch):
    for name in ("out", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_config(write()).source.output == Path("out")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (["sourc.path=x"], r"config\.yaml: sourc: is not a key of the config: did you mean 'source'"),
        (["source.pth=x"], r"source\.pth: .*did you mean 'path'"),
        (["labels.clases={}"], r"labels\.clases: .*did you mean 'classes'"),
        (["detector.batch_size=0"], r"detector\.batch_size: got 0, expected 1 or more"),
        (["detector.batch_size=many"], r"detector\.batch_size: got 'many'"),
        (["labels.conf={Car: 7}"], r"labels\.conf\.Car: got 7, expected 1 or less"),
        (["reader.stride=0"], r"reader\.stride: got 0, expected 1 or more"),
        (["reader.device=gpu"], r"reader\.device: got 'gpu'"),
        (["reader.frame_ranges=[[5, 2]]"], r"frame_ranges: got \[5, 2\]"),
        (["reader.decode_workers=0"], r"reader\.decode_workers: got 0, expected 1 or more"),
        (
            ["reader.use=mine.py:Mine", "reader.decode_workers=2"],
            r"reader: decode_workers: got 2, but 'mine\.py:Mine' reads from",
        ),
        (["labels.zones.include=[0.5]"], r"labels\.zones\.include\.0: got 0\.5, expected a list"),
        (["labels.instances=none"], r"labels\.instances: got 'none', expected"),
        (["source.use=floder"], "did you mean 'folder'"),
        (["detector=null"], r"detector: is missing: add it, or one of classifier"),
        (["classifier={use: torchvision}"], r"detector and classifier: a config has one of them"),
        (["detector=null", "classifier={batch_size: 0}"], r"classifier\.batch_size: got 0"),
        (["detector=null", "classifier={}", "labels.instances=tracks"], r"labels\.instances: is for boxes"),
        (["detector=null", "classifier={}", "sink={use: mine.py:Sink}"], r"sink: is for boxes"),
        (["detector=null", "classifier={}", "source.preview=clip"], r"source\.preview: is for boxes"),
        (["detector=null", "classifier={}", "source.truth=a.json"], r"source\.truth: is for boxes"),
        (["detector=null", "classifier={}", "source={use: demo, preview: none}"], r"source\.use: is for boxes"),
        (["detector=null", "classifier={conf: 2}"], r"classifier\.conf: got 2"),
        (
            ["routing=[{when: cuont > 3, pathway: A}, {otherwise: B}]"],
            r"routing\.0: 'cuont > 3', column 1: unknown word",
        ),
        (["detector=null", "classifier={}", "routing={Cat: A}"], r"routing: otherwise is missing"),
        (["detector=null", "classifier={}", "routing={otherwise: A}", "pathway=B"], r"pathway and routing: both"),
        (["source={stage: A}"], "ENCORD_PROJECT_HASH"),
        (["source={stage: A, project_hash: b}"], "pathway: is missing"),
        (["frames=maybe"], r"frames: got 'maybe', expected 'strict' or 'warn'"),
        (["conf"], "expected key=value"),
        (["detector.conf=[1"], "is not YAML"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(write, settings, complaint, monkeypatch):
    monkeypatch.delenv("ENCORD_PROJECT_HASH", raising=False)
    with pytest.raises(ConfigError, match=complaint) as caught:
        load_config(write(), settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: [", "is not YAML"),
        ("- 1", "got a list, expected sections"),
        ("", "got nothing, expected sections"),
        ("source: {path: a, path: b}", "the key 'path' occurs twice"),
        ("source: !!python/object/apply:os.system ['true']", "is not YAML"),
        ("source: {path: a}", "detector: is missing"),
    ],
)
def test_a_file_that_is_no_config_is_named(write, text, complaint):
    with pytest.raises(ConfigError, match=complaint):
        load_config(write(text))


def test_a_missing_config_says_how_to_get_one(tmp_path):
    with pytest.raises(ConfigError, match="prelabel init"):
        load_config(tmp_path / "none.yaml")


def test_the_project_may_come_from_the_environment(write, monkeypatch):
    monkeypatch.setenv("ENCORD_PROJECT_HASH", "from-env")
    monkeypatch.setenv("ENCORD_DOMAIN", "http://127.0.0.1:1")
    text = "source: {stage: Agent}\ndetector: {weights: demo}\npathway: Annotate 1\n"
    source = load_config(write(text)).source
    assert (source.use, source.project_hash, source.domain) == ("encord", "from-env", "http://127.0.0.1:1")


def test_words_choose_a_model_that_takes_them(write):
    config = load_configs(write(), (), {"words": "fork lift, pallet"})[0]
    assert config.detector.use == "transformers"
    assert config.detector.options["words"] == ["fork lift", "pallet"]
    assert config.detector.options["weights"] == WORDS_WEIGHTS
    assert config.labels.nms_iou == 0.7


def test_words_go_to_a_checkpoint_that_the_command_line_names(write):
    config = load_configs(write(), (), {"words": "pallet", "weights": "yoloe-11s.pt"})[0]
    assert config.detector.use == "ultralytics"
    assert config.detector.options == {"weights": "yoloe-11s.pt", "words": ["pallet"]}


def test_words_leave_the_model_and_the_overlap_that_the_file_names(write):
    text = "source: {path: a.mp4}\ndetector: {use: transformers, weights: here}\nlabels: {nms_iou: 0.9}\n"
    config = load_configs(write(text), (), {"words": "pallet"})[0]
    assert config.detector.options == {"weights": "here", "words": ["pallet"]}
    assert config.labels.nms_iou == 0.9


def test_prompts_may_be_one_word_several_or_none(write):
    labels = load_config(write(), ["labels.prompts={Lorry: truck, Van: [van, delivery van], Sign: null}"]).labels
    assert labels.prompts == {"Lorry": ("truck",), "Van": ("van", "delivery van"), "Sign": ()}


def test_numbers_may_name_classes(write):
    assert load_config(write(), ["labels.classes={0: Person}"]).labels.classes == {"0": "Person"}


def test_an_unknown_key_within_a_rule_is_met_with_the_rules_own_keys(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("source: {path: x}\ndetector: {weights: demo}\n")
    with pytest.raises(ConfigError, match=r"labels\.zones\.exlude: is not a key of the config: did you mean 'exclude'"):
        load_config(path, ["labels.zones.exlude=[]"])
