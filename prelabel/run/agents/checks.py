"""Checks before the first frame that several kinds of agent share.

Each check returns a description of what it checked, or raises an error that says what to change.
"""

from __future__ import annotations

import os

from prelabel.assembly.assemble import Assembly
from prelabel.errors import ConfigError, MachineError, did_you_mean
from prelabel.evaluate.coco import CocoFile
from prelabel.plugins.load import load_plugin
from prelabel.plugins.protocols import ModelRecord
from prelabel.plugins.traits import unavailable_reason
from prelabel.store.run_folder import RunFolder


def check_output(store: RunFolder) -> None:
    """Checks that a run can write to its folder, which may not exist yet, and to its bucket.

    Raises:
        ConfigError: the folder is a file, or one of them is not writable.
    """
    folder = store.output
    nearest = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise ConfigError(f"source.output: {folder}: {nearest} is a file, expected a folder: name another")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigError(f"source.output: {folder}: {nearest} may not be written by this user: name another folder")
    store.claim_bucket()


def check_truth(assembly: Assembly) -> None:
    """Checks that the ground truth exists and is COCO; the demo's is there after `prepare`.

    Raises:
        ConfigError: there is no such file, or it is not COCO.
    """
    truth = assembly.config.source.truth_file
    if truth is None:
        return
    if not truth.exists():
        raise ConfigError(f"source.truth: {truth}: there is no such file: correct the path, or remove the key")
    try:
        CocoFile.read(truth)
    except ConfigError as error:
        raise ConfigError(f"source.truth: {error}") from error


def check_reader(assembly: Assembly) -> str:
    """Describes the reader.

    Raises:
        SetupError: the reader is missing, rejects its options, or needs what this machine lacks.
    """
    section = assembly.config.reader
    if section.use == "auto":
        if section.options:
            key = next(iter(section.options))
            hint = did_you_mean(key, section.own_keys)
            raise ConfigError(
                f"reader.{key}: is not a key of the section: {hint}; a reader's own options need reader.use"
            )
        from prelabel.media.choose import check_device

        check_device(section.device)
        return f"chosen for each file; device {section.device}"
    plugin = load_plugin("reader", section.use, assembly.folder, section.own_keys)
    plugin.check_options(section.options, num_positional=1)
    reason = unavailable_reason(plugin.factory, section.device)
    if reason:
        raise MachineError(f"reader.use: {section.use}, device {section.device}: {reason}")
    return f"{section.use}, device {section.device}"


def describe_source(assembly: Assembly) -> str:
    """Describes the waiting tasks."""
    return assembly.source.describe()


def describe_sink(assembly: Assembly) -> str:
    """Describes where labels are saved.

    Raises:
        SetupError: labels cannot be saved there.
    """
    check_output(assembly.store)
    check_truth(assembly)
    own, _ = assembly.config.sink, assembly.sink
    if own is None or assembly.dry_run:
        return assembly.rows.describe()
    return f"to {own.use}; reports into {assembly.store.described}"


def describe_model(model: ModelRecord, num_classes: int, batch_size: int) -> str:
    """Describes a model's name, weights, licence, classes, engine and batch size."""
    digest = f", sha256 {model.weights_sha256[:12]}…" if model.weights_sha256 else ""
    licence = f", licence {model.licence}" if model.licence else ""
    engine = f", in {model.engine}" if model.engine else ""
    return f"{model.name}{digest}{licence}, {num_classes} classes{engine}, batches of {batch_size}"
