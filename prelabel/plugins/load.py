"""Loads the class or function that `use:` names. Built-ins and user files are loaded alike."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NotRequired, Required

from pydantic import BaseModel, ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # before Python 3.12, pydantic does not accept `typing.TypedDict`

from prelabel.errors import ConfigError, PluginError, PrelabelError, did_you_mean, raised_as
from prelabel.plugins.protocols import ModelRecord

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_UNION_TAG = r"[\[(-]|^(int|str|float|bool|dict|literal)$"
_PLAIN_TYPES = {
    "boolean": "true or false",
    "integer": "an integer",
    "list": "a list",
    "number": "a number",
    "string": "text",
    "tuple": "a list",
}
PluginKind = Literal["detector", "refine", "reader", "tracker", "classifier", "source", "sink", "agent", "export"]


@dataclass(frozen=True, slots=True)
class Plugin:
    """A class or function that a config names with `use:`.

    Attributes:
        section: the config's section, for errors.
        use: the name in the config.
        factory: the class or function, which is called with the section's options.
        source_sha256: sha256 of the plug-in's file, if `use` names a file. A changed file counts as another plug-in.
        section_keys: keys of the section that are not options of the plug-in. Errors suggest these too.
    """

    section: str
    use: str
    factory: Callable[..., Any]
    source_sha256: str | None = None
    section_keys: Collection[str] = ()

    @property
    def model(self) -> ModelRecord:
        """The record for a model that states none itself."""
        return ModelRecord(self.use, self.source_sha256)

    def build(self, *args: object, options: Mapping[str, Any]) -> Any:
        """Checks the options, then calls the factory and returns its object.

        Raises:
            ConfigError: an option is unknown, missing or of the wrong type.
            PluginError: the factory raised an error.
        """
        checked = self.check_options(options, num_positional=len(args))
        with raised_as(PluginError, f"{self.section}.use: {self.use!r}", PrelabelError):
            return self.factory(*args, **checked)

    def check_class_names(self, class_names: object) -> None:
        """Checks the `class_names` of a model that the factory built.

        Raises:
            ConfigError: they are not a sequence of texts, or are empty.
        """
        if isinstance(class_names, Mapping) or not isinstance(class_names, Sequence):
            got = type(class_names).__name__
        elif isinstance(class_names, str) or not all(isinstance(name, str) for name in class_names):
            got = repr(class_names)
        elif not class_names:
            got = "none"
        else:
            return
        raise ConfigError(
            f"{self.section}.use: {self.use!r}: class_names: got {got}, expected names in the order of class_id, "
            'such as ("person", "car")'
        )

    def requires(self, option: str) -> bool:
        """Returns whether the factory requires this option: it takes the option and has no default for it."""
        model = self.options_model
        if model is not None:
            return option in model.model_fields and model.model_fields[option].is_required()
        parameter = _signature(self.factory).parameters.get(option)
        return parameter is not None and parameter.default is parameter.empty

    def check_options(
        self, options: Mapping[str, Any], num_positional: int = 0, given: Collection[str] = ()
    ) -> dict[str, Any]:
        """Returns the checked options for the factory, by its nested `Options` model or else by its signature.

        Args:
            options: options from the config.
            num_positional: number of leading parameters that are not options.
            given: names of further parameters that are not options.

        Raises:
            ConfigError: an option is unknown, missing or of the wrong type.
        """
        model = self.options_model
        if model is not None:
            known: Collection[str] = model.model_fields
            takes_any, adapter = model.model_config.get("extra") == "allow", TypeAdapter[Any](model)
        else:
            parameters = list(_signature(self.factory).parameters.values())[num_positional:]
            named = [p for p in parameters if p.kind in _NAMED and p.name not in given]
            known, takes_any = [p.name for p in named], any(p.kind is p.VAR_KEYWORD for p in parameters)
            adapter = _adapter_of(named)
        for key in options:
            if key not in known and not takes_any:
                hint = did_you_mean(key, [*known, *self.section_keys, "use"])
                raise ConfigError(f"{self.section}.{key}: {self.use!r} has no such option: {hint}")
        try:
            checked = adapter.validate_python(dict(options))
        except ValidationError as error:
            first = error.errors()[0]
            if first["type"] == "missing" and len(first["loc"]) == 1:
                where = f"{self.section}: {self.use!r} needs {first['loc'][0]!r}"
                raise ConfigError(f"{where}: add it to the section") from error
            raise ConfigError(describe_first(error, self.section)) from error
        if isinstance(checked, BaseModel):  # only values that the config sets, so that the factory's defaults apply
            return {name: getattr(checked, name) for name in checked.model_fields_set}
        return dict(checked)

    @property
    def options_model(self) -> type[BaseModel] | None:
        """The factory's nested `Options`; None if it has none."""
        model = getattr(self.factory, "Options", None)
        return model if isinstance(model, type) and issubclass(model, BaseModel) else None


def _adapter_of(parameters: Iterable[inspect.Parameter]) -> TypeAdapter[Any]:
    """Returns an adapter that checks a dictionary of options against the annotations of parameters."""
    fields: dict[str, Any] = {}
    for parameter in parameters:
        annotation = parameter.annotation
        try:
            TypeAdapter(annotation)
        except PydanticUserError:  # pydantic cannot check some types, such as the plug-in's own classes
            annotation = Any
        if annotation is parameter.empty:
            annotation = Any
        if parameter.default is None:
            annotation = annotation | None if annotation is not Any else Any
        fields[parameter.name] = (
            Required[annotation] if parameter.default is parameter.empty else NotRequired[annotation]
        )
    options = TypedDict("options", fields)  # type: ignore[misc]
    options.__pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[attr-defined]
    return TypeAdapter(options)


def load_plugin(kind: PluginKind, use: str, folder: Path, section_keys: Collection[str] = ()) -> Plugin:
    """Returns the plug-in that `use` names: a built-in or installed name, `module:attr`, or `file.py:attr`.

    Args:
        kind: the section of the config.
        use: the name in the config.
        folder: the config's folder. The path of a `file.py` is relative to it, and modules are also searched there and
            in the working directory, after Python's own path.
        section_keys: keys of the section that are not options of the plug-in.

    Raises:
        PluginError: there is no such name, module, file or attribute, or its import raised an error.
    """
    where, separator, attribute = use.rpartition(":")
    if not separator:
        return Plugin(kind, use, _installed(kind, use), section_keys=section_keys)
    if where.endswith(".py"):
        path = (folder / where).resolve()
        if not path.is_file():
            raise PluginError(f"{kind}.use: {use!r}: there is no file {path} (a path is relative to the config)")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        module = _module_of_file(kind, use, path, digest)
        return Plugin(kind, use, _attribute(kind, use, module, attribute), digest, section_keys)
    with raised_as(PluginError, f"{kind}.use: {use!r}: importing {where!r}"):
        module = _import(where, folder)
    return Plugin(kind, use, _attribute(kind, use, module, attribute), section_keys=section_keys)


def installed_names(kind: PluginKind) -> list[str]:
    """Returns the names of the built-ins and of entry points in installed packages, sorted."""
    return sorted(entry_points(group=f"prelabel.{_noun(kind)}s").names)


def describe_first(error: ValidationError, prefix: str = "") -> str:
    """Describes pydantic's first error as `where: got …, expected …`."""
    errors = error.errors(include_url=False)
    same_key = [entry for entry in errors if _keys(entry["loc"])[:2] == _keys(errors[0]["loc"])[:2]]
    first = max(same_key, key=lambda entry: len(_keys(entry["loc"])))  # the deepest error, if a union has several
    where = ".".join(str(part) for part in _keys((prefix, *first["loc"])))
    if first["type"] == "missing":
        return f"{where}: is missing: add it"
    if first["type"] == "extra_forbidden":
        return f"{where}: there is no such key: remove or correct it"
    if first["type"] == "value_error":
        return f"{where}: {first['msg'].removeprefix('Value error, ')}".removeprefix(": ")
    choices = [entry for entry in same_key if _keys(entry["loc"]) == _keys(first["loc"])]
    expected = " or ".join(dict.fromkeys(_expected(entry["msg"]) for entry in choices))
    quote = "; quote it" if first["type"] == "string_type" and isinstance(first["input"], int | float) else ""
    return f"{where}: got {first['input']!r}, expected {expected}{quote}"


def _keys(location: tuple[int | str, ...]) -> list[int | str]:
    """Returns a location without the tags that pydantic adds for members of a union, such as `int` or `list[str]`."""
    return [part for part in location if part != "" and not re.search(_UNION_TAG, str(part))]


def _expected(message: str) -> str:
    text = message.removeprefix("Input should be ").split(", unable to")[0]
    text = text.replace("a valid dictionary or object to extract fields from", "a section with keys")
    for pydantic, plain in _PLAIN_TYPES.items():
        text = text.replace(f"a valid {pydantic}", plain)
    text = re.sub(r"a valid dictionary or instance of \w+", "a section with keys", text)
    text = text.replace("a valid dictionary", "a mapping: {NAME: …}")
    text = re.sub(r"String should match pattern '\^\(?(.*?)\)?\$'", r"text of the form \1", text)
    text = text.replace(r"cuda(:\d+)?", "cuda|cuda:N")
    text = re.sub(r"\w+ should have at least (\d+) items? after validation.*", r"\1 or more", text)
    text = re.sub(r"\w+ should have at most (\d+) items? after validation.*", r"\1 or fewer", text)
    text = re.sub(r"greater than or equal to (\S+)", r"\1 or more", text)
    return re.sub(r"less than or equal to (\S+)", r"\1 or less", text)


def _noun(kind: PluginKind) -> str:
    return "refiner" if kind == "refine" else kind


@functools.cache  # a scan of all installed packages takes milliseconds, and every task loads a reader
def _installed(kind: PluginKind, name: str) -> Callable[..., Any]:
    for point in entry_points(group=f"prelabel.{_noun(kind)}s", name=name):
        try:
            return point.load()  # type: ignore[no-any-return]
        except ImportError as error:
            raise PluginError(f"{kind}.use: {name!r} does not import: {error}") from error
    hint = did_you_mean(name, installed_names(kind))
    raise PluginError(
        f"{kind}.use: there is no {_noun(kind)} {name!r}: {hint}; your own is `file.py:Name` or `module:Name`"
    )


def _signature(factory: Callable[..., Any]) -> inspect.Signature:
    """Returns the signature with text annotations evaluated. If one cannot be evaluated, all are removed."""
    try:
        return inspect.signature(factory, eval_str=True)
    except (NameError, AttributeError, TypeError, SyntaxError):
        bare = inspect.signature(factory)
        parameters = [p.replace(annotation=inspect.Parameter.empty) for p in bare.parameters.values()]
        return bare.replace(parameters=parameters)


def _import(name: str, folder: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0]:  # the module exists, but one of its imports is missing
            raise
    places = [str(folder.resolve()), str(Path.cwd())]
    sys.path += [place for place in places if place not in sys.path]
    importlib.invalidate_caches()
    return importlib.import_module(name)


def _module_of_file(kind: PluginKind, use: str, path: Path, digest: str) -> ModuleType:
    """Returns the file's module. The file runs once, and again only after it has changed."""
    place = hashlib.sha256(f"{path}:{digest}".encode()).hexdigest()[:8]
    name = f"prelabel_plugin_{path.stem}_{place}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look the module up here
    try:
        with raised_as(PluginError, f"{kind}.use: {use!r}: running {path}"):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _attribute(kind: PluginKind, use: str, module: ModuleType, attribute: str) -> Callable[..., Any]:
    value = getattr(module, attribute, None)
    if value is None:
        public = [name for name in vars(module) if not name.startswith("_")]
        hint = did_you_mean(attribute, public)
        raise PluginError(f"{kind}.use: {use!r}: the module has no {attribute!r}: {hint}")
    if not callable(value):
        got = type(value).__name__
        raise PluginError(f"{kind}.use: {use!r}: {attribute!r} is a {got}, expected a class or function")
    return value  # type: ignore[no-any-return]
