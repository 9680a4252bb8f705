"""The settings file that install puts down: everything is a comment, so the defaults hold."""

from __future__ import annotations

from forestall.config.show import defaults, render

_HEAD = """# Settings of forestall. Everything has a default, which is shown here as a comment.
# Check with: forestall config check     Put in force with: forestall reload
# Every setting is explained in docs/settings.md. Drop-ins: forestall.toml.d/*.toml

"""


def example_settings() -> str:
    """Return the defaults, commented out; reads as an empty settings file."""
    lines = render(defaults(), origins=False).splitlines()
    return _HEAD + "".join(f"# {line}\n".replace("# # ", "# ") if line else "\n" for line in lines)
