"""Labels of one video built, serialised and made ready to be sent: prelabel's way against the SDK's own.

    python benchmarks/labels.py [--full]

Both ways start from the same empty label row and the same detections, ten a frame, one object instance each, and end
with the request body that the SDK would send. The SDK's way is what its documentation shows: an instance a detection,
`set_for_frames`, `add_object_instance`, then what `LabelRowV2.save` does: `to_encord_dict` and the body. CPU seconds,
rounds interleaved, medians. 100,000 instances take the SDK minutes, so they are measured with it once, and only with
`--full`. The last line is the result as JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from datetime import UTC, datetime

import encord
import numpy as np
import orjson
from encord.http.query_methods import QueryMethods
from encord.http.request import Request
from encord.objects import LabelRowV2, Object
from encord.objects.coordinates import BoundingBoxCoordinates
from encord.orm.label_row import LabelRow as LabelRowRecord
from encord.orm.storage import CustomerProvidedVideoMetadata

from prelabel.data.boxes import xyxy_to_xywh_norm
from prelabel.data.detections import VideoDetections
from prelabel.data.frames import VideoInfo
from prelabel.data.label_map import build_label_map
from prelabel.data.ontology import Ontology
from prelabel.labels.row.offline import encord_ontology, new_label_row
from prelabel.labels.row.size import save_request
from prelabel.labels.row.write import write_detections

CLASSES = ("person", "car", "bicycle")
PER_FRAME = 10
NOW = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
ONTOLOGY = Ontology.from_classes(CLASSES)
LABEL_MAP = build_label_map(CLASSES, ONTOLOGY, {})


def make_detections(num_instances: int) -> tuple[VideoInfo, VideoDetections]:
    num_frames = num_instances // PER_FRAME
    info = VideoInfo(1920, 1080, num_frames, average_fps=30.0, duration_seconds=num_frames / 30)
    rng = np.random.default_rng(0)
    top_left, sides = rng.uniform(0, 900, (num_instances, 2)), rng.uniform(5, 150, (num_instances, 2))
    found = VideoDetections(
        frame_index=np.repeat(np.arange(num_frames), PER_FRAME),
        xyxy=np.concatenate([top_left, top_left + sides], axis=1).astype(np.float32),
        confidence=rng.uniform(0.25, 1, num_instances).astype(np.float32),
        class_id=rng.integers(0, len(CLASSES), num_instances),
        track_id=np.full(num_instances, -1),
        inferred_frames=np.arange(num_frames),
    )
    return info, found


def sdks_request_body(row: dict) -> str:
    payload = LabelRowRecord(row)
    return Request(QueryMethods.POST, "labelrow", row["label_hash"], 1, 1, payload).data


def prelabels_way(row: dict, info: VideoInfo, found: VideoDetections) -> dict[str, float]:
    start = time.process_time()
    written = write_detections(row, found, info, LABEL_MAP, now=NOW).row
    built = time.process_time()
    body = orjson.dumps(save_request(written)).decode()  # as `prelabel.encord.sink` does it
    done = time.process_time()
    return {"build": built - start, "body": done - built, "all": done - start, "bytes": len(body)}


def sdks_way(row: LabelRowV2, info: VideoInfo, found: VideoDetections) -> dict[str, float]:
    start = time.process_time()
    kinds = [row.ontology_structure.get_child_by_title(name, type_=Object) for name in CLASSES]
    boxes = xyxy_to_xywh_norm(found.xyxy, info.sizes(found.frame_index)).tolist()
    columns = (found.frame_index.tolist(), boxes, found.confidence.tolist(), found.class_id.tolist())
    for frame_index, (x, y, width, height), confidence, class_id in zip(*columns, strict=True):
        instance = kinds[class_id].create_instance()
        instance.set_for_frames(
            BoundingBoxCoordinates(height=height, width=width, top_left_x=x, top_left_y=y),
            frames=frame_index,
            confidence=confidence,
            manual_annotation=False,
        )
        row.add_object_instance(instance)
    added = time.process_time()
    written = row.to_encord_dict()
    built = time.process_time()
    body = sdks_request_body(written)
    done = time.process_time()
    return {
        "add": added - start,
        "to_encord_dict": built - added,
        "body": done - built,
        "all": done - start,
        "bytes": len(body),
    }


def empty_sdk_row(info: VideoInfo) -> LabelRowV2:
    media = CustomerProvidedVideoMetadata(
        fps=info.average_fps,
        duration=info.duration_seconds,
        width=info.width,
        height=info.height,
        file_size=0,
        mime_type="video/mp4",
    )
    return LabelRowV2.from_media_metadata(encord_ontology(ONTOLOGY), media)


def measure(num_instances: int, num_rounds: int, *, with_sdk: bool) -> dict:
    info, found = make_detections(num_instances)
    ontology = encord_ontology(ONTOLOGY)
    ours, theirs = [], []
    for _ in range(num_rounds):
        ours.append(prelabels_way(new_label_row("k", "clip.mp4", info, ontology, now=NOW), info, found))
        if with_sdk:
            theirs.append(sdks_way(empty_sdk_row(info), info, found))
    fast = medians(ours)
    result = {"instances": num_instances, "rounds": num_rounds, "prelabel": fast}
    if not theirs:
        return result
    slow = medians(theirs)
    return {**result, "sdk": slow, "times_faster": round(slow["all"] / fast["all"], 1)}


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(one[name] for one in rounds), 4) for name in rounds[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="measure the SDK at 100,000 instances too: minutes")
    full = parser.parse_args().full
    results = []
    for num_instances, num_rounds, with_sdk in ((1_000, 7, True), (10_000, 3, True), (100_000, 3, False)):
        results.append(measure(num_instances, num_rounds, with_sdk=with_sdk))
        print(describe(results[-1]), flush=True)
    if full:
        results.append(measure(100_000, 1, with_sdk=True))
        print(describe(results[-1]), flush=True)
    versions = {"python": platform.python_version(), "encord": encord.__version__}
    print(json.dumps({"benchmark": "labels", **versions, "results": results}))


def describe(result: dict) -> str:
    text = f"{result['instances']:>7,} instances: prelabel {result['prelabel']['all']:.3f} s"
    if "sdk" in result:
        text += f", SDK {result['sdk']['all']:.3f} s, {result['times_faster']} times faster"
    return text


if __name__ == "__main__":
    main()
