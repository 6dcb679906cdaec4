"""Kernels forked from a process that has imported torch, held against those that Jupyter starts."""

import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager
from jupyter_client.provisioning import KernelProvisionerFactory

from dhm.kernels import NAME, fork_kernels

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux alone")

TOLD = "import os, sys; print(os.getppid(), 'torch' in sys.modules, os.getcwd(), os.environ.get('MARK'))"
DRAWN = "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()"


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable]:
    """Starts a kernel, by default a forked one."""
    factory, running = KernelProvisionerFactory.instance(), []

    def begin(provisioner: str = NAME, argv: list[str] | None = None, **options) -> tuple[KernelManager, Callable]:
        monkeypatch.setattr(factory, "default_provisioner_name", provisioner)
        manager = KernelManager(transport_encryption="auto")
        if argv is not None:
            manager.kernel_spec.argv = argv
        manager.start_kernel(**options)
        client = manager.blocking_client()
        running.append((manager, client))
        client.start_channels()
        client.wait_for_ready(60)
        return manager, partial(_answer, client)

    yield begin
    for manager, client in running:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def _answer(client: BlockingKernelClient, code: str, printed: Callable[[], None] = lambda: None) -> list[str]:
    """What a cell leaves: words, after each of which something is done, or of a picture its type."""
    found: list[str] = []

    def keep(message: dict) -> None:
        content = message["content"]
        found.extend(content.get("text", "").split() if message["msg_type"] == "stream" else content.get("data", []))
        if message["msg_type"] == "stream":
            printed()

    assert client.execute_interactive(code, output_hook=keep, timeout=60)["content"]["status"] == "ok"
    return found


def test_they_share_what_is_imported_and_nothing_else(start: Callable, tmp_path: Path) -> None:
    environment = {**os.environ, "MARK": "x"}
    kernels = [start(cwd=str(tmp_path), env=environment)[1] for _ in range(2)]
    kernels[0]("mine = 1")
    told = [kernel(TOLD) for kernel in kernels]
    assert told[0] == told[1]
    parent, imported, *rest = told[0]
    assert int(parent) != os.getpid()
    assert [imported, *rest] == ["True", str(tmp_path), "x"]
    assert kernels[1]("print('mine' in globals())") == ["False"]
    assert "image/png" in kernels[0](DRAWN)


def test_they_are_interrupted_and_ended_as_others_are(start: Callable) -> None:
    manager, run = start()
    pid = manager.provisioner.pid
    asleep = "import time\ntry:\n    print('asleep', flush=True); time.sleep(60)\nexcept KeyboardInterrupt:\n    pass"
    assert run(asleep, manager.interrupt_kernel) == ["asleep"]
    assert manager.is_alive()
    manager.restart_kernel(now=True)
    assert not psutil.pid_exists(pid)
    pid = manager.provisioner.pid
    manager.shutdown_kernel()
    assert not psutil.pid_exists(pid)
    assert not manager.is_alive()


def test_one_that_ends_by_itself_is_missed(start: Callable) -> None:
    manager, _ = start()
    os.kill(manager.provisioner.pid, 9)
    psutil.wait_procs([psutil.Process(manager.provisioner.pid)], timeout=10)
    assert not manager.is_alive()


def test_another_command_is_started_as_jupyter_does(start: Callable) -> None:
    _, run = start(argv=["env", sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"])
    assert run(TOLD)[:2] == [str(os.getpid()), "False"]


def test_it_is_asked_for_where_jupyter_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUPYTER_DEFAULT_PROVISIONER_NAME", raising=False)
    monkeypatch.setattr("dhm.kernels.entry_points", lambda **options: ())
    fork_kernels()
    assert "JUPYTER_DEFAULT_PROVISIONER_NAME" not in os.environ
    monkeypatch.setattr("dhm.kernels.entry_points", lambda **options: (options,))
    monkeypatch.setitem(os.environ, "JUPYTER_DEFAULT_PROVISIONER_NAME", "another")
    fork_kernels()
    assert os.environ["JUPYTER_DEFAULT_PROVISIONER_NAME"] == "another"
    monkeypatch.delenv("JUPYTER_DEFAULT_PROVISIONER_NAME")
    fork_kernels()
    assert os.environ.pop("JUPYTER_DEFAULT_PROVISIONER_NAME") == NAME
