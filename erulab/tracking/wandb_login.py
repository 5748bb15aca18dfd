"""Tells whether wandb could log in without asking; loads no wandb, and never tells a key."""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from urllib.parse import urlparse


def wandb_host() -> str:
    """Returns the server that runs are sent to: WANDB_BASE_URL's, otherwise wandb's own."""
    return urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""


def has_wandb_key() -> bool:
    """Tells whether a key is in WANDB_API_KEY or in the user's netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    files = [Path(os.environ["NETRC"])] if "NETRC" in os.environ else [Path.home() / ".netrc", Path.home() / "_netrc"]
    for file in files:
        try:
            if file.is_file() and netrc.netrc(str(file)).authenticators(wandb_host()):
                return True
        except (OSError, UnicodeDecodeError, netrc.NetrcParseError):
            continue
    return False
