"""Packages that are missing, too old, or fail when they are imported: what the user is told.

Each case is a process of its own, whose sys.path begins with a folder that holds such a package, or
which can't find one. What all of them need is imported once; then one process is forked for each.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]
ZYGOTE = """
import base64, importlib.util, json, os, sys
from pathlib import Path

root, flavour, cases = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
fakes = root / "tests" / "fake_webui"
sys.path[:0] = [str(root), str(fakes / flavour), str(fakes / "common")]
os.environ["HF_HUB_OFFLINE"] = "1"
import gradio, torch
from fastapi import FastAPI
from fastapi.testclient import TestClient
from modules import script_callbacks, shared

for key in ("clip", "captioner"):
    shared.opts.data[f"clip_interrogator_ext_{key}"] = "demo"
shared.cmd_opts.hide_ui_dir_config = False
picture = next((root / "clip_interrogator_ext" / "models" / "demo" / "pictures").iterdir())
asked = {"image": base64.b64encode(picture.read_bytes()).decode(), "clip_model_name": "demo"}


class Hidden:
    def __init__(self, hidden):
        self.hidden = hidden

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == self.hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def call(category, *arguments):
    listed = script_callbacks.callback_map[f"callbacks_{category}"]
    return [one.callback(*arguments) for one in listed]


def start():
    path = root / "scripts" / "clip_interrogator_ext.py"
    spec = importlib.util.spec_from_file_location(path.name, path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    for category in ("before_ui", "ui_settings"):
        call(category)
    [[(page, _title, _name)]] = call("ui_tabs")
    app = FastAPI()
    call("app_started", page, app)
    return page, TestClient(app)


def tell(hidden, folder):
    sys.meta_path.insert(0, Hidden(hidden))
    sys.path.insert(0, folder)
    early = {"torchvision", "transformers", "open_clip", "safetensors"} & set(sys.modules)
    page, client = start()
    shown = " ".join(str(getattr(one, "value", "")) for one in page.blocks.values())
    large = {"torchvision", "transformers", "open_clip"} & set(sys.modules)
    answers = []
    for more in ({}, {"caption": "a red cat"}):
        answer = client.post("/interrogator/prompt", json={**asked, **more})
        answers.append([answer.status_code, answer.json()])
    models = client.get("/interrogator/models")
    return {
        "early": sorted(early), "at_start": sorted(large), "shown": shown, "answers": answers,
        "models": [models.status_code, models.json()],
        "status": client.get("/interrogator/status").status_code,
    }


for number, case in enumerate(cases):
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            print(json.dumps([number, tell(*case)]), flush=True)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
"""


def told(folder_of_cases: list[tuple[str, str]], flavour: str = "a1111") -> list[dict]:
    """Return what the tab and the routes say in each case: (hidden module, first folder)."""
    answer = subprocess.run(
        [sys.executable, "-c", ZYGOTE, str(ROOT), flavour, json.dumps(folder_of_cases)],
        capture_output=True, text=True, check=True, timeout=300,
    )
    lines = [json.loads(line) for line in answer.stdout.splitlines() if line.startswith("[")]
    assert [number for number, _ in lines] == [*range(len(folder_of_cases))], answer.stderr[-3000:]
    return [found for _, found in lines]


def package(folder: Path, module: str, body: str, version: str = "", name: str = "") -> str:
    """Put a package into a folder, with its version where one is given; return the folder."""
    (folder / module).mkdir(parents=True)
    (folder / module / "__init__.py").write_text(textwrap.dedent(body), encoding="utf-8")
    if version:
        note = folder / f"{name or module}-{version}.dist-info"
        note.mkdir()
        (note / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name or module}\nVersion: {version}\n",
            encoding="utf-8",
        )
    return str(folder)


def refused(case: dict) -> str:
    """Return the one sentence with which every question of the engine was refused."""
    said = {(status, answer["error"], answer["detail"]) for status, answer in case["answers"]}
    assert len(said) == 1, said
    ((status, error, detail),) = said
    assert (status, error) == (500, "BrokenPackage")
    return detail


def test_the_webui_starts_whatever_is_missing_and_says_what_to_do(tmp_path):
    """In the tab and in each answer; what the WebUI's start takes does not grow by big imports."""
    nothing = str(tmp_path)
    cases = [(module, nothing) for module in ("transformers", "open_clip", "safetensors")]
    for (module, _), case in zip(cases, told(cases), strict=True):
        name = "open_clip_torch" if module == "open_clip" else module
        assert case["at_start"] == []
        assert case["status"] == 200
        assert name in case["shown"]
        assert "-m pip install" in case["shown"]
        # With a caption given, no captioner is asked, and transformers is not missed.
        answers = case["answers"][:1] if module == "transformers" else case["answers"]
        detail = refused({**case, "answers": answers})
        assert f"{name} is missing" in detail
        assert "-m pip install" in detail


def test_packages_that_are_too_old_or_fail_are_named(tmp_path):
    """Whatever they raise, with their version and the command that mends them."""
    old = package(tmp_path / "old", "transformers", "__version__ = '4.20.0'", "4.20.0")
    attribute = package(tmp_path / "attribute", "transformers", "raise AttributeError('np.x')")
    mismatch = package(tmp_path / "mismatch", "open_clip", "raise RuntimeError('no such operator')")
    wrapped = package(tmp_path / "wrapped", "transformers", """
        try:
            raise OSError("lib.so: cannot open")
        except OSError as error:
            raise RuntimeError("Failed (look up to see why):\\nlib.so: cannot open") from error
    """)
    cases = told([("", old), ("", attribute), ("", mismatch), ("", wrapped)])
    assert "transformers 4.20.0 is installed, and at least 4.30.2 is needed" in cases[0]["shown"]
    sentences = [refused({**case, "answers": case["answers"][:1]}) for case in cases]
    assert "transformers 4.20.0 is installed, and at least 4.30.2 is needed" in sentences[0]
    assert "does not work here (AttributeError: np.x)" in sentences[1]
    assert "does not work here (RuntimeError: no such operator)" in sentences[2]
    assert "does not work here (OSError: lib.so: cannot open)" in sentences[3]
    assert all("-m pip install" in sentence for sentence in sentences)


def test_the_page_names_what_fails_of_its_own(tmp_path):
    """Gradio that is too old, fails, or lacks what it builds on; each with the command for it."""
    cases = {
        package(tmp_path / "old", "gradio", "", "3.20.0"):
            "gradio 3.20.0 is installed, and at least 3.41.2 is needed",
        package(tmp_path / "fails", "gradio", "raise AttributeError('pydantic.x')"):
            "does not work here (AttributeError: pydantic.x). It is damaged",
        package(tmp_path / "lacks", "gradio", "import no_such_package"):
            "No module named 'no_such_package'). It lacks a package",
    }
    for folder, sentence in cases.items():
        program = (
            f"import sys; sys.path.insert(0, {folder!r})\n"
            "from clip_interrogator_ext.faces.cli import main; sys.exit(main(['page']))"
        )
        answer = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, check=False, capture_output=True,
            text=True, timeout=300,
        )
        assert answer.returncode == 1
        assert sentence in answer.stderr
        assert "-m pip install" in answer.stderr
        assert "Traceback" not in answer.stderr
