"""Tells the failures of a third-party library from bugs of this package.

FastEmbed, ONNX Runtime, tokenizers and the clients of Redis and Qdrant share no class of errors,
and raise plain ValueError, AttributeError or Exception on damaged files and replies. A class cannot
tell who is at fault, but the traceback can: these libraries never call back into this package.
"""

from __future__ import annotations

from traceback import walk_tb


def raised_inside(error: Exception, packages: tuple[str, ...]) -> bool:
    """Whether one of the packages raised the error, or called what raised it."""
    modules = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
    modules.append(type(error).__module__)
    return any(module.partition(".")[0] in packages for module in modules)
