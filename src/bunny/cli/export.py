"""`bunny export`: a model in another layout, for other engines.

In: a model folder. Out: a folder in the layout that was asked for; what was done, whether it agrees, what to run next.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from bunny.cli import show
from bunny.cli.convert import Dtype, Json, Out, Tower, start, tell
from bunny.cli.guard import FAILED, guarded

NEXT = {
    "llava": "vllm serve {out}",
    "gguf": "llama-mtmd-cli -m {out}/{text} --mmproj {out}/{mmproj} --jinja --image PICTURE"
    " -p '<__media__>\\nWhat is in the picture?'\n"
    "     or: ollama create NAME -f {out}/Modelfile",
    "adapter": "peft.PeftModel.from_pretrained(BASE, '{out}')  # in Python",
    "merged": '{bunny} chat {out} PICTURE "What is in the picture?"',
    "original": "{bunny} import {out} -o AGAIN",
}


@guarded
def export(
    folder: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder of this Bunny.")],
    output: Out,
    to: Annotated[str, typer.Option("--to", help="Layout: llava, gguf, adapter, merged, original.")],
    base: Annotated[
        str | None, typer.Option("--base", metavar="BASE", help="Folder or hub name of the language model (LoRA).")
    ] = None,
    vision_tower: Tower = None,
    dtype: Dtype = None,
    kind: Annotated[str | None, typer.Option("--type", help="GGUF: f32, f16 (default), q8_0, q4_0 or q4_k_m.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Compare both sides before it is called done.")] = False,
    push: Annotated[
        str | None, typer.Option("--push-to-hub", metavar="OWNER/NAME", help="Upload it, with a model card.")
    ] = None,
    licence: Annotated[str, typer.Option("--license", help="For the card; default: that of MODEL's own card.")] = "",
    private: Annotated[bool, typer.Option("--private", help="Make the repository private.")] = False,
    json: Json = False,
) -> None:
    """Write a model in another layout.

    llava: a stock LLaVA folder for transformers, vLLM, SGLang.
    gguf: files for llama.cpp and Ollama.
    merged: a whole folder of ours, adapters added, e.g. in another dtype.
    adapter: what a LoRA learnt, for peft, and the projector.
    original: what BAAI-DCAI/Bunny loads.

    \b
    bunny export runs/bunny-3b --to llava -o bunny-3b-llava --verify
    bunny export runs/bunny-3b --to gguf --type q8_0 -o bunny-3b-gguf
    bunny export runs/bunny-3b --to merged -o bunny-3b-bf16 --dtype bfloat16
    bunny export runs/bunny-3b --to adapter --base models/phi-2 -o bunny-3b-lora
    bunny export runs/bunny-3b --to llava -o out --push-to-hub my-lab/bunny-3b --license mit
    bunny export runs/bunny-3b --to original -o bunny-phi-2 --vision-tower models/siglip
    """
    start()
    from bunny.pipeline.exporting import Wishes, export

    wishes = Wishes(dtype=dtype, vision_tower=vision_tower, base=base, kind=kind, verify=verify)
    if push:
        from bunny.pipeline.model_push import check_push, push_model

        licence = check_push(folder, push, licence)
    facts = export(folder, output, to, wishes)
    if push and facts.get("verified") is not False:
        push_model(folder, facts, push, licence, private)
    if json:
        show.as_json(facts)
    else:
        _say(facts)
    if facts.get("verified") is False:
        raise typer.Exit(FAILED)


def _say(facts: Mapping[str, Any]) -> None:
    """What was written, whether it agrees, and what to run next."""
    more: dict[str, str] = {}
    if "tensors" in facts:
        more["written"] = f"{facts['tensors']} tensors" + (f" ({facts['dtype']})" if facts.get("dtype") else "")
    if "vision_tower_trained" in facts:
        more["written"] += f"; vision tower {'trained' if facts['vision_tower_trained'] else 'as released'}"
    if folded := facts.get("folded"):
        more["folded"] = ", ".join(f"{name} {value:.6g}" for name, value in folded.items()) + ": now in the weights"
    if "matrices" in facts:
        missed = f"{facts['difference']:.1g} of a matrix's largest element"
        more["written"] = f"{facts['matrices']} adapters, rank up to {facts['rank']}; missed: at most {missed}"
    if "mmproj" in facts:
        more["written"] = f"{facts['text']}, {facts['mmproj']}, Modelfile"
    more |= {f"mind ({number})": note for number, note in enumerate(facts.get("notes", ()), 1)}
    if agreement := facts.get("agreement"):
        more |= _agreement(agreement)
    if "url" in facts:
        more["uploaded"] = facts["url"]
    tell(dict(facts), more)
    if facts.get("verified") is False:
        typer.echo("\nNot verified: both sides do not agree. The folder is left for a look; do not use it.")
    else:
        typer.echo(f"\nTry next: {NEXT[facts['to']].format(bunny=show.command(), **facts)}")


def _agreement(agreement: Mapping[str, Any]) -> dict[str, str]:
    """The figures of a comparison, one line each."""
    told = {
        "compared": f"{agreement['probes']} talks, {agreement['tokens']} greedy tokens",
        "logits": f"differ by {agreement['logits']:.2g} at most (allowed: {agreement['allowed']:.2g})",
    }
    told |= dict(agreement["figures"])
    told |= {f"not equal ({number})": words for number, words in enumerate(agreement["failures"], 1)}
    return told
