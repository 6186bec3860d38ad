"""Hashes of a user's own code and data, for identities: an edited file is another run.

Code of this package and of installed packages is not hashed: the row holds revision and versions.
"""

import ast
import functools
import hashlib
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

MAX_FILES = 1000
"""Files of a package that are hashed at most."""

INSTALLED = {"site-packages", "dist-packages"}


def find_user_modules(node: Any) -> set[str]:
    """Return the top-level modules that a config node names, other than this package.

    Named are classes and functions, ``_target_: module.Class``, and networks,
    ``path: module:function``.
    """
    if isinstance(node, list | tuple):
        return set().union(*(find_user_modules(part) for part in node)) if node else set()
    if not isinstance(node, Mapping):
        return set()
    found = set().union(*(find_user_modules(part) for part in node.values())) if node else set()
    target, path = node.get("_target_"), node.get("path")
    if isinstance(target, str) and "." in target:
        found.add(target.partition(".")[0])
        if isinstance(path, str) and ":" in path and target.endswith(".imported_network"):
            found.add(path.partition(":")[0].partition(".")[0])
    return found - {"unlearn"}


def hash_user_code(node: Any) -> dict[str, str]:
    """Return a hash by module of a user's own code that a config node names, 16 hex digits each."""
    hashes = {name: _hash_module(name, os.getcwd()) for name in sorted(find_user_modules(node))}
    return {name: digest for name, digest in hashes.items() if digest is not None}


@functools.lru_cache(maxsize=256)
def _hash_module(name: str, folder: str) -> str | None:
    """Return the hash of a module and the local modules that it imports; None if installed.

    Cached: an identity does not change while a process runs.
    """
    files: dict[Path, bytes] = {}
    _collect_files(name, folder, files)
    if not files:
        return None
    digest = hashlib.sha256()
    for path in sorted(files, key=lambda p: (p.name, files[p])):
        digest.update(b"%s %d %s" % (path.name.encode(), len(files[path]), files[path]))
    return digest.hexdigest()[:16]


def _collect_files(name: str, folder: str, files: dict[Path, bytes]) -> None:
    """Add the files of a local module and of those it imports."""
    for path in _list_sources(name, folder):
        if path in files or len(files) >= MAX_FILES:
            continue
        try:
            files[path] = path.read_bytes()
        except OSError:
            continue
        for other in _list_imports(files[path]):
            _collect_files(other, folder, files)


def _list_sources(name: str, folder: str) -> list[Path]:
    """Return the Python files of a local top-level module; none if it is installed or absent."""
    if name in sys.stdlib_module_names or name == "unlearn":
        return []
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    spec = spec or importlib.machinery.PathFinder.find_spec(name, [folder])
    if spec is None:
        return []
    places = [Path(p).resolve() for p in spec.submodule_search_locations or ()]
    if not places and spec.origin is not None and spec.origin.endswith(".py"):
        places = [Path(spec.origin).resolve()]
    places = [place for place in places if not INSTALLED & set(place.parts)]
    found = [f for p in places for f in (sorted(p.rglob("*.py")) if p.is_dir() else [p])]
    return found[:MAX_FILES]


def _list_imports(source: bytes) -> Iterator[str]:
    """Yield the top-level modules that a file imports."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
