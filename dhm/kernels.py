"""Notebook kernels that are forked from one process, in which everything that notebooks import is imported once.

Jupyter starts its kernels this way where JUPYTER_DEFAULT_PROVISIONER_NAME is "dhm-forked". That pays for a process that
runs several notebooks: each kernel takes seconds less of a processor to start.
"""

import os
import sys
from contextlib import suppress
from importlib.metadata import entry_points
from multiprocessing import get_context
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning import LocalProvisioner

NAME = "dhm-forked"
_IMPORTED = ["ipykernel.kernelapp", "scipy.stats", "dhm"]
"""What takes long, without pandas and matplotlib, which look at what they are imported in."""
_COMMAND = [sys.executable, "-m", "ipykernel_launcher"]


def fork_kernels() -> None:
    """Let Jupyter fork the kernels that this process and its children start."""
    if entry_points(group="jupyter_client.kernel_provisioners", name=NAME):  # an older installation lacks it
        os.environ.setdefault("JUPYTER_DEFAULT_PROVISIONER_NAME", NAME)


class ForkedProvisioner(LocalProvisioner):
    """Forks the kernels of this Python, and starts any other as Jupyter does."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start a kernel by its command, in a session of its own; how to reach it."""
        if cmd[: len(_COMMAND)] != _COMMAND:
            return await super().launch_kernel(cmd, **kwargs)
        get_context("forkserver").set_forkserver_preload(_IMPORTED)
        self.process = _Kernel(cmd[len(_COMMAND) - 1 :], kwargs["env"], kwargs.get("cwd") or os.getcwd())
        self.process.start()
        self.pid = self.pgid = self.process.pid
        self.cwd = self.process.folder
        return self.connection_info


class _Kernel(get_context("forkserver").Process):  # type: ignore[name-defined, misc]
    """A forked kernel, with what Jupyter asks of a process besides."""

    stdin = stdout = stderr = None

    def __init__(self, arguments: list[str], environment: dict[str, str], folder: str) -> None:
        super().__init__()
        self.arguments, self.environment, self.folder = arguments, environment, folder

    def run(self) -> None:
        from ipykernel.kernelapp import launch_new_instance

        os.setsid()
        os.chdir(self.folder)
        os.environ.clear()
        os.environ.update(self.environment)
        sys.argv = self.arguments
        parent = os.getppid()  # which it is to end with, as that does with what asked for it
        launch_new_instance(argv=[*self.arguments[1:], f"--IPKernelApp.parent_handle={parent}"])

    def poll(self) -> int | None:
        return self.exitcode

    def wait(self) -> int | None:
        self.join()
        return self.exitcode

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):  # as of a process of subprocess
            os.kill(self.pid, number)
