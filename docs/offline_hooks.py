"""Keeps the built pages free of scripts from elsewhere."""

import re
from typing import Any

WORKER = re.compile(r'<script src="https://unpkg[^>]*></script>')


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Return a page that loads our own stand-in for workers, not the one from elsewhere."""
    return WORKER.sub(f'<script src="{"../" * page.url.count("/")}worker.js"></script>', output)


def on_post_template(output_content: str, **_: Any) -> str:
    """Return the page of unknown addresses without a script from elsewhere."""
    return WORKER.sub("", output_content)
