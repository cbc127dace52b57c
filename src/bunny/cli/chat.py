"""`bunny chat`: its words and options. What it does with them: `bunny.cli.talk`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from bunny.cli.guard import guarded


@guarded
def chat(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model folder.")],
    words: Annotated[list[str] | None, typer.Argument(metavar="[PICTURE]... [QUESTION]")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Length limit of an answer, in tokens.")] = 128,
    temperature: Annotated[float, typer.Option(min=0.0, help="0: always the likeliest word; higher: freer.")] = 0.0,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="Draw from the likeliest words of this share.")] = 1.0,
    repetition_penalty: Annotated[float, typer.Option(min=0.1, help="Above 1: repeats itself less.")] = 1.0,
    json: Annotated[bool, typer.Option("--json", help='Print {"answer": …} per question.')] = False,
) -> None:
    """Ask a model about pictures.

    Without a question it is a conversation: /image PATH, /reset, /quit.
    Questions can also come from a pipe, one per line.

    \b
    bunny chat runs/demo/model cat.png "What is this?"
    bunny chat runs/demo/model cat.png "Is there a dog?" --json
    bunny chat runs/demo/model
    """
    from bunny.cli import talk
    from bunny.core.log import set_up
    from bunny.core.types import GenerationSettings

    pictures, question = talk.split(words or [])
    settings = GenerationSettings(
        max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, repetition_penalty=repetition_penalty
    )
    set_up(os.environ.get("BUNNY_LOG", "WARNING"))
    if question:
        talk.answer_once(model, pictures, question, settings, json)
    else:
        talk.converse(model, pictures, settings, json)
