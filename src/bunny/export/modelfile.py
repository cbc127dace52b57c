"""The `Modelfile` with which `ollama create` takes GGUF files over: where they are, how a conversation is written.

In: the conversation's template, as a saved processor holds it. Out: the file's text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def modelfile(files: Sequence[str], template: Mapping[str, Any], stops: Sequence[str]) -> str:
    """files: GGUF files beside it, the language model's first. stops: texts of the tokens that end an answer."""
    lines = [f"FROM ./{name}" for name in files]
    lines.append(f'TEMPLATE """{_go(template)}"""')
    if template["system"]:
        lines.append(f'SYSTEM """{template["system"]}"""')
    lines += [f"PARAMETER stop {_quoted(stop)}" for stop in stops]
    lines.append("PARAMETER temperature 0")
    return "\n".join(lines) + "\n"


def _go(template: Mapping[str, Any]) -> str:
    """The template as a Go program over `.Messages`; Ollama puts the system text in front where none is given."""
    system, user, answer = template["system_turn"], template["user_turn"], template["assistant_turn"]
    before, inside = "", ""
    if system is not None:
        said = f"{_text(system['before'])}{{{{ $.System }}}}{_text(system['after'])}"
        inside = f"{{{{ if and $.System (eq $i $first) }}}}{said}{{{{ end }}}}" if system.get("in_user") else ""
        before = "" if inside else f"{{{{ if .System }}}}{said.replace('$.', '.')}{{{{ end }}}}"
    if template["without_system"]:
        before += f"{{{{ if not .System }}}}{_text(template['without_system'])}{{{{ end }}}}"
    first = (
        '{{ $first := 0 }}{{ range $i, $m := .Messages }}{{ if eq $m.Role "system" }}{{ $first = 1 }}{{ end }}{{ end }}'
    )
    asked = f"{_text(user['before'])}{inside}{{{{ .Content }}}}{_text(user['after'])}"
    said = f"{_text(answer['before'] + answer['gap'])}{{{{ .Content }}}}{_text(answer['end'] + answer['after'])}"
    turns = (
        f'{{{{ range $i, $m := .Messages }}}}{{{{ if eq .Role "user" }}}}{asked}'
        f'{{{{ else if eq .Role "assistant" }}}}{said}{{{{ end }}}}{{{{ end }}}}'
    )
    return f"{first if inside else ''}{before}{turns}{_text(answer['before'])}"


def _text(text: str) -> str:
    """Plain text in a Go template: braces and quotes that would mean something go through a string constant."""
    if "{{" in text or "}}" in text or '"""' in text:
        return "{{ " + _quoted(text).replace("\n", "\\n") + " }}"
    return text


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
