"""Fills the tables of docs/config.md from the config's own fields: `uv run python docs/make_config_tables.py`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

from prelabel.config.base import OnFailureSection, ReportSection, RetriesSection
from prelabel.config.schema import describe_values, described_options
from prelabel.config.sections import (
    ClassifierSection,
    Config,
    DetectorSection,
    LabelsSection,
    ReaderSection,
    RefineSection,
    TrackerSection,
    WorkersSection,
)
from prelabel.encord.source import EncordSection
from prelabel.files.folder_source import FolderSection
from prelabel.models.detectors.onnx import InputOptions
from prelabel.plugins.affects import Affects

PAGE = Path(__file__).with_name("config.md")
TABLES: dict[str, Mapping[str, FieldInfo]] = {
    "folder": FolderSection.model_fields,
    "encord": EncordSection.model_fields,
    "reader": ReaderSection.model_fields,
    "detector": DetectorSection.model_fields,
    "detector: ultralytics": described_options("detector", "ultralytics"),
    "detector: torchvision": described_options("detector", "torchvision"),
    "detector: transformers": described_options("detector", "transformers"),
    "detector: onnx": described_options("detector", "onnx"),
    "detector: onnx input": InputOptions.model_fields,
    "classifier": ClassifierSection.model_fields,
    "classifier: torchvision": described_options("classifier", "torchvision"),
    "classifier: openai": described_options("classifier", "openai"),
    "labels": LabelsSection.model_fields,
    "tracker": TrackerSection.model_fields,
    "refine": RefineSection.model_fields,
    "refine: sam2": described_options("refine", "sam2"),
    "workers": WorkersSection.model_fields,
    "retries": RetriesSection.model_fields,
    "on_failure": OnFailureSection.model_fields,
    "report": ReportSection.model_fields,
    "top": {name: Config.model_fields[name] for name in ("pathway", "routing", "priority", "frames")},
}


def fill_tables(page: str) -> str:
    """Returns the page with the rows of each table, between `<!-- NAME -->` and `<!-- end -->`, written anew."""

    def table_of(match: re.Match[str]) -> str:
        return f"<!-- {match[1]} -->\n{markdown_table(TABLES[match[1]])}\n<!-- end -->"

    return re.sub(r"<!-- (.+?) -->\n.*?<!-- end -->", table_of, page, flags=re.DOTALL)


def markdown_table(fields: Mapping[str, FieldInfo]) -> str:
    """Returns a table of keys with their default, their meaning, and what a change affects."""
    says_effect = any(isinstance(each, Affects) for field in fields.values() for each in field.metadata)
    heads = ["key", "default", "meaning", *(["affects"] if says_effect else [])]
    rows = [heads, ["---"] * len(heads)]
    for key, field in fields.items():
        effect = next((each.value for each in field.metadata if isinstance(each, Affects)), "detections")
        meaning = describe_values(field).replace("|", "\\|").replace("<", "&lt;")
        rows.append([f"`{key}`", _default(field), meaning, *([effect] if says_effect else [])])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    plain = to_jsonable_python(value, exclude_none=True)
    return "" if plain in (None, "", [], {}) else f"`{plain if isinstance(plain, str) else json.dumps(plain)}`"


if __name__ == "__main__":
    PAGE.write_text(fill_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
