"""The config: YAML and `--set` into frozen, checked sections."""

from prelabel.config.failures import OnFailureSection, RetriesSection
from prelabel.config.load import check_config, load_config, load_configs
from prelabel.config.routing import RuleSection, make_router
from prelabel.config.sections import (
    COMPUTING_KEYS,
    WHETHER_KEYS,
    AgentSection,
    ClassifierSection,
    Config,
    DetectorSection,
    LabelsSection,
    ReaderSection,
    SinkSection,
    TrackerSection,
)
from prelabel.config.sources import DemoSection, EncordSection, FolderSection, Source

__all__ = [
    "COMPUTING_KEYS",
    "WHETHER_KEYS",
    "AgentSection",
    "ClassifierSection",
    "Config",
    "DemoSection",
    "DetectorSection",
    "EncordSection",
    "FolderSection",
    "LabelsSection",
    "OnFailureSection",
    "ReaderSection",
    "RetriesSection",
    "RuleSection",
    "SinkSection",
    "Source",
    "TrackerSection",
    "check_config",
    "load_config",
    "load_configs",
    "make_router",
]
