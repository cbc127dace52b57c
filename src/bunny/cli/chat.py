"""`bunny chat`: its words and options. What it does with them: `bunny.cli.talk`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from bunny.cli import completing
from bunny.cli.guard import guarded
from bunny.core.errors import UserError


@guarded
def chat(
    model: Annotated[
        str,
        typer.Argument(
            metavar="[MODEL]",
            help="A folder of ours or of Hugging Face; without, see --endpoint.",
            autocompletion=completing.models,
        ),
    ] = "",
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[PICTURE]... [QUESTION]", autocompletion=completing.paths)
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Length limit of an answer, in tokens.")] = 512,
    temperature: Annotated[float, typer.Option(min=0.0, help="0: always the likeliest word; higher: freer.")] = 0.0,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="Draw from the likeliest words of this share.")] = 1.0,
    repetition_penalty: Annotated[float, typer.Option(min=0.1, help="Above 1: repeats itself less.")] = 1.0,
    num_beams: Annotated[int, typer.Option(min=1, help="Above 1: beam search; the answer comes whole.")] = 1,
    seed: Annotated[int | None, typer.Option(min=0, help="The same one draws the same words again.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="An answer ends before this word; may be repeated.")] = None,
    system: Annotated[str, typer.Option(help="What the model is told first; default: what its template says.")] = "",
    load_in: Annotated[str, typer.Option(metavar="4bit|8bit", help="Pack the weights (needs bitsandbytes).")] = "",
    device: Annotated[str, typer.Option(help="E.g. cuda:1 or cpu; default: the accelerator if there is one.")] = "",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16; default: what suits the device.")] = "",
    endpoint: Annotated[str, typer.Option(metavar="URL", help="An OpenAI-compatible server instead of a folder.")] = "",
    name: Annotated[str, typer.Option("--model", metavar="NAME", help="The model's name at the endpoint.")] = "",
    json: Annotated[bool, typer.Option("--json", help='Print {"answer": …} per question.')] = False,
) -> None:
    """Ask a model about pictures.

    Without a question it is a conversation; /help in it lists what it can do.
    Questions can also come from a pipe, one per line.
    An endpoint's key is read from BUNNY_API_KEY or OPENAI_API_KEY.

    \b
    bunny chat runs/demo/model cat.png "What is this?"
    bunny chat runs/demo/model cat.png "Is there a dog?" --json
    bunny chat runs/demo/model
    bunny chat runs/demo/model --load-in 4bit
    bunny chat --endpoint http://localhost:8000/v1 --model demo cat.png "What is this?"
    """
    from bunny.cli import talk
    from bunny.core.log import set_up
    from bunny.core.types import GenerationSettings
    from bunny.pipeline.chat import How

    if endpoint:
        words, model = [*([model] if model else []), *(words or [])], name
        if load_in or device or dtype:
            raise UserError("--load-in, --device and --dtype are for a folder", fix="set them where the server is")
    if not model or bool(endpoint) != bool(name):
        raise UserError("which model?", fix="give a folder, or --endpoint URL with --model NAME")
    pictures, question = talk.split(words or [])
    settings = GenerationSettings(max_new_tokens, temperature, top_p, repetition_penalty, num_beams, tuple(stop or ()))
    how = How(load_in, device, dtype, endpoint)
    set_up(os.environ.get("BUNNY_LOG", "WARNING"))
    asking = talk.Asking(model, how, settings, seed, system, json)
    if question:
        talk.answer_once(asking, pictures, question)
    else:
        talk.converse(asking, pictures)
