"""Running the notebooks from outside, through papermill."""

import ast
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dhm import paths
from dhm.errors import InputError, Stopped
from dhm.records import checkpoints

if TYPE_CHECKING:
    from jupyter_client.kernelspec import KernelSpec

KERNEL = "python3"
REPORT = "report"
"""The notebook that `write_report` makes a page of."""


def list_notebooks() -> list[str]:
    """Names of the notebooks of the clone."""
    return sorted(file.stem for file in (paths.root() / "notebooks").glob("*.ipynb"))


_ROW = re.compile(r"^\|.*? \| (.+?) \| \[\w+\]\(notebooks/(\w+\.ipynb)\) \| (.+) \|$", re.MULTILINE)
WIDGET = "application/vnd.jupyter.widget-view+json"


def contents() -> str:
    """The README's table of notebooks in Markdown, question first, with links for a page beside them."""
    readme = paths.root() / "README.md"
    rows = _ROW.findall(readme.read_text(encoding="utf-8")) if readme.is_file() else []
    lines = [f"| {question} | [{file.removesuffix('.ipynb')}]({file}) | {place} |" for place, file, question in rows]
    return "\n".join(["| Question | Notebook | In the paper |", "|---|---|---|", *lines])


def run_notebook(name: str, parameters: Mapping[str, str], output: Path | None = None) -> Path:
    """Execute a notebook with parameters into a new file; the path of that file.

    Args:
        name: as in `list_notebooks()`, with or without .ipynb.
        parameters: values as they are written in Python, e.g. {"seeds": "[0, 1]"}; words need no quotes.
        output: the new file, by default `runs/notebooks/<name>.ipynb`.

    Raises:
        InputError: there is no such notebook or parameter, a value of the wrong type, a file that cannot be written, or
            no kernel that starts.
        Stopped: SIGTERM asked for it; a training in the kernel was let save, as on Ctrl-C.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    source = _source(name)
    name = source.stem
    known = papermill.inspect_notebook(source)
    values = {}
    for parameter, text in parameters.items():
        if parameter not in known:
            raise InputError(f"{name} has no parameter {parameter!r}; it has {', '.join(known)}")
        values[parameter] = _value(parameter, text, ast.literal_eval(known[parameter]["default"]))
    output = _writable(output or paths.runs_dir() / "notebooks" / f"{name}.ipynb", ".ipynb")
    spec = _kernel()
    private = Config({"KernelManager": {"transport_encryption": "auto"}})  # a kernel in plain text warns of listeners
    try:
        with _stopped_by_sigterm():
            papermill.execute_notebook(
                source, output, values, kernel_name=KERNEL, coalesce_streams=True, config=private
            )
    except PapermillExecutionError as error:
        told = f"{name} stopped in a cell: {error.ename}: {error.evalue} (see {output})"
        foreign = error.ename == "ModuleNotFoundError" and spec.argv[0] != sys.executable
        raise InputError(f"{told}; {_started(spec)}" if foreign else told) from None
    except (RuntimeError, OSError) as error:  # of Jupyter, when a kernel dies before its first cell
        raise InputError(f"the kernel {KERNEL} does not run ({error}): {_started(spec)}") from None
    return output


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end a kernel as Ctrl-C does, which interrupts what it runs; else it would only miss its parent."""
    if threading.current_thread() is not threading.main_thread():  # no other hears signals
        yield
        return

    def stop(number: int, _: Any) -> None:
        raise Stopped(number, saved=False)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_all(names: Sequence[str]) -> Iterator[str]:
    """Execute notebooks side by side, as many as there are cores with one thread each, and yield what each came to.

    They share the run records: one that needs a run which another is training waits for it. All end with this process,
    however that ends.

    Raises:
        InputError: when all have ended, if some have failed.
    """
    failed = []
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), _prepare_to_share) as pool:
        under_way = {pool.submit(_run_beside_others, name): name for name in names}
        try:
            for done in as_completed(under_way):
                try:
                    yield str(done.result())
                except (InputError, BrokenExecutor) as error:  # the latter where a process was killed
                    yield f"{under_way[done]}: {error}"
                    failed.append(under_way[done])
        finally:
            pool.shutdown(cancel_futures=True)
    if failed:
        raise InputError(f"of {len(names)} notebooks {len(failed)} failed: {', '.join(sorted(failed))}")


def _prepare_to_share() -> None:
    """What a process does that runs notebooks beside others: one thread for its kernels, which are forked, Ctrl-C left
    to papermill, which ends the kernel, and an end as by SIGTERM with the process that started it, however that ends.
    """
    from dhm.kernels import fork_kernels

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    fork_kernels()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _run_beside_others(name: str) -> Path:
    try:
        return run_notebook(name, {})
    except Stopped as stop:  # it would wait for the next notebook, from a process that may be gone
        os._exit(128 + stop.signal)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _kernel() -> "KernelSpec":
    """The kernel that Jupyter starts for the notebooks' name.

    Raises:
        InputError: there is none.
    """
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        return KernelSpecManager().get_kernel_spec(KERNEL)
    except (NoSuchKernel, OSError, ValueError) as error:
        raise InputError(
            f"Jupyter has no kernel {KERNEL} that can be read ({error}); python -m ipykernel install --user makes one"
        ) from None


def _started(spec: "KernelSpec") -> str:
    """Which Python a kernel is, and what to do if it is the wrong one."""
    return (
        f"{spec.resource_dir}/kernel.json starts {spec.argv[0] if spec.argv else 'nothing'}, this is {sys.executable}; "
        "install dhm with its extra notebooks there, or take that kernel off JUPYTER_PATH"
    )


def _writable(output: Path, ending: str) -> Path:
    """The file to write, its folder made.

    Raises:
        InputError: it cannot be written, is called as another kind of file is, or is one of the clone's notebooks.
    """
    if output.suffix != ending and not output.is_dir():
        raise InputError(f"{output} must end in {ending}")
    if output.resolve().parent == (paths.root() / "notebooks").resolve():
        raise InputError(f"{output} is among the committed notebooks; --refresh puts outputs into these")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        there = output.exists()
        output.open("ab").close()
        if not there:  # nothing is written yet
            output.unlink()
    except OSError as error:
        raise InputError(f"{output} cannot be written: {error.strerror}") from None
    return output


def write_report(output: Path | None = None) -> Path:
    """Execute the report on the records there are and write it as a page of HTML, without its code.

    Args:
        output: the page, by default `runs/report.html`.

    Raises:
        InputError: as `run_notebook`.
    """
    from nbconvert import HTMLExporter

    output = _writable(output or paths.runs_dir() / "report.html", ".html")
    executed = run_notebook(REPORT, {})
    page, _ = HTMLExporter(exclude_input=True, exclude_input_prompt=True, exclude_output_prompt=True).from_filename(
        str(executed)
    )
    checkpoints.write(output, page.encode())
    return output


def refresh(name: str) -> Path:
    """Execute a notebook as it stands and put its outputs into the committed file, and its figures into `figures/`, for
    those who maintain it."""
    import nbformat

    target = _source(name)
    os.environ.setdefault("DHM_FIGURES", str(paths.committed_figures_dir()))  # for the kernel
    notebook = nbformat.read(run_notebook(name, {}), as_version=4)
    for trace in ("papermill", "widgets"):
        notebook.metadata.pop(trace, None)
    for cell in notebook.cells:
        for trace in ("papermill", "execution"):
            cell.metadata.pop(trace, None)
        if cell.cell_type == "code":  # what a bar leaves behind is empty
            cell.outputs = [o for o in cell.outputs if "data" not in o or any(o.data.values())]
            for output in cell.outputs:  # a widget dies with its kernel
                if output.get("data", {}).pop(WIDGET, None):
                    output.data["text/plain"] = "(controls appear here when this cell is run)"
    nbformat.write(notebook, target)
    return target


def _source(name: str) -> Path:
    """The committed file of a notebook, named with or without .ipynb.

    Raises:
        InputError: there is no such notebook.
    """
    name = name.removesuffix(".ipynb")
    if name not in list_notebooks():
        raise InputError(f"there is no notebook {name!r}; there are {', '.join(list_notebooks()) or 'none'}")
    return paths.root() / "notebooks" / f"{name}.ipynb"


def _is_plain(value: Any) -> bool:
    """Whether a value is of JSON's types, which are written into a notebook as they are; of others the text would be,
    and what stands in it would run."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(inner) for key, inner in value.items())
    return all(map(_is_plain, value)) if isinstance(value, list) else isinstance(value, str | int | float | None)


def _value(name: str, text: str, default: Any) -> Any:
    """A parameter's value from its text, of the type of its default."""
    if isinstance(default, str):
        return text
    try:
        value = ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (ValueError, SyntaxError, MemoryError, RecursionError):  # the latter two where brackets have no end
        value = text
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if not _is_plain(value) or (default is not None and not isinstance(value, type(default))):
        raise InputError(f"the parameter {name} must be a {type(default).__name__} like {default!r}, not {text!r}")
    return value
