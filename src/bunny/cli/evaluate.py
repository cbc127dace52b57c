"""`bunny eval`: ask a model, or score, audit and prepare for answers that exist already."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bunny.cli import show
from bunny.cli.guard import FAILED, guarded

MODEL = "model"


class ModelFirst(TyperGroup):
    """A group whose first word may also be a model: `bunny eval runs/demo/model` is `bunny eval model runs/…`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The named subcommand, or the one that takes a model."""
        return super().resolve_command(ctx, args if args and args[0] in self.commands else [MODEL, *args])


eval_app = typer.Typer(
    cls=ModelFirst,
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    help=(
        "Score a model on benchmarks, or answers that exist already.\n\n"
        "\b\n"
        "bunny eval runs/demo/model -t easy_vqa,picture_yes_no\n"
        "bunny eval recipes/tiny-cpu.yaml\n"
        "bunny eval score pope answers.jsonl --data pope/ --profile official\n"
        "bunny eval compare runs/before runs/after\n"
        "bunny eval doctor\n"
    ),
)

Task = Annotated[str, typer.Argument(metavar="TASK", help="A published benchmark, e.g. pope.")]
AnswersPath = Annotated[Path, typer.Argument(metavar="ANSWERS", help="A file or folder of answers.")]
Data = Annotated[
    Path | None, typer.Option("--data", help="Folder of the official files; default $BUNNY_EVAL_ROOT/TASK.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]


@eval_app.command("score")
@guarded
def score(
    task: Task,
    answers: AnswersPath,
    data: Data = None,
    profile: Annotated[
        str,
        typer.Option("--profile", help="bunny (the original's scripts), official, strict, lmms_eval or vlmevalkit."),
    ] = "bunny",
    submission: Annotated[
        Path | None, typer.Option("--submission", help="Also write the file that the task's server takes.")
    ] = None,
    json: Json = False,
) -> None:
    """Score an answers file by one set of rules.

    Takes .jsonl, .json, .xlsx, .tsv, .csv, and folders as MME and MMMU write them.
    Rows are joined by id; what was guessed, not read or missing is counted beside the score.

    \b
    bunny eval score pope answers.jsonl --data eval/pope
    bunny eval score mmmu raw_outputs/ --profile official --json
    """
    from bunny.pipeline import scoring

    content = scoring.score(task, answers, data, profile, submission)
    return show.as_json(content) if json else _score(content)


@eval_app.command("audit")
@guarded
def audit(
    answers: AnswersPath,
    task: Annotated[str, typer.Option("--task", "-t", metavar="TASK", help="The benchmark that was asked.")],
    data: Data = None,
    limit: Annotated[int, typer.Option(min=0, help="Differing questions shown; all are counted.")] = 20,
    json: Json = False,
) -> None:
    """Read the same answers in five ways.

    As the original's scripts, the benchmark's own, strictly, as lmms-eval, and as VLMEvalKit;
    and show the questions on which they differ, and why.

    \b
    bunny eval audit answers.jsonl -t pope --data eval/pope
    """
    from bunny.pipeline import scoring

    content = scoring.audit(task, answers, data)
    return show.as_json(content) if json else _audit(content, limit)


@eval_app.command("compare")
@guarded
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="What was: a run or report folder, or an answers file.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="What is to be judged.")],
    task: Annotated[
        str, typer.Option("--task", "-t", metavar="TASK", help="A and B are answer files of this published benchmark.")
    ] = "",
    data: Data = None,
    profile: Annotated[str, typer.Option("--profile", help="How answer files are read, as for `score`.")] = "bunny",
    output: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FOLDER", help="For compare.html, .md and .json.")
    ] = None,
    json: Json = False,
) -> None:
    """Two models on the same questions: is B better than A?

    Paired differences with intervals, p corrected for the number of benchmarks, the difference that could be found,
    and a page with every question that only one has right, its picture, filters and a search.

    \b
    bunny eval compare runs/before runs/after --out compared
    bunny eval compare a.jsonl b.jsonl -t pope --data eval/pope
    """
    from bunny.pipeline import comparing

    content = comparing.run(a, b, output, task, data, profile)
    return show.as_json(content) if json else _compare(content)


@eval_app.command("hold-out")
@guarded
def hold_out(
    words: Annotated[Path, typer.Argument(metavar="WORDS", help="The training's words file, e.g. demo/words.yaml.")],
    pictures: Annotated[Path, typer.Option("--pictures", help="The benchmarks' Parquet file of named pictures.")],
    output: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="For words.yaml and pool/.")],
    pool: Annotated[Path | None, typer.Option("--pool", help="Parquet file or folder of training pictures.")] = None,
    share: Annotated[float, typer.Option(help="Of the objects, 0.1 to 0.5.")] = 0.25,
    seed: Annotated[int, typer.Option(help="Which objects.")] = 0,
    json: Json = False,
) -> None:
    """Choose objects that training never names, and write the words file and the pool without them.

    Train on what is written; the benchmarks on named pictures then ask about the others with `split: unseen`.

    \b
    bunny eval hold-out demo/words.yaml --pictures demo/heldout.parquet --pool demo/pool --out runs/held-out
    """
    from bunny.pipeline import holding_out

    content = holding_out.hold_out(words, pictures, pool, output, share, seed)
    if json:
        return show.as_json(content)
    show.table(("held out", "test pictures"), [(word, str(n)) for word, n in content["pictures"].items()])
    typer.echo(f"words  {content['words']}")
    if pool:
        typer.echo(f"pool   {content['pool']}: {content['kept']} pictures, {content['left_out']} left out")
    return None


@eval_app.command("doctor")
@guarded
def doctor(
    tasks: Annotated[list[str] | None, typer.Option("--task", "-t", metavar="TASK", help="Only these.")] = None,
    root: Annotated[Path | None, typer.Option("--root", help="Default: $BUNNY_EVAL_ROOT.")] = None,
    json: Json = False,
) -> None:
    """What benchmark files are missing, and where to get them.

    Counts rows and compares hashes; downloads nothing. Exit code 1 if something is missing.

    \b
    bunny eval doctor -t pope,gqa --root ~/benchmarks
    """
    from bunny.pipeline import scoring

    names = [name for group in tasks or () for name in group.split(",") if name]
    content = scoring.doctor(names, root)
    if json:
        show.as_json(content)
    else:
        rows = [(file["task"], file["state"], Path(file["path"]).name, file["detail"]) for file in content["files"]]
        show.table(("task", "state", "file", "detail"), rows)
        missing = [file for file in content["files"] if file["state"] != "there"]
        for link in dict.fromkeys((file["task"], file["get_it_from"]) for file in missing):
            typer.echo(f"- {link[0]}: {link[1]}")
        typer.echo(
            f"{len(missing)} of {len(content['files'])} to mend below {content['root']}" if missing else "all is well"
        )
    if content["problems"]:
        raise typer.Exit(FAILED)


def _score(content: Mapping[str, Any]) -> None:
    """Headline, further scores with intervals, and how the answers were read."""
    typer.echo(f"{content['task']}, profile {content['profile']}: {content['rule']}")
    for name, value in content["headline"].items():
        typer.echo(f"{name:<28} {value:.4f}".rstrip("0").rstrip("."))
    joined = content["joined_by_id"]
    typer.echo("")
    rows = [("headline, joined by id", joined), *content["scores"].items()]
    table = [(name, f"{v['score']:.2f}", f"{v['low']:.2f} to {v['high']:.2f}") for name, v in rows]
    show.table(("score", "value", "95 % interval"), table)
    reading = content["reading"]
    typer.echo("")
    counts = [
        (name.replace("_", " "), str(n), f"{100 * reading['rates'][name]:.1f}") for name, n in reading["counts"].items()
    ]
    show.table((f"of {content['n']} questions", "answers", "%"), counts)
    for kind, ids in reading["first"].items():
        typer.echo(f"{kind.replace('_', ' ')}, first: {', '.join(ids[:5])}")


def _audit(content: Mapping[str, Any], limit: int) -> None:
    """One line per reading, then which readings part on how many questions, then the questions."""
    rows = [
        (
            profile,
            *(f"{value:.4g}" for value in one["headline"].values()),
            str(one["reading"]["unparsed"]),
            str(one["reading"]["guessed"]),
        )
        for profile, one in content["readings"].items()
    ]
    names = next(iter(content["readings"].values()))["headline"]
    show.table(("reading", *names, "unparsed", "guessed"), rows)
    typer.echo("")
    for profile, one in content["readings"].items():
        typer.echo(f"{profile}: {one['rule']}")
    typer.echo(f"\nThe readings differ on {content['n_differences']} of {content['n']} questions; right according to")
    for pattern, count in content["patterns"].items():
        typer.echo(f"  {count:>5} {pattern.removeprefix('counted by ')}")
    for each in content["differences"][:limit]:
        answer = " ".join(each["answer"].split())[:80]
        typer.echo(f"\n{each['id']}: `{answer}`, gold {', '.join(each['gold'])}\n  {each['why']}")


def _compare(content: Mapping[str, Any]) -> None:
    """A line per benchmark, then the sentences."""
    typer.echo(f"A: {content['a']}\nB: {content['b']}\n")
    rows = []
    for task, one in content["tasks"].items():
        gap, flips = one["difference"], one["flips"]
        figures = [f"{one['a']['score']:.1f}", f"{one['b']['score']:.1f}", f"{gap['score']:+.1f}"]
        figures += [f"{gap['low']:+.1f} to {gap['high']:+.1f}", f"{one['p_corrected']:.3f}"]
        rows.append([task, *figures, str(flips["won"]), str(flips["lost"])])
    show.table(("task", "A", "B", "B - A", "95 % interval", "p (Holm)", "won", "lost"), rows)
    typer.echo("")
    for task, one in content["tasks"].items():
        typer.echo(f"{task}: {one['words']}")
    if "page" in content:
        typer.echo(f"\npage  {content['page']}")
