"""A thousand tasks of all kinds through two agent stages on the test server: is one lost, and how long does it take?

uv run python -m benchmarks.mixed_tasks --tasks 1000
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from prelabel.cli.commands import run_config
from prelabel.testing.encord_server import EncordServer
from tests.mixed_tasks import MixedTasks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=1000)
    num_tasks = parser.parse_args().tasks
    with EncordServer() as server, tempfile.TemporaryDirectory() as folder:
        os.environ |= {"ENCORD_SSH_KEY": server.add_user("agent@example.com"), "ENCORD_DOMAIN": server.url}
        os.environ.pop("ENCORD_SSH_KEY_FILE", None)
        mixed = MixedTasks.populate(server, Path(folder), num_tasks)
        config = mixed.write_config(Path(folder))
        wall, cpu = time.perf_counter(), time.process_time()
        code = run_config(config, (), limit=None, dry_run=False, watch_seconds=None)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{num_tasks} tasks: {mixed.num_by_kind}")
    print(f"exit {code}, {len(mixed.lost())} lost, {wall:.0f} s, {cpu:.0f} s of processor time with the server")
    for line in mixed.lost()[:10]:
        print(line)
    raise SystemExit(bool(mixed.lost()))


if __name__ == "__main__":
    main()
