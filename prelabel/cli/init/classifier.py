"""Configs that answer a classification, to start from."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prelabel.cli.init.class_guess import classes_of_options
from prelabel.cli.init.parts import (
    CHECK_IT,
    card_of,
    choose_stages,
    comment,
    commented_field,
    description,
    destinations,
    encord_section,
    entry,
    field,
    first_to_people,
    folder_section,
    frames_entry,
    joined,
    next_steps,
    one_line,
    pathway_comments,
    pathway_name,
    reader_section,
    row_entries,
    weights_entry,
    yaml_text,
)
from prelabel.config.sections import ClassifierSection, LabelsSection
from prelabel.data.classification import Classification, classifications_of
from prelabel.data.ontology import BOX_SHAPES, Ontology
from prelabel.errors import OntologyError
from prelabel.files.folder_source import FolderSection
from prelabel.models.cards import ModelCard

if TYPE_CHECKING:
    from encord.workflow import AgentStage

    from prelabel.encord.project import EncordProject


_SETTING = "classifier.conf=0.7"
_OPTIONS_SHOWN = 30
_OPENAI = (
    "or, of any OpenAI-compatible service, with OPENAI_API_KEY and OPENAI_BASE_URL: "
    "classifier: {use: openai, model: gpt-4o-mini, conf: 0.5}; it is asked for the options themselves: classes: {}"
)


def asks_for_answers(ontology: Ontology) -> bool:
    """Tells whether an ontology has questions to answer, and nothing that a box could become."""
    takes_boxes = any(each.shape in BOX_SHAPES for each in ontology.objects)
    return not takes_boxes and bool(classifications_of(ontology))


def classifying_config_for_folder(path: Path, *, weights: str = "mobilenet_v2") -> str:
    """Returns a config that sorts the pictures and videos of a folder.

    Args:
        path: a file, a folder or a glob.
        weights: a card's name, a path or an address.

    Raises:
        ConfigError: there is no such model, or its weights need a card that is not there.
    """
    card = card_of(weights)
    return joined(
        comment(f"An answer for each picture and video in {one_line(path)}, by {one_line(weights)}."),
        next_steps("prelabel run CONFIG", _SETTING),
        *folder_section(path),
        commented_field(FolderSection, "ontology", "ontology.json"),
        *reader_section(),
        *_classifier_section(weights, card),
        "labels:",
        commented_field(LabelsSection, "classification", "Animal"),
        comment(description(LabelsSection, "classes"), indent=2),
        comment("classes: {tabby: Cat, Egyptian cat: Cat, beagle: Dog}", indent=2),
        *_label_entries("Cat"),
        *frames_entry(),
    )


def classifying_config_for_project(
    project: EncordProject, *, stage: str | None = None, weights: str = "mobilenet_v2"
) -> str:
    """Returns a config that answers a classification of a project, and sends each task down the pathway of its answer.

    Args:
        project: where the stage, its pathways and the ontology are looked up.
        stage: title or uuid of the agent stage; None: all that there are, one after the other.
        weights: a card's name, a path or an address.

    Raises:
        AccountError: there is no such stage, or no task could leave it.
        ConfigError: there is no such model, or its weights need a card that is not there.
        OntologyError: the ontology has no classification.
    """
    card = card_of(weights)
    stages, ontology = choose_stages(project, stage), project.ontology()
    known = classifications_of(ontology)
    if not known:
        raise OntologyError(
            f"ontology {ontology.title!r}: has no classification: add one there, or leave --classify out"
        )
    asked = known[0]
    options = [choice.name for choice in asked.choices]
    return joined(
        comment(
            f"Answers to '{one_line(asked.name)}' for project '{one_line(project.title)}', by {one_line(weights)}."
        ),
        next_steps("prelabel run CONFIG --dry-run --limit 2      answers to files, nothing saved or moved", _SETTING),
        *encord_section(project, stages),
        *reader_section(),
        *_classifier_section(weights, card),
        "labels:",
        *_classification_entry(known, asked),
        *_class_map(options, weights, card),
        *_label_entries(options[0] if options else "Cat"),
        *_routing(project, stages, options),
        *frames_entry(),
    )


def _classifier_section(weights: str, card: ModelCard | None) -> Iterable[str]:
    yield ""
    yield "classifier:"
    yield field(ClassifierSection, "use", card.use if card is not None else "ultralytics")
    yield weights_entry(weights, card)
    yield field(ClassifierSection, "conf", 0.5)
    yield field(ClassifierSection, "frames_per_video", 8)
    yield field(ClassifierSection, "batch_size", "auto")
    yield entry("device", "auto", "auto | cpu | cuda | cuda:N")
    yield comment(_OPENAI, indent=2)
    yield ""


def _classification_entry(known: Sequence[Classification], asked: Classification) -> Iterable[str]:
    for each in known:
        options = [one_line(choice.name) for choice in each.choices[:_OPTIONS_SHOWN]]
        more = ", …" if len(each.choices) > _OPTIONS_SHOWN else ""
        said = f": {', '.join(options)}{more}" if options else ": any text"
        yield comment(f"'{one_line(each.name)}' ({each.kind}){said}", indent=2)
    is_clear = [each.name for each in known].count(asked.name) == 1
    why = CHECK_IT if len(known) > 1 else description(LabelsSection, "classification")
    yield entry("classification", asked.name if is_clear else asked.feature_hash, why)


def _class_map(options: Sequence[str], weights: str, card: ModelCard | None) -> Iterable[str]:
    yield comment(description(LabelsSection, "classes"), indent=2)
    if card is None:
        yield comment(f"which classes {one_line(weights)} has is told by: prelabel check CONFIG", indent=2)
    proposed = classes_of_options(card, options)
    if not proposed:
        yield comment(f"classes: {yaml_text({'tabby': options[0] if options else 'Cat'})}", indent=2)
        return
    yield "  classes:"
    for name, (option, is_guess) in proposed.items():
        yield entry(yaml_text(name), option, CHECK_IT if is_guess else "", indent=4)


def _label_entries(option: str) -> Iterable[str]:
    yield field(LabelsSection, "answers", "range")
    yield from row_entries()
    yield commented_field(LabelsSection, "conf", {option: 0.8})


def _routing(project: EncordProject, stages: Sequence[AgentStage], options: Sequence[str]) -> Iterable[str]:
    """Yields where the tasks of each option go, where a pathway is called after one; else one pathway for all."""
    by_option = _pathways_of(stages[0], options) if len(stages) == 1 else {}
    if not by_option:
        yield from destinations(project, stages)
        yield comment("or by what was answered: routing: {OPTION: PATHWAY, otherwise: PATHWAY}")
        return
    yield ""
    yield from pathway_comments(project, stages[0])
    yield comment("the first that was answered; otherwise: no answer was sure enough")
    yield "routing:"
    for option, pathway in by_option.items():
        yield entry(yaml_text(option), pathway, CHECK_IT)
    yield entry("otherwise", _other_pathway(project, stages[0], by_option.values()), CHECK_IT)


def _pathways_of(stage: AgentStage, options: Sequence[str]) -> dict[str, str]:
    """Returns pathways by the option that their name contains, as words, whatever the case and the plural."""
    found = {}
    for option in options:
        words = option.casefold().split()
        for pathway in stage.pathways:
            if _contains(pathway.name.casefold().split(), words):
                found[option] = pathway_name(stage, pathway)
                break
    return found


def _contains(words: Sequence[str], wanted: Sequence[str]) -> bool:
    singular = [word.removesuffix("s") for word in words]
    sought = [word.removesuffix("s") for word in wanted]
    return any(singular[start : start + len(sought)] == sought for start in range(len(singular)))


def _other_pathway(project: EncordProject, stage: AgentStage, taken: Collection[str]) -> str:
    left = [pathway for pathway in stage.pathways if pathway_name(stage, pathway) not in taken]
    return pathway_name(stage, first_to_people(project, left or stage.pathways))
