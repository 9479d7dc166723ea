"""Contract tests for what you write yourself: run them over your own class in a test of yours."""

from prelabel.testing.contracts import check_classifier, check_detector, check_reader, check_tracker

__all__ = ["check_classifier", "check_detector", "check_reader", "check_tracker"]
