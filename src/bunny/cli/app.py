"""The commands: each turns its words into one call of `bunny.pipeline` and prints what comes back.

Results go to standard output, progress and errors to standard error. Exit codes: see `bunny.cli.guard`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from bunny.cli import chat, completing, convert, doctor, export, merge, recipes, serve, show, zoo
from bunny.cli.curate import curate_app
from bunny.cli.data import data_app
from bunny.cli.evaluate import MODEL, eval_app
from bunny.cli.guard import DEBUG, guarded
from bunny.cli.study import study_app
from bunny.core.errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Small vision-language models that beat bigger ones through better data: curate, train, evaluate, use.",
    epilog="Exit codes: 0 done, 1 failed, 2 something to mend in the command, recipe or files, 130 stopped by Ctrl-C.",
)
recipe_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Check a recipe, or show all its settings.")
app.add_typer(curate_app, name="curate")
app.add_typer(recipe_app, name="recipe")
app.add_typer(data_app, name="data")
app.add_typer(eval_app, name="eval")
app.add_typer(study_app, name="study")

RecipePath = Annotated[
    Path,
    typer.Argument(
        metavar="RECIPE", help="A recipe file (YAML), or a name of `bunny zoo`.", autocompletion=completing.recipes
    ),
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Run folder; default runs/NAME.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, e.g. tune.lora.r=64; may be repeated."),
]
Fast = Annotated[bool, typer.Option("--fast", help="Apply the recipe's `fast` block: fewer steps.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]
Only = Annotated[str | None, typer.Option("--only", help="Stop after this stage: align or tune.")]
Tasks = Annotated[
    list[str] | None,
    typer.Option(
        "--task",
        "-t",
        metavar="TASK",
        help="Benchmarks, e.g. -t pope,gqa or -t counting:path=FILE:sets=5.",
        autocompletion=completing.benchmarks,
    ),
]

TRAINING = ("curate", "align", "tune", "second", "merge")


def main() -> None:
    """Entry point of the `bunny` command."""
    app()


@app.callback()
def start(
    debug: Annotated[bool, typer.Option("--debug", help="Show the full traceback of errors.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show warnings and errors only.")] = False,
) -> None:
    """Settings that every command shares."""
    if debug:
        os.environ[DEBUG] = "1"
    if quiet:
        os.environ["BUNNY_LOG"] = "WARNING"


@app.command()
@guarded
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Run folder.")] = Path("runs/demo"),
    overrides: Overrides = None,
    fast: Fast = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Curate, train, evaluate: all of it, on real data.

    About ten minutes on two cores, two with --fast. Stopped at any moment and run
    again, it goes on from the last finished artifact or checkpoint.

    \b
    bunny demo
    bunny demo --fast --output runs/quick
    """
    _run(recipes.demo_recipe(), output, overrides, fast, dry_run, json)


@app.command()
@guarded
def run(
    recipe: RecipePath,
    output: Output = None,
    overrides: Overrides = None,
    fast: Fast = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Run a recipe from raw pairs to scores.

    Stages that are done are kept; an unfinished one goes on.

    \b
    bunny run recipes/tiny-cpu.yaml --dry-run
    bunny run recipes/tiny-cpu.yaml --set tune.lora.r=64 --output runs/r64
    """
    _run(recipe, output, overrides, fast, dry_run, json)


@app.command()
@guarded
def train(
    recipe: RecipePath,
    output: Output = None,
    overrides: Overrides = None,
    only: Only = None,
    processes: Annotated[
        int, typer.Option("--processes", min=1, help="Train with so many processes on this machine, one for each GPU.")
    ] = 1,
    fast: Fast = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Train a recipe's model: align, then tune.

    Curates first where that is not done; tunes a second time and merges where the recipe says so.
    On several machines: start it by torchrun on each of them.

    \b
    bunny train recipes/tiny-cpu.yaml
    bunny train recipes/tiny-cpu.yaml --only align --set align.max_steps=200
    bunny train bunny-v1.0-3b --processes 8
    torchrun --nnodes 2 --nproc-per-node 8 … -m bunny train bunny-v1.1-4b
    """
    if processes > 1 and not dry_run and "WORLD_SIZE" not in os.environ:
        from bunny.cli.launch import again

        raise typer.Exit(again(processes))
    last = only or "merge"
    if last not in TRAINING[1:]:
        raise UserError(f"--only {last}: no such training stage", fix="use align or tune")
    _run(recipe, output, overrides, fast, dry_run, json, TRAINING[: TRAINING.index(last) + 1])


@eval_app.command(MODEL)
@guarded
def evaluate(
    target: Annotated[
        str, typer.Argument(metavar="[MODEL|RECIPE]", help="A folder of ours or of Hugging Face, or a recipe file.")
    ] = "",
    tasks: Tasks = None,
    endpoint: Annotated[str, typer.Option("--endpoint", metavar="URL", help="An OpenAI-compatible server.")] = "",
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="The model's name at the endpoint.")] = "",
    processes: Annotated[int, typer.Option("--processes", min=1, help="Answer in so many, one for each GPU.")] = 1,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Length limit of an answer; default: what the benchmark asks for.")
    ] = None,
    batch_rows: Annotated[int, typer.Option(min=1, help="Questions computed together at most.")] = 32,
    output: Output = None,
    overrides: Overrides = None,
    fast: Fast = False,
    json: Json = False,
) -> None:
    """Score a model on benchmarks.

    With 95 % intervals, beside honest baselines where a recipe names them.
    An endpoint's key is read from BUNNY_API_KEY or OPENAI_API_KEY.

    \b
    bunny eval runs/demo/model -t easy_vqa,picture_yes_no
    bunny eval models/llava-1.5-7b-hf -t pope --processes 2
    bunny eval --endpoint http://localhost:8000/v1 --model qwen2-vl -t pope
    bunny eval recipes/tiny-cpu.yaml
    """
    if recipes.is_recipe(target):
        if tasks:
            raise UserError("-t goes with a model", fix="a recipe names its tasks itself: see its `evaluate` section")
        return _run(Path(target), output, overrides, fast, False, json)
    if bool(target) == bool(endpoint) or bool(endpoint) != bool(model):
        raise UserError("which model?", fix="give a folder, or --endpoint URL with --model NAME")
    if not tasks:
        raise UserError(f"{target or model}: which benchmarks?", fix="name them, e.g. -t easy_vqa,picture_yes_no")
    if processes > 1 and "WORLD_SIZE" not in os.environ:
        from bunny.cli.launch import again

        raise typer.Exit(again(processes))
    _start_log()
    from bunny.pipeline import flow, task_words

    folder = output or Path("runs") / f"eval-{Path(target or model).name}"
    content = flow.evaluate(
        target or model,
        task_words.blocks(tasks),
        folder,
        endpoint=endpoint,
        batch_rows=batch_rows,
        max_new_tokens=max_new_tokens,
    )
    if not content:
        return None  # the first process tells the outcome
    return show.as_json(content) if json else show.results(content, folder, model_hint=False)


app.command("chat")(chat.chat)
app.command("serve")(serve.serve)
app.command("import")(convert.import_)
app.command("export")(export.export)
app.command("merge")(merge.merge)
app.command("zoo")(zoo.zoo)
app.command("doctor")(doctor.doctor)


@recipe_app.command("check")
@guarded
def recipe_check(recipe: RecipePath, overrides: Overrides = None, fast: Fast = False) -> None:
    """Check every key and value of a recipe.

    The first mistake is named with its place and the nearest known name.

    \b
    bunny recipe check recipes/tiny-cpu.yaml
    """
    loaded = recipes.load(recipe, overrides, fast)
    from bunny.core.recipe import check_blocks

    check_blocks(loaded, where=str(recipe))
    typer.echo(f"{recipe}: good ({loaded.name})")


@recipe_app.command("show")
@guarded
def recipe_show(recipe: RecipePath, overrides: Overrides = None, fast: Fast = False, json: Json = False) -> None:
    """Show a recipe with all defaults filled in.

    \b
    bunny recipe show recipes/tiny-cpu.yaml --fast
    """
    tree = recipes.load(recipe, overrides, fast).model_dump(mode="json")
    if json:
        return show.as_json(tree)
    import yaml

    return typer.echo(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), nl=False)


@app.command()
@guarded
def version() -> None:
    """The version of Bunny."""
    import bunny

    typer.echo(bunny.__version__)


def _run(
    path: Path,
    output: Path | None,
    overrides: list[str] | None,
    fast: bool,
    dry_run: bool,
    json: bool,
    only: tuple[str, ...] = (),
) -> None:
    """Run (or plan) a recipe's stages and print the outcome."""
    _start_log()
    recipe = recipes.load(path, overrides, fast)
    folder = recipes.run_folder(recipe, output)
    from bunny.pipeline import flow

    if dry_run:
        stages = [stage for stage in flow.plan(recipe, folder) if not only or stage["stage"] in only]
        return show.as_json(stages) if json else show.plan(stages)
    content = flow.run(recipe, folder, only)
    if os.environ.get("RANK", "0") != "0":
        return None  # the first process tells the outcome
    return show.as_json(content) if json else show.results(content, folder)


def _start_log() -> None:
    """Words of the first process; of the others only what is wrong."""
    from bunny.core.log import set_up

    set_up(os.environ.get("BUNNY_LOG", "INFO") if os.environ.get("RANK", "0") == "0" else "ERROR")
