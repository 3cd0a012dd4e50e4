"""The command line: what is printed where, and the exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clip_interrogator_ext import Service
from clip_interrogator_ext.errors import BadWordList
from clip_interrogator_ext.faces import cli
from clip_interrogator_ext.models import weights

CAPTION = "a red cat"


@pytest.fixture(scope="module")
def lists_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lists")
    for name in ("artists", "flavors", "mediums", "movements", "sites", "negative"):
        lines = [f"{name} {word}" for word in ("one", "two", "three")]
        (folder / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture
def image(picture, tmp_path) -> Path:
    path = tmp_path / "picture.png"
    picture.save(path)
    return path


@pytest.fixture
def engine(backbone_folder, lists_dir, tmp_path) -> list[str]:
    """The options that make a command quick and offline."""
    return [
        "--clip", str(backbone_folder), "--lists-dir", str(lists_dir),
        "--cache-dir", str(tmp_path / "cache"), "--device", "cpu",
    ]


@pytest.fixture
def run(capfd):
    """Run a command in this process; return its code and what it printed."""

    def run_command(*arguments: object) -> tuple[int, str, str]:
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        printed = capfd.readouterr()
        return code, printed.out, printed.err

    return run_command


def test_a_prompt_is_one_line_on_stdout(run, image, engine):
    """Only the prompt stands on stdout, so that it can be piped."""
    code, out, _ = run("prompt", image, "--mode", "fast", "--caption", CAPTION, *engine)
    assert code == 0
    assert out.count("\n") == 1
    assert out.startswith(CAPTION + ", ")


def test_progress_stands_on_stderr_and_quiet_is_silent(run, image, engine):
    """Bars are drawn on stderr; with --quiet there are none."""
    _, _, loud = run("prompt", image, "--caption", CAPTION, *engine)
    assert "Searching" in loud
    _, _, quiet = run("prompt", image, "--caption", CAPTION, "--quiet", *engine)
    assert "Searching" not in quiet
    assert "%|" not in quiet


def test_the_negative_prompt_follows_the_prompt(run, image, engine):
    """In the form in which the WebUI writes it."""
    _, out, _ = run("prompt", image, "--caption", CAPTION, "--negative", *engine)
    first, second = out.splitlines()
    assert first.startswith(CAPTION)
    assert second.startswith("Negative prompt: ")


def test_json_is_one_object_a_line_with_everything(run, image, engine):
    """Each object has the image, the text, the score and every phrase."""
    code, out, _ = run("prompt", image, image, "--json", "--caption", CAPTION, *engine)
    assert code == 0
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["image"] for answer in answers] == [str(image)] * 2
    assert answers[0]["parts"][0].keys() == {"phrase", "category", "similarity", "gain"}
    assert answers[0]["text"] == answers[1]["text"]
    assert answers[0]["similarity"] == pytest.approx(answers[1]["similarity"])


def test_a_bad_image_does_not_stop_the_others(run, image, engine, tmp_path):
    """It is reported on stderr, the others are printed, and the code is 1."""
    text = tmp_path / "text.png"
    text.write_text("not a picture")
    code, out, err = run(
        "prompt", tmp_path / "missing.png", image, text, tmp_path, "--caption", CAPTION, *engine
    )
    assert code == 1
    assert out.count("\n") == 1
    for name in ("missing.png", "text.png"):
        assert name in err
    assert "Traceback" not in err


def test_a_bad_image_is_an_object_too(run, image, engine, tmp_path):
    """With --json every picture given has its line, in the order given."""
    missing = tmp_path / "missing.png"
    code, out, _ = run("prompt", missing, image, "--json", "--caption", CAPTION, *engine)
    first, second = map(json.loads, out.splitlines())
    assert code == 1
    assert first["image"] == str(missing)
    assert "missing.png" in first["error"]
    assert second["text"]


def test_wrong_usage_is_code_2_with_a_sentence(run, image, engine, tmp_path):
    """Unknown options, values and models are the caller's mistakes."""
    for arguments, words in (
        (["prompt"], "required: IMAGE"),
        (["prompt", image, "--mode", "bset"], "invalid choice: 'bset'"),
        (["prompt", image, "--pool-size", "0", *engine], "Pool size must be from 1 to"),
        (["prompt", image, "--clip", "ViT-bigG-14/laion2b_s39b"], "laion2b_s39b_b160k"),
        (["prompt", image, "--clip", "coca_base/"], "names no weights"),
        (["prompt", image, "--vocabulary", "no artist", *engine], "no artists"),
        (["prompt", image, "--replace", "cat", *engine], "write it as OLD=NEW"),
        (["lists", "--prepare", "--get-classic"], "not allowed with argument"),
        (["prompt", image, "--captioner", "blip-lage", *engine], "Did you mean blip-large"),
        (["prompt", image, "--mode", "fast", "--captioner", "none", *engine], "needs a caption"),
        (["prompt", image, "--device", "warp9", "--clip", engine[1]], "can't be used here"),
    ):
        code, out, err = run(*arguments)
        assert code == 2, arguments
        assert words in err
        assert not out
        assert "Traceback" not in err


def test_a_missing_model_is_code_1_and_says_where_to_put_it(run, image, tmp_path):
    """Offline, the message names the model, the places and the remedy."""
    code, out, err = run("prompt", image, "--models-dir", tmp_path, "--caption", CAPTION)
    assert code == 1
    assert not out
    assert "ViT-L-14/openai" in err
    assert str(tmp_path / "ViT-L-14-openai" / weights.SAFETENSORS_NAMES[0]) in err
    assert "hf download" in err


def test_analyze_prints_each_category(run, image, engine):
    """The nearest phrases under their category's name, or as JSON."""
    code, out, _ = run("analyze", image, "--top", 2, *engine)
    assert code == 0
    assert [line for line in out.splitlines() if not line.startswith(" ")] == [
        "artists", "flavors", "mediums", "movements", "sites"
    ]
    _, out, _ = run("analyze", image, "--json", "--top", 2, *engine)
    assert [len(ranked) for ranked in json.loads(out)["categories"].values()] == [2] * 5


def test_similarity_prints_a_score_for_each_text(run, image, engine):
    """One line a text, in the order given."""
    code, out, _ = run("similarity", image, "a cat", "a dog, a house", *engine)
    assert code == 0
    assert [line.split("\t")[1] for line in out.splitlines()] == ["a cat", "a dog, a house"]
    assert all(-1 <= float(line.split("\t")[0]) <= 1 for line in out.splitlines())


def test_models_lists_the_recommended_and_all(run, tmp_path):
    """Each with size and purpose; --all has one name a line."""
    _, out, _ = run("models", "--models-dir", tmp_path)
    for words in ("ViT-L-14/openai", "SDXL", "blip-large", "not downloaded", "428 M parameters"):
        assert words in out
    _, out, _ = run("models", "--all")
    assert "ViT-bigG-14/laion2b_s39b_b160k" in out.splitlines()
    assert len(out.splitlines()) > 80


def test_analyze_asks_the_named_lists(run, image, engine):
    """In place of the usual ones; one that is not there is the caller's mistake."""
    _, out, _ = run("analyze", image, "--top", 2, "--categories", "flavors, sites", *engine)
    assert [line for line in out.splitlines() if not line.startswith(" ")] == ["flavors", "sites"]
    code, _, err = run("analyze", image, "--categories", "flavours", *engine)
    assert code == 2
    assert "flavors" in err


def test_lists_names_sizes_and_files(run, lists_dir):
    """The lists in use, the user's in place of the bundled."""
    _, out, _ = run("lists", "--lists-dir", lists_dir)
    lists = out.partition("Word lists\n")[2].splitlines()
    line = next(line for line in lists if line.strip().startswith("artists"))
    assert "6 phrases" in line
    assert str(lists_dir) in line


def test_own_lists_are_found_without_being_named(run, tmp_path, monkeypatch):
    """In the folder of the models where one is named, else in the user's own."""
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "dragons.txt").write_text("a red dragon", encoding="utf-8")
    monkeypatch.setenv("CLIP_INTERROGATOR_EXT_DATA", str(tmp_path / "none"))
    assert "dragons" not in run("lists")[1]
    assert "dragons" in run("lists", "--models-dir", tmp_path)[1]
    monkeypatch.setenv("CLIP_INTERROGATOR_EXT_DATA", str(tmp_path))
    assert "dragons" in run("lists")[1]


def test_lists_tells_what_the_sets_hold_and_what_is_missing(run, lists_dir):
    """Each set with a sentence, its lists, and those that are not on this machine."""
    code, out, _ = run("lists", "--lists-dir", lists_dir)
    assert code == 0
    sets = out.partition("Word lists\n")[0]
    assert sets.startswith("Sets of word lists\n  all ")
    assert "\n  no artists " in sets
    classic = sets.partition("\n  classic ")[2]
    assert "classic:flavors" in classic


def test_lists_shows_the_phrases_of_a_list_and_of_a_part(run, lists_dir, tmp_path):
    """One a line, in the list's order; another name is the caller's mistake."""
    folder = tmp_path / "dragons"
    folder.mkdir()
    (folder / "red.txt").write_text("a red dragon\na fire dragon", encoding="utf-8")
    (folder / "sea.txt").write_text("a sea dragon", encoding="utf-8")
    assert run("lists", "--show", "mediums", "--lists-dir", lists_dir)[1].splitlines() == [
        "mediums one", "mediums two", "mediums three",
    ]
    shown = ["lists", "--lists-dir", tmp_path, "--show"]
    assert run(*shown, "dragons/red")[1].splitlines() == ["a red dragon", "a fire dragon"]
    for name, words in (("dragon", "Did you mean dragons"), ("dragons/sae", "no part 'sae'")):
        code, out, err = run(*shown, name)
        assert (code, out) == (2, "")
        assert words in err


def test_lists_are_made_ready(run, engine, image):
    """With a bar on stderr, once; then a question has nothing more to compute."""
    only = ["--categories", "flavors,sites"]
    code, out, err = run("lists", "--prepare", *only, *engine)
    assert code == 0
    counts = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    assert counts["flavors"] == ["3", "phrases", "computed"]
    assert counts.keys() == {"flavors", "sites"}
    assert "%|" in err
    _, out, err = run("lists", "--prepare", *only, *engine)
    assert [line.split()[1:] for line in out.splitlines()] == [["was", "ready"]] * 2
    code, _, err = run("lists", "--prepare", "--categories", "nonsense", *engine)
    assert code == 2
    assert "nonsense" in err


def test_the_classic_lists_are_said_to_be_somewhere(run, monkeypatch, tmp_path):
    """Where they were put, on stdout; what stands in the way is a sentence and code 1."""
    monkeypatch.setattr(Service, "get_classic", lambda _self, _task=None: tmp_path)
    assert run("lists", "--get-classic")[:2] == (0, f"The classic lists are in {tmp_path}.\n")

    def fail(_self, _task=None):
        raise BadWordList("There is no network: connect, and try again.")

    monkeypatch.setattr(Service, "get_classic", fail)
    code, out, err = run("lists", "--get-classic")
    assert (code, out) == (1, "")
    assert err == "There is no network: connect, and try again.\n"


def test_a_set_and_words_reach_the_question(run, image, engine):
    """Chosen by name; left out and replaced in captions and phrases; given again if need be."""
    asked = ["prompt", image, "--json", "--mode", "fast", "--caption", CAPTION, *engine]
    answer = json.loads(run(*asked, "--vocabulary", "no artists")[1])
    assert answer["parts"]
    assert "artists" not in {part["category"] for part in answer["parts"]}
    answer = json.loads(run(
        *asked, "--leave-out", "one, two", "--leave-out", "red", "--replace", "cat=dog",
        "--replace", "three=four",
    )[1])
    assert answer["text"].startswith("a dog, ")
    words = set(answer["text"].replace(",", "").split())
    assert "four" in words
    assert not {"one", "two", "three", "red", "cat"} & words


def test_help_is_quick_and_loads_no_network_library():
    """It is asked for often, and by shells that complete words."""
    program = (
        "import sys; from clip_interrogator_ext.faces.cli import main\n"
        "try:\n    main(['lists', '--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'gradio', 'fastapi', 'open_clip'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[1], capture_output=True,
        text=True, check=True,
    )
    assert "--get-classic" in answer.stdout
    assert answer.stdout.splitlines()[-1] == "[]"


def test_demo_models_are_announced(run, image, lists_dir, tmp_path):
    """Whoever uses the bundled models is told so."""
    code, out, err = run(
        "prompt", image, "--demo", "--lists-dir", lists_dir, "--cache-dir", tmp_path / "cache"
    )
    assert code == 0
    assert out.strip()
    assert "Demo models are in use" in err


@pytest.mark.parametrize("presses", [1, 2])
def test_interrupting_ends_cleanly(image, backbone_folder, tmp_path, presses):
    """Ctrl-C, once or twice, ends with code 130 and without a traceback."""
    process = subprocess.Popen(
        [
            sys.executable, "-m", "clip_interrogator_ext", "prompt", *[str(image)] * 500,
            "--clip", str(backbone_folder), "--caption", CAPTION, "--mode", "best",
            "--cache-dir", str(tmp_path),
        ],
        cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stderr is not None
    shown = ""
    # The tables of the bundled lists are being made; then the first press is told of.
    for words in ("words", "press Ctrl-C again")[:presses]:
        while words not in shown:
            sign = process.stderr.read(1)
            assert sign, shown
            shown += sign
        process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=120)
    # A shell shows both as 130; the second press may come when Python is already on its way out.
    assert process.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in shown + rest
