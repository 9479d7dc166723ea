"""Run the server by hand, for demos and benchmarks: `python -m prelabel.testing.encord_server --videos clips/`."""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import threading
from pathlib import Path

from . import AGENT, EncordServer, Settings
from .ontologies import editor, ontology_object
from .records import Project, probe_video
from .state import World

_SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi"}


def main() -> None:
    options = _options()
    settings = Settings(page_size=options.page_size, item_link_lifetime_seconds=options.link_lifetime)
    with EncordServer(settings=settings, port=options.port) as server:
        ontology = server.world.add_ontology(
            editor([ontology_object(name) for name in options.classes.split(",")]), title="Demo"
        )
        project = server.world.add_project("Demo", ontology=ontology)
        _add_tasks(server.world, project, options.videos, options.tasks_per_video)
        key_file = Path(tempfile.mkdtemp(prefix="encord-server-")) / "id_ed25519"
        key_file.touch(mode=0o600)
        key_file.write_text(server.add_user())
        print(f"# tasks at stage '{AGENT}': {len(project.tasks)}; what happened: {server.url}/state; Ctrl-C ends it")
        print(f"export ENCORD_DOMAIN={server.url}")
        print(f"export ENCORD_SSH_KEY_FILE={key_file}")
        print(f"export ENCORD_PROJECT_HASH={project.uuid}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
        print(json.dumps(server.summary(), indent=2))
        key_file.unlink()
        key_file.parent.rmdir()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m prelabel.testing.encord_server", description=__doc__)
    parser.add_argument("--videos", type=Path, required=True, help="a video, or a folder of videos")
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--classes", default="person,car,bicycle,bus,bottle", help="boxes of the ontology")
    parser.add_argument("--tasks-per-video", type=int, default=1)
    parser.add_argument("--page-size", type=int, default=50, help="tasks in one page of a stage's list")
    parser.add_argument("--link-lifetime", type=float, default=3600, help="seconds that a storage link holds")
    return parser.parse_args()


def _add_tasks(world: World, project: Project, videos: Path, tasks_per_video: int) -> None:
    paths = [videos] if videos.is_file() else sorted(videos.iterdir())
    for path in (path for path in paths if path.suffix.lower() in _SUFFIXES):
        facts = probe_video(path)
        for number in range(tasks_per_video):
            title = path.name if tasks_per_video == 1 else f"{path.stem}-{number}{path.suffix}"
            world.add_task(project.stage(AGENT), world.add_video(path, facts=facts, title=title))


if __name__ == "__main__":
    main()
