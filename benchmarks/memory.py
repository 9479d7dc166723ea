"""Peak memory of a run over a long clip, beside that over a short one.

    uv run python -m benchmarks.memory --clip street.mp4 --minutes 1 10

The clip's packets are copied end to end until it is as long as asked. Each length is a process of its own, with a
detector that costs nothing and finds five boxes a frame: decoding, batching, raw store and label row are measured.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

DETECTOR = """
from prelabel import Detections

class Five:
    class_names = ("thing",)

    def detect(self, batch):
        boxes = [[10 * i, 10, 10 * i + 8, 20] for i in range(5)]
        return [Detections(boxes, [0.9] * 5, [0] * 5) for _ in batch.frame_indices]
"""


def main() -> None:
    """Measures, prints a table, and ends with one line of JSON."""
    args = _parse()
    if args.child:
        print(json.dumps(_measure(args.clip, args.child)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for minutes in args.minutes:
            clip = _lengthen(args.clip, Path(folder) / f"{minutes:g}_minutes.mp4", minutes)
            command = [sys.executable, "-m", "benchmarks.memory", "--clip", str(clip), "--child", folder]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            rows.append({"minutes": minutes, **json.loads(told.splitlines()[-1])})
    result = {
        "clip": args.clip.name,
        "rows": rows,
        "ratio": round(rows[-1]["peak_megabytes"] / rows[0]["peak_megabytes"], 3),
    }
    table = Table("minutes", "frames", "instances", "peak MB", "seconds", title=args.clip.name, box=None)
    for row in rows:
        table.add_row(*(f"{value:,}" for value in row.values()))
    Console(highlight=False).print(table)
    print(json.dumps(result))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 10])
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _measure(clip: Path, folder: Path) -> dict[str, float]:
    from prelabel.assembly.assemble import assemble
    from prelabel.config.load import check_config
    from prelabel.media.isolation.process import end_idle_processes
    from prelabel.run.checks import prepare
    from prelabel.run.runner import run_tasks
    from prelabel.runtime.interrupts import StopSignal
    from prelabel.runtime.process_settings import set_up_process
    from prelabel.runtime.progress import NullProgress

    set_up_process()
    (folder / "five.py").write_text(DETECTOR)
    values = {
        "source": {"use": "folder", "path": str(clip), "output": str(folder / "out" / clip.stem)},
        "detector": {"use": "five.py:Five", "batch_size": 8},
    }
    assembly = assemble(check_config(values, "benchmark"), folder)
    prepare(assembly)
    report = run_tasks(assembly, NullProgress(), StopSignal())
    assert not report.failed, report.failed
    end_idle_processes()
    # The process that decodes is the largest one that ended; frames that both hold are counted twice.
    peak = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {
        "frames": report.num_inferred,
        "instances": sum(report.instances.values()),
        "peak_megabytes": round(peak / 1000),
        "seconds": report.seconds,
    }


def _lengthen(clip: Path, target: Path, minutes: float) -> Path:
    """Copies the clip's packets end to end until `minutes` are full."""
    import av

    with av.open(str(clip)) as source:
        stream = source.streams.video[0]
        seconds = float(stream.duration * stream.time_base)
        packets = [packet for packet in source.demux(stream) if packet.size]
        span = stream.duration
        with av.open(str(target), "w") as output:
            copy = output.add_stream_from_template(stream)
            for turn in range(max(1, round(minutes * 60 / seconds))):
                for packet in packets:
                    again = av.Packet(bytes(packet))
                    again.pts, again.dts = packet.pts + turn * span, packet.dts + turn * span
                    again.time_base, again.is_keyframe, again.stream = packet.time_base, packet.is_keyframe, copy
                    output.mux(again)
    return target


if __name__ == "__main__":
    main()
