"""The commands of README and docs, as a user would type them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PROGRAMS = (
    "python",
    "sh",
    "make",
    "pip",
    "eval",
    "unlearn-",
    "mlflow",
    "trackio",
    "wandb",
    "unzip",
)
BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")


@dataclass(frozen=True)
class Snippet:
    """A command or a piece of Python in a page, with its line."""

    page: str
    line: int
    language: str
    text: str


def list_pages() -> list[Path]:
    """Return the pages that hold commands."""
    return [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md",
            *sorted((REPOSITORY / "docs").glob("*.md"))]  # fmt: skip


def read_snippets(page: Path) -> Iterator[Snippet]:
    """Yield the commands of a page: those of its shell blocks, its Python blocks, and in its text."""
    text = page.read_text(encoding="utf-8")
    name = page.relative_to(REPOSITORY).as_posix()
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start()) + 2
        if match[1] == "bash":
            yield from (
                Snippet(name, line + n, "bash", said) for n, said in split_commands(match[2])
            )
        elif match[1] == "python":
            yield Snippet(name, line, "python", match[2])
    prose = BLOCK.sub(lambda match: "\n" * match[0].count("\n"), text)
    for match in SPAN.finditer(prose):
        said = " ".join(match[1].split())
        if said.startswith(PROGRAMS) and " " in said:
            yield Snippet(name, prose.count("\n", 0, match.start()) + 1, "bash", said)


def split_commands(block: str) -> Iterator[tuple[int, str]]:
    """Yield the commands of a shell block, each with its line in it.

    A command goes on after a backslash at the end of a line and within quotes.
    """
    begun, start = "", 0
    for n, line in enumerate(block.splitlines()):
        if not begun and (not line.strip() or line.lstrip().startswith("#")):
            continue
        start = n if not begun else start
        begun += line.removesuffix("\\") if line.endswith("\\") else line + "\n"
        if not line.endswith("\\") and re.sub(r"\s#.*", "", begun).count('"') % 2 == 0:
            said = re.sub(r"\s+#\s.*", "", begun)
            yield start, " ".join(said.split())
            begun = ""
