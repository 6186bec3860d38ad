"""Writes pages at build time: one per method, from its YAML's comments and its docstrings."""

import ast
from pathlib import Path
from typing import Any

import yaml
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent


def _docstrings(target: str) -> tuple[str, str]:
    """Return the docstrings of the file and of the class that a ``_target_`` names."""
    module, _, name = target.rpartition(".")
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
    own = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name]
    return ast.get_docstring(tree) or "", (ast.get_docstring(own[0]) or "") if own else ""


def _page(name: str) -> str:
    """Return the page of one method."""
    from unlearn.describe import file_comments

    folders = [str(ROOT / "conf")]
    comments = file_comments("method", name, folders)
    node, content = name, {}
    while node:  # a variant states only what differs; its parent comes first
        own = yaml.safe_load((ROOT / "conf" / "method" / f"{node}.yaml").read_text())
        content = own | content
        parents = [e for e in own.get("defaults", []) if isinstance(e, str) and e != "_self_"]
        node = parents[0] if parents else ""
    about, what = _docstrings(str(content["_target_"]))
    rows = [
        f"| `{key}` | `{_shown(content.get(key, {}))}` | {note.replace('|', chr(92) + '|')} |"
        for key, note in comments.items()
        if not key.startswith("search")
    ]
    table = "\n".join(["| option | default | meaning |", "| --- | --- | --- |", *rows])
    return (
        f"# {name}\n\n{what}\n\n```text\n{about}\n```\n\n"
        f"    python unlearn.py method={name}\n\n## Options\n\n{table if rows else 'None.'}\n"
    )


def _shown(value: Any) -> str:
    return "see --help" if isinstance(value, dict) else str("null" if value is None else value)


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages to the site."""
    names = sorted(p.stem for p in (ROOT / "conf" / "method").glob("*.yaml"))
    for name in names:
        files.append(File.generated(config, f"methods/{name}.md", content=_page(name)))
    links = "\n".join(f"- [{name}]({name}.md)" for name in names)
    text = f"# Methods\n\nEach page is written from the method's own file and YAML.\n\n{links}\n"
    files.append(File.generated(config, "methods/index.md", content=text))
    return files
