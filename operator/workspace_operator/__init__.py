"""workspace-operator: keeps AI-agent workspaces in their declared state on any backend."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("workspace-operator")
except PackageNotFoundError:  # run straight from a source tree
    __version__ = "0.0.0+source"
