"""Where is the model? Turns what a recipe names into a folder on this machine and a ModelRef.

A name that exists here, or that can only be a path, is a local folder. Anything else is a hub id:
its safetensors, JSON and tokenizer files and its card are fetched at one commit, which is recorded.
Code in a repository is never fetched. Links in a folder are followed, as the hub's cache consists
of them; what is no plain file behind its name (a pipe, a device) is refused, since reading it could
wait for ever. Does not open any weights.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import httpx2
import huggingface_hub
from huggingface_hub import errors as hub_errors

from builder.config import HUB_ID
from builder.errors import CheckpointError, ConfigError, shown
from builder.weights.reasons import reason

_COMMIT = re.compile(r"[0-9a-f]{40}")
_WEIGHTS = ["*.safetensors"]
_PICKLES = ["pytorch_model*.bin", "adapter_model.bin"]
_OTHERS = [
    *("*.json", "*.jinja", "tokenizer.model", "*.tiktoken", "merges.txt", "vocab.txt"),
    "README.md",
]
#: Endings of files that we, or the libraries that load a model, open by their names.
_OPENED = (".safetensors", ".bin", ".json", ".jinja", ".model", ".tiktoken", ".txt", ".md")


@dataclass(frozen=True, slots=True)
class Place:
    """A model's folder on this machine, and the name and commit it goes by."""

    folder: Path
    name: str
    revision: str | None


def locate(source: str, revision: str | None = None, *, ask_hub: bool = True) -> Place:
    """The folder of a local path or hub id, fetched at ``revision`` if it is on the hub.

    The hub's own cache and ``HF_HUB_OFFLINE`` are honoured; without ``ask_hub`` only the cache is
    looked at. Raises ConfigError for an empty name or a revision of a local folder, CheckpointError
    for what is neither here nor on the hub.
    """
    if not source.strip():
        raise ConfigError("a model needs a name: a local folder or a hub id such as org/model")
    path = Path(source)
    try:
        path = path.expanduser()
        found, is_folder = path.exists(), path.is_dir()
    except (OSError, ValueError, RuntimeError) as error:
        # A name too long or closed to us, one with a NUL, or the home of nobody ("~nobody").
        why = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(
            f"{shown(source)!r}: cannot be looked up as a folder ({why}); a model is a local "
            "folder or a hub id such as org/model"
        ) from error
    if found:
        if not is_folder:
            raise CheckpointError(
                f"{source}: is a file; a model is a folder with config.json and its weights"
            )
        if revision is not None:
            raise ConfigError(
                f"{source}: is a local folder, so revision {revision!r} means nothing; remove it"
            )
        _check_files(path, source)
        return Place(path, source, None)
    if not HUB_ID.fullmatch(source):
        raise CheckpointError(f"{source}: no such folder")
    return fetch(source, revision, ask_hub=ask_hub)


def fetch(repo: str, revision: str | None = None, *, ask_hub: bool = True) -> Place:
    """The folder of a hub id in the hub's cache, whatever stands under this name here.

    Raises CheckpointError for what the hub does not have or this machine cannot get.
    """
    if not HUB_ID.fullmatch(repo):
        raise CheckpointError(f"{shown(repo)!r}: is no hub id such as org/model")
    try:
        folder = _snapshot(repo, revision, _WEIGHTS + _OTHERS, ask_hub=ask_hub)
        if not any(folder.glob("*.safetensors")):
            folder = _snapshot(repo, folder.name, _PICKLES + _OTHERS, ask_hub=ask_hub)
    except hub_errors.GatedRepoError as error:
        raise CheckpointError(
            f"{repo}: the hub asks for a licence to be accepted; accept it on the model's page and "
            "log in with 'hf auth login'"
        ) from error
    except hub_errors.RevisionNotFoundError as error:
        raise CheckpointError(f"{repo}: the hub has no revision {revision!r}") from error
    except (
        hub_errors.LocalEntryNotFoundError,
        hub_errors.RepositoryNotFoundError,
        hub_errors.HfHubHTTPError,
        hub_errors.HFValidationError,
        httpx2.HTTPError,
        OSError,
    ) as error:
        raise CheckpointError(
            f"{repo}{f' at revision {revision}' if revision else ''}: no such folder here, nor a "
            f"model of this id from the hub ({reason(error)})"
        ) from error
    if not _COMMIT.fullmatch(folder.name):
        raise CheckpointError(f"{repo}: the hub's cache does not say which commit {folder} is")
    return Place(folder, repo, folder.name)


def _check_files(folder: Path, name: str) -> None:
    """Raises CheckpointError for a pipe, socket or device under a name that would be opened."""
    try:
        odd = [
            entry.name
            for entry in folder.iterdir()
            if entry.name.endswith(_OPENED)
            and entry.exists()
            and not (entry.is_file() or entry.is_dir())
        ]
    except OSError as error:
        raise CheckpointError(f"{name}: cannot be listed: {error.strerror}") from error
    if odd:
        raise CheckpointError(
            f"{name}: {min(odd)!r} is a pipe, a socket or a device; a model's files are plain files"
        )


def _snapshot(repo: str, revision: str | None, patterns: list[str], *, ask_hub: bool) -> Path:
    # "*/*": copies of the weights in subfolders (original/, onnx/) are never wanted.
    folder = huggingface_hub.snapshot_download(
        repo,
        revision=revision,
        allow_patterns=patterns,
        ignore_patterns=["*/*"],
        local_files_only=not ask_hub,
    )
    return Path(str(folder))
