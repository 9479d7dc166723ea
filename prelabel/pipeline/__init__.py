"""From media to detections: decoding ahead, batches, and the detector that is fed with them."""

from prelabel.pipeline.pipeline import Inference, Pipeline

__all__ = ["Inference", "Pipeline"]
