"""Train the project's own small detector on generated scenes, from random weights, on a CPU.

    uv run python -m models.train_demo             # renders, trains, measures, writes weights, graph and cards
    uv run python -m models.train_demo --evaluate  # measures the weights that are there
    uv run python -m models.train_demo --export    # writes the graph and the cards of the weights that are there

About 40 minutes on two busy cores. Another machine rounds differently, so it ends at other weights with a like score.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import multiprocessing
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
import yaml
from onnx import helper, numpy_helper
from torch import nn
from torchvision.models.detection import ssdlite320_mobilenet_v3_large

from models.scene_art import CLASS_NAMES, SceneFrame
from models.scenes import SceneSpec, coco_truth, random_frames

HERE = Path(__file__).resolve().parent
WEIGHTS, GRAPH = HERE / "demo_shapes.pth", HERE / "demo.onnx"
LEAST_HALVED = 1000  # numbers in a tensor of the graph from which it is stored in half precision
BUILDER_ARGS = {"width_mult": 0.5}
INPUT_SIDE = 320
MOMENTS_PER_SCENE = 4
SCENE_SIZES = ((512, 288), (512, 288), (640, 360), (384, 288))
UNSEEN_SEED = 1_000_000  # scenes for measuring start here, those for training at 0
BATCH_SIZE = 16

Target = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Phase:
    """A stretch of training with its own pictures and learning rate.

    Attributes:
        scene_seeds: the scenes to render, `MOMENTS_PER_SCENE` pictures of each.
        side: px, what the pictures are stretched to; the anchors are parts of it, so a phase on small pictures,
            at half the work, teaches the next.
        steps: how many batches.
        decay_steps: length of the cosine down to nothing; a phase may end before it.
        peak_lr: learning rate after the linear warm-up.
        warm_up: steps.
    """

    scene_seeds: range
    side: int
    steps: int
    decay_steps: int
    peak_lr: float
    warm_up: int

    def learning_rate_factor(self, step: int) -> float:
        """Return the learning rate at a step as a part of its peak."""
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        return 0.5 + 0.5 * math.cos(math.pi * (step - self.warm_up) / (self.decay_steps - self.warm_up))


PHASES = (
    Phase(range(1000), side=224, steps=1000, decay_steps=2200, peak_lr=2e-3, warm_up=150),
    Phase(range(1000, 1400), side=INPUT_SIDE, steps=350, decay_steps=350, peak_lr=8e-4, warm_up=20),
    Phase(range(1400, 2300), side=INPUT_SIDE, steps=900, decay_steps=900, peak_lr=1e-3, warm_up=20),
)


@dataclass(frozen=True)
class Pool:
    """Rendered training pictures: images (N, 3, 320, 320) uint8 and a target for each."""

    images: torch.Tensor
    targets: list[Target]


def main() -> None:
    """Train and measure, measure alone, or export alone."""
    options = parse_options()
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(options.seed)
    model = build_model()
    if options.evaluate or options.export or options.from_phase:
        model.load_state_dict(load_weights(WEIGHTS))
    if not (options.evaluate or options.export):
        for phase in PHASES[options.from_phase :]:
            train(model, render_pool(phase.scene_seeds, options.threads), phase, options.seed)
            save_weights(model)
        model.load_state_dict(load_weights(WEIGHTS))
    score = evaluate(model, options.unseen_scenes)
    print(score)
    if not options.evaluate:
        write_graph(model)
        write_cards(score)


def parse_options() -> argparse.Namespace:
    """Read the command line; its defaults are how the shipped weights were made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluate", action="store_true", help="measure the weights that are there, train nothing")
    parser.add_argument("--export", action="store_true", help="write the graph of the weights that are there")
    parser.add_argument("--from-phase", type=int, default=0, help="go on from the weights that are there")
    parser.add_argument("--unseen-scenes", type=int, default=300, help="how many to measure on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def build_model() -> nn.Module:
    """Return the detector with random weights; class 0 is the background."""
    model: nn.Module = ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=1 + len(CLASS_NAMES), **BUILDER_ARGS
    )
    return model.to(memory_format=torch.channels_last)


def render_pool(scene_seeds: range, num_processes: int) -> Pool:
    """Render the training pictures, several moments of each scene."""
    started = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(num_processes, torch.set_num_threads, (1,)) as processes:
        scenes = processes.map(render_scene, scene_seeds, chunksize=16)
    pictures = [picture for scene in scenes for picture in scene]
    images = torch.from_numpy(np.stack([image for image, _, _ in pictures])).permute(0, 3, 1, 2)
    targets = [{"boxes": torch.from_numpy(xyxy), "labels": torch.from_numpy(labels)} for _, xyxy, labels in pictures]
    print(f"{len(pictures)} pictures rendered in {time.perf_counter() - started:.0f} s", flush=True)
    return Pool(images, targets)


def render_scene(
    seed: int,
) -> list[tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
    """Return pictures of one scene at the model's input size with boxes (N, 4) and labels (N,), 1-based."""
    rng = np.random.default_rng([7, seed])
    width, height = SCENE_SIZES[seed % len(SCENE_SIZES)]
    return [to_input(frame) for frame in random_frames(rng, width, height, MOMENTS_PER_SCENE)]


def to_input(frame: SceneFrame) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Stretch a frame to 320 x 320 as the model's own transform does; leave out what is mostly hidden."""
    height, width = frame.image.shape[:2]
    sharp = torch.from_numpy(frame.image).permute(2, 0, 1)[None].float()
    stretched = nn.functional.interpolate(sharp, (INPUT_SIDE, INPUT_SIDE), mode="bilinear", align_corners=False)
    image = stretched[0].round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    shown = ~frame.is_crowd
    factor = np.array([INPUT_SIDE / width, INPUT_SIDE / height] * 2, dtype=np.float32)
    return image, frame.xyxy[shown] * factor, frame.class_id[shown] + 1


def train(model: nn.Module, pool: Pool, phase: Phase, seed: int) -> None:
    """Fit the model: AdamW, linear warm-up, then a cosine."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=phase.peak_lr, weight_decay=0.02, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, phase.learning_rate_factor)
    draw = torch.Generator().manual_seed(seed)
    started, recent = time.perf_counter(), []
    model.train()
    model.transform.fixed_size = (phase.side, phase.side)
    for step in range(1, phase.steps + 1):
        loss = sum(model(*draw_batch(pool, draw)).values())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        schedule.step()
        recent.append(loss.item())
        if step % 50 == 0:
            print(f"step {step} loss {np.mean(recent):.3f} {time.perf_counter() - started:.0f} s", flush=True)
            recent.clear()
        if step % 250 == 0:
            save_weights(model)
    model.transform.fixed_size = (INPUT_SIDE, INPUT_SIDE)


def draw_batch(pool: Pool, draw: torch.Generator) -> tuple[list[torch.Tensor], list[Target]]:
    """Draw pictures at random; mirror each by chance and vary its brightness and contrast."""
    images, targets = [], []
    for index in torch.randint(len(pool.targets), (BATCH_SIZE,), generator=draw).tolist():
        mirror, contrast, brightness = torch.rand(3, generator=draw).tolist()
        image, target = pool.images[index].float() / 255, pool.targets[index]
        if mirror < 0.5:
            image, target = image.flip(2), mirrored(target)
        image = ((image - 0.5) * (0.75 + 0.5 * contrast) + 0.5 + 0.3 * (brightness - 0.5)).clamp(0, 1)
        images.append(image)
        targets.append(target)
    return images, targets


def mirrored(target: Target) -> Target:
    """Mirror boxes (N, 4) left to right."""
    x1, y1, x2, y2 = target["boxes"].unbind(1)
    return target | {"boxes": torch.stack([INPUT_SIDE - x2, y1, INPUT_SIDE - x1, y2], dim=1)}


def evaluate(model: nn.Module, num_scenes: int) -> dict[str, float | int]:
    """Return COCO's mAP on one frame each of scenes that training never drew, 640 x 360."""
    seeds = range(UNSEEN_SEED, UNSEEN_SEED + num_scenes)
    frames = [next(random_frames(np.random.default_rng([7, seed]), 640, 360, 1)) for seed in seeds]
    model.eval()
    found = [row for image_id, frame in enumerate(frames, 1) for row in detections_of(model, frame, image_id)]
    truth = coco_truth(SceneSpec(width=640, height=360), "unseen", frames)
    map_50_95, map_50 = mean_average_precision(truth, found)
    return {"unseen_scenes": num_scenes, "map_50_95": round(map_50_95, 3), "map_50": round(map_50, 3)}


@torch.inference_mode()
def detections_of(model: nn.Module, frame: SceneFrame, image_id: int) -> list[dict[str, object]]:
    """Return what the model finds in a frame as COCO results."""
    image = torch.from_numpy(frame.image).permute(2, 0, 1).float() / 255
    (output,) = model([image])
    return [
        {"image_id": image_id, "category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
        for (x1, y1, x2, y2), label, score in zip(
            output["boxes"].tolist(), output["labels"].tolist(), output["scores"].tolist(), strict=True
        )
    ]


def mean_average_precision(truth: dict[str, object], found: list[dict[str, object]]) -> tuple[float, float]:
    """Return mAP at IoU 0.50 to 0.95 and at 0.50."""
    from faster_coco_eval import COCO, COCOeval_faster

    ground_truth = COCO(truth)
    evaluation = COCOeval_faster(ground_truth, ground_truth.loadRes(found), "bbox")
    evaluation.run()
    return float(evaluation.stats[0]), float(evaluation.stats[1])


def save_weights(model: nn.Module) -> None:
    """Write the state dict in half precision: half the bytes, and the score stays."""
    halved = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    torch.save({name: value.contiguous() for name, value in halved.items()}, WEIGHTS)


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict in single precision."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def write_graph(model: nn.Module) -> None:
    """Write the model with its NMS as an ONNX graph for one picture, with large weights in half precision."""
    example = ([torch.rand(3, INPUT_SIDE, INPUT_SIDE)],)
    names = {"input_names": ["image"], "output_names": ["boxes", "scores", "labels"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter that traces warns about its newer replacement
        torch.onnx.export(model.eval(), example, GRAPH, dynamo=False, opset_version=17, **names)
    graph = onnx.load(GRAPH)
    for tensor in list(graph.graph.initializer):
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < LEAST_HALVED:
            continue
        halved = numpy_helper.from_array(values.astype(np.float16), f"{tensor.name}.half")
        cast = helper.make_node("Cast", [halved.name], [tensor.name], to=onnx.TensorProto.FLOAT)
        graph.graph.initializer.remove(tensor)
        graph.graph.initializer.append(halved)
        graph.graph.node.insert(0, cast)
    onnx.save(graph, GRAPH)


def write_cards(score: dict[str, float | int]) -> None:
    """Write the model cards of the graph, which runs without torch, and of the weights."""
    torchvision = {"use": "torchvision", "builder": "ssdlite320_mobilenet_v3_large", "builder_args": BUILDER_ARGS}
    for path, more in ((GRAPH, {"use": "onnx", "format": "ssd"}), (WEIGHTS, torchvision)):
        card = {
            "name": path.stem,
            "file": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "licence": "Apache-2.0",
            **more,
            "classes": list(CLASS_NAMES),
            "source": "generated scenes (models/scenes.py), trained from random weights by train_demo.py",
            "training": "uv run python -m models.train_demo",
            "score": score,
        }
        text = yaml.safe_dump(card, sort_keys=False, default_flow_style=None, width=110)
        path.with_suffix(".yaml").write_text(text)


if __name__ == "__main__":
    main()
