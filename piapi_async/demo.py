"""The demo of `piapi-async demo`: one photograph restyled in twelve ways on the emulator; needs the extra `cli`."""

from piapi_async.cli._demo import play, report

__all__ = ["play", "report"]
