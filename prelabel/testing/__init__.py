"""Contract tests for what you write yourself: run them over your own class in a test of yours."""

from prelabel.testing.classifiers import check_classifier
from prelabel.testing.detectors import check_detector
from prelabel.testing.readers import check_reader
from prelabel.testing.trackers import check_tracker

__all__ = ["check_classifier", "check_detector", "check_reader", "check_tracker"]
