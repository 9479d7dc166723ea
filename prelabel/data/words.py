"""The words that an open-vocabulary detector looks for, and the ontology objects that they stand for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from prelabel.data.ontology import BOX_SHAPES, Ontology, OntologyObject
from prelabel.errors import ConfigError, OntologyError, did_you_mean

Prompts = Mapping[str, Sequence[str]]
"""Words by the name or feature hash of an ontology object: the key `labels.prompts`."""


def words_to_find(prompts: Prompts, ontology: Ontology | None) -> tuple[str, ...]:
    """Returns the words for a detector: those of each object in `prompts`, and the names of all other objects.

    Args:
        prompts: words by object; an object without words is left out.
        ontology: None if the source has none. Then only the words in `prompts` are known.

    Raises:
        ConfigError: there is no word.
        OntologyError: the ontology has no object that fits a box, or lacks one of `prompts`, or a word stands for two
            of its objects.

    >>> words_to_find({"Forklift": ["forklift truck", "lift truck"]}, Ontology.from_classes(["Forklift", "Pallet"]))
    ('forklift truck', 'lift truck', 'Pallet')
    """
    if ontology is None:
        words = [word for of_object in prompts.values() for word in of_object]
        if not words:
            raise ConfigError(
                "detector.words: is missing: this model looks for words, and there is no ontology to take them from: "
                "add words: [forklift, pallet], or --words 'forklift, pallet'"
            )
        return tuple(words)
    objects = [each for each in ontology.objects if each.shape in BOX_SHAPES]
    if not objects:
        raise OntologyError(
            f"ontology {ontology.title!r} has no object of shape {', '.join(BOX_SHAPES)}, so there is no word to look "
            "for: add an object there"
        )
    words_of: dict[str, Sequence[str]] = {each.feature_hash: (each.name,) for each in objects}
    for key, of_object in prompts.items():
        words_of |= dict.fromkeys(_hashes_of(key, objects, ontology.title), of_object)
    names: dict[str, str] = {}
    for each in objects:
        for word in words_of[each.feature_hash]:
            if names.setdefault(word, each.name) != each.name:
                raise OntologyError(
                    f"labels.prompts: {word!r} stands for {names[word]!r} and for {each.name!r}: give one of them "
                    "other words"
                )
    if not names:
        raise ConfigError("labels.prompts: leaves out all objects, so there is no word to look for")
    return tuple(names)


def objects_by_word(prompts: Prompts) -> dict[str, str]:
    """Returns the object that each word in `prompts` stands for.

    >>> objects_by_word({"Forklift": ["forklift truck", "lift truck"]})
    {'forklift truck': 'Forklift', 'lift truck': 'Forklift'}
    """
    return {word: name for name, words in prompts.items() for word in words}


def plain_text(word: str) -> str:
    """Returns a word as the model reads it.

    Full stops and question marks become spaces, since Grounding DINO ends a word at them. So do underscores, which are
    common in names of ontology objects.

    >>> plain_text("St._Bernard"), plain_text("...")
    ('St Bernard', '')
    """
    return " ".join(re.sub(r"[._?]", " ", word).split())


def refuse_repeated(words: Sequence[str], texts: Sequence[str]) -> None:
    """Raises a ConfigError if two words are the same to the model.

    Args:
        words: as the user wrote them.
        texts: as `plain_text` returns them.
    """
    text, times = Counter(text.casefold() for text in texts).most_common(1)[0]
    if times > 1:
        same = [word for word, each in zip(words, texts, strict=True) if each.casefold() == text]
        raise ConfigError(f"words: {' and '.join(map(repr, same))} are the same to the model: leave one out")


def _hashes_of(key: str, objects: Sequence[OntologyObject], title: str) -> list[str]:
    """Returns the feature hashes of the objects that a key names. Case matters only if two names differ in it alone."""
    exact = [each for each in objects if key in (each.name, each.feature_hash)]
    found = exact or [each for each in objects if each.name.casefold() == key.casefold()]
    if not found:
        hint = did_you_mean(key, [each.name for each in objects])
        raise OntologyError(f"labels.prompts: {key!r} is not in ontology {title!r}: {hint}")
    return [each.feature_hash for each in found]
