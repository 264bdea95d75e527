"""Workspaces as containers of one Docker engine. Only backends/door.py may import this package.

The rooms: ``driver`` keeps the contract of backends/protocol.py; ``engine`` owns connection, threads and
deadlines; ``shape`` is what a container of ours looks like, ``readings`` how one is read back; ``identity``,
``images``, ``ending`` and ``events`` each do the one thing they are named for; ``faults`` turns what the engine
says into our sentences.
"""

from workspace_operator.backends.docker.driver import DockerDriver, create

__all__ = ["DockerDriver", "create"]
