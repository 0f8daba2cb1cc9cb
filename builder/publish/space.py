"""Upload to a Hugging Face Space: what is there afterwards is the site and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import httpx2
import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from builder.errors import PublishError

#: The environment variable with the token; it goes nowhere else.
TOKEN = "HF_TOKEN"  # noqa: S105 - its name, not its value


def upload_space(folder: Path, repo_id: str) -> str:
    """The address of the Space that now holds ``folder``; it is made if it is not there.

    Raises PublishError without a token, for a bad name, or if the hub refuses.
    """
    token = os.environ.get(TOKEN, "")
    if not token:
        raise PublishError(f"no token: put one that may write into the variable {TOKEN}")
    api = huggingface_hub.HfApi(token=token)
    try:
        made = api.create_repo(repo_id, repo_type="space", space_sdk="static", exist_ok=True)
        api.upload_folder(
            folder_path=folder,
            repo_id=repo_id,
            repo_type="space",
            commit_message="Publish the atlas",
            # Pages of an earlier build that are no more.
            delete_patterns="*",
        )
    except (HfHubHTTPError, HFValidationError, httpx2.HTTPError, OSError) as error:
        told = str(error).replace(token, "...")
        raise PublishError(f"{repo_id}: the upload to the Space failed: {told}") from error
    return str(made)
