"""The folder of a tuning: which of its files is the profile, the plan, the front, the comparison.

Its ``report.html`` is written again by each command, from all that is there by then.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.fields import Fields, parse

__all__ = ["INDEX", "TuningFolder"]

INDEX = "tuning.json"
FORMAT = "flowerpress.tuning/1"
PARTS = ("profile", "plan", "curve", "verify")
SETTINGS = ("sensitivity", "curve", "verified")

_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class TuningFolder:
    """What is in a folder.

    Attributes:
        folder: where it is.
        files: part (of ``PARTS``) -> path relative to the folder.
        commands: part -> the command line that made it.
        settings: what else the report must know, of ``SETTINGS``.
    """

    folder: Path
    files: dict[str, str] = field(default_factory=dict)
    commands: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> TuningFolder:
        """Read the index of a folder; one without is empty.

        Raises:
            ConfigError: the index is damaged.
        """
        path = folder / INDEX
        try:
            if path.stat().st_size > _MOST_BYTES:
                raise ConfigError(f"{path}: is too large; remove it and try again")
            text = path.read_bytes()
        except FileNotFoundError:
            return cls(folder)
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
        fields = Fields(parse(text, str(path)), str(path))
        if fields.text("format") != FORMAT:
            raise ConfigError(f"{path}: is not a {FORMAT} file; remove it and try again")
        files, commands, settings = (
            _texts(fields, key, known)
            for key, known in (("files", PARTS), ("commands", PARTS), ("settings", SETTINGS))
        )
        fields.done()
        return cls(folder, files, commands, settings)

    def path(self, part: str) -> Path | None:
        """Return where a part is, if there is one and it is still there."""
        if part not in self.files:
            return None
        path = self.folder / self.files[part]
        return path if path.exists() else None

    def having(self, part: str, path: Path, command: str = "", **settings: str) -> TuningFolder:
        """Return the folder with one more part, and the command that made it."""
        try:
            relative = os.path.relpath(path.absolute(), self.folder.absolute())
        except ValueError:  # another drive
            relative = str(path.absolute())
        commands = self.commands | ({part: command} if command else {})
        return replace(
            self,
            files=self.files | {part: Path(relative).as_posix()},
            commands=commands,
            settings=self.settings | settings,
        )

    def save(self) -> None:
        """Write the index, whole or not at all.

        Raises:
            ConfigError: it cannot be written.
        """
        data = {
            "format": FORMAT,
            "files": self.files,
            "commands": self.commands,
            "settings": self.settings,
        }
        write_text(self.folder / INDEX, json.dumps(data, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file in one step; its folder is made if need be.

    Raises:
        ConfigError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error


def _texts(fields: Fields, key: str, known: tuple[str, ...]) -> dict[str, str]:
    inner = Fields(fields.mapping(key), f"{fields.where}: {key}")
    found = {name: inner.text(name) for name in known if name in inner}
    inner.done()
    return found
