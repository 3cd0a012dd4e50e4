"""The bench runs both sides on the same pictures and tells what it measured."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tools")]

import batch
import draw_pictures
import measuring
import vocabularies

if find_spec("clip_interrogator") is not None:
    import pair
    import rows
    import speed
    import turbo

needs_peer = pytest.mark.skipif(
    find_spec("clip_interrogator") is None, reason="the peer is installed for development"
)


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> tuple[subprocess.CompletedProcess, Path]:
    """A bench with few pictures, of which too much is required, and the folder of its files."""
    folder = tmp_path_factory.mktemp("bench")
    ended = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "batch.py"), "--pictures", "6", "--peer-pictures",
         "4", "--most-lines", "200", "--folder", str(folder / "pictures"), "--json",
         str(folder / "speed.json"), "--require", "1000000"],
        check=False, capture_output=True, text=True, cwd=folder,
    )
    return ended, folder


@needs_peer
def test_every_figure_is_there_and_can_be(done):
    """Seconds, rates and memory of both sides, and the ratio of the rates."""
    ended, folder = done
    assert "Traceback" not in ended.stderr
    report = json.loads((folder / "speed.json").read_text(encoding="utf-8"))
    assert (report["pictures"], report["peer_pictures"], report["mode"]) == (6, 4, "fast")
    assert set(report["versions"]) == {"Python", *measuring.PACKAGES}
    for side in batch.SIDES:
        figures = report["figures"][side]
        assert 0 < figures["start"] < figures["seconds"]
        assert figures["steady"] > report["rates"][side] > 0
        assert report["threads"][side] >= 1
        assert report["first_start"][side] > 0
        assert report["runs"][side] == [figures]
        if Path("/proc/self/statm").exists():
            early, end, most = (figures[f"memory_{name}"] for name in ("early", "end", "most"))
            assert 50 < early <= most
            assert 50 < end <= most < 10_000
    assert report["rates"]["ours"] == pytest.approx(6 / report["figures"]["ours"]["seconds"], 0.01)
    ratio = report["rates"]["ours"] / report["rates"]["peer"]
    assert report["ratio"] == pytest.approx(ratio, 0.01)


@needs_peer
def test_both_sides_give_the_same_answers(done):
    """The same captions, and the same prompts but for where a budget cuts."""
    agreement = json.loads((done[1] / "speed.json").read_text(encoding="utf-8"))["agreement"]
    assert agreement["pictures"] == agreement["same_captions"] == agreement["same_to_the_cut"] == 4
    assert 0 <= agreement["same_prompts"] <= 4


@needs_peer
def test_pictures_are_kept_and_nothing_else_is_left_with_them(done):
    """Different pictures and their lists; texts and journals are written elsewhere."""
    folder = done[1] / "pictures"
    pictures = sorted(folder.glob("*.jpg"))
    assert len({path.read_bytes() for path in pictures}) == 6
    before = [path.stat().st_mtime_ns for path in pictures]
    assert batch.draw_all(folder, 6) == [path.name for path in pictures]
    assert [path.stat().st_mtime_ns for path in pictures] == before
    assert {path.suffix for path in folder.iterdir()} == {".jpg", ".txt"}
    assert {path.name for path in folder.glob("*.txt")} == {f"first-{n}.txt" for n in (1, 4, 6)}


@needs_peer
def test_the_table_and_the_line_of_json_are_printed(done):
    """The table for people, then the line that also stands in the file; too slow is exit code 1."""
    ended, folder = done
    *lines, last = ended.stdout.splitlines()
    assert last == (folder / "speed.json").read_text(encoding="utf-8").rstrip()
    rows = [line.split() for line in lines if line.startswith(("pictures", "seconds", "the same"))]
    assert len(rows) == 5
    for *_, ours, peer, ratio in rows:
        assert float(ours) > 0
        assert float(peer) > 0
        assert float(ratio) > 0
    assert ended.returncode == 1
    assert "not 1000000.0 times" in ended.stderr


def test_pictures_that_the_peer_was_spared_count_at_its_steady_rate():
    """Two more pictures at four a second are half a second."""
    run = batch.Figures(2.0, 1.0, 4.0, None, None, None)
    assert run.rate(asked=4, wanted=4) == 2.0
    assert run.rate(asked=4, wanted=6) == 6 / 2.5


def test_memory_is_known_where_there_is_proc(monkeypatch):
    """A system without /proc has no figure, and no error."""
    assert (measuring.resident_bytes() is None) == (not Path("/proc/self/statm").exists())
    monkeypatch.setattr(Path, "read_text", Mock(side_effect=FileNotFoundError))
    assert measuring.resident_bytes() is None


@pytest.mark.parametrize("passes", [1, 2])
def test_the_steady_rate_counts_from_the_first_picture_of_each_pass(tmp_path, passes):
    """Three pictures, a second apart in each pass, whatever there is before a pass."""
    times = [10.0 + 5 * one + number for one in range(passes) for number in range(3)]
    noted = {"times": times, "resident": [None] * len(times), "ended": 16.0}
    figures = batch.Bench(tmp_path, "fast", tmp_path, 3).figures(7.0, 3, noted)
    assert figures == batch.Figures(9.0, 3.0, 1 / passes, None, None, None)


def test_memory_is_watched_from_one_picture_on(tmp_path):
    """What is held earlier, while networks are loaded, is not looked at."""
    resident = [megabytes * measuring.MEBIBYTE for megabytes in (900, 200, 250, 210)]
    noted = {"times": [1.0, 2.0, 3.0, 4.0], "resident": resident, "ended": 5.0}
    figures = batch.Bench(tmp_path, "fast", tmp_path, 2).figures(0.0, 4, noted)
    assert (figures.memory_early, figures.memory_end, figures.memory_most) == (200, 210, 250)
    assert figures.steady == 1.0


def test_one_picture_has_no_steady_rate(tmp_path):
    """The start is all that there is."""
    noted = {"times": [3.0], "resident": [None], "ended": 4.0}
    assert batch.Bench(tmp_path, "fast", tmp_path, 1).figures(1.0, 1, noted).steady == math.inf


def test_steps_that_are_no_passes_over_the_pictures_end_the_bench(tmp_path):
    """Rates would be wrong then."""
    noted = {"times": [1.0, 2.0, 3.0], "resident": [None] * 3, "ended": 3.0}
    with pytest.raises(SystemExit, match="3 steps"):
        batch.Bench(tmp_path, "fast", tmp_path, 2).figures(0.0, 2, noted)


def test_a_table_without_memory_says_so():
    """In place of its rows."""
    run = batch.Figures(2.0, 1.0, 4.0, None, None, None)
    both = dict.fromkeys(batch.SIDES, run)
    report = batch.Report(
        pictures=4, peer_pictures=4, memory_picture=4, mode="fast", cores=1,
        threads=dict.fromkeys(batch.SIDES, 1), versions={"Python": "3"},
        first_start=dict.fromkeys(batch.SIDES, 1.0), figures=both,
        rates=dict.fromkeys(batch.SIDES, 2.0), ratio=1.0,
        agreement=batch.Agreement(4, 4, 3, 4), runs={side: [run] for side in batch.SIDES},
    )
    assert "MiB" not in batch.table(report)
    assert "Memory was not measured" in batch.table(report)


def test_the_median_of_each_figure_counts():
    """Not the run that is in the middle as a whole."""
    runs = [batch.Figures(number, -number, 5, None, number, 1) for number in (3, 1, 2)]
    assert batch.middle(runs) == batch.Figures(2, -2, 5, None, 2, 1)


@pytest.mark.parametrize(("ours", "theirs", "same"), [
    ("a cat, red, sunset", "a cat, red, sunset", True),
    ("a cat, red", "a cat, red, sunset", True),
    ("a cat, red, sunset, fog", "a cat, red, red, sunset", True),
    ("a cat, sunset, red", "a cat, red, sunset", False),
    ("a dog, red", "a cat, red", False),
])
def test_prompts_are_the_same_to_the_cut(ours, theirs, same):
    """Where one goes on it may, and the peer may say a phrase twice; nothing else may differ."""
    assert batch.same_to_the_cut(ours, theirs) is same


def test_a_program_that_fails_ends_the_bench_with_its_words():
    """Whoever runs it sees why."""
    with pytest.raises(SystemExit, match="no_such_module"):
        measuring.call(["-c", "import no_such_module"])


# --- the engine beside the peer ---


def run_small(program: str, folder: Path, *options: str) -> tuple[int, dict]:
    """Run a program of the bench as small as it can, and return its exit code and its JSON."""
    ended = subprocess.run(
        [sys.executable, str(ROOT / "bench" / program), "--small", *options],
        check=False, capture_output=True, text=True, cwd=folder,
    )
    assert "Traceback" not in ended.stderr, ended.stderr
    *printed, last = ended.stdout.splitlines()
    report = json.loads(last)
    assert all(row["work"] in "\n".join(printed) for row in report.get("rows", []))
    return ended.returncode, report


@needs_peer
def test_both_engines_give_the_same_answers(tmp_path):
    """Every row agrees and has figures that can be; the times themselves are not judged here."""
    code, report = run_small("speed.py", tmp_path, "--json", str(tmp_path / "speed.json"))
    assert report == json.loads((tmp_path / "speed.json").read_text(encoding="utf-8"))
    assert code == 0
    assert [row["work"].split(":")[0] for row in report["rows"]].count("demo") == 7
    assert len(report["rows"]) == 14
    for row in report["rows"]:
        assert row["agree"], row
        assert row["ours"] > 0, row
        assert row["peer"] is None or row["peer"] > 0, row
        assert row["floor"] is None or row["floor"] > 0, row


@needs_peer
def test_every_plot_is_drawn_from_its_curve(tmp_path):
    """Points of both sides where both were asked, and an SVG with the labels as text."""
    _, report = run_small("growth.py", tmp_path, "--plots", str(tmp_path / "plots"))
    curves = report["curves"]
    assert {path.stem for path in (tmp_path / "plots").iterdir()} == set(curves)
    for name, curve in curves.items():
        drawn = (tmp_path / "plots" / f"{name}.svg").read_text(encoding="utf-8")
        assert curve["across"] in drawn
        assert curve["lines"] or curve["named"]
        for points in curve["lines"].values():
            assert all(y > 0 for _, y in points)
    assert len(curves["session-seconds"]["lines"]["ours"]) == 6
    assert set(curves["pool-seconds"]["lines"]) == {"ours", "peer"}
    reached = {name: similarity for name, (_, similarity) in curves["modes"]["named"].items()}
    assert {"fast", "turbo", "best 2048", "style"} <= set(reached)
    assert reached["best 2048"] > reached["caption"]


@needs_peer
def test_a_wrong_answer_is_noticed(tmp_path, monkeypatch):
    """An engine that goes wrong ends the bench with 1, however fast it is."""
    picture = draw_pictures.draw(draw_pictures.random_scenes(1, 1)[0], 64)
    both = rows.Both(pair.Setup("demo", 60, tmp_path, "cpu"), picture, 1e9)
    ask = {
        "best": lambda: both.best(24, 2), "vectors": lambda: both.vectors(16),
        "negative": lambda: both.negative(16, 1), "fast": both.fast,
        "ranking": lambda: both.ranking(5000, 9),
    }
    right = {name: row() for name, row in ask.items()}
    assert {name: row.agree for name, row in right.items()} == dict.fromkeys(ask, True)
    assert speed.verdict(list(right.values())) == 0

    tower = type(both.encoder._tower)
    encode = tower.encode
    monkeypatch.setattr(tower, "encode", lambda *given: encode(*given).roll(1, dims=0))
    wrong = [ask[name]() for name in ("best", "vectors", "negative")]
    assert [row.agree for row in wrong] == [False] * 3
    assert speed.verdict([right["best"], wrong[0]]) == 1
    monkeypatch.undo()

    monkeypatch.setattr(both.ours, "interrogate_fast", lambda *_, caption: caption)
    assert not both.fast().agree
    monkeypatch.setattr(rows.drop_in.LabelTable, "rank", lambda table, *_: table.labels[:9])
    assert not both.ranking(5000, 9).agree


@needs_peer
def test_the_floor_counts_nothing_twice():
    """By hand: each new token through all layers, and through the last one only what is needed."""
    encoder = turbo.backbone("tiny", 0)
    blocks = encoder.module.transformer.resblocks
    width = blocks[0].attn.out_proj.weight.shape[0]
    inward = 3 * width**2
    outward = width**2 + sum(blocks[0].mlp[part].weight.numel() for part in (0, 2))

    def operations(tokens: int, ends: int) -> float:
        return 2 * (tokens * ((len(blocks) - 1) * (inward + outward) + inward) + ends * outward)

    count = rows.floors.encoding
    assert count(encoder, [("", ["cat"])]) == operations(3, 1)
    assert count(encoder, [("", ["cat", "cat"])]) == operations(3, 2)
    assert count(encoder, [("", ["red", "cat"])]) == operations(5, 2)
    # start, "a", "cat" and "," once; then a phrase and an end for each of two
    first = ("a cat", ["red", "dog"])
    assert count(encoder, [first]) == operations(8, 2)
    assert count(encoder, [first, first]) == operations(8 + 4, 4)


# --- our word lists beside the classic ones ---


@needs_peer
def test_both_vocabularies_are_measured(tmp_path):
    """Each figure of both sets, with the same captions; the judge is another backbone."""
    from tests.conftest import save_backbone, tiny_config, tiny_model

    judge = save_backbone(tmp_path / "judge", tiny_model(3), tiny_config())
    ended = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "vocabularies.py"), "--small", "--judge", str(judge),
         "--json", "found.json"],
        check=False, capture_output=True, text=True, cwd=tmp_path,
    )
    assert ended.returncode == 0, ended.stderr
    report = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    rows = {row["work"]: row["values"] for row in report["rows"]}
    for work, values in rows.items():
        assert work in ended.stdout
        assert set(values) == ({"classic"} if "ahead" in work else {"all", "classic"})
    assert rows["phrases"]["classic"] > 100_000
    assert 0 < rows["of which flavors"]["all"] < rows["phrases"]["all"]
    assert rows["repeats"]["classic"] > rows["repeats"]["all"]
    assert rows["facts that are a phrase"]["all"] <= rows["facts that are in a phrase"]["all"] <= 1
    for who in ("guide", "judge"):
        mean = rows[f"similarity by the {who}"]
        ahead = rows[f"all is ahead, by the {who}"]["classic"]
        assert ahead == pytest.approx(mean["all"] - mean["classic"], abs=2e-3)
    assert len(report["prompts"]) == report["pictures"] == vocabularies.SMALL_PICTURES
    for asked in report["prompts"]:
        assert all(asked[name].startswith(asked["caption"]) for name in ("all", "classic"))
    assert any("demo" in sentence for sentence in report["warnings"])


def test_words_are_compared_without_case_accents_and_article():
    """So that repeats are found as a reader finds them."""
    assert vocabularies.fold(" A  Café") == vocabularies.fold("the cafe") == "cafe"
    assert vocabularies.fold("a") == "a"
    assert vocabularies.words("A bird's-eye view") == ["bird's-eye", "view"]
    assert vocabularies.repeated_words("red light, soft light, with light") == 2
    assert vocabularies.repeated_words("with fog, with fog") == 0


def test_facts_are_found_in_the_lists_as_phrases_and_in_phrases():
    """A sunset stands there as a phrase, a cat only in one."""
    scene = draw_pictures.Scene(
        "cat", "red", 1, "on a beach", "at sunset", "a photo", ("vignette",), 0
    )
    haystack = vocabularies.Haystack(["Sunset", "two black cats", "a cat asleep", "photograph"])
    assert vocabularies.coverage(haystack, [scene]) == (0.25, 0.5)
    said = {"photo": (True, True), "a cat at night": (False, True), "castle": (False, False)}
    for phrase, expected in said.items():
        found = vocabularies.is_true(phrase, scene), vocabularies.names_a_fact(phrase, scene)
        assert found == expected, phrase


def test_the_error_is_that_of_the_paired_differences():
    """By hand: differences of 1 and 3 have a standard error of 1."""
    assert vocabularies.paired([2, 5], [1, 2]) == (2, pytest.approx(1))
    assert vocabularies.paired([2], [1]) == (1, None)


def test_a_set_holds_its_lists_and_parts_less_what_it_leaves_out():
    """A part of a list that is there as a whole counts once."""
    flavors = SimpleNamespace(
        phrases=("soft light", "blurry light", "fog", "by Ann"),
        parts={"light": frozenset({"soft light", "blurry light"})},
    )
    categories = {
        "classic:flavors": flavors, "artists": SimpleNamespace(phrases=("by Ann",), parts={}),
    }
    asked = SimpleNamespace(
        name="mine", without=("artists", "nobody"), leave_out=("blurry",),
        choices=[SimpleNamespace(list="classic:flavors/light"),
                 SimpleNamespace(list="classic:flavors")],
    )
    found = vocabularies.vocabulary_of(asked, categories, ("artists",))
    assert sorted(found.phrases) == ["fog", "soft light"]
    assert (found.name, found.flavors) == ("mine", 2)


@pytest.mark.parametrize(("name", "sentence"), [
    ("nowhere", "There is no set 'nowhere'; there are classic"),
    ("classic", "lacks lists: classic:flavors. Install them: pip install"),
])
def test_a_set_that_can_not_be_had_ends_the_comparison_with_a_sentence(name, sentence):
    """An unknown one, and the classic one without its package."""
    classic = SimpleNamespace(missing=lambda _categories: ("classic:flavors",))
    service = Mock(word_sets=lambda: {"classic": classic}, categories=dict)
    with pytest.raises(SystemExit, match=sentence):
        vocabularies.vocabularies(service, [name])


def test_random_backbones_differ_and_can_be_loaded(tmp_path, monkeypatch):
    """Each seed is another network, in a folder that open_clip knows."""
    import torch

    from clip_interrogator_ext.models import open_clip
    from tests.conftest import tiny_config

    plan = open_clip.Plan("tiny", tiny_config(), {})
    monkeypatch.setattr(open_clip, "plan_architecture", lambda _name: plan)
    names = [vocabularies.random_backbone("tiny", seed, tmp_path / str(seed)) for seed in (0, 1)]
    monkeypatch.undo()
    first, second = (
        open_clip.load(name, device=torch.device("cpu"), dtype=torch.float32).encode_texts(["fog"])
        for name in names
    )
    assert not torch.allclose(first, second)
