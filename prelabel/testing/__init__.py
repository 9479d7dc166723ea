"""For your own tests: contract tests of plug-ins, and a test server of the Encord API."""

from prelabel.testing.contracts import check_classifier, check_detector, check_reader, check_refiner, check_tracker
from prelabel.testing.encord_server import EncordServer, connect

__all__ = [
    "EncordServer",
    "check_classifier",
    "check_detector",
    "check_reader",
    "check_refiner",
    "check_tracker",
    "connect",
]
