"""Labels on an Encord label row, linear in their number: written, recognised, taken out again, and measured.

A label row is the dictionary that the Encord SDK reads (`LabelRowV2.from_labels_dict`), writes
(`LabelRowV2.to_encord_dict`) and sends (`Project.save_label_row`). The SDK's own writer looks at every object for
every frame; at 100,000 detections that takes minutes. This one adds to the dictionary, and tests hold it equal to what
the SDK writes for the same input.
"""

from prelabel.label_row.answers import find_own_answers, remove_own_answers, write_answers
from prelabel.label_row.begun import refuse_begun, unless_begun
from prelabel.label_row.own import KINDS_WITH_FRAMES, LabelRow, as_row_time, find_own, remove_own
from prelabel.label_row.size import check_row_size, row_num_bytes
from prelabel.label_row.text import json_pieces
from prelabel.label_row.write import RowChange, WrittenRow, write_detections

__all__ = [
    "KINDS_WITH_FRAMES",
    "LabelRow",
    "RowChange",
    "WrittenRow",
    "as_row_time",
    "check_row_size",
    "find_own",
    "find_own_answers",
    "json_pieces",
    "refuse_begun",
    "remove_own",
    "remove_own_answers",
    "row_num_bytes",
    "unless_begun",
    "write_answers",
    "write_detections",
]
