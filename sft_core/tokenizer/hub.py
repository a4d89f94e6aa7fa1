"""Fetching the tokenizer files of a hub id, and nothing else of its repository. Those of an older
form are fetched only where there is no tokenizer.json."""

from __future__ import annotations

from pathlib import Path

from sft_core.tokenizer import files, older
from sft_core.types import HubError

_NO_HUB_NEEDED = (
    "Name a folder that holds a tokenizer.json, or use bytes or smollm2-135m-instruct, which "
    "need no hub."
)


def fetch(repository: str, revision: str | None = None) -> Path:
    """The folder in the hub's cache that holds the tokenizer files. Raises HubError."""
    from huggingface_hub import errors, snapshot_download

    def download(*patterns: str) -> Path:
        found = snapshot_download(repository, revision=revision, allow_patterns=list(patterns))
        return Path(found)

    try:
        folder = download(*files.FILES)
        if not (folder / "tokenizer.json").is_file():
            folder = download(*files.FILES, *older.FILES)
        return folder
    except errors.HFValidationError:
        raise HubError(
            f"{repository!r} is neither a tokenizer that the lab knows, nor a folder here, nor a "
            "name on the hub, which looks like owner/model."
        ) from None
    except errors.GatedRepoError:
        raise HubError(
            f"{repository} is gated: accept its conditions on its page of the hub, then log in "
            "with hf auth login, or set HF_TOKEN."
        ) from None
    except errors.RevisionNotFoundError:
        raise HubError(f"{repository} has no revision {revision!r} on the hub.") from None
    except errors.RepositoryNotFoundError:
        raise HubError(
            f"The hub has no model {repository}, or it is private. Check the spelling; for a "
            "private one, log in with hf auth login, or set HF_TOKEN."
        ) from None
    except errors.LocalEntryNotFoundError:
        return _cached(repository, revision)
    # An overloaded hub, a broken line, a proxy, a full disk.
    except (OSError, errors.HTTPError) as error:  # type: ignore[attr-defined]
        raise HubError(
            f"The tokenizer of {repository} could not be fetched: {_first_line(error)}. "
            f"Try again later. {_NO_HUB_NEEDED}"
        ) from None


def _cached(repository: str, revision: str | None) -> Path:
    """What an earlier download left, complete or not: a vocabulary is all that must be there."""
    from huggingface_hub import try_to_load_from_cache

    for file in ("tokenizer.json", *older.FILES):
        found = try_to_load_from_cache(repository, file, revision=revision)
        if isinstance(found, str):
            return Path(found).parent
    raise HubError(
        f"The hub does not answer, so the tokenizer of {repository} cannot be fetched. Check the "
        f"connection. {_NO_HUB_NEEDED}"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
