"""What an installation consists of, remembered beside it.

Rule: uninstall removes what is written here and nothing else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from forestall import __version__
from forestall.admin.errors import AdminError


@dataclass(slots=True)
class Manifest:
    """What install wrote, so that uninstall can take it away."""

    prefix: str
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 by path, of the files outside the prefix."""
    replaced: list[str] = field(default_factory=list)
    """Units that were disabled to make room."""
    restart: list[str] = field(default_factory=list)
    """Those of them that were running."""
    folders: list[str] = field(default_factory=list)
    """Folders that were not there before, outermost first."""

    def to_json(self) -> str:
        """Write the manifest."""
        return json.dumps(
            {
                "version": __version__,
                "prefix": self.prefix,
                "files": self.files,
                "replaced": self.replaced,
                "restart": self.restart,
                "folders": self.folders,
            },
            indent=2,
        )

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read a manifest.

        Raises: AdminError when it is none.
        """
        try:
            held: dict[str, Any] = json.loads(text)
            return cls(
                held["prefix"],
                dict(held["files"]),
                list(held["replaced"]),
                list(held["restart"]),
                list(held.get("folders", ())),  # an older installation did not remember them
            )
        except (ValueError, KeyError, TypeError) as error:
            raise AdminError(f"the manifest of the installation is damaged: {error}") from None
