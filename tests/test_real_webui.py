"""The extension inside the real AUTOMATIC1111 and Forge: `pytest --webui PATH`.

Each WebUI is started from its own virtual environment, without weights and without a network, with
a data folder of the test's own that holds the extension and asks for the demo models.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import statistics
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.browser import Driver, launched

ROOT = Path(__file__).parents[1]
PICTURES = sorted((ROOT / "clip_interrogator_ext" / "models" / "demo" / "pictures").iterdir())
PICTURE = PICTURES[0]
WEIGHTS = "(castle:1.2), (hill:1.3), (sky:1.1)"
START_SECONDS = 240
API_USER, PAGE_USER = ("ann", "secret"), ("bob", "other")
LOGINS = {
    "open": (),
    "api": ("--api-auth", ":".join(API_USER)),
    "page": ("--gradio-auth", ":".join(PAGE_USER)),
    "both": ("--api-auth", ":".join(API_USER), "--gradio-auth", ":".join(PAGE_USER)),
}
ERROR = {"error", "detail", "field", "nearest"}
AT_ONCE, ROUNDS = 50, 20

# An extension that has a prompt for each picture in the midst of its generation.
ASKS = """
    from modules import scripts


    class Asks(scripts.Script):
        def title(self):
            return "Asks"

        def show(self, is_img2img):
            return scripts.AlwaysVisible

        def postprocess_image(self, processing, pictures, *_):
            from clip_interrogator_ext.webui import image_to_prompt

            prompt = image_to_prompt(pictures.image, "fast", "demo")
            processing.extra_generation_params["Interrogated"] = prompt
"""

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

    @property
    def starts(self) -> int:
        """How often its page has been made ready."""
        return self.log.read_text().count("Startup time:")

    @property
    def memory(self) -> int:
        """The bytes of it that are in memory."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def get(self, path: str, **more: Any) -> Any:
        return requests.get(self.address + path, timeout=60, **more)

    def post(self, path: str, **content: Any) -> Any:
        return requests.post(self.address + path, json=content, timeout=300)


def start(
    path: Path,
    data: Path,
    *flags: str,
    environment: Mapping[str, str] | None = None,
    checkpoints: str | None = None,
) -> Webui:
    """Start a WebUI with our extension beside those of its data folder; wait until it is ready."""
    (data / "extensions").mkdir(parents=True, exist_ok=True)
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
        "--skip-python-version-check", "--skip-version-check", "--api",
        "--no-download-sd-model", "--do-not-download-clip", "--skip-load-model-at-start",
        "--port", str(port), "--data-dir", str(data), *flags,
        *(["--ckpt-dir", checkpoints, "--no-hashing"] if checkpoints else ["--ui-debug-mode"]),
        # With a data folder elsewhere, Forge serves its own scripts only if it is told to. The
        # installers of its own extensions would change the environment that it runs in.
        *(["--always-cpu", "--skip-install", "--gradio-allowed-path", str(path),
           "--gradio-allowed-path", str(ROOT)]
          if name == "forge" else ["--no-half", "--use-cpu", "all"]),
    ]
    variables = {
        **os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1",
        "GRADIO_ANALYTICS_ENABLED": "False",
        "CLIP_INTERROGATOR_EXT_CACHE": str(data / "cache"), **(environment or {}),
    }
    log = data / "log.txt"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=path, env=variables, stdout=output, stderr=subprocess.STDOUT
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


@contextmanager
def started(*arguments: Any, **more: Any) -> Iterator[Webui]:
    """Start a WebUI for one test."""
    webui = start(*arguments, **more)
    try:
        yield webui
    finally:
        stop(webui)


@pytest.fixture(scope="module")
def webui(webui_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webui]:
    """A WebUI with its page, open to everyone."""
    running = start(webui_path, tmp_path_factory.mktemp("data") / webui_path.name)
    yield running
    stop(running)


@pytest.fixture(scope="module")
def generating(webui_path: Path, tmp_path_factory: pytest.TempPathFactory, request) -> Any:
    """A WebUI that has loaded a checkpoint, and one more extension, which asks for a prompt."""
    checkpoints = request.config.getoption("--checkpoints")
    if not checkpoints:
        pytest.skip("no folder of a checkpoint was named (--checkpoints)")
    data = tmp_path_factory.mktemp("data") / webui_path.name
    other = data / "extensions" / "other" / "scripts"
    other.mkdir(parents=True)
    (other / "other.py").write_text(textwrap.dedent(ASKS))
    running = start(webui_path, data, checkpoints=checkpoints)
    generate(running)
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
    user = Driver(page)
    user.mode("best")
    user.unfold_options()
    # So many texts, each encoded by itself, that the run lasts until a slow browser stops it.
    for name, number in (("min-flavors", "60"), ("pool-size", "10000"), ("chunk-size", "1")):
        user.write(name, number)
    page.click("#cliext-generate")
    page.wait_for_selector("#cliext-progress:has-text('Searching')", timeout=60_000)
    stopped = time.monotonic()
    page.evaluate("document.querySelector('#cliext-stop').click()")  # before the run has ended
    page.wait_for_selector("#cliext-message:has-text('what had been found')", timeout=10_000)
    assert time.monotonic() - stopped < 5  # a second, and what the browser of a busy machine takes
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
    # The WebUI keeps the text of an earlier job until the next begins.
    while time.monotonic() < deadline and not (job.get("job") and job["textinfo"] == "Searching"):
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


def reload(webui: Webui, page: Any) -> None:
    """Have the WebUI make its page anew, and wait for it."""
    open_tab(page, "Settings")
    starts = webui.starts
    page.click("#settings_restart_gradio")
    deadline = time.monotonic() + START_SECONDS
    while webui.starts == starts:
        assert time.monotonic() < deadline, webui.log.read_text()[-4000:]
        time.sleep(0.5)


def our_routes(webui: Webui, **more: Any) -> dict[str, list[str]]:
    """Return the methods of each of our routes, as the WebUI's own document has them."""
    paths = webui.get("/openapi.json", **more).json()["paths"]
    return {path: sorted(paths[path]) for path in paths if path.startswith("/interrogator/")}


def require_one_tab_that_works(webui: Webui, page: Any) -> None:
    """Look at the page, which loads itself anew after a reload, and ask for a prompt."""
    open_tab(page, "Interrogator")
    page.wait_for_selector("#cliext-generate", state="visible")
    assert page.locator("#tabs > .tab-nav > button:text-is('Interrogator')").count() == 1
    assert page.locator("#cliext-notices .cliext-warning").count() == 0
    answer = webui.post("/interrogator/prompt", image=as_base64(), clip_model_name="demo")
    assert answer.status_code == 200


def test_a_reload_of_the_ui_keeps_tab_and_routes(webui, page):
    """One tab, one set of routes, and no notice of an old version."""
    before = our_routes(webui)
    reload(webui, page)
    require_one_tab_that_works(webui, page)
    assert our_routes(webui) == before
    assert len(before) > 10


def test_a_reload_in_the_midst_of_a_run(webui, page):
    """The run is answered, or its connection ends; tab and routes are back, nothing is held."""
    answers: list[Any] = []

    def ask() -> None:
        try:
            answers.append(webui.post(
                "/interrogator/prompt", image=as_base64(), clip_model_name="demo",
                captioner="demo", mode="best", min_flavors=200, max_flavors=256, chunk_size=1,
            ))
        except requests.ConnectionError as error:
            answers.append(error)

    before = our_routes(webui)
    upload(page)
    page.click("#cliext-mode label:has-text('best')")
    thread = threading.Thread(target=ask)
    thread.start()
    deadline = time.monotonic() + 60
    while not any(
        run["label"] == "Searching" for run in webui.get("/interrogator/status").json()["runs"]
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    page.click("#cliext-generate")  # which waits in line behind it
    page.wait_for_selector("#cliext-progress:has-text('Waiting')", timeout=60_000)
    reload(webui, page)
    require_one_tab_that_works(webui, page)
    thread.join(60)
    (answer,) = answers
    if not isinstance(answer, requests.ConnectionError):
        said = answer.json()
        assert said.get("prompt") if answer.status_code == 200 else set(said) == ERROR
    assert our_routes(webui) == before
    assert webui.get("/interrogator/status").json()["runs"] == []
    assert webui.get("/sdapi/v1/progress").json()["state"]["job"] == ""


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


@pytest.mark.parametrize("login", LOGINS)
def test_logins_close_all_routes_and_actions(webui_path, tmp_path, login):
    """What the WebUI's document lists and its page can do: by the real flags, to real requests."""
    flags = LOGINS[login]
    by_page = "--gradio-auth" in flags
    with started(webui_path, tmp_path / "data", *flags) as webui:
        wrong = [
            {}, {"auth": (API_USER[0], "x")}, {"auth": PAGE_USER},
            {"cookies": {"access-token": "x", "access-token-unsecure": "x"}},
        ]
        right = [{"auth": API_USER}] if "--api-auth" in flags else []
        known = requests.Session()
        if by_page:
            name, password = PAGE_USER
            said = known.post(
                f"{webui.address}/login", data={"username": name, "password": password}, timeout=60
            )
            assert said.status_code == 200
            right.append({"cookies": dict(known.cookies)})
        routes = [(path, one) for path, many in our_routes(webui).items() for one in many]
        assert len(routes) > 10
        for path, method in routes:
            address = webui.address + path.replace("{id}", "batch-1")

            def status(address: str = address, method: str = method, **who: Any) -> int:
                content = {"json": {}} if method == "post" else {}
                return requests.request(method, address, timeout=60, **content, **who).status_code

            for who in wrong:
                assert (status(**who) == 401) == (login != "open"), (path, method, who)
            for who in right:
                assert status(**who) not in (401, 403), (path, method, who)
        actions = our_actions(known.get(f"{webui.address}/config", timeout=60).json())
        assert len(actions) > 40
        for number, count in actions.items():
            if by_page:
                assert post_action(webui, number, count) == (401, 401)
        stop = {number: count for number, count in actions.items() if count == 0}
        number, count = min(stop.items())
        assert 401 not in post_action(webui, number, count, dict(known.cookies))


def our_actions(config: dict[str, Any]) -> dict[int, int]:
    """Return all actions of our tab that call a function: by number, and of how many boxes."""
    names = {one["id"]: str(one["props"].get("elem_id")) for one in config["components"]}
    return {
        event.get("id", number): len(event["inputs"])
        for number, event in enumerate(config["dependencies"])
        if event["backend_fn"] and any(
            names.get(one if isinstance(one, int) else one[0], "").startswith("cliext-")
            for one in event["targets"]
        )
    }


def post_action(
    webui: Webui, number: int, count: int, cookies: Mapping[str, str] | None = None
) -> tuple[int, int]:
    """Post an action past the queue and into it; return both statuses."""
    body = {"data": [None] * count, "fn_index": number, "session_hash": "strange"}
    known = requests.Session()
    known.cookies.update(cookies or {})
    past = known.post(f"{webui.address}/run/predict", json=body, timeout=60).status_code
    address = f"{webui.address}/queue/join"
    if webui.is_forge:
        return past, known.post(address, json=body, timeout=60).status_code
    # Gradio 3 takes a websocket, and refuses one before it has begun.
    into = known.get(address, timeout=60, stream=True, headers={
        "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(b"sixteen letters.").decode(),
    })
    into.close()
    return past, {403: 401}.get(into.status_code, into.status_code)


OLD = "open_clip_torch 2.0.0 is installed, and at least 2.20.0 is needed"
# Each lies in the data folder as an extension of its own, which the WebUI asks for its flags first.
HIDES = """
import sys

sys.modules["open_clip"] = None
"""
BREAKS = """
import sys


class Broken:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("transformers.models.blip."):
            raise AttributeError("np.x")


sys.meta_path.insert(0, Broken())
"""


@pytest.mark.parametrize("what", ["old", "missing", "broken"])
def test_packages_that_do_not_work_are_told(webui_path, browser, tmp_path, what):
    """The WebUI starts; the tab, its answers and those of the routes give the way out."""
    data, packages = tmp_path / "data", tmp_path / "packages"
    if what == "missing" and not (webui_path / "modules_forge").is_dir():
        pytest.skip("AUTOMATIC1111 itself does not start without open_clip")
    if what == "old":
        note = packages / "open_clip_torch-2.0.0.dist-info" / "METADATA"
        note.parent.mkdir(parents=True)
        note.write_text("Metadata-Version: 2.1\nName: open_clip_torch\nVersion: 2.0.0\n")
    else:
        other = data / "extensions" / "other"
        other.mkdir(parents=True)
        script = f"{HIDES if what == 'missing' else BREAKS}\n\ndef preload(parser):\n    pass\n"
        (other / "preload.py").write_text(textwrap.dedent(script))
    expected = {
        "old": OLD, "missing": "open_clip_torch is missing",
        "broken": "does not work here (AttributeError: np.x)",
    }[what]
    # AUTOMATIC1111 would mend the version itself.
    flags = [] if (webui_path / "modules_forge").is_dir() else ["--skip-install"]
    with started(
        webui_path, data, *flags, environment={"PYTHONPATH": str(packages)}
    ) as webui:
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(webui.address)
        open_tab(page, "Interrogator")
        if what != "broken":  # which is known only when it is used
            page.wait_for_selector("#cliext-notices .cliext-warning:has-text('-m pip install')")
        upload(page)
        page.click("#cliext-generate")
        page.wait_for_selector("#cliext-message:has-text('-m pip install')", timeout=60_000)
        assert expected in page.inner_text("#cliext-message")
        page.close()
        answer = webui.post(
            "/interrogator/prompt", image=as_base64(), clip_model_name="demo", captioner="demo"
        )
        assert (answer.status_code, answer.json()["error"]) == (500, "BrokenPackage")
        assert expected in answer.json()["detail"]
        assert "-m pip install" in answer.json()["detail"]
        assert webui.get("/interrogator/status").status_code == 200
        assert webui.get("/internal/ping").status_code == 200


# In a process of its own: the threads of the fifty would take turns with it otherwise.
PINGS = """
import sys, time, urllib.request

while True:
    asked = time.monotonic()
    with urllib.request.urlopen(sys.argv[1], timeout=60) as answer:
        answer.read()
    print(time.monotonic() - asked, flush=True)
    time.sleep(0.05)
"""


@contextmanager
def pinging(webui: Webui) -> Iterator[list[float]]:
    """Ask the WebUI for a sign of life again and again; in the end, give the seconds each took."""
    taken: list[float] = []
    process = subprocess.Popen(
        [sys.executable, "-c", PINGS, f"{webui.address}/internal/ping"],
        stdout=subprocess.PIPE, text=True,
    )
    try:
        yield taken
        assert process.poll() is None  # each was answered
    finally:
        process.terminate()
        lines = process.communicate()[0].splitlines(keepends=True)
        taken += [float(line) for line in lines if line.endswith("\n")]


def generate(webui: Webui, steps: int = 4, **more: Any) -> float:
    """Have the WebUI generate a small picture; return the seconds until it was there."""
    asked = time.monotonic()
    generated(webui, steps, **more)
    return time.monotonic() - asked


def generated(webui: Webui, steps: int = 4, **more: Any) -> dict[str, Any]:
    """Return the WebUI's answer with a small picture, which is the same each time."""
    answer = webui.post(
        "/sdapi/v1/txt2img", prompt="a castle", width=64, height=64, steps=steps,
        sampler_name="Euler", seed=1, **more,
    )
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["images"]) == 1
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.usefixtures("webui_path")  # both kinds of work are done in each
@pytest.mark.parametrize("work", ["upscaling", "generation"])
def test_fifty_requests_at_once_beside_a_batch_and_the_webuis_own_work(
    work, request, tmp_path, record_property
):
    """Each is answered rightly or told that the line is full; figures are printed."""
    webui = request.getfixturevalue("generating" if work == "generation" else "webui")
    do = generate if work == "generation" else postprocess
    folder = nested_folder(tmp_path / "photos", 60)
    asked = {"image": as_base64(), "clip_model_name": "demo", "captioner": "demo"}
    right = webui.post("/interrogator/prompt", **asked).json()["prompt"]
    statuses: Counter[int] = Counter()
    memory = [webui.memory]
    seconds: list[float] = []
    with pinging(webui) as alone:
        for _ in range(ROUNDS):
            do(webui)
    with pinging(webui) as pings, ThreadPoolExecutor(AT_ONCE + 1) as crowd:
        for _ in range(ROUNDS):
            job = webui.post(
                "/interrogator/batch", input=str(folder), recursive=True, mode="best",
                clip_model_name="demo", captioner="demo", existing="replace",
            )
            assert job.status_code == 202, job.text
            working = crowd.submit(do, webui)
            answers = list(crowd.map(
                lambda _: webui.post("/interrogator/prompt", **asked), range(AT_ONCE)
            ))
            seconds.append(working.result())
            statuses.update(answer.status_code for answer in answers)
            assert {one.json()["prompt"] for one in answers if one.status_code == 200} == {right}
            assert all(set(one.json()) == ERROR for one in answers if one.status_code != 200)
            batch = webui.get(f"/interrogator/batch/{job.json()['id']}").json()
            assert batch["state"] == "running", batch
            webui.post("/interrogator/interrupt")
            memory.append(webui.memory)
    assert set(statuses) <= {200, 503}
    assert statuses.total() == ROUNDS * AT_ONCE
    assert webui.post("/interrogator/prompt", **asked).json()["prompt"] == right
    # The first rounds fill what the allocator keeps; and it is not the same from one to the next.
    assert statistics.mean(memory[-5:]) - statistics.mean(memory[-10:-5]) < 80 * 2**20
    record_property("figures", (
        f"{webui.name}: {dict(statuses)}; {figures_of(pings)}, and beside {work} alone "
        f"{figures_of(alone)}; {work} {min(seconds):.1f} to {max(seconds):.1f} s; MiB in memory: "
        f"{', '.join(str(one // 2**20) for one in memory)}"
    ))


def figures_of(pings: list[float]) -> str:
    *_, last = statistics.quantiles(pings, n=100)
    return (
        f"ping {statistics.median(pings) * 1000:.1f} ms in the middle, {last * 1000:.0f} for 99 of "
        f"100, {max(pings) * 1000:.0f} at the longest of {len(pings)}"
    )


def test_a_generation_and_a_run_change_nothing_of_each_other(generating):
    """Each waits for the other, and both bring what they bring alone."""
    asked = {"image": as_base64(), "clip_model_name": "demo", "captioner": "demo", "mode": "best"}
    alone = webui_answers(generating, asked)
    beside: list[Any] = []
    thread = threading.Thread(target=lambda: beside.append(generated(generating, 16)))
    thread.start()
    deadline = time.monotonic() + 60
    while not is_sampling(generating):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    again = webui_answers(generating, asked)
    thread.join(200)
    assert again == alone
    assert beside[0]["images"] == generated(generating, 16)["images"]
    assert generating.get("/sdapi/v1/progress").json()["state"]["job"] == ""


def is_sampling(webui: Webui) -> bool:
    """Say whether a generation is amid its steps; those of the last one are still told of later."""
    state = webui.get("/sdapi/v1/progress").json()["state"]
    return bool(state["job"]) and 0 < state["sampling_step"] < 12


def webui_answers(webui: Webui, asked: dict[str, Any]) -> str:
    return str(webui.post("/interrogator/prompt", **asked).json()["prompt"])


def test_another_extension_has_a_prompt_in_the_midst_of_a_generation(generating):
    """It waits for nobody: its generation has the device."""
    answer = generated(generating)
    said = json.loads(answer["info"])["extra_generation_params"]["Interrogated"]
    shown = webui_answers(generating, {
        "image": answer["images"][0], "clip_model_name": "demo", "captioner": "demo",
        "mode": "fast",
    })
    assert said == shown


def test_the_checkpoint_chooses_the_generator_and_its_picture_comes_here(generating, browser):
    """The button under the gallery brings it, and tokens are counted as the checkpoint does."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.goto(generating.address)
    open_tab(page, "Interrogator")
    page.wait_for_function(
        "document.querySelector('#cliext-generator input').value == 'SD 1.x'", timeout=30_000
    )
    open_tab(page, "Txt2img" if generating.is_forge else "txt2img")
    page.fill("#txt2img_prompt textarea", "a castle")
    for name in ("width", "height"):
        page.fill(f"#txt2img_{name} input[type=number]", "64")
    page.fill("#txt2img_steps input[type=number]", "2")
    page.click("#txt2img_generate")
    page.wait_for_selector("#txt2img_gallery img", timeout=120_000)
    page.click("#txt2img_send_to_cliext")
    page.wait_for_selector("#cliext-image img", state="visible")
    assert chosen_tab(page) == "Interrogator"
    page.click("#cliext-generate")
    wait_for_text(page, "cliext-prompt")
    page.fill("#cliext-prompt textarea", "castle " * 80)
    page.wait_for_selector("#cliext-prompt-count:has-text('80/150 tokens')")
    page.close()


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
