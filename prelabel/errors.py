"""The errors that a user can meet.

PrelabelError
├── SetupError            nothing can run: exit code 2
│   ├── ConfigError       a key, a value, a file that the config names
│   ├── PluginError       a `use:` that cannot be loaded or called
│   ├── WeightsError      weights that are missing, altered or of another kind
│   ├── OntologyError     classes and ontology do not meet
│   ├── AccountError      key, project, stage or pathway on the platform
│   │   └── OutageError   the platform did not answer for longer than a run waits
│   └── MachineError      this machine lacks a device or a decoder
└── TaskError             one task fails, the run goes on: exit code 1
    ├── FetchError        the media could not be downloaded completely
    │   └── LinkExpiredError
    ├── ReadError         the media could not be decoded as promised
    │   └── FrameCountError
    ├── DetectError       the detector broke its contract or raised
    │   └── DeviceMemoryError
    ├── ClassifyError     the classifier broke its contract or raised
    ├── TrackError        the tracker broke its contract or raised
    ├── AgentError        the user's function raised
    │   └── AnswerError   it returned a value that is not allowed
    ├── LabelError        the labels cannot be written as they are
    │   └── RowTooLargeError
    ├── SaveError         the platform refused the labels or the move
    └── TakenError        no failure: a person or another run has moved the task on
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class PrelabelError(Exception):
    """Base of all errors that a user can meet."""


class SetupError(PrelabelError):
    """Nothing ran: the config, the project or the machine is wrong."""


class ConfigError(SetupError):
    """A key, a value or a file of the config is wrong."""


class PluginError(SetupError):
    """A `use:` cannot be loaded, or does not take the options it was given."""


class WeightsError(SetupError):
    """Weights are missing, altered, or of a kind that the detector does not load."""


class OntologyError(SetupError):
    """The detector's classes do not fit the ontology."""


class AccountError(SetupError):
    """The key, project, stage or pathway is missing or not allowed."""


class OutageError(AccountError):
    """The platform did not answer for longer than a run waits; the remaining tasks can be done later."""


class MachineError(SetupError):
    """This machine lacks a device or a decoder that the config asks for."""


class TaskError(PrelabelError):
    """One task failed; the run goes on with the others.

    Attributes:
        retryable: whether another try, with the media and the label row fetched again, can succeed.
    """

    retryable = True


class FetchError(TaskError):
    """The media could not be downloaded completely."""


class LinkExpiredError(FetchError):
    """The storage refused a link that a worker got from the run; the run can give it a new one."""


class ReadError(TaskError):
    """The media could not be decoded as promised."""


class FrameCountError(ReadError):
    """Frames decoded, frames indexed and frames promised differ."""


class DetectError(TaskError):
    """The detector raised, or returned what its contract does not allow."""


class ClassifyError(TaskError):
    """The classifier raised, or returned what its contract does not allow."""


class DeviceMemoryError(DetectError):
    """A batch does not fit into the device's memory; a smaller one may."""


class TrackError(TaskError):
    """The tracker raised, or returned what its contract does not allow."""

    retryable = False


class AgentError(TaskError):
    """The user's function at an agent stage raised."""


class AnswerError(AgentError):
    """The user's function returned a value that is not allowed."""

    retryable = False


class LabelError(TaskError):
    """The labels cannot be written as they are."""

    retryable = False


class RowTooLargeError(LabelError):
    """The label row is larger than the platform allows."""


class SaveError(TaskError):
    """The platform refused the labels or the move."""


class TakenError(TaskError):
    """The task was moved or done by somebody else after it was listed. Nothing was saved."""

    retryable = False


@contextmanager
def raised_as(kind: type[PrelabelError], who: str, *as_they_are: type[BaseException]) -> Iterator[None]:
    """Raises what a part of the user's own raises as one kind of error.

    `sys.exit` and panics of Rust code are no `Exception`s. Nothing else handles them: they would end a thread that
    others wait for.

    Args:
        kind: class of the error.
        who: what raised, in words, such as `the tracker`.
        as_they_are: classes of errors that are passed on.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, GeneratorExit, *as_they_are)):
            raise
        raise kind(f"{who} raised {type(error).__name__}: {error}") from error


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns a hint that names the known word nearest to `word`, or lists the known ones.

    >>> did_you_mean("wieghts", ["weights", "conf"])
    "did you mean 'weights'?"
    >>> did_you_mean("confidence", ["weights", "conf"])
    "did you mean 'conf'?"
    >>> did_you_mean("zzz", ["weights", "conf"])
    'known: conf, weights'
    """
    names = sorted(set(known))
    lower = [name.lower() for name in names]
    near = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.6) or _with_its_beginning(word.lower(), lower)
    if near:
        return f"did you mean {next(name for name in names if name.lower() == near[0])!r}?"
    return "known: " + ", ".join(names) if names else "there are none"


def _with_its_beginning(word: str, names: Iterable[str]) -> list[str]:
    """Returns the names that begin with the word or that the word begins with; the shorter has 3 letters or more."""
    pairs = [(name, *sorted((name, word), key=len)) for name in names]
    return [name for name, short, long in pairs if len(short) > 2 and long.startswith(short)]
