"""The commands. Each returns its exit code."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rich.markup import escape

from prelabel.assembly.assemble import Assembly, assemble, assemble_stored, assemble_without_detector
from prelabel.assembly.detectors import detector_for
from prelabel.assembly.stored import refuse_answers, without_previews
from prelabel.cli.show import (
    for_people,
    show_checks,
    show_entries,
    show_evaluation,
    show_findings,
    show_ignored_keys,
    show_paths,
    show_report,
    show_stage,
    spinner,
)
from prelabel.config.load import (
    USUAL_WEIGHTS,
    config_of_demo,
    config_of_media,
    expand_shorthands,
    lay_over,
    load_config,
    load_configs,
    parse_settings,
)
from prelabel.config.sections import Config
from prelabel.encord.connection import connect
from prelabel.errors import ConfigError, WeightsError, did_you_mean
from prelabel.files.media_files import media_kind
from prelabel.plugins.load import load_plugin
from prelabel.run.agents.make import make_agent
from prelabel.run.checks import prepare_stages, run_checks
from prelabel.run.finished import OnlyFailed, RetryBackoff, TaskFilter, every_task
from prelabel.run.passes import run_passes
from prelabel.run.placement import labelling_workers, start_workers, use_workers
from prelabel.run.serve import (
    SECRET_VARIABLE,
    NotificationReader,
    WorkSignal,
    check_installed,
    make_app,
    served_stage,
    serving,
)
from prelabel.runtime.buckets import as_written
from prelabel.runtime.files import DRY_RUN, write_text_atomically
from prelabel.runtime.interrupts import StopSignal, stop_on_signals
from prelabel.runtime.progress import show_progress, stdout_to_stderr
from prelabel.runtime.redact import hide_secrets
from prelabel.runtime.shared import Shared
from prelabel.runtime.telemetry import observers
from prelabel.store.ledger import LEDGER
from prelabel.store.report import RunReport
from prelabel.store.run_folder import RunFolder

CONFIG = Path("prelabel.yaml")
CONFIG_SUFFIXES = (".yaml", ".yml", ".json")

ALL_DONE, SOME_FAILED, NOTHING_RAN, INTERRUPTED = 0, 1, 2, 130


def run_command(
    what: Sequence[Path],
    settings: Sequence[str],
    shorthands: Mapping[str, object],
    *,
    demo: bool,
    **options: Any,
) -> int:
    """Runs a config, also on media that are named after it; or labels media without a config, or the demo's video."""
    if demo:
        if what:
            raise ConfigError(f"--demo: labels a video of its own: leave out {what[0]}, or --demo")
        return _run_configs([config_of_demo(settings, shorthands)], Path(), **options)
    if not what:
        raise ConfigError("nothing to label: name a config, a video or a folder; `prelabel run --demo` needs neither")
    configs = [path for path in what if _is_config(path)]
    if len(configs) > 1:
        raise ConfigError(f"{configs[0]}, {configs[1]}: are two configs: run one after the other")
    if not configs:
        return run_media(what, settings, shorthands, **options)
    media = [path for path in what if path not in configs]
    return run_config(configs[0], settings, {**shorthands, "path": media or None}, **options)


def run_config(
    config: Path, settings: Sequence[str] = (), shorthands: Mapping[str, object] | None = None, **options: Any
) -> int:
    """Runs the stages of a config, one after the other. For the options, see `_run_configs`."""
    return _run_configs(load_configs(config, settings, shorthands), config.parent, **options)


def run_media(
    media: Sequence[Path], settings: Sequence[str] = (), shorthands: Mapping[str, object] | None = None, **options: Any
) -> int:
    """Labels videos and images without a config, and prints the command that writes the settings as a config."""
    _refuse_unnamed_words(shorthands)
    config = config_of_media(media, settings, shorthands)
    try:
        code = _run_configs([config], Path(), **options)
    except WeightsError as error:
        if (shorthands or {}).get("weights") is None:
            raise WeightsError(f"{error}; or name weights that are here: --weights PATH") from error
        raise
    if config.agent is None:  # `prelabel init` cannot write the config of a function
        for_people().print(escape(f"to keep this as a config: {_init_command(media, settings, shorthands or {})}"))
    return code


def _run_configs(
    configs: Sequence[Config],
    folder: Path,
    *,
    limit: int | None = None,
    dry_run: bool = False,
    watch_seconds: float | None = None,
    metrics_port: int | None = None,
    page: bool = False,
) -> int:
    """Runs the stages of a config once or, with `watch_seconds`, until a stop request."""
    shared = Shared()
    assemblies = [assemble(config, folder, dry_run, shared) for config in configs]
    choose = every_task if watch_seconds is None else _retry_backoff(assemblies)
    stop = StopSignal()
    rest = None if watch_seconds is None else partial(_rest, stop, watch_seconds)
    return _run(assemblies, choose, stop, limit=limit, rest=rest, metrics_port=metrics_port, page=page)


def _rest(stop: StopSignal, seconds: float) -> bool:
    stop.wait(seconds)
    return not stop.is_set


def serve_config(
    config: Path,
    settings: Sequence[str],
    address: tuple[str, int],
    *,
    poll_seconds: float,
    idle_exit_seconds: float | None,
    metrics_port: int | None,
) -> int:
    """Runs a config's stages whenever Encord notifies that tasks are waiting."""
    check_installed()
    secret = os.environ.get(SECRET_VARIABLE)
    if not secret:
        raise ConfigError(f"{SECRET_VARIABLE} is not set: copy the signing secret from the agent stage's settings")
    shared = Shared()
    assemblies = [assemble(stage, config.parent, False, shared) for stage in load_configs(config, settings)]
    served = [served_stage(assembly) for assembly in assemblies]
    stop = StopSignal()
    signal = WorkSignal(stop, poll_seconds, idle_exit_seconds)
    with serving(make_app(NotificationReader(secret), served, signal), *address) as port:
        for_people().print(f"waiting for notifications at http://{address[0]}:{port}/; also every {poll_seconds:g} s")
        return _run(
            assemblies,
            _retry_backoff(assemblies),
            stop,
            rest=signal.wait,
            metrics_port=metrics_port,
            ready=signal.ready,
        )


def _retry_backoff(assemblies: Sequence[Assembly]) -> RetryBackoff:
    return RetryBackoff(timedelta(minutes=assemblies[0].config.retries.watch_minutes))


def _is_config(path: Path) -> bool:
    """Returns whether a file is a config, by its suffix, or for an unknown suffix by whether it is text."""
    if path.suffix.lower() in CONFIG_SUFFIXES:
        return True
    if not path.is_file() or media_kind(path) is not None:
        return False
    with path.open("rb") as file:
        start = file.read(1000)
    return b"\0" not in start


def _init_command(words: Sequence[Path], settings: Sequence[str], shorthands: Mapping[str, object]) -> str:
    """Returns the `prelabel init` command that writes the settings of a run without a config as a config."""
    classifies = any(setting.startswith("classifier") for setting in settings)
    names_model = classifies or any(setting.startswith("detector.use=") for setting in settings)
    names_model = names_model or shorthands.get("words") is not None
    given: dict[str, object] = {"classify": True} if classifies else {} if names_model else {"weights": USUAL_WEIGHTS}
    given |= {name: value for name, value in shorthands.items() if value is not None}
    for name, key in {"output": "source.output", "workers": "workers.num"}.items():
        if (value := given.pop(name, None)) is not None:
            settings = [f"{key}={as_written(Path(str(value)))}", *settings]
    command = ["prelabel", "init", *(hide_secrets(word) if "http" in word else word for word in map(as_written, words))]
    for name, value in given.items():
        command += [f"--{name}"] if value is True else [] if value is False else [f"--{name}", str(value)]
    for setting in settings:
        command += ["--set", setting]
    unused = (CONFIG, *(CONFIG.with_stem(f"{CONFIG.stem}-{number}") for number in range(2, 1000)))
    config = next(path for path in unused if not path.exists())
    return shlex.join([*command, *([] if config == CONFIG else ["--output", str(config)])])


def retry_failed(config: Path, settings: Sequence[str], named: Sequence[str]) -> int:
    """Runs a config on failed tasks: those named by title or key, or all."""
    assembly = assemble(load_config(config, settings), config.parent)
    if not assembly.store.has_ledger:
        raise _nothing_written(assembly.output)
    failed = [entry for entry in assembly.store.entries() if entry.step == "failed"]
    chosen = [entry for entry in failed if not named or {entry.title, entry.key} & set(named)]
    for name in named:
        if not any(name in (entry.title, entry.key) for entry in chosen):
            hint = did_you_mean(name, [entry.title for entry in failed]) if failed else "no task has failed"
            raise ConfigError(f"{name}: is not a failed task: {hint}")
    if not chosen:
        for_people().print("no task has failed")
        return ALL_DONE
    return _run([assembly], OnlyFailed(frozenset(entry.key for entry in chosen)), StopSignal())


def _run(
    assemblies: Sequence[Assembly],
    choose: TaskFilter,
    stop: StopSignal,
    *,
    limit: int | None = None,
    rest: Callable[[], bool] | None = None,
    metrics_port: int | None = None,
    page: bool = False,
    ready: Callable[[], None] = lambda: None,
) -> int:
    codes = [ALL_DONE]
    stages = [use_workers(assembly, len(assemblies)) for assembly in assemblies]
    with ExitStack() as stack:
        also = stack.enter_context(observers(metrics_port))
        for _, workers in stages:
            if workers is not None:
                stack.callback(workers.close)
        with spinner("loading the model, listing tasks …"), stdout_to_stderr():
            prepare_stages([assembly for assembly, _ in stages])
            for assembly, workers in stages:
                start_workers(assembly, workers)
        ready()
        with stop_on_signals(stop, lambda text: for_people().print(text, style="yellow")):
            passes = run_passes(stages, stop, choose, also, limit=limit, rest=rest, page=page)
            for assembly, report in passes:
                if len(assemblies) > 1:
                    show_stage(assembly.stage)
                show_report(report)
                _show_bucket(assembly, report)
                codes.append(_exit_code(report))
    return INTERRUPTED if stop.is_set and rest is None else max(codes)


def relabel_kept(
    config: Path, settings: Sequence[str], *, dry_run: bool = False, num_workers: int | None = None
) -> int:
    """Labels the stored detections of earlier runs with the current config, in so many workers if a number is given."""
    loaded = load_config(config, settings)
    refuse_answers(loaded, "prelabel run applies another threshold or class map, and classifies nothing again")
    assembly = assemble_stored(without_previews(loaded), config.parent, dry_run)
    make_agent(assembly).prepare()
    stop = StopSignal()
    with ExitStack() as stack:
        workers = None
        if num_workers is not None:
            workers = labelling_workers(assembly, num_workers)
            stack.callback(workers.close)
            with spinner("starting workers …"), stdout_to_stderr():
                start_workers(assembly, workers)
        ((_, report),) = run_passes([(assembly, workers)], stop, every_task, ())
    show_report(report)
    _show_bucket(assembly, report)
    show_ignored_keys(assembly.ignored_keys)
    return INTERRUPTED if stop.is_set else _exit_code(report)


def _show_bucket(assembly: Assembly, report: RunReport) -> None:
    if assembly.store.bucket is not None and not report.unwritten:
        for_people().print(escape(f"uploaded to {assembly.store.bucket}"))


def _exit_code(report: RunReport) -> int:
    if report.aborted and not report.tasks:
        return NOTHING_RAN
    return SOME_FAILED if report.failed or report.aborted or report.unwritten else ALL_DONE


def check_config_file(config: Path, settings: Sequence[str]) -> int:
    """Shows the results of all checks before the first frame."""
    shared, passed = Shared(), []
    assemblies = [assemble(stage, config.parent, shared=shared) for stage in load_configs(config, settings)]
    for assembly in assemblies:
        with spinner("loading the model, listing tasks …"):
            checks = run_checks(assembly)
        if len(assemblies) > 1:
            show_stage(assembly.stage)
        show_checks(checks)
        passed += [check.passed for check in checks]
    return ALL_DONE if all(passed) else NOTHING_RAN


def examine_machine() -> int:
    """Shows what this machine has and lacks."""
    from prelabel.cli.doctor import examine, has_blocking

    with spinner("trying each decoder and device in a separate process …"):
        findings = examine()
    show_findings(findings)
    return NOTHING_RAN if has_blocking(findings) else ALL_DONE


def show_status(where: Path) -> int:
    """Shows the tasks of a config's runs, or of all runs below a folder. The exit code is 1 if a task failed."""
    roots = [config.source.run_folder for config in load_configs(where)] if where.is_file() else [where]
    paths = (path for root in roots if root.is_dir() for path in root.rglob(str(LEDGER)))
    outputs = sorted(path.parent.parent for path in paths if path.parent.parent.name != DRY_RUN)
    if not outputs:
        raise _nothing_written(roots[0])
    failed = False
    for output in outputs:
        entries = RunFolder(output).entries()
        show_entries(output, entries)
        failed = failed or any(entry.step == "failed" for entry in entries)
    return SOME_FAILED if failed else ALL_DONE


_PICTURES: Mapping[str, Literal["clip", "sheet", "both"]] = {
    "clip": "clip",
    "sheet": "sheet",
    "both": "both",
    "all": "both",
}
"""The pictures to draw for each `--kind` but `report`."""


def draw_previews(
    config: Path, settings: Sequence[str], titles: Sequence[str], kind: str, *, dry_run: bool = False
) -> int:
    """Draws the labels of an earlier run, and writes a page about the run."""
    from prelabel.reports.previews import preview_run
    from prelabel.reports.run_page import write_run_report

    loaded = load_config(config, settings)
    pictures = _PICTURES.get(kind)
    if pictures is None and kind != "report":
        raise ConfigError(f"--kind: got {kind!r}, expected {' | '.join((*_PICTURES, 'report'))}")
    if pictures is not None:
        refuse_answers(loaded, "--kind report shows images with their answers")
    assembly = assemble_without_detector(loaded, config.parent, dry_run)
    paths: list[Path] = []
    if pictures is not None:
        with show_progress() as progress:
            paths += preview_run(assembly, titles, pictures, progress)
    if kind in ("report", "all"):
        paths.append(page := assembly.output / "report.html")
        with show_progress() as progress:
            write_run_report(assembly, RunReport.read(assembly.output / "report.json"), page, progress)
    assembly.store.publish(paths)
    show_paths(paths)
    return ALL_DONE


def export_labels(
    config: Path,
    settings: Sequence[str],
    format: str,
    target: Path,
    *,
    frames: str | None = None,
    dry_run: bool = False,
) -> int:
    """Writes the labels of an earlier run in another format."""
    from prelabel.export.export import export_run

    loaded = load_config(config, settings)
    refuse_answers(loaded, "answers are in classifications.csv, and in the label rows")
    assembly = assemble_without_detector(loaded, config.parent, dry_run)
    notes: list[str] = []
    show_paths(export_run(assembly, format, target, frames=frames, tell=notes.append))
    for note in notes:
        for_people().print(f"[yellow]note[/] {escape(note)}")
    show_ignored_keys(assembly.ignored_keys)
    return ALL_DONE


def evaluate_labels(
    config: Path,
    settings: Sequence[str],
    *,
    against: Path | None,
    stages: Sequence[str],
    min_iou: float,
    accept_iou: float,
) -> int:
    """Compares the labels that runs wrote with the current labels."""
    from prelabel.evaluate.evaluate import EvaluateOptions, evaluate_run
    from prelabel.reports.evaluation_page import write_evaluation_page

    loaded = load_config(config, settings)
    refuse_answers(loaded, "the page of a run shows images with their answers: prelabel preview --kind report")
    asked = EvaluateOptions(against, tuple(stages), min_iou, accept_iou)
    assembly = assemble_without_detector(loaded, config.parent)
    with spinner("reading the labels, comparing …"):
        evaluation = evaluate_run(assembly, asked)
        path, page = assembly.output / "evaluation.json", assembly.output / "evaluation.html"
        evaluation.write(path)
        write_evaluation_page(assembly, evaluation, page)
        assembly.store.publish([path, page])
    show_evaluation(evaluation)
    show_paths([path, page])
    return ALL_DONE


def _refuse_unnamed_words(shorthands: Mapping[str, object] | None) -> None:
    """Raises an error for `--words` without a word: only an ontology could name them."""
    if (shorthands or {}).get("words") == "":
        raise ConfigError("--words: files on this machine have no ontology: name words: --words 'forklift, pallet'")


def write_config(
    media: Sequence[Path],
    project: str | None = None,
    stage: str | None = None,
    settings: Sequence[str] = (),
    shorthands: Mapping[str, object] | None = None,
    *,
    output: Path = CONFIG,
    classify: bool = False,
) -> int:
    """Writes a commented config for media or a project. It never replaces a file."""
    from prelabel.cli.init.draft import config_for_media, config_for_project

    if bool(media) == (project is not None):
        got = "got both" if media else "name what to label"
        raise ConfigError(f"init: {got}: VIDEO|FOLDER|GLOB or --project HASH, expected one of them")
    if output.exists():
        raise ConfigError(f"{output}: exists already; name another file with --output")
    words = (shorthands or {}).get("words")
    if words is not None and classify:
        raise ConfigError("--words and --classify: words are for boxes: leave one out")
    if project is None:
        _refuse_unnamed_words(shorthands)
    values: dict[str, Any] = {}
    lay_over(values, expand_shorthands(shorthands or {}, "classifier" if classify else "detector"))
    lay_over(values, parse_settings(settings))
    if project is None:
        config_of_media(media)  # raises an error if one of the paths does not exist
        text = config_for_media(media, values, output, classify=classify)
    else:
        connected = connect(project, os.environ.get("ENCORD_DOMAIN"))
        text = config_for_project(connected, values, output, stage=stage, classify=classify, by_words=words is not None)
    write_text_atomically(output, text)
    for_people().print(escape(f"wrote {output}; look it over, then: prelabel check {output}"))
    return ALL_DONE


def build_engine(weights: str, options: Mapping[str, object]) -> int:
    """Builds an engine for a model, unless it is cached. The exit code is 1 if the model would run in torch."""
    from prelabel.models.engines import engines_folder

    plugin = load_plugin("detector", detector_for({"weights": weights}), Path())
    with spinner("building the engine; TensorRT takes minutes …"):
        detector = plugin.build(options={"weights": weights, **options})
    for warning in detector.warnings:
        for_people().print(escape(warning), style="yellow")
    if detector.warnings:
        return SOME_FAILED
    model, engine = detector.traits.model, detector.traits.model.engine.partition(" ")[0]
    for_people().print(escape(f"{model.name} runs in {model.engine}"))
    if engine != "torch":
        for_people().print(escape(f"kept below {engines_folder()}; a config uses it by detector: {{engine: {engine}}}"))
    return ALL_DONE


def _nothing_written(output: Path) -> ConfigError:
    return ConfigError(f"{output}: no run has written here yet; `prelabel run CONFIG` does")
