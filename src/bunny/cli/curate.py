"""`bunny curate`: choose, explain, choose again, compare, look at, write and publish a set of pairs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from bunny.cli import show, show_curation
from bunny.cli.guard import guarded
from bunny.core.errors import UserError

curate_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="From raw pairs to a well-chosen set.")

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder that has been curated.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; may be repeated.")
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Where it goes.")]


@curate_app.command("run")
@guarded
def run(
    target: Annotated[
        Path, typer.Argument(metavar="RECIPE|FOLDER", help="A recipe (YAML), a name of `bunny zoo`, or data.")
    ],
    preset: Annotated[
        str | None, typer.Option("--preset", help="Steps by name, see `bunny curate presets`; a folder's: small-set.")
    ] = None,
    embedder: Annotated[
        str | None, typer.Option("--embedder", metavar="NAME[:MODEL]", help="What makes vectors, where there are none.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Run folder; default runs/NAME.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, e.g. curate.steps.3.above=0.9."),
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Apply the recipe's `fast` block.")] = False,
    engine: Annotated[str | None, typer.Option("--engine", help="What runs the work: local (default) or ray.")] = None,
    address: Annotated[str | None, typer.Option("--address", help="Of the Ray cluster, e.g. auto.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=0, help="Processes; 0: one a core.")] = None,
    rank: Annotated[int | None, typer.Option("--rank", min=0, help="This process's number among --world.")] = None,
    world: Annotated[int | None, typer.Option("--world", min=1, help="Processes that share the work (SLURM).")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")] = False,
    json: Json = False,
) -> None:
    """Curate a recipe's pool, or a folder of pairs.

    Makes vectors, takes the steps, gives every decision a reason, and writes an HTML report.
    Of a folder without a recipe the layout is found out. Stopped and run again, it goes on.

    \b
    bunny curate run recipes/tiny-cpu.yaml
    bunny curate run pictures/ --output runs/pictures
    bunny curate run shards/ --preset datacomp-clip30 --workers 0 --dry-run
    bunny curate run recipe.yaml --rank $SLURM_ARRAY_TASK_ID --world 64
    """
    _start_log()
    from bunny.cli import recipes
    from bunny.pipeline import curation

    block = _engine(engine, address, workers, rank, world)
    recipe = curation.load(target, overrides or (), fast, preset=preset, embedder=embedder, engine=block)
    folder = recipes.run_folder(recipe, output)
    if dry_run:
        from bunny.pipeline.estimating import estimate_recipe

        stages = [{**stage, "estimate": estimate_recipe(recipe)} for stage in curation.plan(recipe, folder)]
        return show.as_json(stages) if json else show_curation.planned(stages)
    content = curation.run(recipe, folder)
    return show.as_json(content) if json else show_curation.outcome(content)


@curate_app.command("explain")
@guarded
def explain(
    run_path: RunPath,
    sample: Annotated[str, typer.Argument(metavar="ID", help="A sample's id.")],
    json: Json = False,
) -> None:
    """Why a sample was kept or dropped.

    Its twin, its place in every rank, its nearest neighbours, and at which settings it would have stayed.

    \b
    bunny curate explain runs/demo SAMPLE_ID
    bunny curate explain runs/demo SAMPLE_ID --json
    """
    _start_log("WARNING")
    from bunny.pipeline import explain

    content = explain.explain(run_path, sample)
    return show.as_json(content) if json else show_curation.explained(content)


@curate_app.command("again")
@guarded
def again(run_path: RunPath, settings: Settings = None, output: Output = None, json: Json = False) -> None:
    """Other settings on a finished run, without new vectors.

    Shows what changes. The second step of one name is called `band_2`, and so on. Goes to RUN/again/SETTINGS.

    \b
    bunny curate again runs/demo --set dedup.above=0.9
    bunny curate again runs/demo --set band.high=0.8 --set band_2.low=0 -o runs/looser
    """
    _start_log()
    from bunny.pipeline.again import again

    content = again(run_path, settings or (), output)
    if json:
        return show.as_json(content)
    show_curation.difference(content)
    typer.echo(f"\nwritten  {content['run']}")
    return typer.echo(f"Try next: {show.command()} curate view {content['run']}")


@curate_app.command("diff")
@guarded
def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="A run folder, or its decisions.parquet.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
    ids_only: Annotated[
        bool, typer.Option("--ids-only", help="Only ids: `- ID` is kept by A only, `+ ID` by B only.")
    ] = False,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page with the pictures.")] = None,
    json: Json = False,
) -> None:
    """What two curations decide differently.

    Counts, from which step and reason to which, by source and cluster, settings, and examples.

    \b
    bunny curate diff runs/demo runs/looser
    bunny curate diff runs/demo runs/looser --html flips.html
    bunny curate diff runs/demo runs/looser --ids-only > flips.txt
    """
    _start_log("WARNING")
    from bunny.pipeline import difference

    if ids_only:
        for sign, id in difference.changed_ids(a, b):
            typer.echo(f"{sign} {id}")
        return None
    content = difference.diff(a, b, html)
    return show.as_json(content) if json else show_curation.difference(content)


@curate_app.command("view")
@guarded
def view(
    run_path: RunPath,
    host: Annotated[str, typer.Option("--host", help="Address to serve at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: a free one.")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open it in the browser.")] = True,
) -> None:
    """Look through a curation in the browser.

    Clusters, duplicate groups, samples; a threshold with live counts; decisions can be overridden.

    \b
    bunny curate view runs/demo
    bunny curate view runs/demo --port 8000 --no-browser
    """
    _start_log()
    from bunny.pipeline.view import view

    view(run_path, host, port, browser)


@curate_app.command("export")
@guarded
def export(
    run_path: RunPath,
    to: Annotated[
        str, typer.Option("--to", metavar="FORMAT", help="webdataset, parquet, llava_json, datacomp_uids, ids.")
    ],
    settings: Settings = None,
    output: Output = None,
    json: Json = False,
) -> None:
    """Write the samples that stay in another format.

    Pictures are copied byte for byte. Without --output it goes beside the run's other files, where `push` finds it.

    \b
    bunny curate export runs/demo --to webdataset
    bunny curate export runs/demo --to parquet --set samples_per_shard=2000 -o coreset
    """
    _start_log()
    from bunny.pipeline.exports import export

    content = export(run_path, to, settings or (), output)
    if json:
        return show.as_json(content)
    show.facts({key: value for key, value in content.items() if value})
    return typer.echo(f"\nTry next: {show.command()} curate push {run_path} NAME/SET --dry-run")


@curate_app.command("push")
@guarded
def push(
    run_path: RunPath,
    repo: Annotated[str, typer.Argument(metavar="REPO", help="On the Hugging Face Hub, e.g. my-lab/coreset.")],
    licence: Annotated[str, typer.Option("--license", help="Of the set as a whole, e.g. cc-by-4.0.")] = "",
    private: Annotated[bool, typer.Option("--private", help="Nobody else sees a new repository.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would go up, and do nothing.")] = False,
    json: Json = False,
) -> None:
    """Publish a curated set on the Hugging Face Hub.

    Card, decisions and whatever formats were written; pictures only if they were exported. Needs `hf auth login`.

    \b
    bunny curate push runs/demo my-lab/coreset --license cc-by-4.0 --dry-run
    bunny curate push runs/demo my-lab/coreset --license cc-by-4.0
    """
    _start_log()
    from bunny.pipeline.publishing import push

    content = push(run_path, repo, licence=licence, private=private, dry_run=dry_run)
    return show.as_json(content) if json else show_curation.pushed(content, run_path)


@curate_app.command("presets")
@guarded
def presets(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show this one's steps.")] = None,
    json: Json = False,
) -> None:
    """Lists of steps that come with Bunny.

    \b
    bunny curate presets
    bunny curate presets small-set
    """
    from bunny.pipeline import curation

    if name:
        content = curation.preset(name)
        return show.as_json(content) if json else typer.echo(content["text"], nl=False)
    found = curation.presets()
    return show.as_json(found) if json else show_curation.presets(found)


def _engine(
    name: str | None, address: str | None, workers: int | None, rank: int | None, world: int | None
) -> dict[str, Any] | None:
    """The block of what runs the work. Raises UserError for options that do not go together."""
    if (rank is None) != (world is None):
        raise UserError("--rank and --world go together", fix="give both, e.g. --rank 0 --world 8")
    if rank is not None and name not in (None, "ranks"):
        raise UserError(f"--rank does not go with --engine {name}", fix="leave one of them out")
    if address is not None and name not in (None, "ray"):
        raise UserError(f"--address does not go with --engine {name}", fix="it is a Ray cluster's: --engine ray")
    use = name or ("ranks" if rank is not None else "ray" if address is not None else None)
    settings = {"workers": workers, "rank": rank, "world": world, "address": address}
    given = {key: value for key, value in settings.items() if value is not None}
    return {"use": use or "local", **given} if use or given else None


def _start_log(level: str = "INFO") -> None:
    from bunny.core.log import set_up

    set_up(os.environ.get("BUNNY_LOG", level))
