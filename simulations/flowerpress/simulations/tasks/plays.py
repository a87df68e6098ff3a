"""Plays as text: who speaks, and what each role says in all.

    ROLE:
    speech, on one line or more

    OTHER ROLE:
    ...

A blank line ends a speech. A paragraph whose first line does not end with a colon goes on with
the speech before it.
"""

from __future__ import annotations

__all__ = ["speeches_by_role"]


def speeches_by_role(text: str) -> dict[str, str]:
    """Return role -> all of its speeches, in their order, each ended by a line break.

    The same name in two plays is one role. Roles are in order of their first speech; text before
    the first role, and roles that say nothing, are left out.
    """
    spoken: dict[str, list[str]] = {}
    role: str | None = None
    at_start = True  # of a paragraph
    for line in text.splitlines():
        if not line.strip():
            at_start = True
            continue
        if at_start and line.rstrip().endswith(":"):
            role = line.strip().removesuffix(":")
        elif role is not None:
            spoken.setdefault(role, []).append(line + "\n")
        at_start = False
    return {name: "".join(lines) for name, lines in spoken.items()}
