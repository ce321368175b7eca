"""The command `piapi-async`, also as `python -m piapi_async`: imports the command line, or says how to get it."""

import signal
import sys

MISSING = "piapi-async needs the command line's packages: pip install click rich"


def main() -> None:
    """Run the command line and leave with its exit code."""
    try:
        code = _run()
    except KeyboardInterrupt:
        code = 130
    # All is said and done; one Ctrl-C too many must not end it in a traceback.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


def _run() -> int:
    try:
        from piapi_async.cli import program  # noqa: PLC0415 - needs click and rich, which not everyone has
    except ImportError as error:
        if (error.name or "").split(".")[0] not in ("click", "rich"):
            raise
        print(MISSING, file=sys.stderr)  # noqa: T201 - there is nothing else to print with
        return 2
    return program.run(sys.argv[1:])


if __name__ == "__main__":
    main()
