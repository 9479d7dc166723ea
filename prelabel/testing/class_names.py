"""Names that classes may have."""

from __future__ import annotations

from collections.abc import Sequence


def check_class_names(class_names: Sequence[str]) -> None:
    """Raises: AssertionError: there are none, or they are no names, or not each its own."""
    assert not isinstance(class_names, str), f"class_names: got the text {class_names!r}, expected a sequence of names"
    assert len(class_names) > 0, "class_names: got none, expected one or more"
    for name in class_names:
        assert isinstance(name, str), f"class_names: got {name!r}, expected text"
        assert name.strip(), f"class_names: got {name!r}, expected a name"
    doubled = sorted({name for name in class_names if list(class_names).count(name) > 1})
    assert not doubled, f"class_names: {doubled} come more than once"
