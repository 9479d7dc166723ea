"""Draw the demo's clip and its ground truth into the package: `uv run python -m models.make_demo_clip`."""

from __future__ import annotations

from models.scenes import SceneSpec, write_clip
from prelabel.files import demo

if __name__ == "__main__":
    folder = demo.FOLDER
    write_clip(SceneSpec(seed=1), folder / demo.CLIP_NAME, folder / demo.TRUTH_NAME, crf=25)
