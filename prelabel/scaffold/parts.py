"""Parts of a config that stand in each, whatever it is for."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path

from prelabel.cards import ModelCard, card_names, find_card
from prelabel.config import Config, FolderSection, LabelsSection, ReaderSection
from prelabel.errors import ConfigError, did_you_mean
from prelabel.scaffold.commented_yaml import comment, description, entry, field, idle_field

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
    yield idle_field(ReaderSection, "only_keyframes", True)
    yield idle_field(ReaderSection, "frame_ranges", [[0, 299]])
    yield idle_field(ReaderSection, "isolate", "never")
    yield idle_field(ReaderSection, "stall_seconds", 300)
    yield idle_field(ReaderSection, "max_memory_gb", 16)
    yield idle_field(ReaderSection, "sessions", 4)


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
