"""Models on the Hugging Face Hub, by the optional package huggingface_hub: push and download.

``HF_ENDPOINT`` selects another server, ``HF_HOME`` the cache, ``HF_TOKEN`` or a login the account.
A model consists of ``model.safetensors``, ``config.json`` (the card) and ``README.md``.
"""

import os
import re
import shutil
from pathlib import Path
from typing import Any

from unlearn.core.connection import can_connect

PREFIX = "hf://"
CONFIG, WEIGHTS, README = "config.json", "model.safetensors", "README.md"
WEIGHT_FILES = (WEIGHTS, "pytorch_model.bin", "model.pt")
"""Names of weights that a repository may hold, in the order in which they are looked for."""

REPOSITORY = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


def is_hub_name(value: Any) -> bool:
    """Return whether a value names a model of the Hub: ``hf://user/name``."""
    return isinstance(value, str) and value.startswith(PREFIX)


def parse_hub_name(value: str, key: str) -> tuple[str, str | None]:
    """Return repository and revision of ``hf://user/name`` or ``hf://user/name@revision``.

    Args:
        value: The name, with or without its prefix.
        key: Name of the option in messages.

    Raises:
        ValueError: If it is not of this form.
    """
    name, _, revision = value.removeprefix(PREFIX).partition("@")
    if not REPOSITORY.fullmatch(name) or ".." in name:
        raise ValueError(f"{key} must be user/name, got {value}")
    return name, revision or None


def download_file(value: str, files: tuple[str, ...], key: str) -> Path:
    """Return the local path of the first of several files that a repository holds.

    Args:
        value: ``hf://user/name``.
        files: Names to try.
        key: Name of the option in messages.

    Raises:
        ValueError: If the package or the connection is missing, or the repository or all files are.
    """
    name, revision = parse_hub_name(value, key)
    hub = _import_package(f"{key}={value}")
    from huggingface_hub import errors

    local = not can_connect(_endpoint(hub))  # else the package tries for half a minute
    for file in files:
        try:
            return Path(
                hub.hf_hub_download(
                    name, file, revision=revision, endpoint=_endpoint(hub), local_files_only=local
                )
            )
        except errors.EntryNotFoundError as error:
            if isinstance(error, errors.LocalEntryNotFoundError) and not local:
                raise ValueError(_explain_failure(key, value, error)) from error
        except Exception as error:  # of its HTTP library, another one in each major version
            raise ValueError(_explain_failure(key, value, error)) from error
    if local:
        raise ValueError(_explain_failure(key, value, None))
    raise ValueError(f"{key}={value}: the repository holds none of {', '.join(files)}")


def push_folder(folder: Path, target: str, *, private: bool, message: str) -> str:
    """Publish a folder's files as a model, or copy them to a local folder; return where they are.

    Args:
        folder: Folder with the files of a model.
        target: ``user/name``, or a path that begins with ``.``, ``/`` or ``~``.
        private: Whether only the account can see a new repository.
        message: Message of the commit.

    Raises:
        ValueError: If the package, the connection or the permission is missing.
    """
    if is_local(target):
        path = Path(target).expanduser()
        path.mkdir(parents=True, exist_ok=True)
        for name in (WEIGHTS, CONFIG, README):
            shutil.copyfile(folder / name, path / name)
        return str(path)
    name, _ = parse_hub_name(target, "hub")
    hub = _import_package(f"hub={target}")
    if not can_connect(_endpoint(hub)):
        raise ValueError(_explain_failure("hub", target, None))
    api = hub.HfApi(endpoint=_endpoint(hub))
    try:
        api.create_repo(name, private=private, exist_ok=True, repo_type="model")
        api.upload_folder(
            repo_id=name, folder_path=folder, commit_message=message,
            allow_patterns=[WEIGHTS, CONFIG, README],
        )  # fmt: skip
    except Exception as error:  # of its HTTP library, another one in each major version
        raise ValueError(_explain_failure("hub", target, error)) from error
    return f"{PREFIX}{name}"


def is_local(target: str) -> bool:
    """Return whether a target is a path, not a name on the Hub."""
    return target.startswith((".", "/", "~"))


def _import_package(key: str) -> Any:
    try:
        import huggingface_hub
        from huggingface_hub.utils import disable_progress_bars
    except ImportError as error:
        raise ValueError(
            f"{key} needs huggingface_hub: pip install 'unlearn-bench[hub]'"
        ) from error
    disable_progress_bars()
    return huggingface_hub


def _endpoint(hub: Any) -> str:
    return os.environ.get("HF_ENDPOINT") or hub.constants.ENDPOINT


def _explain_failure(key: str, value: str, error: Exception | None) -> str:
    """Return the message of a request that failed, as one line; None: there is no connection."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    known = {
        401: "no access: log in with hf auth login, or set HF_TOKEN",
        403: "no permission to write there",
        404: "there is no such repository, or it is private",
    }
    if status in known:
        return f"{key}={value}: {known[status]}"
    if error is None or type(error).__name__ == "LocalEntryNotFoundError":
        also = "" if key == "hub" else ", and the model is not in the local cache"
        return f"{key}={value}: the Hub cannot be reached{also}"
    if type(error).__name__ == "LocalTokenNotFoundError":
        return f"{key}={value}: {known[401]}"
    said = " ".join(str(error).split())[:160] or type(error).__name__
    return (
        f"{key}={value}: the Hub answers {status}: {said}" if status else f"{key}={value}: {said}"
    )
