"""From what a detector found to what is labelled. Pure functions over the raw detections, in a fixed order.

A detection that becomes no label is counted once, by the first reason that holds:

1. `ignored`, `unmapped`: its class becomes no object, by choice or because none is called so; `no_keypoints`: it
   becomes a skeleton, and has a box alone;
2. `low_confidence`: under the threshold of its object;
3. `empty`: cut to the frame, it has no area at five decimals; all that follows looks at the box as it was cut;
4. `too_small`, `too_large`, `aspect`: `SizeLimits`;
5. `out_of_zone`: `Zones`;
6. `duplicate`: of equal boxes of one object on one frame, all but the most confident;
7. `overlapping`: `nms_iou`, whatever the objects;
8. `flicker`: `Flicker`;
9. `over_max_per_frame`: `max_per_frame`, the most confident stay;
10. `untracked`, `short_track`: of `prelabel.tracking`, which goes on from here.

What is known beyond a box takes the form of its object's shape last of all: `fit_geometry`.

What tracks are made of, once there are any, is shaped here too: `smooth_boxes`, then `thin_tracks`.
"""

from prelabel.shaping.fit import fit_geometry, held_geometry, lacks_keypoints
from prelabel.shaping.flicker import Flicker
from prelabel.shaping.keyframes import Keyframes, Thinning, sum_up, thin_tracks
from prelabel.shaping.reasons import Dropped, DropReason, Shaped, count_by_class
from prelabel.shaping.rules import ShapingRules, class_thresholds
from prelabel.shaping.shape import shape_detections
from prelabel.shaping.size import SizeLimits
from prelabel.shaping.smooth import smooth_boxes
from prelabel.shaping.zones import Zones

__all__ = [
    "DropReason",
    "Dropped",
    "Flicker",
    "Keyframes",
    "Shaped",
    "ShapingRules",
    "SizeLimits",
    "Thinning",
    "Zones",
    "class_thresholds",
    "count_by_class",
    "fit_geometry",
    "held_geometry",
    "lacks_keypoints",
    "shape_detections",
    "smooth_boxes",
    "sum_up",
    "thin_tracks",
]
