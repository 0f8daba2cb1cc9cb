"""The command line: parse, settings, pipeline, print.

``arguments``  the commands and their flags
``named_run``  the run that arguments name, with its settings
``commands``   what each command does
``printing``   results as lines

stdout carries results, stderr progress and errors. Exit codes: 0 done, 1 the work failed, 2 the
request was wrong. Heavy libraries are imported by the command that needs them, so that ``--help``
answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from builder.cli.arguments import make_parser
from builder.errors import WeightAtlasError, printable


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code of a command line."""
    options = make_parser().parse_args(arguments)
    # Model loading is ours to report; hub downloads keep their own progress bars.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except WeightAtlasError as error:
        print(f"weightatlas: {printable(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nweightatlas: stopped; give the same command again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output went away, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
