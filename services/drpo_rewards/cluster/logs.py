"""The log files that Ray Serve writes for this process."""

from __future__ import annotations

import io
import logging


def let_logs_take_any_text() -> None:
    """Let the logs of this process hold texts that are not valid Unicode, such as half an emoji that a reward prints.

    Otherwise such a text cannot be written; Serve tells that to the same log, which tries again to write the text, and
    the process is busy with this for minutes.
    """
    for handler in logging.getLogger("ray.serve").handlers:
        handler = getattr(handler, "target", None) or handler  # a buffer, and the handler behind it
        if isinstance(handler, logging.FileHandler):
            handler.errors = "backslashreplace"  # of the files to come, when this one is full
            if isinstance(handler.stream, io.TextIOWrapper):
                handler.stream.reconfigure(errors=handler.errors)
