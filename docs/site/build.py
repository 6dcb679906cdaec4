"""Makes the site: the README, the notebooks as they are committed, and docs/, as pages of a Jupyter Book.

python docs/site/build.py [folder], by default build/site. The pages are copied to a folder laid out as the clone is, so
that their links hold, and the table of contents is made from the README's table of notebooks. No notebook is executed.
"""

import base64
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from struct import unpack

import yaml

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
ROW = re.compile(r"^\|(?: \*\*(.+?)\*\*)? +\| .+? \| \[\w+\]\(notebooks/(\w+)\.ipynb\) \|", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
SHOWN = re.compile(r"""plots\.show\(.*["'](\w+)["']\)""")
CHANGES = """
extensions.remove("sphinx_thebe")  # live code from another host
html_theme_options["navbar_persistent"] = []  # the search stands in the side bar
"""
FIGURE_DPI, PAGE_DPI = 150, 100  # of figures/*.png, and of the same figure below a cell


def contents() -> dict:
    """Table of contents: the notebooks in the README's parts, each led by docs/ of its name; then what one looks up."""
    docs = {page.stem: f"docs/{page.stem}" for page in sorted((ROOT / "docs").glob("*.md"))}
    parts: dict[str, list[str]] = {}
    for part, name in ROW.findall((ROOT / "README.md").read_text()):
        if part:
            parts[part] = [docs.pop(part.lower())] if part.lower() in docs else []
        list(parts.values())[-1].append(f"notebooks/{name}")
    parts["Reference"] = ["api", *docs.values(), "data/README", "data/records/README", "CONTRIBUTING"]
    return {
        "format": "jb-book",
        "root": "index",
        "parts": [{"caption": part, "chapters": [{"file": page} for page in pages]} for part, pages in parts.items()],
    }


def configuration() -> dict:
    """Settings of the book, with buttons for Binder and Colab where pyproject.toml tells the repository's address."""
    settings = yaml.safe_load((HERE / "_config.yml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    if address := project.get("urls", {}).get("Repository"):
        settings["repository"] = {"url": address, "branch": "main"}
        settings["html"]["use_repository_button"] = True
        settings["launch_buttons"] = {
            "notebook_interface": "jupyterlab",
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
        }
    return settings


def page_of(notebook: dict) -> dict:
    """The notebook with its code folded, links to its own headings as pages have them, and sharper figures."""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = re.sub(r"\]\(#([^)]+)\)", lambda link: f"](#{slug(link[1])})", "".join(cell["source"]))
        else:
            cell["metadata"].setdefault("tags", []).append("hide-input")
            sharpen(cell)
    return notebook


def slug(heading: str) -> str:
    """Anchor of a page for JupyterLab's: "A-training,-live" -> "a-training-live"."""
    return re.sub(r"[^\w-]", "", heading.lower())


def sharpen(cell: dict) -> None:
    """Put the file that `plots.show` wrote in the place of the picture below the cell: the same, with more dots."""
    name = SHOWN.search("".join(cell["source"]))
    pictures = [output["data"] for output in cell["outputs"] if "image/png" in output.get("data", {})]
    if name and len(pictures) == 1:
        png = (ROOT / "figures" / f"{name[1]}.png").read_bytes()
        pictures[0]["image/png"] = base64.b64encode(png).decode()
        width = unpack(">I", png[16:20])[0] * PAGE_DPI // FIGURE_DPI
        cell["metadata"]["mystnb"] = {"image": {"width": f"{width}px"}}


def lay_out(folder: Path) -> None:
    """Pages, and the files they link to, where they lie in the clone."""
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md"), *ROOT.glob("data/**/*.md")]:
        copy(page, folder / page.relative_to(ROOT))
        for link in LINK.findall(page.read_text()):
            target = (page.parent / link).resolve()
            if target.suffix not in (".md", ".ipynb"):
                copy(target, folder / target.relative_to(ROOT))
    (folder / "notebooks").mkdir()
    for file in sorted(ROOT.glob("notebooks/*.ipynb")):
        (folder / "notebooks" / file.name).write_text(json.dumps(page_of(json.loads(file.read_text()))))
    for file in ("index.md", "api.md", "favicon.svg"):
        copy(HERE / file, folder / file)
    copy(HERE / "site.css", folder / "_static" / "site.css")
    (folder / "_toc.yml").write_text(yaml.safe_dump(contents()))
    (folder / "_config.yml").write_text(yaml.safe_dump(configuration()))


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def build(site: Path) -> None:
    """Lay out and build; a warning is an error, and the old site stays then."""
    book, scripts = site.parent / f"{site.name}-book", Path(sys.executable).parent
    html = book / "html"
    shutil.rmtree(book, ignore_errors=True)
    lay_out(book)
    subprocess.run([scripts / "jupyter-book", "config", "sphinx", book], check=True, stdout=subprocess.DEVNULL)
    with open(book / "conf.py", "a") as settings:
        settings.write(CHANGES)
    subprocess.run([scripts / "sphinx-build", "-W", "--keep-going", "-q", "-b", "html", book, html], check=True)
    package = importlib.util.find_spec("sphinx-mathjax-offline")
    copy(Path(package.origin).parent / "static" / "mathjax" / "tex-svg.js", html / "_static" / "mathjax.js")
    shutil.rmtree(html / ".doctrees")
    shutil.rmtree(site, ignore_errors=True)
    html.rename(site)
    shutil.rmtree(book)


if __name__ == "__main__":
    build(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "site").resolve())
