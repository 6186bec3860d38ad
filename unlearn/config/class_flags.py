"""Class attributes of methods and localizations, read from their source without importing it.

Importing a method takes seconds, because it imports torch.
"""

import ast
import functools
import importlib.util
from pathlib import Path
from typing import Any


def read_class_flag(target: Any, name: str) -> Any:
    """Return a constant class attribute of a class of this package, own or inherited.

    Args:
        target: Dotted path of the class, as in ``_target_``.
        name: Name of the attribute.

    Returns:
        The value; None if it is not a constant, or the class is not of this package.
    """
    module, _, class_name = str(target).rpartition(".")
    if not module.startswith("unlearn."):
        return None
    tree = _parse_module(module)
    if tree is None:
        return None
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            return _read_from_class(node, tree, module, name)
    return None


def _read_from_class(node: ast.ClassDef, tree: ast.Module, module: str, name: str) -> Any:
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == name:
            return None  # a property: known only of an instance
        goals: list[ast.expr] = []
        if isinstance(statement, ast.Assign):
            goals = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            goals = [statement.target]
        if any(isinstance(goal, ast.Name) and goal.id == name for goal in goals):
            value = statement.value  # type: ignore[union-attr]
            return value.value if isinstance(value, ast.Constant) else None
    imported = {
        alias.asname or alias.name: f"{part.module}.{alias.name}"
        for part in tree.body if isinstance(part, ast.ImportFrom)
        for alias in part.names
    }  # fmt: skip
    for base in node.bases:
        if isinstance(base, ast.Name):
            found = read_class_flag(imported.get(base.id, f"{module}.{base.id}"), name)
            if found is not None:
                return found
    return None


@functools.lru_cache(maxsize=256)
def _parse_module(module: str) -> ast.Module | None:
    """Return the syntax tree of a module of this package; None if it does not exist."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return ast.parse(Path(spec.origin).read_bytes())
