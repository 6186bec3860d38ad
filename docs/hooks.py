"""Writes pages at build time: one per method, from its YAML, its docstrings and the measured plane.

Comments at the head of a method's YAML may say more: ``Formula:`` (LaTeX; becomes MathML, which
browsers draw by themselves), ``Use:`` and ``Not:``, each going on in lines indented by two more.
Numbers come from the plane that ships with the package. A method without all this has a page too.
"""

import ast
import json
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from mkdocs.structure.files import File, Files

from unlearn.config.help import read_option_comments
from unlearn.reporting.tables.advice import Case, load_shipped_plane, make_advice, select_nearest
from unlearn.reporting.tables.definitions import DEFINITIONS
from unlearn.reporting.tables.facts import regularity_levels
from unlearn.reporting.tables.frames import BANDS

ROOT = Path(__file__).resolve().parent.parent
SECTIONS = {
    "Guides": ("your_model.md", "auto.md", "heal_notebook.md", "discovery.md", "advice.md", "trusted.md",
               "tuning.md", "floors.md", "scale.md", "security.md"),
    "Concepts": ("glossary.md", "corruptions.md", "architecture.md"),
    "Results": ("gallery.md", "results.md", "refined.md", "localized.md", "speed.md", "reproduce.md",
                "claims.md"),
    "Development": ("extend.md", "api.md"),
}  # fmt: skip
"""Pages of the navigation; the methods follow the guides, and unnamed pages come last."""
SYMBOLS = (
    (r"\theta, \theta_0", "the model's parameters, now and of the original"),
    (r"D_f, D_r, D", "forget set, retain set, both"),
    (r"D_t, D_v", "trusted set: the part to train on, the part to validate on"),
    (r"\ell(\theta; x, y)", "cross-entropy of image and given label"),
    (r"p_\theta(x)", "probabilities that the model gives the classes"),
    (r"\sigma", "the logistic function"),
)


def head(text: str) -> dict[str, list[str]]:
    """Return what the comments at the head of a YAML say, by ``Formula``, ``Use`` and ``Not``."""
    found: dict[str, list[str]] = {}
    key = None
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        said = re.match(r"# (Formula|Use|Not): (.*)", line)
        if said:
            key = said[1]
            found.setdefault(key, []).append(said[2])
        elif key and line.startswith("#   "):
            found[key][-1] += " " + line[4:]
        else:
            key = None
    return found


def mathml(formula: str, display: str = "block") -> str:
    """Return a LaTeX formula as MathML."""
    from latex2mathml.converter import convert

    return convert(formula, display=display)


def _docstrings(target: str) -> tuple[str, str]:
    """Return the docstring of a ``_target_``'s file and the first paragraph of its class's."""
    module, _, name = target.rpartition(".")
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
    own = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name]
    what = (ast.get_docstring(own[0]) or "") if own else ""
    return ast.get_docstring(tree) or "", what.partition("\n\n")[0]


def _linked(text: str) -> str:
    """Return a docstring as Markdown: its papers are links, its double backticks single ones."""
    text = re.sub(r"\b(?:arXiv )?(\d{4}\.\d{5})\b", r"[arXiv \1](https://arxiv.org/abs/\1)", text)
    parts = text.split("``")  # every other one is code
    return "".join(f"`{p}`" if i % 2 else p.replace("_", r"\_") for i, p in enumerate(parts))


def content(path: Path, conf: Path) -> dict[str, Any]:
    """Return the values of a group's YAML: those of its defaults list, and its own on top."""
    own: dict[str, Any] = yaml.safe_load(path.read_text())
    made: dict[str, Any] = {}
    for entry in own.pop("defaults", []):
        if isinstance(entry, dict):
            ((key, option),) = entry.items()
            group, _, package = str(key).removeprefix("/").partition("@")
            inner = content(conf / group / f"{option}.yaml", conf)
            for part in reversed(package.split(".")):
                inner = {part: inner}
            made = _merged(made, inner)
        elif entry != "_self_":
            made = _merged(made, content(path.with_name(f"{entry}.yaml"), conf))
    return _merged(made, own)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = {
        k: _merged(below[k], v) if isinstance(v, dict) and isinstance(below.get(k), dict) else v
        for k, v in above.items()
    }
    return below | both


def page(name: str, conf: Path, plane: pd.DataFrame, verdicts: dict[str, pd.DataFrame]) -> str:
    """Return the page of one method.

    Args:
        name: Of the method.
        conf: Folder of the configs.
        plane: What was measured, as of ``unlearn.reporting.tables.advice.aggregate_plane``.
        verdicts: Of the advice, as of ``judged``.
    """
    values = content(conf / "method" / f"{name}.yaml", conf)
    about, what = _docstrings(str(values["_target_"]))
    more = head((conf / "method" / f"{name}.yaml").read_text())
    parts = [f"# {name}", what, f"    python unlearn.py method={name}"]
    if "Formula" in more:
        parts += [
            "## Formula",
            *(f'<div class="formula">{mathml(f)}</div>' for f in more["Formula"]),
        ]
        legend = "; ".join(f"{mathml(s, 'inline')} {text}" for s, text in SYMBOLS)
        parts += [f'<p class="legend">{legend}.</p>']
    parts += ["## Source", _linked(about)]
    parts += ["## When to use it"]
    parts += [f"**For:** {text}" for text in more.get("Use", [])]
    parts += [f"**Not for:** {text}" for text in more.get("Not", [])]
    parts += [_measured(name, plane, verdicts), "## Options", _options(name, values, conf)]
    return "\n\n".join(parts)


def _options(name: str, values: dict[str, Any], conf: Path) -> str:
    """Return the table of a method's options with their defaults."""
    rows = [
        f"| `{key}` | {_shown(key, values)} | {note.replace('|', chr(92) + '|')} |"
        for key, note in read_option_comments("method", name, [str(conf)]).items()
        if key.split(".")[0] != "search" and ".search" not in key
    ]
    return (
        "\n".join(["| option | default | meaning |", "| --- | --- | --- |", *rows])
        if rows
        else "None."
    )


def _shown(key: str, values: dict[str, Any]) -> str:
    """Return the default of an option, by its dotted path."""
    node: Any = values
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    if not isinstance(node, str):
        return "" if isinstance(node, dict) else f"`{json.dumps(node)}`"
    group, _, name = node.removeprefix("${").removesuffix("}").rpartition(".")
    return f"`{name}` of `{group}`" if group and node.startswith("${") else f"`{node}`"


def _measured(name: str, plane: pd.DataFrame, verdicts: dict[str, pd.DataFrame]) -> str:
    """Return what was measured of a method, and what the advice makes of it."""
    own = plane[plane["method"] == name]
    if own.empty:
        return (
            "It is not part of the measured plane. For methods with a trusted set, and training that "
            "tolerates wrong labels, see [trusted sets](../trusted.md). For clean data, see [refined]"
            "(../refined.md) and [localized](../localized.md) unlearning and the "
            "[results](../results.md)."
        )
    rows = "\n".join(
        _row(kind, name, own[own["corruption"] == kind], table) for kind, table in verdicts.items()
    )
    data = ", ".join(str(own[key].iloc[0]) for key in ("dataset", "model"))
    bands = _bands(own)
    return (
        f"Measured on {data}: healed x utility by discovery rate, means over "
        f"{int(own['n'].max())} seeds; then healed accuracy, utility and rank among all methods "
        "over all rates, and the [recommendation](../advice.md).\n\n"
        f"| corruption | rate {' | '.join(bands)} | healed | utility | rank | recommendation |\n"
        f"| --- | {'--: | ' * len(bands)}--: | --: | --: | --- |\n{rows}\n\n"
        f"Time relative to retraining: {_time(own)}. All methods: [results](../results.md)."
    )


def _time(cells: pd.DataFrame) -> str:
    share = cells["time"].mean()
    return "below 0.01" if share < 0.005 else f"{share:.2f}"


def _kinds(plane: pd.DataFrame) -> list[str]:
    """Return the measured kinds of bad data, the least regular first."""
    known = set(plane["corruption"])
    return [kind for kind in reversed(regularity_levels(plane)) if kind in known]


def judged(plane: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return what the advice says of all methods by kind of bad data, at any discovery rate."""
    found = {kind: make_advice(select_nearest(plane, Case(kind, None))) for kind in _kinds(plane)}
    return {kind: table.set_index("method") for kind, table in found.items()}


def _bands(own: pd.DataFrame) -> dict[str, float]:
    """Return the mean product in each third of the discovery rates, by the rates that it holds."""
    found = {}
    for low, high in BANDS.values():
        some = own[(own["discovery"] > low) & (own["discovery"] <= high)]
        name = f"{some['discovery'].min():g} to {some['discovery'].max():g}"
        found[name] = some["healed_utility"].mean()
    return found


def _row(kind: str, name: str, own: pd.DataFrame, verdicts: pd.DataFrame) -> str:
    """Return the line of a method on one kind of bad data."""
    values = [*_bands(own).values(), own["healed"].mean(), own["utility"].mean()]
    shown = " | ".join("-" if math.isnan(v) else f"{v:.2f}" for v in values)
    better = int((verdicts["healed_utility"] > verdicts.loc[name, "healed_utility"]).sum())
    said = f"**{verdicts.loc[name, 'advice']}**: {verdicts.loc[name, 'why']}"
    title = kind.replace("_", " ")
    return f"| {title} | {shown} | {better + 1} of {len(verdicts)} | {said} |"


def index(names: list[str], conf: Path, plane: pd.DataFrame) -> str:
    """Return the page that leads to all methods, the best on the plane first."""
    kinds = _kinds(plane)
    total = plane.groupby("method")["healed_utility"].mean()
    rows = []
    for name in sorted(names, key=lambda n: -total.get(n, -1.0)):
        own = plane[plane["method"] == name]
        means = [own["healed_utility"][own["corruption"] == kind].mean() for kind in kinds]
        numbers = [*means, total.get(name, math.nan), own["time"].mean()]
        shown = " | ".join("" if math.isnan(v) else f"{v:.2f}" for v in numbers)
        values = content(conf / "method" / f"{name}.yaml", conf)
        what = _docstrings(str(values["_target_"]))[1]
        rows.append(f"| [{name}]({name}.md) | {_linked(what)} | {shown} |")
    heads = " | ".join(kind.replace("_", " ") for kind in kinds)
    return (
        "# Methods\n\nGenerated from the methods' docstrings and YAML files. Numbers are healed x utility on "
        "the digits, means over all discovery rates and seeds; time is relative to retraining. "
        "Methods without numbers are for clean data, need a [trusted set](../trusted.md), or are not "
        "part of that plane.\n\n"
        f"| method | idea | {heads} | all | time |\n"
        f"| --- | --- | {'--: | ' * len(kinds)}--: | --: |\n" + "\n".join(rows) + "\n"
    )


def navigation(pages: list[str], methods: list[str]) -> list[Any]:
    """Return the navigation: the first page, the sections, and the pages that no section names."""
    sections = [{title: list(own)} for title, own in SECTIONS.items()]
    sections.insert(1, {"Methods": methods})
    named = {"index.md", *(page for own in SECTIONS.values() for page in own)}
    return [{"Overview": "index.md"}, *sections, *sorted(set(pages) - named)]


def render_notebook(path: Path) -> str:
    """Return a notebook as Markdown: its text, code and printed output."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        said = "".join("".join(part.get("text", ())) for part in cell.get("outputs", ()))
        if said:
            parts.append(f"``` {{.text .printed}}\n{said.rstrip()}\n```")
    note = (
        f"This page is the notebook [{path.name}]({path.name}). On Colab its first cell installs the "
        "package from a clone or a wheel. Its numbers vary by a few hundredths between CPUs."
    )
    title, _, rest = "\n\n".join(parts).partition("\n")
    return f"{title}\n\n{note}\n{rest}\n"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return a page's text; the glossary ends with the definition of every column of rows."""
    if page.file.src_uri != "glossary.md":
        return markdown
    rows = [f"| `{name}` | {text} |" for name, text in DEFINITIONS.items()]
    table = "\n".join(["| column | meaning |", "| --- | --- |", *rows])
    return (
        f"{markdown}\n\n## Columns\n\nThe report shows these definitions when you point at a metric. "
        f"Numbers such as 2406.01257 are arXiv ids.\n\n{table}\n"
    )


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages to the site."""
    plane = load_shipped_plane()
    verdicts = judged(plane)
    conf = ROOT / "conf"
    names = sorted(p.stem for p in (conf / "method").glob("*.yaml"))
    pages = {f"methods/{name}.md": page(name, conf, plane, verdicts) for name in names}
    pages["methods/index.md"] = index(names, conf, plane)
    pages["heal_notebook.md"] = render_notebook(ROOT / "docs" / "heal.ipynb")
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    own = [file.src_uri for file in files.documentation_pages() if "/" not in file.src_uri]
    config["nav"] = navigation(own, ["methods/index.md", *(f"methods/{name}.md" for name in names)])
    return files
