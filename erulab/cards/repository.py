"""A model repository on the Hugging Face hub, written in one commit; every fault of network or token is one line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from erulab.cards.files import Upload
from erulab.errors import ConfigError, EnvironmentFault, IntegrityFault
from erulab.faults import cause_of
from erulab.redaction import redacted_text

REFUSED = (401, 403)  # HTTP status of a token that is unknown, or may not write here
WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin")
DRY = "erulab push ... --dry-run shows the files without the hub"


def check_name(repo: str) -> None:
    """Raises ConfigError for a name that no model repository can have."""
    from huggingface_hub import errors, utils  # slow to load: not for --help

    try:
        utils.validate_repo_id(repo)
    except errors.HFValidationError:
        raise ConfigError(f"REPO must be OWNER/NAME, as on the hub, got {repo!r}; try my-name/my-model") from None
    if repo.count("/") != 1:
        raise ConfigError(f"REPO must be OWNER/NAME, as on the hub, got {repo!r}; try my-name/{repo}")


def address(repo: str) -> str:
    """Returns the address of a repository's page."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{repo}"


def check_access() -> None:
    """Checks what needs no network.

    Raises:
        EnvironmentFault: the hub is switched off, or there is no token.
    """
    import huggingface_hub

    if huggingface_hub.constants.HF_HUB_OFFLINE:
        raise EnvironmentFault(f"HF_HUB_OFFLINE is set, so nothing can be uploaded; unset it, or {DRY}")
    if not huggingface_hub.get_token():
        raise EnvironmentFault(f"no token is set for the hub; type hf auth login, or set HF_TOKEN; {DRY}")


def upload(repo: str, files: Sequence[Upload], *, private: bool) -> str:
    """Makes the repository unless it is there, and writes the files in one commit; returns its page's address.

    Args:
        repo: owner/name.
        files: those to write; others of the repository stay as they are.
        private: make a new repository private; one that is there must be.
    Raises:
        EnvironmentFault: the hub cannot be reached, or refuses the token.
        IntegrityFault: the repository holds other weights, which would be loaded in place of these.
        ConfigError: it is public, and `private` is asked for.
    """
    import huggingface_hub
    from huggingface_hub import CommitOperationAdd

    api = huggingface_hub.HfApi()
    with _faults_named(repo):
        api.create_repo(repo, private=private, exist_ok=True)
        found = api.model_info(repo)
        if private and not found.private:
            raise ConfigError(f"{repo} is there and is public; leave out --private, or name another repository")
        there = [one.rfilename for one in found.siblings or ()]
        names = {file.name for file in files}
        others = [name for name in there if name.endswith(WEIGHTS) and name not in names]
        if others:
            raise IntegrityFault(f"{repo} holds other weights ({', '.join(others)}); name another repository")
        operations = [
            CommitOperationAdd(file.name, file.content if isinstance(file.content, bytes) else str(file.content))
            for file in files
        ]
        api.create_commit(repo, operations, commit_message="Unlearned model, its card and its figures (erulab)")
    return address(repo)


@contextlib.contextmanager
def _faults_named(repo: str) -> Iterator[None]:
    from huggingface_hub import errors

    try:
        yield
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status in REFUSED:
            raise EnvironmentFault(
                f"the hub refuses to write {repo} (HTTP {status}): the token is unknown to it, or may not write there; "
                "type hf auth login with a token that may, or name a repository of yours"
            ) from None
        raise EnvironmentFault(f"the hub did not take {repo}: {redacted_text(cause_of(error))}; try again") from None
    except (errors.HTTPError, ConnectionError, TimeoutError) as error:
        raise EnvironmentFault(
            f"the hub cannot be reached ({redacted_text(cause_of(error))}); check the network, or {DRY}"
        ) from None
