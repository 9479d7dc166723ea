"""Ontologies in the editor's JSON form, from a few words."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

Editor = dict[str, Any]
_COLORS = ("#D33115", "#E27300", "#16406C", "#FE9200", "#194D33", "#653294")


def feature_hash(*names: str) -> str:
    """Eight characters that stay the same for the same names, so that a failing test can be repeated."""
    digest = hashlib.sha256("/".join(names).encode()).digest()
    return base64.b64encode(digest, altchars=b"Aa")[:8].decode()


def ontology_object(name: str, shape: str = "bounding_box", **more: Any) -> Editor:
    """One object class; `more` overrides or adds keys (`archived=True`, `attributes=[…]`)."""
    return {
        "name": name,
        "shape": shape,
        "featureNodeHash": feature_hash(name, shape),
        "required": False,
        "archived": False,
    } | more


def radio_classification(name: str, options: Sequence[str], **more: Any) -> Editor:
    """A classification whose single attribute is a choice of one option."""
    choice = {
        "id": "1.1",
        "name": name,
        "type": "radio",
        "required": False,
        "dynamic": False,
        "featureNodeHash": feature_hash(name, "radio"),
        "options": [
            {
                "id": f"1.1.{number}",
                "label": option,
                "value": option.lower().replace(" ", "_"),
                "featureNodeHash": feature_hash(name, option),
            }
            for number, option in enumerate(options, 1)
        ],
    }
    return {"featureNodeHash": feature_hash(name, "classification"), "attributes": [choice]} | more


def checklist_attribute(name: str, options: Sequence[str], **more: Any) -> Editor:
    """An attribute of an object, of which several options may hold."""
    return {
        "name": name,
        "type": "checklist",
        "required": False,
        "dynamic": False,
        "featureNodeHash": feature_hash(name, "checklist"),
        "options": [
            {"label": option, "value": option.lower(), "featureNodeHash": feature_hash(name, option)}
            for option in options
        ],
    } | more


def editor(objects: Sequence[Editor], classifications: Sequence[Editor] = ()) -> Editor:
    """The whole of it, with the running ids and colours filled in."""
    numbered = [
        {"id": str(number), "color": _COLORS[number % len(_COLORS)]} | _with_attribute_ids(entry, str(number))
        for number, entry in enumerate(objects, 1)
    ]
    return {
        "objects": numbered,
        "classifications": [
            {"id": str(number)} | _with_attribute_ids(entry, str(number))
            for number, entry in enumerate(classifications, 1)
        ],
    }


def _with_attribute_ids(entry: Editor, prefix: str) -> Editor:
    if "attributes" not in entry:
        return entry
    attributes = []
    for number, attribute in enumerate(entry["attributes"], 1):
        own = f"{prefix}.{number}"
        options = [option | {"id": f"{own}.{index}"} for index, option in enumerate(attribute.get("options", ()), 1)]
        attributes.append(attribute | {"id": own} | ({"options": options} if options else {}))
    return entry | {"attributes": attributes}


def roads() -> Editor:
    """The default ontology: boxes, one of them with an attribute, a polygon, and a scene classification."""
    return editor(
        [
            ontology_object("Pedestrian", attributes=[checklist_attribute("Occluded", ["Yes"])]),
            ontology_object("Vehicle"),
            ontology_object("Road sign", "polygon"),
        ],
        [radio_classification("Weather", ["Dry", "Wet"])],
    )
