"""The errors a user can cause or meet, as one tree.

Each message says what, where, what was found and what to do.

WeightAtlasError
├── ConfigError        a setting, a path or a run folder that cannot be used as asked
├── CheckpointError    weights that cannot be read, are unsafe, or do not fit each other
│   └── LayoutError    no residual writers could be found in the architecture
├── CorpusError        documents that cannot be read or used
├── ScanError          the model or the device failed on readable input
├── LabelerError       the labeler as a whole cannot work (no key, no endpoint, budget)
├── StoreError         the run's database or shard files
│   └── DiskFullError  no space is left where the run or the site is written
├── MonitorError       a monitor that does not fit what it is to watch, or cannot be read
├── PublishError       a built site that is not fit to be published, or could not be
└── SiteError          the site cannot be built from the runs given
    └── WarnedError    warnings that were asked to stop the build

A single label that fails is no exception but a value: :class:`builder.records.LabelFailure`.
Exit codes: the command line ends with 2 when the request was wrong (``ConfigError``,
``CheckpointError``, ``CorpusError``, ``MonitorError``, ``SiteError``) or the disk is full, and with
1 when the work failed or warnings stopped it (``WarnedError``).
"""

from __future__ import annotations

import errno

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class WeightAtlasError(Exception):
    """Base of every error that is shown to the user as one clean message."""

    exit_code = 1


class ConfigError(WeightAtlasError):
    """A setting, a path or a run folder that cannot be used as asked."""

    exit_code = 2


class CheckpointError(WeightAtlasError):
    """Weights that cannot be read, are unsafe to read, or do not fit each other."""

    exit_code = 2


class LayoutError(CheckpointError):
    """The matrices that write to the residual stream could not be found."""


class CorpusError(WeightAtlasError):
    """Documents that cannot be read or used."""

    exit_code = 2


class ScanError(WeightAtlasError):
    """The model or the device failed while it read documents that were fine."""


class LabelerError(WeightAtlasError):
    """The labeler as a whole cannot work: no key, no endpoint, no budget."""


class StoreError(WeightAtlasError):
    """The database or a shard file of a run cannot be read or written."""


class DiskFullError(StoreError):
    """No space is left where the run or the site is written; finished work is kept."""

    exit_code = 2


class MonitorError(WeightAtlasError):
    """A monitor that does not fit what it is to watch, or cannot be made or read."""

    exit_code = 2


class PublishError(WeightAtlasError):
    """A built site that is not fit to be published, or that could not be put where it should."""


class SiteError(WeightAtlasError):
    """The site cannot be built from the runs given, or not where it should be."""

    exit_code = 2


class WarnedError(SiteError):
    """Warnings about a site, where any was asked to stop the build; nothing was changed."""

    exit_code = 1


#: What was typed or raised elsewhere is repeated in messages up to this many characters.
_SHOWN_CHARACTERS = 200


def shown(text: str) -> str:
    """The text as it stands in a message: whole, or the beginning of a very long one."""
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def printable(text: str) -> str:
    """The text with control characters escaped, line breaks and tabs kept: safe for a terminal.

    Names in messages may come from files that mean harm.
    """
    return "".join(
        character if character.isprintable() or character in "\n\t" else ascii(character)[1:-1]
        for character in text
    )


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, of the system or of a library that hides it in words, is a full disk."""
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return True
    text = str(error)
    return "No space left on device" in text or "File too large" in text
