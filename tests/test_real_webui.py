"""The extension inside the real AUTOMATIC1111 and Forge: `pytest --webui PATH`.

Each WebUI is started from its own virtual environment, without weights and without a network, with
a data folder of the test's own that holds the extension and asks for the demo models.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.browser import launched

ROOT = Path(__file__).parents[1]
PICTURES = sorted((ROOT / "clip_interrogator_ext" / "models" / "demo" / "pictures").iterdir())
PICTURE = PICTURES[0]
WEIGHTS = "(castle:1.2), (hill:1.3), (sky:1.1)"
START_SECONDS = 240

requests = pytest.importorskip("requests", reason="the WebUIs are asked with requests")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test in each WebUI that was named."""
    if "webui_path" in metafunc.fixturenames:
        paths = [Path(one).resolve() for one in metafunc.config.getoption("--webui")]
        metafunc.parametrize(
            "webui_path", paths, ids=[path.name for path in paths], scope="module"
        )


@dataclass
class Webui:
    """A WebUI that is running."""

    name: str
    address: str
    process: subprocess.Popen
    log: Path

    @property
    def is_forge(self) -> bool:
        return self.name == "forge"

    def get(self, path: str, **more: Any) -> Any:
        return requests.get(self.address + path, timeout=60, **more)

    def post(self, path: str, **content: Any) -> Any:
        return requests.post(self.address + path, json=content, timeout=120)


def start(path: Path, data: Path, *flags: str) -> Webui:
    """Start a WebUI with our extension as its only one, and wait until it is ready."""
    (data / "extensions").mkdir(parents=True)
    (data / "extensions" / "clip_interrogator_ext").symlink_to(ROOT)
    options = {"clip": "demo", "captioner": "demo", "mode": "fast"}
    (data / "config.json").write_text(json.dumps(
        {f"clip_interrogator_ext_{key}": value for key, value in options.items()}
    ))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    name = "forge" if (path / "modules_forge").is_dir() else "a1111"
    command = [
        str(path / "venv" / "bin" / "python"), "launch.py", "--skip-torch-cuda-test",
        "--skip-python-version-check", "--skip-version-check", "--ui-debug-mode", "--api",
        "--no-download-sd-model", "--do-not-download-clip", "--skip-load-model-at-start",
        "--port", str(port), "--data-dir", str(data), *flags,
        # With a data folder elsewhere, Forge serves its own scripts only if it is told to.
        *(["--always-cpu", "--gradio-allowed-path", str(path), "--gradio-allowed-path", str(ROOT)]
          if name == "forge" else ["--no-half", "--use-cpu", "all"]),
    ]
    environment = {
        **os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1",
        "GRADIO_ANALYTICS_ENABLED": "False",
        "CLIP_INTERROGATOR_EXT_CACHE": str(data / "cache"),
    }
    log = data / "log.txt"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=path, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    webui = Webui(name, f"http://127.0.0.1:{port}", process, log)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        # A request that comes too early can end AUTOMATIC1111.
        if "Startup time:" in log.read_text():
            return webui
        time.sleep(0.5)
    process.kill()
    pytest.fail(f"{name} did not start:\n{log.read_text()[-4000:]}")


def stop(webui: Webui) -> None:
    webui.process.terminate()
    try:
        webui.process.wait(20)
    except subprocess.TimeoutExpired:
        webui.process.kill()


@pytest.fixture(scope="module")
def webui(webui_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webui]:
    """A WebUI with its page, open to everyone."""
    running = start(webui_path, tmp_path_factory.mktemp("data") / webui_path.name)
    yield running
    stop(running)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as browser:
        yield browser


@pytest.fixture
def page(webui: Webui, browser: Any) -> Iterator[Any]:
    """The WebUI's page with the Interrogator tab open, and no script errors of ours at the end."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(webui.address + "/?__theme=dark")
    open_tab(page, "Interrogator")
    page.wait_for_selector("#cliext-generate", state="visible")
    yield page
    page.close()
    assert not [error for error in errors if "cliext" in error]


def open_tab(page: Any, title: str) -> None:
    page.wait_for_selector("#tabs", timeout=60_000)
    page.locator(f"#tabs > .tab-nav > button:text-is('{title}')").first.click()


def upload(page: Any, picture: Path = PICTURE, box: str = "#cliext-image") -> None:
    page.set_input_files(f"{box} input[type=file]", str(picture))
    page.wait_for_selector(f"{box} img")


def value(page: Any, name: str) -> str:
    return page.input_value(f"#{name} textarea")


def wait_for_text(page: Any, name: str, *, seconds: float = 90) -> str:
    page.wait_for_function(
        f"document.querySelector('#{name} textarea').value.length > 3", timeout=seconds * 1000
    )
    return value(page, name)


def as_base64(picture: Path = PICTURE) -> str:
    return base64.b64encode(picture.read_bytes()).decode()


def picture_of(page: Any, shot: str, request: pytest.FixtureRequest) -> None:
    folder = request.config.getoption("--screenshots")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.locator("#tabs").screenshot(path=str(Path(folder) / f"{shot}.png"))


def chosen_tab(page: Any) -> str:
    return page.locator("#tabs > .tab-nav > button.selected").first.inner_text().strip()


def test_a_picture_becomes_prompts_that_both_fields_hold_exactly(webui, page, request):
    """Generate with progress, then send: both fields have it, the tab is open, no more changed."""
    upload(page)
    page.check("#cliext-with-negative input")
    page.click("#cliext-mode label:has-text('best')")
    page.click("#cliext-generate")
    page.wait_for_selector("#cliext-progress:has-text('left')", timeout=60_000)
    prompt, negative = wait_for_text(page, "cliext-prompt"), wait_for_text(page, "cliext-negative")
    page.wait_for_selector("#cliext-prompt-count:has-text('/75 tokens')")
    assert page.locator("#cliext-phrases label").count() >= 3
    assert "Similarity to the picture" in page.inner_text("#cliext-similarity")
    assert "Demo models are in use" in page.inner_text("#cliext-message")
    picture_of(page, f"{webui.name}-dark", request)

    others = ["txt2img_steps", "txt2img_cfg_scale", "txt2img_width"]
    before = [page.input_value(f"#{name} input[type=number]") for name in others]
    page.click("#cliext-send-txt2img")
    page.wait_for_selector("#txt2img_prompt textarea", state="visible")
    page.wait_for_function(
        "text => document.querySelector('#txt2img_neg_prompt textarea').value === text",
        arg=negative,
    )
    assert value(page, "txt2img_prompt") == prompt
    assert [page.input_value(f"#{name} input[type=number]") for name in others] == before
    assert chosen_tab(page) == ("Txt2img" if webui.is_forge else "txt2img")


def test_weights_go_through_and_the_users_negative_prompt_stays(webui, page):
    """A prompt whose last line looks like infotext arrives whole; an empty box changes nothing."""
    open_tab(page, "Txt2img" if webui.is_forge else "txt2img")
    page.fill("#txt2img_neg_prompt textarea", "my own negative")
    open_tab(page, "Interrogator")
    page.fill("#cliext-prompt textarea", WEIGHTS)
    page.fill("#cliext-negative textarea", "")
    page.click("#cliext-send-txt2img")
    page.wait_for_function(
        "text => document.querySelector('#txt2img_prompt textarea').value === text", arg=WEIGHTS
    )
    assert value(page, "txt2img_neg_prompt") == "my own negative"


@pytest.mark.parametrize("target", ["img2img", "inpaint", "extras"])
def test_the_picture_goes_along(webui, page, target):
    """Where the target takes one, and the prompt with it where it has a prompt."""
    upload(page)
    page.fill("#cliext-prompt textarea", f"sent to {target}")
    page.click(f"#cliext-send-{target}")
    box = {
        "img2img": "#img2img_image", "inpaint": "#img2maskimg", "extras": "#extras_image"
    }[target]
    page.wait_for_selector(box, state="visible")
    page.wait_for_function(
        """box => [...document.querySelectorAll(box + ' img, ' + box + ' canvas')].some(
            one => (one.naturalWidth || one.width) > 100 && one.offsetParent)""",
        arg=box, timeout=30_000,
    )
    if target != "extras":
        page.wait_for_function(
            "text => document.querySelector('#img2img_prompt textarea').value === text",
            arg=f"sent to {target}",
        )


def test_png_info_sends_its_picture_here(webui, page):
    """Our button stands beside the WebUI's own, and opens our tab with the picture in it."""
    open_tab(page, "PNG Info")
    upload(page, box="#pnginfo_image")
    page.click("#pnginfo_send_to_cliext")
    page.wait_for_selector("#cliext-image img", state="visible")
    assert chosen_tab(page) == "Interrogator"


def test_stop_in_the_page_ends_a_run_within_a_second(webui, page):
    """And what was found stays."""
    upload(page)
    page.click("#cliext-mode label:has-text('best')")
    page.click("#cliext-generate")
    page.wait_for_selector("#cliext-progress:has-text('Searching')", timeout=60_000)
    stopped = time.monotonic()
    page.evaluate("document.querySelector('#cliext-stop').click()")  # before the run has ended
    page.wait_for_selector("#cliext-message:has-text('what had been found')", timeout=10_000)
    assert time.monotonic() - stopped < 2  # a second, and what the browser takes
    assert value(page, "cliext-prompt")


def test_errors_are_sentences_outside_the_prompt_box(webui, page):
    """A backbone that nobody knows is told with the nearest names."""
    upload(page)
    page.fill("#cliext-prompt textarea", "mine")
    box = page.locator("#cliext-backbones input")
    box.fill("ViT-L-14/openia")
    box.press("Enter")
    page.click("#cliext-generate")
    page.wait_for_selector("#cliext-message:has-text('Did you mean')", timeout=60_000)
    assert value(page, "cliext-prompt") == "mine"


def test_light_theme(webui, browser, request):
    """The tab in the light theme, for the eye."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.goto(webui.address + "/?__theme=light")
    open_tab(page, "Interrogator")
    upload(page, PICTURES[3])
    page.click("#cliext-generate")
    assert wait_for_text(page, "cliext-prompt")
    page.wait_for_selector("#cliext-prompt-count:has-text('tokens')")
    picture_of(page, f"{webui.name}-light", request)
    page.close()


def test_routes_answer_and_the_webui_sees_the_job(webui):
    """`/sdapi/v1/progress` names our job, and `/sdapi/v1/interrupt` stops it within a second."""
    assert "demo" in webui.get("/interrogator/models").json()
    answers: list[Any] = []

    def ask() -> None:
        answers.append(webui.post(
            "/interrogator/prompt", image=as_base64(), clip_model_name="demo", captioner="demo",
            mode="best", min_flavors=200, max_flavors=256, task="task(mine)",
        ))
        answers.append(time.monotonic())

    thread = threading.Thread(target=ask)
    thread.start()
    deadline = time.monotonic() + 60
    job: dict[str, Any] = {}
    while time.monotonic() < deadline and job.get("textinfo") != "Searching":
        job = webui.get("/sdapi/v1/progress?skip_current_image=true").json()
        job = {**job, **job["state"]}
        time.sleep(0.05)
    assert job["job"] == "task(mine)"
    assert 0 <= job["progress"] <= 1
    (run,) = webui.get("/interrogator/status").json()["runs"]
    assert (run["task"], run["running"]) == ("task(mine)", True)
    asked = time.monotonic()
    webui.post("/sdapi/v1/interrupt")
    thread.join()
    assert answers[0].status_code == 200
    assert answers[0].json()["interrupted"]
    assert answers[0].json()["prompt"]
    assert answers[1] - asked < 1.5
    assert webui.get("/sdapi/v1/progress").json()["state"]["job"] == ""


def nested_folder(folder: Path, copies: int = 4) -> Path:
    """Fill a folder and its sub-folder with pictures, each of them another."""
    for number in range(copies * len(PICTURES)):
        path = folder / ("sub" if number % 2 else "") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(PICTURES[number % len(PICTURES)]) as picture:
            picture.rotate(number, expand=True).save(path)
    return folder


def postprocess(webui: Webui) -> float:
    """Have the WebUI work on a picture in its queue; return the seconds until it was done."""
    asked = time.monotonic()
    answer = webui.post(
        "/sdapi/v1/extra-single-image", image=as_base64(), upscaler_1="Lanczos",
        upscaling_resize=2,
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["image"]
    return time.monotonic() - asked


def test_a_batch_by_the_routes_gives_way_to_the_webui(webui, tmp_path):
    """A nested folder; what the WebUI is asked midway is done before the next picture."""
    folder = nested_folder(tmp_path / "photos")
    asked = {
        "input": str(folder), "recursive": True, "mode": "best", "trigger": "sks",
        "clip_model_name": "demo", "captioner": "demo", "min_flavors": 2, "max_flavors": 4,
    }
    job = webui.post("/interrogator/batch", **asked).json()
    total = job["total"]
    assert total == 4 * len(PICTURES)
    seen: list[dict[str, Any]] = []

    def wait_for(done: int) -> dict[str, Any]:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            seen.append(webui.get(f"/interrogator/batch/{job['id']}").json())
            if seen[-1]["done"] >= done:
                return seen[-1]
            time.sleep(0.2)
        pytest.fail(f"only so far: {seen[-1]}")

    midway = wait_for(2)
    assert midway["state"] == "running"
    assert webui.get("/sdapi/v1/progress").json()["state"]["job"] == job["id"]
    before = midway["done"]
    postprocess(webui)
    after = webui.get(f"/interrogator/batch/{job['id']}").json()
    assert after["state"] == "running"
    assert after["done"] - before < total - before - 2

    stopped = requests.delete(f"{webui.address}/interrogator/batch/{job['id']}", timeout=60)
    assert stopped.json()["interrupted"]
    while webui.get(f"/interrogator/batch/{job['id']}").json()["state"] == "stopping":
        time.sleep(0.1)
    kept = webui.get(f"/interrogator/batch/{job['id']}").json()
    assert kept["state"] == "stopped"
    assert 0 < kept["done"] < total
    assert webui.get("/sdapi/v1/progress").json()["state"]["job"] == ""

    job = webui.post("/interrogator/batch", **asked).json()
    wait_for(total)
    while (ended := webui.get(f"/interrogator/batch/{job['id']}").json())["state"] == "running":
        time.sleep(0.1)
    assert (ended["state"], ended["earlier"]) == ("done", kept["done"])
    texts = sorted(folder.rglob("*.txt"))
    assert len(texts) == total
    assert all(text.read_text(encoding="utf-8").startswith("sks, ") for text in texts)


def test_a_batch_in_the_tab_gives_way_to_the_webui(webui, page, request, tmp_path):
    """A nested folder, with progress; stopped and started again; the WebUI is asked midway."""
    folder = nested_folder(tmp_path / "photos", 2)
    total = 2 * len(PICTURES)
    page.click("#cliext-mode label:has-text('best')")
    page.click("#cliext-tabs button:text-is('Batch')")
    page.fill("#cliext-batch-folder textarea, #cliext-batch-folder input", str(folder))
    page.check("#cliext-batch-recursive input")
    page.click("#cliext-batch-mode label:has-text('best')")
    page.click("#cliext-batch-start")
    status = page.locator("#cliext-batch-status")
    status.locator("img").first.wait_for(timeout=120_000)
    picture_of(page, f"{webui.name}-batch", request)
    postprocess(webui)
    job = webui.get("/interrogator/batch").json()[-1]
    assert job["state"] == "running"
    assert job["done"] < total
    page.click("#cliext-batch-stop")
    status.locator(":text('stopped')").first.wait_for(timeout=30_000)
    page.click("#cliext-batch-start")
    status.locator(f":text('{total} of {total} done')").first.wait_for(timeout=300_000)
    assert len(list(folder.rglob("*.txt"))) == total


def test_settings_apply_without_a_restart(webui):
    """A default that was changed is that of the next request."""
    webui.post("/sdapi/v1/options", clip_interrogator_ext_max_flavors="1")
    try:
        answer = webui.post(
            "/interrogator/prompt", image=as_base64(), clip_model_name="demo"
        ).json()
        assert len(answer["parts"]) == 1
    finally:
        webui.post("/sdapi/v1/options", clip_interrogator_ext_max_flavors="")


def test_unload_gives_everything_back(webui):
    """Nothing is loaded afterwards, and the next request loads it again."""
    webui.post("/interrogator/unload")
    assert webui.get("/interrogator/status").json()["loaded"] == []
    answer = webui.post("/interrogator/prompt", image=as_base64(), clip_model_name="demo")
    assert answer.json()["prompt"]
    assert webui.get("/interrogator/status").json()["loaded"]


def test_a_reload_of_the_ui_keeps_tab_and_routes(webui, page):
    """One tab, one set of routes, and no notice of an old version."""
    open_tab(page, "Settings")
    starts = webui.log.read_text().count("Startup time:")
    page.click("#settings_restart_gradio")
    deadline = time.monotonic() + START_SECONDS
    while webui.log.read_text().count("Startup time:") == starts and time.monotonic() < deadline:
        time.sleep(0.5)
    page.goto(webui.address)
    open_tab(page, "Interrogator")
    page.wait_for_selector("#cliext-generate", state="visible")
    assert page.locator("#tabs > .tab-nav > button:text-is('Interrogator')").count() == 1
    assert page.locator("#cliext-notices .cliext-warning").count() == 0
    answer = webui.post("/interrogator/prompt", image=as_base64(), clip_model_name="demo")
    assert answer.status_code == 200
    assert "interrogator/prompt" in json.dumps(webui.get("/openapi.json").json()["paths"])


def test_without_a_page_and_with_a_login(webui_path, tmp_path):
    """`--nowebui --api-auth`: routes are there, closed to strangers and open to API users.

    With `--hide-ui-dir-config` folders are closed to these too.
    """
    webui = start(
        webui_path, tmp_path / "data", "--nowebui", "--server-name", "127.0.0.1",
        "--api-auth", "ann:secret,bob:other", "--hide-ui-dir-config",
    )
    try:
        refused = webui.get("/interrogator/models")
        assert refused.status_code == 401
        assert refused.json()["error"] == "Unauthorized"
        assert webui.get("/interrogator/models", auth=("bob", "wrong")).status_code == 401
        assert "demo" in webui.get("/interrogator/models", auth=("bob", "other")).json()
        closed = requests.post(
            f"{webui.address}/interrogator/batch", json={"input": str(tmp_path)},
            auth=("bob", "other"), timeout=60,
        )
        assert closed.status_code == 403
        assert "--hide-ui-dir-config" in closed.json()["detail"]
    finally:
        stop(webui)


def test_install_script_is_quick_where_nothing_is_missing(webui_path):
    """Half a second with the start of Python, and it prints nothing."""
    started = time.monotonic()
    answer = subprocess.run(
        [webui_path / "venv" / "bin" / "python", ROOT / "install.py"], cwd=webui_path,
        env={**os.environ, "PYTHONPATH": str(webui_path)}, capture_output=True, text=True,
        check=True,
    )
    assert time.monotonic() - started < 1.5
    assert answer.stdout + answer.stderr == ""
    assert sys.version_info >= (3, 10)
