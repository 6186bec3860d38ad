"""The page of an audit in the report of a healed model."""

from collections.abc import Sequence
from html import escape

from unlearn.storage.compliance import NOTE, AuditEntry, name_identifier


def format_compliance(entries: Sequence[AuditEntry]) -> str:
    """Return the answers as an HTML section that starts a new page in print; "" if there are none."""
    if not entries:
        return ""
    body = "".join(
        f'<tr><th scope="row">{escape(entry.question)}</th>'
        f"<td><ul>{''.join(f'<li>{escape(fact)}</li>' for fact in entry.facts)}</ul></td>"
        f"<td>{_format_identifiers(entry)}</td></tr>"
        for entry in entries
    )
    head = "".join(f'<th scope="col">{word}</th>' for word in ("Question", "Facts", "Identifiers"))
    return (
        '<section class="audit"><h2>Compliance</h2><div class="scroll"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        f"<p>{escape(NOTE)}</p></section>"
    )


def _format_identifiers(entry: AuditEntry) -> str:
    return "".join(
        f"<div><b>{name_identifier(key)}</b> {escape(text)}</div>"
        for key, text in entry.identifiers.items()
    )
