"""Where the tasks of a project come from and go, as a config says it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args, get_origin
from uuid import UUID

import yaml
from pydantic import BaseModel

from prelabel.config.sections import Config, LabelsSection, ReaderSection
from prelabel.encord.connection import DEFAULT_DOMAIN
from prelabel.encord.source import EncordSection
from prelabel.errors import AccountError, ConfigError, did_you_mean
from prelabel.files.folder_source import FolderSection
from prelabel.models.cards import ModelCard, card_names, find_card

if TYPE_CHECKING:
    from encord.workflow import AgentStage
    from encord.workflow.stages.agent import AgentPathway

    from prelabel.encord.project import EncordProject


COMMENT_COLUMN, WIDTH = 34, 120


def field(section: type[BaseModel], key: str, value: object) -> str:
    """Returns a key of a section with a value, and what the config says of it."""
    return entry(key, value, description(section, key))


def commented_field(section: type[BaseModel], key: str, value: object) -> str:
    """Returns a key of a section that is switched off by a `#` before it, the value an example."""
    return entry(f"# {key}", value, description(section, key))


def description(section: type[BaseModel], key: str) -> str:
    """Returns what the config says of a key, with the values that it may have."""
    known = section.model_fields[key]
    said = known.description or ""
    values = get_args(known.annotation) if get_origin(known.annotation) is Literal else ()
    if len(values) < 2 or all(str(value) in said for value in values):
        return said
    return f"{' | '.join(map(str, values))}: {said}"


def entry(key: str, value: object, why: str, *, indent: int = 2) -> str:
    """Returns a key, its value and why it is there; a comment that is too long stands above."""
    line = f"{'':{indent}}{key}: {yaml_text(value)}"
    if not why:
        return line
    commented = f"{line:<{COMMENT_COLUMN}}# {why}" if len(line) < COMMENT_COLUMN else f"{line}  # {why}"
    return commented if len(commented) <= WIDTH else f"{comment(why, indent=indent)}\n{line}"


def comment(text: str, *, indent: int = 0) -> str:
    """Returns comment lines; where the text is indented, the lines that follow are too."""
    margin = f"{'':{indent}}# "
    hang = margin + " " * (len(text) - len(text.lstrip()))
    return textwrap.fill(
        text, WIDTH, initial_indent=margin, subsequent_indent=hang, break_long_words=False, break_on_hyphens=False
    )


def yaml_text(value: object) -> str:
    r"""Returns a value as YAML in one line.

    >>> yaml_text("clips/*.mp4"), yaml_text("no"), yaml_text({"A b": 0.5})
    ('clips/*.mp4', "'no'", '{A b: 0.5}')
    >>> print(yaml_text("two\nlines"))
    "two\nlines"
    """
    plain = _dump(value, None)
    return plain if plain.isprintable() else _dump(value, '"')  # only in double quotes is a line break escaped


def one_line(value: object) -> str:
    """Returns text that cannot leave the comment that it stands in."""
    words = " ".join(str(value).split())
    return "".join(letter for letter in words if letter.isprintable())


def quoted(names: Iterable[str]) -> str:
    """Returns names for a comment: 'a', 'b'."""
    return ", ".join(f"'{one_line(name)}'" for name in names)


def _dump(value: object, style: str | None) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, default_style=style, width=10**6, allow_unicode=True)
    return text.removesuffix("...\n").strip()


CHECK_IT = "a guess: check"


def card_of(weights: str) -> ModelCard | None:
    """Returns the card of a model; None where its weights need none.

    Raises:
        ConfigError: there is no such model, or its weights need a card that is not there.
    """
    card = find_card(weights)
    if card is not None:
        return card
    if Path(weights).suffix == ".pth":
        raise ConfigError(
            f"weights '{weights}': torchvision's need a card that says which network they are for: "
            f"models/{Path(weights).stem}.yaml with file, licence, use: torchvision, builder and classes"
        )
    if not Path(weights).suffix and not Path(weights).exists():
        raise ConfigError(f"weights '{weights}': no model of this name; {did_you_mean(weights, card_names())}")
    return None


def joined(*lines: str) -> str:
    """Returns the text of a config."""
    return "\n".join(lines) + "\n"


def next_steps(run: str, setting: str) -> str:
    """Returns what to do with the config, as comments.

    Args:
        run: the command, and what it does.
        setting: a key and a value, as an example.
    """
    steps = f"""
        Next: prelabel check CONFIG      all that can be known before frame 0
              {run}
        Any value can be given for one run: --set {setting}
    """
    return "\n".join(comment(line) for line in textwrap.dedent(steps).strip().splitlines()) + "\n"


def folder_section(path: Path) -> Iterable[str]:
    """Yields where files come from."""
    yield "source:"
    yield entry("use", "folder", "or: encord, an agent stage of a project; prelabel init --project HASH writes that")
    yield field(FolderSection, "path", str(path))
    yield field(FolderSection, "output", "out")


def reader_section() -> Iterable[str]:
    """Yields how media are read."""
    yield ""
    yield "reader:"
    yield field(ReaderSection, "use", "auto")
    yield field(ReaderSection, "device", "auto")
    yield field(ReaderSection, "stride", 1)
    yield commented_field(ReaderSection, "only_keyframes", True)
    yield commented_field(ReaderSection, "frame_ranges", [[0, 299]])
    yield commented_field(ReaderSection, "isolate", "never")
    yield commented_field(ReaderSection, "stall_seconds", 300)
    yield commented_field(ReaderSection, "max_memory_gb", 16)
    yield commented_field(ReaderSection, "decode_workers", 4)


def weights_entry(weights: str, card: ModelCard | None) -> str:
    """Returns which weights a model has, and under which licence."""
    licence = f"; licence {card.licence}" if card is not None else ""
    return entry("weights", weights, f"a card in models/, a path or an address{licence}")


def row_entries() -> Iterable[str]:
    """Yields what holds of labels of any kind."""
    yield field(LabelsSection, "unmapped", "ignore")
    yield field(LabelsSection, "if_begun", "merge")


def frames_entry() -> Iterable[str]:
    """Yields what becomes of media of which frames are missing."""
    yield ""
    yield comment(description(Config, "frames"))
    yield "frames: strict"


def choose_stages(project: EncordProject, name: str | None) -> Sequence[AgentStage]:
    """Returns the agent stage of this title or uuid, or all that the project has.

    Raises:
        AccountError: there is none, or one from which no task could go on.
    """
    stages = _agent_stages(project) if name is None else [project.agent_stage(name)]
    if not stages:
        raise AccountError(f"project {project.title!r} has no agent stage: add one to its workflow, before annotation")
    for stage in stages:
        if not stage.pathways:
            raise AccountError(
                f"stage {stage.title!r} has no pathway, so no task can leave it: draw one in the workflow"
            )
    return stages


def encord_section(project: EncordProject, stages: Sequence[AgentStage]) -> Iterable[str]:
    """Yields where tasks come from; with the stage, if it is one."""
    yield "source:"
    yield entry("use", "encord", "or: folder, videos on this machine; prelabel init --folder FOLDER writes that")
    yield field(EncordSection, "project_hash", project.project_hash)
    if len(stages) == 1:
        known = [stage.title for stage in _agent_stages(project)]
        yield comment(f"agent stages of this project: {quoted(known)}", indent=2)
        yield field(EncordSection, "stage", _name_of(stages[0], known))
    if project.caller.domain != DEFAULT_DOMAIN:
        yield field(EncordSection, "domain", project.caller.domain)
    yield field(EncordSection, "output", "out")
    yield field(EncordSection, "cache_gb", 20)
    yield field(EncordSection, "fetch_workers", 4)
    yield commented_field(EncordSection, "order", "shuffled")
    yield field(EncordSection, "record", True)


def destinations(project: EncordProject, stages: Sequence[AgentStage]) -> Iterable[str]:
    """Yields where tasks go: a pathway, or, of several stages, a list of these with a pathway each."""
    yield ""
    if len(stages) == 1:
        yield from pathway_entry(project, stages[0])
        return
    titles = [stage.title for stage in stages]
    yield comment(
        "one after the other; a stage may have sections of its own, such as detector, classifier, agent, labels or "
        "routing, which stand for those above"
    )
    yield "stages:"
    for stage in stages:
        yield f"  - {entry('stage', _name_of(stage, titles), '', indent=0)}"
        yield from pathway_entry(project, stage, indent=4)


def pathway_entry(project: EncordProject, stage: AgentStage, *, indent: int = 0) -> Iterable[str]:
    """Yields a stage's pathways, and the one that leads to annotators as the one to take."""
    names = [pathway.name for pathway in stage.pathways]
    yield from pathway_comments(project, stage, indent=indent)
    chosen = pathway_name(stage, first_to_people(project, stage.pathways))
    yield entry("pathway", chosen, CHECK_IT if len(names) > 1 else description(Config, "pathway"), indent=indent)


def pathway_comments(project: EncordProject, stage: AgentStage, *, indent: int = 0) -> Iterable[str]:
    """Yields a stage's pathways and where they lead, as comments."""
    titles = {found.uuid: found.title for found in project.sdk.workflow.stages}
    yield comment(f"pathways of stage '{one_line(stage.title)}':", indent=indent)
    for pathway in stage.pathways:
        goal = titles.get(pathway.destination_uuid)
        to_goal = f", to stage '{one_line(goal)}'" if goal is not None else ""
        yield comment(f"  '{one_line(pathway.name)}'{to_goal}", indent=indent)


def first_to_people(project: EncordProject, pathways: Sequence[AgentPathway]) -> AgentPathway:
    """Returns the first pathway that leads to annotators, else the first of all."""
    stages = {found.uuid: found for found in project.sdk.workflow.stages}
    to_people = [pathway for pathway in pathways if _leads_to_annotation(pathway, stages)]
    return (to_people or pathways)[0]


def pathway_name(stage: AgentStage, pathway: AgentPathway) -> str:
    """Returns what a config calls a pathway: its name, or its uuid if several of the stage bear that."""
    is_clear = [other.name for other in stage.pathways].count(pathway.name) == 1
    return pathway.name if is_clear else str(pathway.uuid)


def _agent_stages(project: EncordProject) -> list[AgentStage]:
    from encord.workflow import AgentStage

    return [stage for stage in project.sdk.workflow.stages if isinstance(stage, AgentStage)]


def _name_of(stage: AgentStage, titles: Sequence[str]) -> str:
    return stage.title if titles.count(stage.title) == 1 else str(stage.uuid)


def _leads_to_annotation(pathway: AgentPathway, stages: Mapping[UUID, object]) -> bool:
    from encord.workflow import AnnotationStage

    return isinstance(stages.get(pathway.destination_uuid), AnnotationStage)
