"""Contract tests for your own plug-ins: call them with your class in your own tests."""

from prelabel.testing.contracts import check_classifier, check_detector, check_reader, check_tracker

__all__ = ["check_classifier", "check_detector", "check_reader", "check_tracker"]
