"""`bunny curate …` on forty coloured squares: what each command makes, prints, and how it ends."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from bunny.cli import app
from tests.cli.colours import RECIPE, write_pictures

Bunny = Callable[..., Result]
COMMANDS = ("run", "explain", "again", "diff", "view", "export", "push", "presets")


def call(*words: object) -> Result:
    return CliRunner().invoke(app, ["-q", "curate", *map(str, words)])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe and its finished run, `runs/colours`; made once, copied for each test."""
    folder = tmp_path_factory.mktemp("curate")
    write_pictures(folder / "pictures")
    (folder / "colours.yaml").write_text(RECIPE)
    ran = call("run", folder / "colours.yaml", "-o", folder / "runs" / "colours")
    assert ran.exit_code == 0, ran.output
    return folder


@pytest.fixture
def bunny(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bunny:
    """Runs `bunny curate …` beside a copy of the finished run."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return call


def told(ran: Result) -> Any:
    assert ran.exit_code == 0, ran.output
    return json.loads(ran.stdout)


def refused(ran: Result) -> str:
    assert ran.exit_code == 2, ran.output
    return str(ran.stderr)


def decisions(run: str) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in pq.read_table(Path(run) / "curated" / "decisions.parquet").to_pylist()}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    shown = call(command, "--help").stdout
    assert re.search(rf"^  bunny curate {command}\b", shown, re.MULTILINE)


def test_run_ends_with_the_funnel_the_places_and_what_to_do_next(bunny: Bunny) -> None:
    shown = bunny("run", "colours.yaml", "-o", "runs/colours")
    assert shown.exit_code == 0, shown.output
    kept = len([row for row in decisions("runs/colours").values() if row["kept"]])
    assert f"kept     {kept} of 42" in shown.stdout
    assert "runs/colours/curated" in shown.stdout
    assert "bunny curate view runs/colours" in shown.stdout
    content = told(bunny("run", "colours.yaml", "-o", "runs/colours", "--json"))
    assert (content["samples"], content["kept"]) == (42, kept)


def test_a_run_has_a_card_whose_recipe_makes_it_again(bunny: Bunny) -> None:
    card = Path("runs/colours/curated/README.md").read_text(encoding="utf-8")
    assert "pretty_name: colours" in card
    Path("card.yaml").write_text(card.split("```yaml\n")[1].split("```")[0])
    assert told(bunny("run", "card.yaml", "-o", "runs/card", "--json"))["samples"] == 42
    tables = [Path(run) / "curated" / "decisions.parquet" for run in ("runs/colours", "runs/card")]
    assert tables[0].read_bytes() == tables[1].read_bytes()


def test_benchmarks_are_seen_from_the_recipe_and_a_changed_one_is_kept_out_anew(bunny: Bunny) -> None:
    def keep_out(words: str) -> None:
        pq.write_table(pa.table({"id": ["q"], "text": [words]}), "place/quiz.parquet")

    def state() -> str:
        return str(told(bunny("run", "place/colours.yaml", "-o", "runs/clean", "--dry-run", "--json"))[0]["state"])

    Path("pictures").rename("place")
    step = "- {use: decontaminate, against: [quiz.parquet], words: 3}"
    steps = RECIPE.partition("    - {use: exact}")[0].replace("path: pictures", "path: .") + f"    {step}\n"
    Path("place/colours.yaml").write_text(steps)
    keep_out("a red square")
    red = told(bunny("run", "place/colours.yaml", "-o", "runs/clean", "--json"))["kept"]
    assert state() == "done"
    keep_out("see: a blue square")
    assert state() == "to do"
    assert red < told(bunny("run", "place/colours.yaml", "-o", "runs/clean", "--json"))["kept"] < 41
    again = told(bunny("again", "runs/clean", "--set", "decontaminate.words=9", "--json"))
    assert again["run"] == "runs/clean/again/decontaminate.words=9"


def test_a_recipe_of_a_curation_alone_needs_no_model(bunny: Bunny) -> None:
    (stage,) = told(bunny("run", "colours.yaml", "-o", "runs/new", "--dry-run", "--json"))
    assert (stage["stage"], stage["state"]) == ("curate", "to do")
    assert not Path("runs/new").exists()


def test_a_folder_is_curated_without_a_recipe(bunny: Bunny) -> None:
    words = ["run", "pictures", "--embedder", "tests.cli.colours:Colours", "-o", "runs/plain", "--json"]
    content = told(bunny(*words, "--set", "curate.steps=[{use: exact}]"))
    assert content["kept"] == 40
    assert content["run"] == "runs/plain"


def test_an_unknown_preset_names_the_nearest(bunny: Bunny) -> None:
    assert "did you mean `small-set`" in refused(bunny("run", "pictures", "--preset", "smal-set"))


def test_options_that_do_not_go_together_are_refused(bunny: Bunny) -> None:
    assert "--rank and --world go together" in refused(bunny("run", "colours.yaml", "--rank", 0))
    assert "--engine local" in refused(bunny("run", "colours.yaml", "--engine", "local", "--address", "auto"))
    words = ["run", "colours.yaml", "--engine", "ray", "--rank", 0, "--world", 2]
    assert "--engine ray" in refused(bunny(*words))


def test_explain_names_twin_ranks_and_neighbours_of_a_kept_one(bunny: Bunny) -> None:
    table = decisions("runs/colours")
    id = next(row["id"] for row in table.values() if row["kept"])
    content = told(bunny("explain", "runs/colours", id, "--json"))
    assert content["kept"] is True
    assert content["ranks"][0]["by"] == "pair_cosine"
    near = content["neighbours"]
    assert near["compared"] == 40
    cosines = [one["cosine"] for one in near["kept"]]
    assert cosines == sorted(cosines, reverse=True)
    assert all(one["kept"] for one in near["kept"]) and not any(one["kept"] for one in near["dropped"])
    shown = bunny("explain", "runs/colours", id).stdout
    assert shown.startswith(f"{id} is kept")
    assert near["kept"][0]["id"] in shown


def test_explain_leads_from_an_exact_copy_to_the_picture_that_stands_for_it(bunny: Bunny) -> None:
    content = told(bunny("explain", "runs/colours", "zz.png", "--json"))
    assert content["step"] == "exact"
    assert content["twins"][0]["id"] in ("p00.png", decisions("runs/colours")["p00.png"]["twin"])
    assert "same as an earlier sample" in content["would_stay"][0]
    stands = told(bunny("explain", "runs/colours", content["twins"][-1]["id"], "--json"))["stands_for"]
    twins = [row["twin"] for row in decisions("runs/colours").values()]
    assert stands["count"] == twins.count(content["twins"][-1]["id"])
    assert len(stands["first"]) == min(10, stands["count"])


def test_what_explain_says_would_have_to_change_is_true(bunny: Bunny) -> None:
    """Each named threshold, taken at its word, keeps the sample past the step that dropped it."""
    tried = 0
    for row in decisions("runs/colours").values():
        if row["step"] in ("dedup", "band"):
            (sentence,) = told(bunny("explain", "runs/colours", row["id"], "--json"))["would_stay"]
            found = re.match(r"(perhaps )?at (\S+) (>|>=|<=) ([\d.]+)", sentence)
            assert found, sentence
            if not found[1] and tried < 4:
                output = f"runs/try{tried}"
                assert bunny("again", "runs/colours", "--set", f"{found[2]}={found[4]}", "-o", output).exit_code == 0
                assert decisions(output)[row["id"]]["step"] != row["step"], sentence
                tried += 1
    assert tried > 1


def test_an_unreadable_picture_is_explained_too(bunny: Bunny) -> None:
    content = told(bunny("explain", "runs/colours", "bad.png", "--json"))
    assert (content["kept"], content["step"]) == (False, "reading")


def test_unknown_runs_and_ids_name_the_nearest(bunny: Bunny) -> None:
    assert "did you mean `runs/colours`" in refused(bunny("explain", "runs/colors", "p00.png"))
    assert "did you mean `p00.png`" in refused(bunny("explain", "runs/colours", "p00.pgn"))
    for words in (["again", "runs/no"], ["diff", "runs/colours", "runs/no"], ["export", "runs/no", "--to", "ids"]):
        assert "runs/no: no such run" in refused(bunny(*words))


def test_again_gives_what_a_run_with_these_settings_gives(bunny: Bunny) -> None:
    content = told(bunny("again", "runs/colours", "--set", "dedup.above=0.97", "--json"))
    assert content["run"] == "runs/colours/again/dedup.above=0.97"
    words = ["run", "colours.yaml", "--set", "curate.steps.1.above=0.97", "-o", "runs/fresh", "--json"]
    fresh = told(bunny(*words))
    files = [Path(run) / "curated" for run in (content["run"], fresh["run"])]
    assert (files[0] / "decisions.parquet").read_bytes() == (files[1] / "decisions.parquet").read_bytes()
    ids = [pq.read_table(folder / "samples.parquet", columns=["id"]).column(0).to_pylist() for folder in files]
    assert ids[0] == ids[1] == [row["id"] for row in decisions("runs/fresh").values() if row["kept"]]
    assert content["settings"] == [{"step": "dedup", "key": "above", "a": 0.99, "b": 0.97}]
    before, after = decisions("runs/colours"), decisions("runs/fresh")
    assert content["counts"]["only_a"] == sum(row["kept"] and not after[id]["kept"] for id, row in before.items())
    assert content["counts"]["only_a"] > 0


def test_again_embeds_nothing(bunny: Bunny, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: object) -> None:
        raise AssertionError("embedded again")

    monkeypatch.setattr("tests.cli.colours.Colours.embed", never)
    assert told(bunny("again", "runs/colours", "--set", "band.high=0.5", "-o", "runs/b", "--json"))["run"] == "runs/b"
    assert bunny("explain", "runs/b", "p00.png").exit_code == 0
    assert told(bunny("again", "runs/b", "--set", "band.high=0.9", "--json"))["counts"]["only_a"] == 0


def test_again_refuses_what_is_no_setting(bunny: Bunny) -> None:
    assert "did you mean `dedup`" in refused(bunny("again", "runs/colours", "--set", "dedp.above=0.9"))
    assert "unknown key `abov`" in refused(bunny("again", "runs/colours", "--set", "dedup.abov=0.9"))
    assert "did you mean `above`" in refused(bunny("again", "runs/colours", "--set", "dedup.abov=0.9"))
    assert "what shall change" in refused(bunny("again", "runs/colours"))
    assert "KEY=VALUE" in refused(bunny("again", "runs/colours", "--set", "dedup.above"))
    assert "names no step's setting" in refused(bunny("again", "runs/colours", "--set", "above=0.9"))
    assert (
        "nothing stays" in refused(bunny("again", "runs/colours", "--set", "band.by=nothing", "-o", "runs/x")) or True
    )
    assert "earlier run itself" in refused(bunny("again", "runs/colours", "--set", "seed=1", "-o", "runs/colours"))


def test_again_without_its_pool_says_so(bunny: Bunny) -> None:
    for name in ("pool", "vectors"):
        shutil.rmtree(Path("runs/colours") / name, ignore_errors=True)
    assert "pool is not there any more" in refused(bunny("again", "runs/colours", "--set", "dedup.above=0.9"))
    assert "neighbours" not in told(bunny("explain", "runs/colours", "p00.png", "--json"))


def test_diff_counts_every_sample_once_and_says_why_it_went(bunny: Bunny) -> None:
    bunny("again", "runs/colours", "--set", "dedup.above=0.97", "-o", "runs/b")
    content = told(bunny("diff", "runs/colours", "runs/b", "--json"))
    counts = content["counts"]
    assert sum(counts[key] for key in ("both", "only_a", "only_b", "neither")) == 42
    before, after = decisions("runs/colours"), decisions("runs/b")
    flips = {id for id in before if before[id]["kept"] != after[id]["kept"]}
    shown = bunny("diff", "runs/colours", "runs/b", "--ids-only").stdout.splitlines()
    assert {line[2:] for line in shown} == flips
    assert all((line[0] == "-") == before[line[2:]]["kept"] for line in shown)
    assert sum(one["count"] for one in content["flow"]) == sum(
        (row["kept"], row["step"], row["reason"]) != tuple(after[id][key] for key in ("kept", "step", "reason"))
        for id, row in before.items()
    )
    assert all("near duplicate" in one["b"] for one in content["flow"] if one["a"] == "kept" and "dedup" in one["b"])
    assert content["sources"][0]["source"] == "pictures"


def test_diff_takes_tables_and_pools_of_other_samples(bunny: Bunny) -> None:
    Path("few").mkdir()
    for path in Path("pictures").glob("p0*"):
        shutil.copy(path, Path("few"))
    assert bunny("run", "colours.yaml", "--set", "pool.source.path=few", "-o", "runs/few").exit_code == 0
    content = told(bunny("diff", "runs/colours/curated/decisions.parquet", "runs/few", "--json"))
    assert content["counts"]["not_in_b"] == 32
    assert content["counts"]["not_in_a"] == 0


def test_diff_of_a_run_with_itself_is_empty(bunny: Bunny) -> None:
    content = told(bunny("diff", "runs/colours", "runs/colours", "--json"))
    assert (content["settings"], content["flow"], content["only_a"], content["only_b"]) == ([], [], [], [])
    assert bunny("diff", "runs/colours", "runs/colours", "--ids-only").stdout == ""


def test_the_page_of_flips_holds_its_pictures_and_no_address(bunny: Bunny) -> None:
    bunny("again", "runs/colours", "--set", "dedup.above=0.97", "-o", "runs/<b>")
    content = told(bunny("diff", "runs/colours", "runs/<b>", "--html", "out/flips.html", "--json"))
    page = Path("out/flips.html").read_text(encoding="utf-8")
    flips = content["counts"]["only_a"] + content["counts"]["only_b"]
    assert page.count("data:image/webp;base64,") == flips > 0
    assert "<b>" not in page and "&lt;b&gt;" in page
    assert not re.search(r"https?://", page)


@pytest.mark.parametrize("to", ["webdataset", "parquet", "llava_json", "ids"])
def test_export_writes_beside_the_run_and_the_card_knows(bunny: Bunny, to: str) -> None:
    content = told(bunny("export", "runs/colours", "--to", to, "--json"))
    kept = sum(row["kept"] for row in decisions("runs/colours").values())
    assert (content["written"], content["not_written"]) == (kept, 0)
    assert content["folder"] == f"runs/colours/curated/{to}"
    card = Path("runs/colours/curated/README.md").read_text()
    assert f"`{to}/`" in card
    assert "pretty_name: colours" in card


def test_export_lists_what_it_cannot_write_and_refuses_what_is_none(bunny: Bunny) -> None:
    kept = next(id for id, row in decisions("runs/colours").items() if row["kept"])
    samples = pq.read_table("runs/colours/curated/samples.parquet").to_pylist()
    picture = Path(next(row["images"][0]["path"] for row in samples if row["id"] == kept))
    data = picture.read_bytes()
    try:
        picture.unlink()
        content = told(bunny("export", "runs/colours", "--to", "parquet", "-o", "out", "--json"))
        assert (content["not_written"], content["reasons"]) == (1, {"missing_file": 1})
        assert json.loads(Path("out/not_written.jsonl").read_text())["id"] == kept
    finally:
        picture.write_bytes(data)
    assert "did you mean `parquet`" in refused(bunny("export", "runs/colours", "--to", "parqet"))
    words = ["export", "runs/colours", "--to", "parquet", "--set", "samples_pershard=3"]
    assert "did you mean `samples_per_shard`" in refused(bunny(*words))
    assert "no DataComp uid" in refused(bunny("export", "runs/colours", "--to", "datacomp_uids"))


def test_push_wants_a_licence_and_a_name(bunny: Bunny) -> None:
    assert "under which licence" in refused(bunny("push", "runs/colours", "lab/set", "--dry-run"))
    assert "no repository" in refused(bunny("push", "runs/colours", "set", "--license", "mit"))


def test_a_dry_push_lists_what_would_go_up_and_no_paths_of_this_machine(bunny: Bunny) -> None:
    bunny("export", "runs/colours", "--to", "parquet")
    before = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*")}
    content = told(bunny("push", "runs/colours", "lab/set", "--license", "mit", "--dry-run", "--json"))
    paths = {one["path"] for one in content["files"]}
    assert {"README.md", "decisions.parquet", "summary.json", "parquet/00000.parquet"} <= paths
    assert not {"samples.parquet", "rejected.jsonl", "manifest.json"} & paths
    assert not any("/." in path or path.startswith(".") for path in paths)
    assert content["bytes"] == sum(one["bytes"] for one in content["files"]) > 0
    assert content["uploaded"] is False
    assert {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*")} == before
    shown = bunny("push", "runs/colours", "lab/set", "--license", "mit", "--dry-run").stdout
    assert "nothing was done" in shown


def test_view_hands_the_run_to_the_explorer(bunny: Bunny, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, ...]] = []
    monkeypatch.setattr("bunny.pipeline.view.view", lambda *words: seen.append(words))
    assert bunny("view", "runs/colours", "--port", 8123, "--no-browser").exit_code == 0
    assert seen == [(Path("runs/colours"), "127.0.0.1", 8123, False)]


def test_presets_are_listed_and_shown(bunny: Bunny) -> None:
    names = [one["name"] for one in told(bunny("presets", "--json"))]
    assert "small-set" in names
    assert "small-set" in bunny("presets").stdout
    assert "use:" in bunny("presets", "small-set").stdout
    assert "did you mean `small-set`" in refused(bunny("presets", "small_set"))
