"""The options as they are at this moment."""

from typing import Any

import attrs

from piapi_async.emulator.options import Options

FIXED = ("host", "port", "seed", "credits", "keep_requests")
"""What an emulator is made with, and keeps."""

_NAMES = attrs.fields_dict(Options)


class Settings:
    """Holds the options that hold now.

    Whatever depends on an option reads it here at the moment of use, and keeps no copy.

    Args:
        options: Those at the start.
    """

    def __init__(self, options: Options) -> None:
        self.current = options

    def change(self, **changes: Any) -> None:
        """Replace some of them, all or none.

        Raises:
            ValueError: A value out of range, or an option that cannot change.

            TypeError: There is no such option.
        """
        for name in changes:
            if name not in _NAMES:
                raise TypeError(f"there is no option {name!r}")
            if name in FIXED:
                raise ValueError(f"{name} cannot change any more; it is chosen when the emulator is made")
        self.current = attrs.evolve(self.current, **changes)
