"""The command line. Exit code 0 means that all tasks are done, 1 that some failed, 2 that nothing ran."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from prelabel import __version__
from prelabel.cli.show import spinner
from prelabel.errors import PrelabelError, SetupError
from prelabel.runtime.process_settings import set_up_process
from prelabel.runtime.redact import hide_secrets, redact

app = typer.Typer(
    name="prelabel",
    help="Labels videos and images before annotators do: files on this machine, or tasks of an Encord workflow.",
    epilog="Start here: prelabel run --demo needs no account, no GPU and no videos.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

MetricsPort = Annotated[
    int | None,
    typer.Option(min=1, max=65535, metavar="PORT", envvar="PRELABEL_METRICS_PORT", help="serve Prometheus metrics"),
]
ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="a YAML config; `prelabel init` writes one")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="set a value of the config, e.g. detector.conf=0.4; repeatable"),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="write labels to files; save and move nothing on the platform")]

MODEL, LABELS = "Model", "Labels"
Weights = Annotated[
    str | None,
    typer.Option(metavar="WEIGHTS", help="model card, path or URL; sets detector.weights", rich_help_panel=MODEL),
]
Conf = Annotated[
    float | None,
    typer.Option(
        min=0, max=1, metavar="NUMBER", help="least confidence of a label; sets detector.conf", rich_help_panel=MODEL
    ),
]
Classes = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,…", help="find these classes only, by name or id; sets detector.only", rich_help_panel=MODEL
    ),
]
Words = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,…",
        help="look for these words with an open-vocabulary model; sets detector.words",
        rich_help_panel=MODEL,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="DEVICE", help="auto | cpu | cuda | cuda:N | mps; sets detector.device", rich_help_panel=MODEL
    ),
]
Tracks = Annotated[
    bool,
    typer.Option(
        "--tracks", help="one object instance per thing, over its frames; sets labels.instances", rich_help_panel=LABELS
    ),
]
Stride = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="look at every Nth frame; sets reader.stride", rich_help_panel=LABELS),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="run the model in N processes, one per GPU, on Ray; sets workers.num"),
]
OfDryRun = Annotated[bool, typer.Option("--dry-run", help="use the results of the last dry run")]


@app.command(epilog="Example: prelabel run clips/ --weights yolo11n --tracks")
def run(
    what: Annotated[
        list[Path] | None,
        typer.Argument(metavar="CONFIG|VIDEO|FOLDER|GLOB", help="a YAML config, or the videos and images themselves"),
    ] = None,
    settings: Settings = None,
    weights: Weights = None,
    conf: Conf = None,
    classes: Classes = None,
    words: Words = None,
    device: Device = None,
    stride: Stride = None,
    *,
    tracks: Tracks = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="where results go; sets source.output"),
    ] = None,
    workers: Workers = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="work on at most N tasks")] = None,
    dry_run: DryRun = False,
    watch: Annotated[
        float | None, typer.Option(min=1, metavar="SECONDS", help="keep running: look for new tasks this often")
    ] = None,
    metrics_port: MetricsPort = None,
    report: Annotated[bool, typer.Option("--report", help="write report.html next to report.json")] = False,
    demo: Annotated[bool, typer.Option("--demo", help="label the video that comes with prelabel")] = False,
) -> None:
    """Label videos and images: tasks of an Encord stage, or files on this machine.

    The same command continues an interrupted run. Ctrl-C stops after the tasks that are being worked on, a second one
    after the current batch, a third one at once.
    """
    with spinner("starting …"):
        from prelabel.cli.commands import run_command

    shorthands = dict[str, object](
        weights=weights, conf=conf, classes=classes, words=words, device=device, tracks=tracks, stride=stride
    )
    code = run_command(
        what or (),
        settings or (),
        {**shorthands, "output": output, "workers": workers},
        demo=demo,
        limit=limit,
        dry_run=dry_run,
        watch_seconds=watch,
        metrics_port=metrics_port,
        page=report,
    )
    raise typer.Exit(code)


@app.command(epilog="Example: prelabel serve prelabel.yaml --port 8080 --idle-exit 600")
def serve(
    config: ConfigPath,
    settings: Settings = None,
    *,
    host: Annotated[str, typer.Option(metavar="HOST", help="address to listen on")] = "0.0.0.0",
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="PORT", help="0: any that is free")] = 8080,
    poll: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="also look this often, since a notification may be lost")
    ] = 600,
    idle_exit: Annotated[
        float | None, typer.Option(min=1, metavar="SECONDS", help="end after this long without a notification")
    ] = None,
    metrics_port: MetricsPort = None,
) -> None:
    """Label tasks when Encord notifies that they are waiting at the stage.

    Point the stage's notifications at http://HOST:PORT/ and set ENCORD_WEBHOOK_SECRET to its signing secret. /health
    and /ready answer probes.
    """
    from prelabel.cli.commands import serve_config

    code = serve_config(
        config,
        settings or (),
        (host, port),
        poll_seconds=poll,
        idle_exit_seconds=idle_exit,
        metrics_port=metrics_port,
    )
    raise typer.Exit(code)


@app.command(epilog="Example: prelabel retry prelabel.yaml day1/a.mp4")
def retry(
    config: ConfigPath,
    tasks: Annotated[
        list[str] | None, typer.Argument(metavar="[TASK]...", help="titles or keys; default: all failed tasks")
    ] = None,
    settings: Settings = None,
) -> None:
    """Retry failed tasks; `status` lists them with their reasons."""
    from prelabel.cli.commands import retry_failed

    raise typer.Exit(retry_failed(config, settings or (), tasks or ()))


@app.command(epilog="Example: prelabel check prelabel.yaml --set detector.weights=yolo11m")
def check(config: ConfigPath, settings: Settings = None) -> None:
    """Find what is wrong before the first frame: key, project, stage, pathway, classes, weights, decoder, GPU."""
    from prelabel.cli.commands import check_config_file

    raise typer.Exit(check_config_file(config, settings or ()))


@app.command(epilog="Example: prelabel relabel prelabel.yaml --set detector.conf=0.4")
def relabel(
    config: ConfigPath,
    settings: Settings = None,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="label in N processes on Ray; worth it for many tasks")
    ] = None,
    *,
    dry_run: DryRun = False,
) -> None:
    """Label stored detections again, with other thresholds, classes, filters, tracks, keyframes or sink.

    It needs no detector, no GPU and no video, and moves no task. On Encord it changes rows that nobody has edited.
    """
    from prelabel.cli.commands import relabel_kept

    raise typer.Exit(relabel_kept(config, settings or (), dry_run=dry_run, num_workers=workers))


@app.command(epilog="Example: prelabel doctor")
def doctor() -> None:
    """Check this machine: decoders, devices, FFmpeg, weights and settings, and how to get what is missing."""
    from prelabel.cli.commands import examine_machine

    raise typer.Exit(examine_machine())


@app.command(epilog="Example: prelabel status out/")
def status(
    where: Annotated[
        Path, typer.Argument(metavar="[CONFIG|FOLDER]", help="a config, or a folder that holds outputs of runs")
    ] = Path(),
) -> None:
    """Show the step that each task has reached, and why failed tasks failed."""
    from prelabel.cli.commands import show_status

    raise typer.Exit(show_status(where))


@app.command(epilog="Example: prelabel preview prelabel.yaml a.mp4 --kind sheet")
def preview(
    config: ConfigPath,
    titles: Annotated[list[str] | None, typer.Argument(metavar="[TASK]...", help="which tasks; default: all")] = None,
    settings: Settings = None,
    kind: Annotated[str, typer.Option(metavar="KIND", help="clip | sheet | both | report | all")] = "all",
    *,
    dry_run: OfDryRun = False,
) -> None:
    """Draw the labels of an earlier run: an annotated video, a contact sheet, and a page about the run."""
    from prelabel.cli.commands import draw_previews

    raise typer.Exit(draw_previews(config, settings or (), titles or (), kind, dry_run=dry_run))


class _OptionalValues(TyperCommand):
    """A command with options whose value may be left out; Typer has none.

    `--frames` means `--frames labelled`. `--words` means `--words ''`: the names of the ontology's objects.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        spelled_out = []
        for word, following in pairwise([*args, "-"]):
            spelled_out.append(word)
            if word == "--frames" and following != "labelled" and not following.isdecimal():
                spelled_out.append("labelled")
            elif word == "--words" and following.startswith("-"):
                spelled_out.append("")
        return super().parse_args(ctx, spelled_out)


@app.command(cls=_OptionalValues, epilog="Example: prelabel export prelabel.yaml exported/ --format yolo --frames")
def export(
    config: ConfigPath,
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="file or folder to write to")],
    format: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help="coco, yolo, mot … as docs/export.md lists them, or file.py:function",
        ),
    ] = "coco",
    frames: Annotated[
        str | None,
        typer.Option(metavar="[labelled|N]", help="also write images: of frames with labels, or of every Nth frame"),
    ] = None,
    settings: Settings = None,
    *,
    dry_run: OfDryRun = False,
) -> None:
    """Write the labels of an earlier run in another format; --set may change thresholds and classes."""
    from prelabel.cli.commands import export_labels

    raise typer.Exit(export_labels(config, settings or (), format, target, frames=frames, dry_run=dry_run))


@app.command(epilog='Example: prelabel evaluate prelabel.yaml --stage "Review 1"')
def evaluate(
    config: ConfigPath,
    *,
    settings: Settings = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="label rows, a file or a folder of them, or a COCO ground truth; default: the project's label rows, "
            "the source's ground truth, or the label rows in the output",
        ),
    ] = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(metavar="TITLE", help="compare tasks at this stage; repeatable; default: where the workflow ends"),
    ] = None,
    min_iou: Annotated[
        float,
        typer.Option(
            min=0.01, max=1, metavar="IOU", help="least overlap at which boxes of two instances are the same thing"
        ),
    ] = 0.5,
    accept_iou: Annotated[
        float,
        typer.Option(
            min=0.01, max=1, metavar="IOU", help="least overlap with the truth at which nobody would move a box"
        ),
    ] = 0.8,
) -> None:
    """Compare the labels that runs wrote with the labels after people's corrections, and suggest thresholds."""
    from prelabel.cli.commands import evaluate_labels

    code = evaluate_labels(
        config, settings or (), against=against, stages=stage or (), min_iou=min_iou, accept_iou=accept_iou
    )
    raise typer.Exit(code)


@app.command(cls=_OptionalValues, epilog="Example: prelabel init clips/ --weights yolo11n")
def init(
    media: Annotated[
        list[Path] | None, typer.Argument(metavar="[VIDEO|FOLDER|GLOB]...", help="videos and images on this machine")
    ] = None,
    folder: Annotated[Path | None, typer.Option(metavar="FOLDER", help="the same as FOLDER", hidden=True)] = None,
    project: Annotated[str | None, typer.Option(metavar="HASH", help="label an Encord project's agent stage")] = None,
    stage: Annotated[
        str | None, typer.Option(metavar="TITLE", help="title or uuid of the agent stage; default: all")
    ] = None,
    settings: Settings = None,
    weights: Weights = None,
    conf: Conf = None,
    classes: Classes = None,
    words: Annotated[
        str | None,
        typer.Option(
            metavar="[A,B,…]",
            help="look for these words with an open-vocabulary model; default with --project: the names of "
            "the ontology's objects; sets detector.words or labels.prompts",
            rich_help_panel=MODEL,
        ),
    ] = None,
    device: Device = None,
    stride: Stride = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="the config to write")] = Path(
        "prelabel.yaml"
    ),
    *,
    tracks: Tracks = False,
    classify: Annotated[
        bool, typer.Option("--classify", help="answer a classification; default where an ontology has no boxes")
    ] = False,
) -> None:
    """Write a commented config: for files on this machine, or from a project's stages, pathways and ontology."""
    from prelabel.cli.commands import write_config

    code = write_config(
        [*(media or ()), *([folder] if folder is not None else ())],
        project,
        stage,
        settings or (),
        dict[str, object](
            weights=weights, conf=conf, classes=classes, words=words, device=device, tracks=tracks, stride=stride
        ),
        output=output,
        classify=classify,
    )
    raise typer.Exit(code)


@app.command(name="export-model", epilog="Example: prelabel export-model yolo11n --engine openvino")
def export_model(
    weights: Annotated[str, typer.Argument(metavar="WEIGHTS", help="model card, path or URL")],
    engine: Annotated[
        str, typer.Option(metavar="ENGINE", help="auto | onnx | openvino | tensorrt; auto: OpenVINO on a CPU")
    ] = "auto",
    imgsz: Annotated[int, typer.Option(metavar="PIXELS", help="longest side of the network's input, in pixels")] = 640,
    half: Annotated[
        bool | None, typer.Option(help="16 bits; default: on a GPU, and on a CPU that has bfloat16")
    ] = None,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="auto | cpu | cuda | cuda:N")] = "auto",
) -> None:
    """Export a model to a faster engine, before the run that uses it.

    The export is cached until weights, versions, device or precision change. `detector.engine` names the engine.
    """
    from prelabel.cli.commands import build_engine

    options = {"engine": engine, "imgsz": imgsz, "half": "auto" if half is None else half, "device": device}
    raise typer.Exit(build_engine(weights, options))


@app.command(epilog="Example: prelabel schema > config.schema.json")
def schema() -> None:
    """Print the JSON Schema of the config, for editors."""
    import json

    from prelabel.config.schema import config_schema

    typer.echo(json.dumps(config_schema(), indent=2))


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Runs the command line; an error that a user can cause is one line on standard error."""
    set_up_process()
    try:
        app()
    except SystemExit as ended:
        if ended.code == 130:  # what typer makes of KeyboardInterrupt
            _end_at_once(130)
        raise
    except KeyboardInterrupt:
        _end_at_once(130)
    except SetupError as error:
        print(f"prelabel: {hide_secrets(str(error))}", file=sys.stderr)
        raise SystemExit(2) from None
    except PrelabelError as error:
        print(f"prelabel: {hide_secrets(str(error))}", file=sys.stderr)
        raise SystemExit(1) from None
    except Exception:  # a bug; the traceback is redacted, since users copy it into reports
        import traceback

        print(redact(traceback.format_exc()), file=sys.stderr)
        raise SystemExit(1) from None


def _end_at_once(code: int) -> NoReturn:
    """Ends the process without Python's teardown, which may abort it while a daemon thread is still in native code."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # the reader of the stream may be gone
            stream.flush()
    os._exit(code)
