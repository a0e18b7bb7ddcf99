"""`midtrain …`: every stage on plain files, and the whole graph through Dagster."""

import logging
import os
import sys
import warnings
from importlib import import_module

import typer

from midtrain_dagster.errors import MidtrainError

COMMANDS = (
    "run",
    "recipes",
    "audit",
    "storage",
    "takedown",
    "cost",
    "vacuum",
    "collect",
    "clean",
    "deduplicate",
    "synthesize",
    "rate",
    "decontaminate",
    "select",
    "mix",
    "scale",
    "train",
    "evaluate",
)


def application() -> typer.Typer:
    """All commands, each registered by its own module in `midtrain_dagster.commands`."""
    app = typer.Typer(
        name="midtrain",
        help="Mid-training of language models, from raw corpora to an evaluated checkpoint.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )

    @app.callback()
    def common(debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error.")) -> None:
        """Mid-training of language models, from raw corpora to an evaluated checkpoint."""

    for name in COMMANDS:
        import_module(f"midtrain_dagster.commands.{name}").register(app)
    return app


def quiet() -> None:
    """Leave the terminal to our own progress: no bars and hints of libraries, no warning about Dagster's use of its own previews."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # read by tqdm, and the next by the hub's client, when they are imported
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="Function `PipesMessageReader.expected_writer_count`")


def main() -> None:
    """Run the command line. An error that a user can mend is one line and exit code 2."""
    quiet()
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        application()()
    except MidtrainError as error:
        if debug:
            raise
        print(f"midtrain: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
