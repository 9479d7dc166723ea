"""Parts that several stages of a run share."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar, cast

Part = TypeVar("Part")


class Shared:
    """A cache of parts, keyed by what they are made of. For one thread."""

    def __init__(self) -> None:
        self._made: dict[str, object] = {}

    def once(self, made_of: tuple[object, ...], make: Callable[[], Part]) -> Part:
        """Returns the cached part for `made_of`; calls `make` if there is none.

        >>> shared = Shared()
        >>> shared.once(("a", {"conf": 0.5}), list) is shared.once(("a", {"conf": 0.5}), list)
        True
        """
        key = json.dumps(made_of, sort_keys=True, default=str)
        if key not in self._made:
            self._made[key] = make()
        return cast(Part, self._made[key])
