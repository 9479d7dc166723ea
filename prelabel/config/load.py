"""Reads a config from YAML, `--set` and command-line options. An error names the key and suggests the nearest one."""

from __future__ import annotations

import glob
import mimetypes
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from prelabel.config.sections import AGENT_SECTIONS, Config
from prelabel.errors import ConfigError, PluginError, did_you_mean
from prelabel.plugins.load import describe_first
from prelabel.runtime.files import safe_name
from prelabel.runtime.yaml_files import parse_yaml, read_yaml, written_text

MODEL = "model"
"""In `SHORTHANDS`, the section `detector` or `classifier`."""
SHORTHANDS = {
    "weights": "model.weights",
    "conf": "model.conf",
    "classes": "model.only",
    "words": "detector.words",
    "device": "model.device",
    "tracks": "labels.instances",
    "stride": "reader.stride",
    "output": "source.output",
    "workers": "workers.num",
    "path": "source.path",
}


WORDS_WEIGHTS = "IDEA-Research/grounding-dino-tiny"
"""Weights for `--words`: Grounding DINO's smallest model."""
WORDS_NMS_IOU = 0.7


def expand_shorthands(
    given: Mapping[str, object], model_section: str, config: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Returns the config values that command-line options set, by dotted key.

    Args:
        given: values by the option's name; None: the option was not given.
        model_section: `detector` or `classifier`.
        config: the sections in the file, if there is one.

    >>> expand_shorthands({"conf": 0.4, "tracks": True, "stride": None, "classes": "car,7"}, "detector")
    {'detector.conf': 0.4, 'labels.instances': 'tracks', 'detector.only': ['car', 7]}
    """
    settings = {} if given.get("words") is None else _settings_of_words(config or {}, given.get("weights"))
    for name, value in given.items():
        if value is None or value is False or (name, value) == ("words", ""):  # then the ontology names the words
            continue
        key = SHORTHANDS[name].replace(MODEL, model_section)
        if key == "classifier.only":  # a classifier drops no boxes: it chooses among these classes
            key = "classifier.classes"
        settings[key] = _value_of(name, value)
    return settings


def _settings_of_words(config: Mapping[str, Any], weights: object) -> dict[str, Any]:
    """Returns what `--words` sets in addition to the words, unless the file or `--weights` says it: a model for words.

    A .pt file that the command line names may be YOLOE or YOLO-World, which Ultralytics loads.
    """
    detector, labels = config.get("detector") or {}, config.get("labels") or {}
    settings: dict[str, Any] = {}
    if str(weights).endswith(".pt"):
        settings["detector.use"] = "ultralytics"
    elif detector.get("use") in (None, "ultralytics", "torchvision") and "words" not in detector:
        settings |= {"detector.use": "transformers", "detector.weights": WORDS_WEIGHTS}
    if "nms_iou" not in labels:  # different words may find one thing
        settings["labels.nms_iou"] = WORDS_NMS_IOU
    return settings


def _value_of(name: str, value: object) -> object:
    words = [word.strip() for word in str(value).split(",") if word.strip()]
    match name:
        case "tracks":
            return "tracks"
        case "words":
            if not words:
                raise ConfigError("--words: names nothing to look for, expected words: --words 'forklift, pallet'")
            return words
        case "classes":  # numbers are ids, everything else is a name
            if not words:
                raise ConfigError("--classes: names no class, expected names or ids: --classes person,car")
            return [int(word) if word.isdecimal() else word for word in words]
        case "path" if isinstance(value, list):
            return str(value[0]) if len(value) == 1 else [str(each) for each in value]
        case "output":
            return str(value)
    return value


STAGES, STAGE = "stages", "stage"
USUAL_WEIGHTS = "yolo11n"
"""Weights for a run without a config. The demo's weights do not fit, since they detect only painted shapes."""
_ALTERNATIVES = (AGENT_SECTIONS, ("pathway", "routing"))
"""A config has one section of each group. A stage's own section replaces the one for all stages."""


def split_stages(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the values of one config per stage: the common sections, replaced by the stage's own.

    A config without `stages` is returned unchanged. If `stage` is set too, only that stage is returned.

    Args:
        values: sections by name, as written in the config.

    Raises:
        ConfigError: the stages are not a list of sections, two have the same name, or none has the name in `stage`.

    >>> [first, second] = split_stages({
    ...     "source": {"output": "out"}, "detector": {"weights": "demo"},
    ...     "stages": [{"stage": "A"}, {"stage": "B", "agent": {"use": "mine.py:f"}}],
    ... })
    >>> first["source"], second["source"], "detector" in second
    ({'output': 'out/A', 'stage': 'A'}, {'output': 'out/B', 'stage': 'B'}, False)
    """
    if STAGES not in values:
        return [dict(values)]
    entries = values[STAGES]
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{STAGES}: got {entries!r:.60}, expected a list: - {{stage: …, detector: …, pathway: …}}")
    names = [_name_of(entry, place) for place, entry in enumerate(entries)]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise ConfigError(f"{STAGES}: {repeated!r} occurs {names.count(repeated)} times: name each stage once")
    common = {key: value for key, value in values.items() if key not in (STAGES, STAGE)}
    chosen = written_text(values.get(STAGE, "")) or ""
    if STAGE in values and chosen not in names:
        raise ConfigError(f"{STAGE}: {chosen!r} is not a stage of this config: {did_you_mean(chosen, names)}")
    wanted = [chosen] if STAGE in values else names
    return [_merged(common, entry) for entry, name in zip(entries, names, strict=True) if name in wanted]


def _name_of(entry: object, place: int) -> str:
    where = f"{STAGES}.{place}"
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where}: got {entry!r:.60}, expected sections: stage, detector, pathway, …")
    name = written_text(entry.get(STAGE))
    if not name:
        raise ConfigError(
            f"{where}.{STAGE}: got {entry.get(STAGE)!r:.60}, expected the title or uuid of an agent stage"
        )
    known = [STAGE, *(key for key in Config.model_fields if key != "source")]
    for key in entry:
        if key not in known:
            hint = "it is the same for all stages" if key == "source" else did_you_mean(str(key), known)
            raise ConfigError(f"{where}.{key}: is not a key of a stage: {hint}")
    return name


def _merged(common: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    left_out = {key for keys in _ALTERNATIVES if entry.keys() & set(keys) for key in keys}
    sections = {key: value for key, value in common.items() if key not in left_out}
    source = common.get("source")
    source = dict(source) if isinstance(source, Mapping) else {}
    if source.get("use", "encord") != "encord" or "path" in source:
        raise ConfigError(f"{STAGES}: only an Encord workflow has stages, and the source is another one")
    if STAGE in source:
        raise ConfigError(f"source.{STAGE}: remove it: each of the {STAGES} has its own")
    name = str(written_text(entry[STAGE]))
    source |= {STAGE: name, "output": str(Path(str(source.get("output", "out"))) / safe_name(name.replace("/", "_")))}
    return {**sections, **{key: value for key, value in entry.items() if key != STAGE}, "source": source}


def load_config(path: Path, settings: Sequence[str] = ()) -> Config:
    """Returns the config of a file with one stage; see `load_configs`. `--set stage=…` selects one of several.

    Raises:
        ConfigError: the first mistake, or the file has several stages and none is selected.
    """
    configs = load_configs(path, settings)
    if len(configs) > 1:
        names = [config.source.stage_name for config in configs]
        raise ConfigError(
            f"{path}: has {len(names)} stages, {', '.join(map(repr, names))}: choose one: --set 'stage={names[0]}'"
        )
    return configs[0]


def load_configs(
    path: Path, settings: Sequence[str] = (), shorthands: Mapping[str, object] | None = None
) -> list[Config]:
    """Returns the configs of a file, one per stage. Settings replace the values for all stages.

    Relative paths are resolved in the working directory. If nothing is there, they are resolved in the config's folder.
    `~` is the user's home.

    Args:
        path: a YAML file.
        settings: values of `--set`: a dotted key and a YAML value, such as `detector.conf=0.4`.
        shorthands: values of command-line options by name; `settings` override them.

    Raises:
        ConfigError: the first mistake. The message names the file, the key, the value and what is expected.
    """
    values = _read_sections(path)
    model_section = "classifier" if "classifier" in values else "detector"
    lay_over(values, expand_shorthands(shorthands or {}, model_section, values) | parse_settings(settings))
    try:
        stages = split_stages(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    for stage in stages:
        _anchor_paths(stage, path.parent)
    if len(stages) == 1:
        return [check_config(stages[0], str(path), path.parent)]
    return [check_config(stage, f"{path}, stage {stage['source']['stage']!r}", path.parent) for stage in stages]


def config_of_media(
    paths: Sequence[Path], settings: Sequence[str] = (), shorthands: Mapping[str, object] | None = None
) -> Config:
    """Returns a config for media without a config file: a detector with default weights, changed by the options.

    Args:
        paths: files, folders or globs.
        settings: values of `--set`.
        shorthands: values of command-line options by name.

    Raises:
        ConfigError: a path does not exist, or the first mistake in an option.
    """
    for path in paths:
        if not _leads_somewhere(path) and ":/" not in str(path):  # for a URL, the source section raises a better error
            raise ConfigError(f"{path}: there is no such config, file or folder")
    named = [str(path) for path in paths]
    values: dict[str, Any] = {"source": {"use": "folder", "path": named[0] if len(named) == 1 else named}}
    laid_over = expand_shorthands(shorthands or {}, "detector") | parse_settings(settings)
    lay_over(values, laid_over)
    if not any(section in values for section in ("classifier", "agent")):
        values["detector"] = {"weights": USUAL_WEIGHTS, **values.get("detector", {})}
        if "use" in values["detector"] and "detector.weights" not in laid_over:
            del values["detector"]["weights"]  # another detector may need other weights, or none
    return check_config(values, "command line")


def config_of_demo(settings: Sequence[str] = (), shorthands: Mapping[str, object] | None = None) -> Config:
    """Returns the config of the demo, changed by the options; see `config_of_media`."""
    values: dict[str, Any] = {"source": {"use": "demo"}, "detector": {"weights": "demo"}}
    lay_over(values, expand_shorthands(shorthands or {}, "detector") | parse_settings(settings))
    return check_config(values, "command line")


def check_config(values: Mapping[str, Any], name: str, folder: Path = Path()) -> Config:
    """Returns the config for plain values.

    Args:
        values: sections by name.
        name: the config's name in errors.
        folder: the config's folder, which the path of a source's plug-in file is relative to.

    Raises:
        ConfigError: the first mistake.
    """
    try:
        return Config.model_validate(values, context={"folder": folder})
    except (ConfigError, PluginError) as error:
        raise ConfigError(f"{name}: {error}") from None
    except ValidationError as error:
        raise ConfigError(f"{name}: {_describe(error)}") from error


def _read_sections(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise ConfigError(f"{path}: there is no such config; `prelabel init` writes one")
    family = (mimetypes.guess_type(path.name)[0] or "").partition("/")[0]
    kind = "a folder" if path.is_dir() else {"video": "a video", "image": "an image"}.get(family)
    if kind is not None:
        raise ConfigError(f"{path}: is {kind}, expected a config; `prelabel init {path}` writes one")
    values = read_yaml(path, ConfigError)
    if not isinstance(values, dict):
        got = "nothing" if values is None else "a list" if isinstance(values, list) else "text without a key"
        raise ConfigError(f"{path}: got {got}, expected sections: source, detector, …")
    return {key: value for key, value in values.items() if value is not None or key not in _MAY_BE_EMPTY}


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Returns the values of `--set key=value`, by dotted key.

    Raises:
        ConfigError: a setting has no `=`, or its value is not YAML.
    """
    parsed: dict[str, Any] = {}
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"--set {setting}: expected key=value, such as detector.conf=0.4")
        try:
            parsed[key.strip()] = parse_yaml(text)
        except ValueError as error:
            raise ConfigError(f"--set {setting}: the value is not YAML: {error}") from error
    return parsed


def lay_over(values: dict[str, Any], settings: Mapping[str, Any]) -> None:
    """Sets values by their dotted keys, in order, and creates missing sections."""
    for key, value in settings.items():
        *sections, last = key.split(".")
        place = values
        for name in sections:
            inner = place.get(name)
            place[name] = place = dict(inner) if isinstance(inner, dict) else {}
        place[last] = value


_MAY_BE_EMPTY = ("reader", "labels", "tracker", "retries", "on_failure", "report")
"""These sections may have only commented-out keys, and then count as missing."""
_PATH_KEYS = (
    ("source", "path"),
    ("source", "ontology"),
    ("source", "truth"),
    ("detector", "weights"),
    ("classifier", "weights"),
)
_OUTPUT = ("source", "output")


def _anchor_paths(values: dict[str, Any], folder: Path) -> None:
    for section, key in (*_PATH_KEYS, _OUTPUT):
        inner = values.get(section)
        if not isinstance(inner, dict):
            continue
        path = inner.get(key)
        stays = (section, key) == _OUTPUT
        if isinstance(path, str):
            values[section] = {**inner, key: _anchored(path, folder, stays=stays)}
        elif isinstance(path, list):
            anchored = [_anchored(each, folder, stays=stays) if isinstance(each, str) else each for each in path]
            values[section] = {**inner, key: anchored}


def _anchored(path: str, folder: Path, *, stays: bool) -> str:
    """Returns a path itself, or the path in the config's folder if it exists only there and `stays` is not set."""
    here = path
    if path.startswith("~"):
        with suppress(RuntimeError):  # there is no such user
            here = str(Path(path).expanduser())
    is_elsewhere = not stays and not _leads_somewhere(Path(here)) and _leads_somewhere(folder / here)
    return str(folder / here) if is_elsewhere else here


def _leads_somewhere(path: Path) -> bool:
    return path.exists() or next(glob.iglob(str(path), recursive=True), None) is not None


def _describe(error: ValidationError) -> str:
    """Describes the first error. Unknown keys come first, since they often explain why another key is missing."""
    errors = error.errors(include_url=False)
    unknown = next((entry for entry in errors if entry["type"] in ("extra_forbidden", "invalid_key")), None)
    if unknown is None:
        return describe_first(error)
    location = [str(part) for part in unknown["loc"]]
    hint = did_you_mean(location[-1], _known_keys(unknown["loc"]))
    return f"{'.'.join(location)}: is not a key of the config: {hint}"


def _known_keys(location: Sequence[int | str]) -> list[str]:
    """Returns the valid keys of the section that a location is in."""
    model: type[BaseModel] = Config
    for part in location[:-1]:
        field = model.model_fields.get(str(part))
        model = (field and _model_in(field.annotation)) or model
    return list(model.model_fields)


def _model_in(annotation: object) -> type[BaseModel] | None:
    """Returns the section class in an annotation such as `tuple[RuleSection, ...]`; None if there is none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)
