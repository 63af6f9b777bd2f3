"""Opens the browser of a desktop, if there is one."""

from __future__ import annotations

import os
import sys
import webbrowser


def open_in_browser(address: str) -> bool:
    """False without a desktop, where a browser of the terminal would take the terminal over."""
    has_desktop = sys.platform in ("darwin", "win32") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    )
    return has_desktop and webbrowser.open(address)
