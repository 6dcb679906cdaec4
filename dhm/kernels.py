"""Notebook kernels that are forked from one process, in which torch, and what else takes long, is imported once.

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
        if sys.platform != "linux" or cmd[: len(_COMMAND)] != _COMMAND:  # elsewhere libraries do not stand being forked
            return await super().launch_kernel(cmd, **kwargs)
        self.cwd = kwargs.get("cwd") or os.getcwd()
        kernel = _Kernel(cmd[len(_COMMAND) - 1 :], kwargs["env"], self.cwd)
        self.process, self.pid, self.pgid = kernel, kernel.pid, kernel.pid  # type: ignore[assignment]
        return self.connection_info


class _Kernel:
    """A forked kernel, which answers as a process of subprocess does."""

    stdin = stdout = stderr = None

    def __init__(self, arguments: list[str], environment: dict[str, str], folder: str) -> None:
        context = get_context("forkserver")
        context.set_forkserver_preload(_IMPORTED)
        self._process = context.Process(target=_serve, args=(arguments, environment, folder))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int | None:
        self._process.join()
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


def _serve(arguments: list[str], environment: dict[str, str], folder: str) -> None:
    """Be a kernel."""
    from ipykernel.kernelapp import launch_new_instance

    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = arguments
    parent = os.getppid()  # which it is to end with, as that does with what asked for it
    launch_new_instance(argv=[*arguments[1:], f"--IPKernelApp.parent_handle={parent}"])
