"""From the `use:` of a config to a built object; built-ins come through the same door as a newcomer's file."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pydantic import BaseModel, PydanticUserError, TypeAdapter, ValidationError

from prelabel.errors import ConfigError, PluginError, PrelabelError, did_you_mean
from prelabel.plugins.protocols import ModelRecord

PluginKind = Literal["detector", "reader", "tracker", "classifier", "sink", "agent"]


@dataclass(frozen=True, slots=True)
class Plugin:
    """A factory that a config names.

    Attributes:
        section: the config's section, as errors call it.
        use: as the config has it.
        factory: what is called with the section's options.
        source_sha256: of the plug-in's file where `use` names one; tells a changed plug-in from the one before.
        section_keys: what the section knows besides the plug-in's own options; errors suggest these too.
    """

    section: str
    use: str
    factory: Callable[..., Any]
    source_sha256: str | None = None
    section_keys: Collection[str] = ()

    @property
    def model(self) -> ModelRecord:
        """What goes on record where the object that it makes does not say which model it is."""
        return ModelRecord(self.use, self.source_sha256)

    def build(self, *args: object, options: Mapping[str, Any]) -> Any:
        """Returns the factory's object, its options checked first.

        Raises:
            ConfigError: an option is unknown, missing or of the wrong kind; the key is named.
            PluginError: the factory raised.
        """
        checked = self.check_options(options, num_positional=len(args))
        try:
            return self.factory(*args, **checked)
        except PrelabelError:
            raise
        except Exception as error:
            raise PluginError(f"{self.section}.use: {self.use!r} raised {type(error).__name__}: {error}") from error

    def check_class_names(self, class_names: object) -> None:
        """Makes sure that a model built by it names its classes.

        Raises:
            ConfigError: there are none, or they are no sequence of text.
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

    def check_options(
        self, options: Mapping[str, Any], num_positional: int = 0, given: Collection[str] = ()
    ) -> dict[str, Any]:
        """Returns the options as the factory will get them: through its nested `Options` where it has one.

        Args:
            options: as they stand in the config.
            num_positional: parameters, the first of all, that are no options.
            given: names of further ones.

        Raises:
            ConfigError: an option is unknown, missing or of the wrong kind; the key is named.
        """
        model = getattr(self.factory, "Options", None)
        if isinstance(model, type) and issubclass(model, BaseModel):
            return self._through_model(model, options)
        return self._through_signature(options, num_positional, given)

    def _through_model(self, model: type[BaseModel], options: Mapping[str, Any]) -> dict[str, Any]:
        unknown = [key for key in options if key not in model.model_fields]
        if unknown and model.model_config.get("extra") != "allow":
            raise self._unknown(unknown[0], model.model_fields)
        try:
            checked = model(**options)
        except ValidationError as error:
            raise ConfigError(describe_first(error, self.section)) from error
        return {name: getattr(checked, name) for name in checked.model_fields_set}

    def _through_signature(
        self, options: Mapping[str, Any], num_positional: int, given: Collection[str]
    ) -> dict[str, Any]:
        parameters = list(_signature(self.factory).parameters.values())[num_positional:]
        named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        named = {name: parameter for name, parameter in named.items() if name not in given}
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
        for key in options:
            if key not in named and not takes_any:
                raise self._unknown(key, named)
        for name, parameter in named.items():
            if parameter.default is parameter.empty and name not in options:
                raise ConfigError(f"{self.section}: {self.use!r} needs {name!r}: add it to the section")
        return {key: self._as_annotated(named[key], value) if key in named else value for key, value in options.items()}

    def _as_annotated(self, parameter: inspect.Parameter, value: object) -> object:
        """Returns the value as the type that the parameter is annotated with, where pydantic knows that type."""
        if parameter.annotation in (parameter.empty, type(value)) or (value is None and parameter.default is None):
            return value
        try:
            return TypeAdapter(parameter.annotation).validate_python(value)
        except ValidationError as error:
            raise ConfigError(describe_first(error, f"{self.section}.{parameter.name}")) from error
        except PydanticUserError:
            return value

    def _unknown(self, key: str, known: Mapping[str, Any]) -> ConfigError:
        hint = did_you_mean(key, [*known, *self.section_keys, "use"])
        return ConfigError(f"{self.section}.{key}: {self.use!r} has no such option: {hint}")


def load_plugin(kind: PluginKind, use: str, folder: Path, section_keys: Collection[str] = ()) -> Plugin:
    """Returns the plug-in that `use` names: a built-in or installed name, `module:attr`, or `file.py:attr`.

    Args:
        kind: which section of the config asks.
        use: as the config has it.
        folder: the config's: what the path of a `file.py` is relative to, and where modules are looked for after all
            other places, the working directory last.
        section_keys: what the section knows besides the plug-in's own options.

    Raises:
        PluginError: there is no such name, module, file or attribute, or importing it raised.
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
    module = _module(kind, use, where, folder)
    return Plugin(kind, use, _attribute(kind, use, module, attribute), section_keys=section_keys)


def installed_names(kind: PluginKind) -> list[str]:
    """Returns the names that need no path: built-ins and entry points of installed packages."""
    return sorted({point.name for point in entry_points(group=f"prelabel.{kind}s")})


def describe_first(error: ValidationError, prefix: str = "") -> str:
    """Returns pydantic's first complaint as `where: got …, expected …`."""
    errors = error.errors(include_url=False)
    same_key = [entry for entry in errors if entry["loc"][:2] == errors[0]["loc"][:2]]
    first = max(same_key, key=lambda entry: len(_keys(entry["loc"])))  # of a union's complaints, the deepest
    where = ".".join(str(part) for part in _keys((prefix, *first["loc"])))
    if first["type"] == "missing":
        return f"{where}: is missing: add it"
    if first["type"] == "value_error":
        return f"{where}: {first['msg'].removeprefix('Value error, ')}".removeprefix(": ")
    choices = [entry for entry in same_key if _keys(entry["loc"]) == _keys(first["loc"])]
    expected = " or ".join(dict.fromkeys(_expected(entry["msg"]) for entry in choices))
    return f"{where}: got {first['input']!r}, expected {expected}"


def _keys(place: tuple[int | str, ...]) -> list[int | str]:
    return [part for part in place if _is_key(part)]


def _is_key(part: int | str) -> bool:
    """Tells keys from the tags by which pydantic tells the members of a union apart."""
    return part != "" and not re.search(r"[\[(-]|^(int|str|float|dict|literal)$", str(part))


def _expected(message: str) -> str:
    text = message.removeprefix("Input should be ").split(", unable to")[0]
    text = text.replace("a valid dictionary or object to extract fields from", "a section with keys")
    text = text.replace("a valid tuple", "a list")
    text = re.sub(r"String should match pattern '\^\(?(.*?)\)?\$'", r"text of the form \1", text)
    text = re.sub(r"greater than or equal to (\S+)", r"\1 or more", text)
    return re.sub(r"less than or equal to (\S+)", r"\1 or less", text)


@functools.cache  # looking through all installed packages takes milliseconds, and each task asks for its reader
def _installed(kind: PluginKind, name: str) -> Callable[..., Any]:
    for point in entry_points(group=f"prelabel.{kind}s"):
        if point.name == name:
            try:
                return point.load()  # type: ignore[no-any-return]
            except ImportError as error:
                raise PluginError(f"{kind}.use: {name!r} does not import: {error}") from error
    hint = did_you_mean(name, installed_names(kind))
    raise PluginError(f"{kind}.use: there is no {kind} {name!r}: {hint}; your own is `file.py:Name` or `module:Name`")


def _signature(factory: Callable[..., Any]) -> inspect.Signature:
    """Returns the signature, annotations that are text evaluated, and none where one of them names nothing."""
    try:
        return inspect.signature(factory, eval_str=True)
    except (NameError, AttributeError, TypeError, SyntaxError):
        bare = inspect.signature(factory)
        parameters = [p.replace(annotation=inspect.Parameter.empty) for p in bare.parameters.values()]
        return bare.replace(parameters=parameters)


def _module(kind: PluginKind, use: str, name: str, folder: Path) -> ModuleType:
    try:
        return _import(name, folder)
    except Exception as error:
        raise PluginError(f"{kind}.use: {use!r}: importing {name!r}: {type(error).__name__}: {error}") from error


def _import(name: str, folder: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0]:  # the module is there, and what it imports is not
            raise
    places = [str(folder.resolve()), str(Path.cwd())]
    sys.path += [place for place in places if place not in sys.path]
    importlib.invalidate_caches()
    return importlib.import_module(name)


def _module_of_file(kind: PluginKind, use: str, path: Path, digest: str) -> ModuleType:
    """Returns the file's module: run once, and again only if the file has changed."""
    place = hashlib.sha256(f"{path}:{digest}".encode()).hexdigest()[:8]
    name = f"prelabel_plugin_{path.stem}_{place}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise PluginError(f"{kind}.use: {use!r}: running {path}: {type(error).__name__}: {error}") from error
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
