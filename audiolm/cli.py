"""The command ``audiolm``: train bundles, measure them and look at them.

::

    audiolm train all --data SOUNDS --out BUNDLE         # a folder of sound to a bundle
    audiolm train --help                                 # the same, step by step
    audiolm export BUNDLE                                # ONNX graphs, for a fast start or for other programs
    audiolm bundles

Everything heavy is imported by the command that needs it, so that ``--help`` answers at once.
"""

import sys

import typer

from audiolm.commands.abx import abx, kept
from audiolm.commands.continuation import continuation
from audiolm.commands.detect import detect, eval_detect, train_detector
from audiolm.commands.engines import engines, export
from audiolm.commands.every import every
from audiolm.commands.listen import compare, heard, listen
from audiolm.commands.pairs import sblimp, swuggy
from audiolm.commands.reconstruction import reconstruction
from audiolm.commands.reports import card, join, page
from audiolm.commands.time import diversity, hierarchy, remake
from audiolm.commands.train import train_app
from audiolm.commands.watermark import watermark
from audiolm.errors import AudioLMError
from audiolm.eval.cli import eval_app

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Train, measure and inspect AudioLM bundles.",
    epilog="Exit codes: 0 done; 2 wrong input; 1 another failure; 130, 143 interrupted, with the weights saved.",
)
train_app.command("detector")(train_detector)
app.add_typer(train_app, name="train")
eval_app.command("all")(every)
eval_app.command()(reconstruction)
eval_app.command()(continuation)
eval_app.command()(swuggy)
eval_app.command()(sblimp)
eval_app.command()(abx)
eval_app.command()(kept)
eval_app.command()(engines)
eval_app.command()(listen)
eval_app.command()(heard)
eval_app.command()(hierarchy)
eval_app.command()(diversity)
eval_app.command()(watermark)
eval_app.command("detect")(eval_detect)
eval_app.command()(remake)
eval_app.command()(page)
eval_app.command()(card)
eval_app.command()(join)
app.add_typer(eval_app, name="eval")
app.command()(export)
app.command()(detect)
app.command()(compare)


@app.command()
def bundles() -> None:
    """List the shipped bundles."""
    from audiolm.bundle import read_config, shipped

    for name in shipped():
        stages = read_config(name)["stages"]
        typer.echo(f"{name}: " + ", ".join(f"{k} {v['layers']}x{v['width']}" for k, v in stages.items()))


def main() -> None:
    """Run the command; an error that we raise on purpose ends it with its exit code and one line."""
    try:
        app()
    except AudioLMError as error:
        typer.echo(f"audiolm: error: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
