"""Pictures of what was found: frames, sheets and clips with boxes drawn on them."""

from prelabel.preview.previews import preview_run, read_pictures, sheet_frames, spread_evenly, write_clip, write_sheet

__all__ = ["preview_run", "read_pictures", "sheet_frames", "spread_evenly", "write_clip", "write_sheet"]
