"""Puts the user's own conf folder (`--config-dir`, ERULAB_CONF) in front of conf/, for every composition.

Hydra itself would put the folder of `--config-dir` behind conf/, and tell the processes of a sweep nothing of it.
"""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class OwnConfFolder(SearchPathPlugin):
    """Adds the folder that the environment names to Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        from erulab.registry import conf_folders

        for folder in conf_folders()[:-1]:
            search_path.prepend("erulab's --config-dir", f"file://{folder.resolve()}")
