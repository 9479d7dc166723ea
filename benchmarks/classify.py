"""Pictures a second of pre-classification, beside the model alone and beside one picture at a time.

Each way goes over the same pictures in turn, round after round, so that a noisy neighbour meets them all; medians
count. Processor time is given besides, that of the process that decodes included: neighbours change it less.

    uv run python -m benchmarks.classify --pictures photos/ --weights mobilenet_v2 --rounds 5 --copies 4

Ways:
    limit          the classifier alone, full batches of pictures that are in memory already, their scaling included
    torch          the same with `engine: torch`
    torchvision    the network as torchvision builds it, its own memory layout and all, on pictures scaled already
    decode         the reader alone
    run            `prelabel run`: decode, classify, keep the probabilities, label row
    one by one     a picture at a time through torchvision's own preset and network, with the SDK's own classification
                   instances, as published agents do it
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from prelabel.runtime.process_settings import set_up_process

set_up_process()  # as the command line does, for all ways alike

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from prelabel.assembly.assemble import Assembly, assemble
from prelabel.config.load import check_config
from prelabel.labels.row.offline import encord_ontology
from prelabel.media.images import read_picture
from prelabel.models.classifiers.torchvision import TorchvisionClassifier
from prelabel.models.networks import read_state_dict
from prelabel.models.weights import resolve_weights
from prelabel.run.runner import run_tasks
from prelabel.runtime.interrupts import StopSignal
from prelabel.runtime.progress import NullProgress

Way = Callable[[], int]
CLASSES = {"tabby": "Cat", "Egyptian cat": "Cat", "beagle": "Dog"}


def main() -> None:
    """Measures, prints a table, and ends with one line of JSON."""
    args = _parse()
    torch.set_num_threads(os.cpu_count() or 1)
    folder = Path(tempfile.mkdtemp())
    pictures = _copy(args.pictures, folder / "pictures", args.copies)
    assembly = _assembly(folder, args)
    ways = _ways(args, assembly, pictures, folder)
    for way in ways.values():  # what is imported and started once counts for nobody
        way()
    wall: dict[str, list[float]] = {name: [] for name in ways}
    busy: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, way in ways.items():
            began, used = time.perf_counter(), processor_seconds()
            done = way()
            wall[name].append(done / (time.perf_counter() - began))
            busy[name].append(1000 * (processor_seconds() - used) / done)
    ratios = {
        name: statistics.median(value / limit for value, limit in zip(values, wall["limit"], strict=True))
        for name, values in wall.items()
    }
    result = {
        "num_pictures": len(pictures),
        "rounds": args.rounds,
        "batch_size": assembly.classification.batch_size,
        "cpu_cores": os.cpu_count(),
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "pictures_per_second": {name: round(statistics.median(values), 2) for name, values in wall.items()},
        "ratio_to_limit": {name: round(value, 3) for name, value in ratios.items()},
        "processor_ms_a_picture": {name: round(statistics.median(values), 2) for name, values in busy.items()},
    }
    _print(result)
    print(json.dumps(result))
    shutil.rmtree(folder)


def processor_seconds() -> float:
    """Returns the processor time of this process and of those that it has started: one decodes (proc(5), `stat`)."""
    ticks = 0
    for process in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            fields = process.read_text().rpartition(")")[2].split()
            if int(fields[1]) == os.getpid():
                ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True, help="a folder of pictures")
    parser.add_argument("--weights", default="mobilenet_v2", help="a torchvision card's name, or a state dict")
    parser.add_argument("--builder", default="mobilenet_v2", help="the torchvision function that they are of")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--copies", type=int, default=1, help="how many times to take each picture")
    return parser.parse_args()


def _copy(source: Path, target: Path, times: int) -> list[Path]:
    target.mkdir()
    files = sorted(path for path in source.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    copies = [target / f"{number:03d}_{path.name}" for number in range(times) for path in files]
    for copy, path in zip(copies, files * times, strict=True):
        shutil.copyfile(path, copy)
    return copies


def _assembly(folder: Path, args: argparse.Namespace) -> Assembly:
    values = {
        "source": {"path": str(folder / "pictures"), "output": str(folder / "out")},
        "classifier": {"use": "torchvision", "weights": args.weights, "builder": args.builder, "conf": 0.0},
        "labels": {"classes": CLASSES},
    }
    return assemble(check_config(values, "benchmark"), folder)


def _ways(args: argparse.Namespace, assembly: Assembly, pictures: list[Path], folder: Path) -> dict[str, Way]:
    in_memory = [torch.from_numpy(read_picture(path).copy()) for path in pictures]
    parts = assembly.classification
    network = _torchvision_network(args)
    classifier = parts.classifier
    assert isinstance(classifier, TorchvisionClassifier)
    in_torch = TorchvisionClassifier(weights=args.weights, builder=args.builder, engine="torch")
    prepared = torch.from_numpy(np.stack([classifier.prepare(image) for image in in_memory]))

    def alone(classifier: TorchvisionClassifier) -> int:
        for start in range(0, len(in_memory), parts.batch_size):
            classifier.classify(in_memory[start : start + parts.batch_size])
        return len(in_memory)

    def torchvision() -> int:
        with torch.inference_mode():
            for batch in prepared.split(parts.batch_size):
                network(batch.permute(0, 3, 1, 2).float().contiguous() / 255).softmax(dim=1)
        return len(in_memory)

    def run() -> int:
        shutil.rmtree(folder / "out", ignore_errors=True)
        fresh = _assembly(folder, args)
        fresh.classification.__dict__["classifier"] = classifier
        report = run_tasks(fresh, NullProgress(), StopSignal())
        assert not report.failed
        return len(report.tasks)

    return {
        "limit": lambda: alone(classifier),
        "torch": lambda: alone(in_torch),
        "torchvision": torchvision,
        "decode": lambda: sum(1 for path in pictures if read_picture(path).size),
        "run": run,
        "one by one": lambda: _one_by_one(args.builder, network, assembly, pictures),
    }


def _torchvision_network(args: argparse.Namespace) -> torch.nn.Module:
    from torchvision.models import get_model

    network = get_model(args.builder, weights=None).eval()
    network.load_state_dict(read_state_dict(resolve_weights(args.weights).path))
    return network


def _one_by_one(builder: str, network: torch.nn.Module, assembly: Assembly, pictures: list[Path]) -> int:
    from encord.objects import Classification, LabelRowV2
    from encord.orm.storage import CustomerProvidedImageMetadata
    from torchvision.models import get_model_weights

    classifier = assembly.classification.classifier
    assert isinstance(classifier, TorchvisionClassifier)
    preset = next(iter(get_model_weights(builder))).transforms()
    ontology = encord_ontology(assembly.ontology)
    kind = ontology.structure.get_child_by_title("Class", type_=Classification)
    for path in pictures:
        picture = Image.open(path).convert("RGB")
        with torch.inference_mode():
            scores = network(preset(picture)[None]).softmax(dim=1)[0]
        media = CustomerProvidedImageMetadata(
            mime_type="image/jpeg", file_size=0, width=picture.width, height=picture.height
        )
        row = LabelRowV2.from_media_metadata(ontology, media)
        instance = kind.create_instance()
        best = max(CLASSES, key=lambda name: float(scores[classifier.class_names.index(name)]))
        confidence = float(scores[classifier.class_names.index(best)])
        instance.set_answer(kind.get_child_by_title(CLASSES[best]))
        instance.set_for_frames(0, confidence=confidence, manual_annotation=False)
        row.add_classification_instance(instance)
        row.to_encord_dict()
    return len(pictures)


def _print(result: dict) -> None:
    table = Table("way", "pictures/s", "to the limit", "processor ms a picture", box=None)
    for name, rate in result["pictures_per_second"].items():
        busy = result["processor_ms_a_picture"][name]
        table.add_row(name, f"{rate:.1f}", f"{result['ratio_to_limit'][name]:.2f}", f"{busy:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
