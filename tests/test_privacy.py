"""Nothing leaves the machine: each address that a process asks for is noted, its log is read."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("gradio")

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "clip_interrogator_ext" / "models" / "demo" / "pictures"
WATCHED = """
import sys

asked = []

def note(event, arguments):
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        if isinstance(address, tuple):
            asked.append(str(address[0]))
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        asked.append(str(arguments[0]))

sys.addaudithook(note)
"""
END = """
elsewhere = sorted({one for one in asked if one not in ("127.0.0.1", "localhost", "::1", "None")})
print("ASKED", elsewhere)
"""
LIBRARY = """
from clip_interrogator_ext import InterrogateOptions, ModelOptions, Service
service = Service()
models = ModelOptions(("demo",), "demo")
prompt = service.interrogate(sys.argv[1], InterrogateOptions(mode="fast", negative=True), models)
assert prompt.text and prompt.negative.text
assert service.analyze(sys.argv[1], models).categories
"""
COMMANDS = """
from clip_interrogator_ext.faces.cli import main
photo, folder = sys.argv[1:]
for words in (
    ["prompt", "--demo", "--mode", "caption", photo],
    ["similarity", "--demo", photo, "a cat"],
    ["models"], ["models", "--all"], ["lists"],
    ["batch", "--demo", "--mode", "caption", "--output", folder, photo],
):
    assert main(words) == 0, words
"""
PAGE = """
import json, logging, threading, time, urllib.error, urllib.request
logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)
from clip_interrogator_ext.faces.cli import main
port, bodies = sys.argv[1], json.loads(sys.stdin.read())
threading.Thread(
    target=main, args=(["page", "--demo", "--port", port],), daemon=True
).start()
address = f"http://127.0.0.1:{port}"

def ask(path, body=None):
    request = urllib.request.Request(address + path, body and json.dumps(body).encode(), {
        "Content-Type": "application/json", "Authorization": "Basic c29tZW9uZTpodW5kcmVkMTIz",
    })
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code

for _ in range(1500):
    try:
        ask("/interrogator/captioners")
        break
    except OSError:
        time.sleep(0.2)
assert ask("/") == 200
for path, body, status in bodies:
    assert ask(path, body) == status, (path, status)
"""


def watched(program: str, *arguments: str, given: str = "", folder: Path) -> str:
    """Run a program that notes every address, and return all that it says."""
    environment = {
        name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"
    }
    done = subprocess.run(
        [sys.executable, "-c", WATCHED + program + END, *arguments], cwd=ROOT, input=given,
        text=True, timeout=1200, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**environment, "HOME": str(folder), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def photo() -> Path:
    return sorted(PICTURES.iterdir())[0]


@pytest.fixture
def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_the_watch_sees_whoever_asks(tmp_path):
    """A download that was asked for is seen, by the name of its place."""
    said = watched(
        "import urllib.request\n"
        "try: urllib.request.urlopen('http://elsewhere.invalid/x', timeout=5)\n"
        "except OSError: pass\n", folder=tmp_path,
    )
    assert "ASKED ['elsewhere.invalid']" in said


def test_the_library_asks_nobody(photo, tmp_path):
    """Captions, prompts and analyses are made here."""
    assert "ASKED []" in watched(LIBRARY, str(photo), folder=tmp_path)


def test_the_commands_ask_nobody(photo, tmp_path):
    """Those that list models and word lists neither."""
    assert "ASKED []" in watched(COMMANDS, str(photo), str(tmp_path / "out"), folder=tmp_path)


def test_the_page_asks_nobody_and_its_log_keeps_secrets(photo, tmp_path, free_port):
    """At the most talkative level too: no picture, no password and no body of a request."""
    image = base64.b64encode(photo.read_bytes()).decode()
    asked = {"image": image, "clip_model_name": "demo", "captioner": "demo", "mode": "caption"}
    bodies = [
        ("/interrogator/prompt", asked, 200),
        ("/interrogator/prompt", {**asked, "image": image[:3000]}, 422),
        ("/interrogator/prompt", {**asked, "image": 5, "captioner": image[:900]}, 422),
        ("/interrogator/prompt", {**asked, "captioner": image[:900]}, 404),
        ("/interrogator/analyze", {**asked, "top": image[:900]}, 422),
        ("/interrogator/status", None, 200),
    ]
    said = watched(PAGE, str(free_port), given=json.dumps(bodies), folder=tmp_path)
    assert "ASKED []" in said
    assert image[1000:1040] not in said
    assert image[100:140] not in said
    for secret in ("hundred123", "c29tZW9uZTpodW5kcmVkMTIz"):
        assert secret not in said
