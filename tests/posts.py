"""What the page's script posts to Gradio, and what anybody may post in its place."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
import uuid
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio

from clip_interrogator_ext.faces.tab.uploaded import Posted

if TYPE_CHECKING:
    from PIL import Image

GRADIO = int(gradio.__version__.partition(".")[0])
PREFIX = "/gradio_api" if GRADIO > 4 else ""


def data_url(data: bytes) -> str:
    """Return a file as Gradio 3 posts pictures."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def posted(picture: Image.Image) -> Posted:
    """Return a picture as it comes out of its box."""
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return Posted(data_url(buffer.getvalue()))


def file_data(place: object, own_name: str, **more: Any) -> dict[str, Any]:
    """Return what is posted for a file that lies at a place of the server's."""
    if GRADIO == 3:
        return {"name": str(place), "orig_name": own_name, "data": "", "is_file": True, **more}
    meta = {"_type": "gradio.FileData"}
    return {"path": str(place), "orig_name": own_name, "meta": meta, **more}


class Poster:
    """Somebody who posts to the page's events whatever they like."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._config = self._json("/config")
        self._boxes = {one["id"]: one["props"] for one in self._config["components"]}

    def upload(self, name: str, data: bytes) -> str:
        """Upload a file as the page does; return where it lies."""
        border = uuid.uuid4().hex
        head = f'Content-Disposition: form-data; name="files"; filename="{name}"'
        body = f"--{border}\r\n{head}\r\n\r\n".encode() + data + f"\r\n--{border}--\r\n".encode()
        kind = f"multipart/form-data; boundary={border}"
        return str(self._json(f"{PREFIX}/upload", body, kind)[0])

    def image(self, data: bytes, name: str = "cat.png") -> Any:
        """Return what the page posts for a picture that was put into a box."""
        return data_url(data) if GRADIO == 3 else file_data(self.upload(name, data), name)

    def use(self, name: str, trigger: str, **given: Any) -> tuple[bool, Any]:
        """Do what the page does when a component is used, with some boxes' values given."""
        return self.post(*self.event(name, trigger, **given))

    def event(self, name: str, trigger: str, **given: Any) -> tuple[int, list[Any]]:
        """Return the number of what happens when a component is used, and its boxes' values."""
        (own,) = (key for key, one in self._boxes.items() if one.get("elem_id") == f"cliext-{name}")
        number, event = next(
            (number, event) for number, event in enumerate(self._config["dependencies"])
            if [own, trigger] in _targets(event) and event.get("backend_fn")
        )
        boxes = [self._boxes[one] for one in event["inputs"]]
        names = [str(box.get("elem_id")).removeprefix("cliext-").replace("-", "_") for box in boxes]
        values = [given.get(name, box.get("value")) for name, box in zip(names, boxes, strict=True)]
        return event.get("id", number), values

    def post(self, number: int, values: list[Any]) -> tuple[bool, Any]:
        """Post to an event; say whether it went well, and return its last answer."""
        session = uuid.uuid4().hex
        asked = {"data": values, "fn_index": number, "session_hash": session}
        if GRADIO == 3:
            answer: Any = {"is_generating": True}
            while answer.get("is_generating"):
                last, answer = answer, self._json("/run/predict", asked)
            # A generator's end brings no values of its own.
            ended = answer.get("data") and all(one is None for one in answer["data"])
            answer = last if ended and "data" in last else answer
            return "error" not in answer, answer.get("data", answer)
        self._json(f"{PREFIX}/queue/join", asked)
        with self._ask(f"{PREFIX}/queue/data?session_hash={session}") as lines:
            for line in lines:
                told = json.loads(line[5:]) if line.startswith(b"data:") else {"msg": ""}
                if told["msg"] == "process_completed":
                    return told["success"], told["output"].get("data") or told["output"]
        raise AssertionError("Gradio has ended without an answer.")

    def _json(self, path: str, body: Any = None, kind: str = "application/json") -> Any:
        with self._ask(path, body, kind) as answer:
            return json.loads(answer.read())

    def _ask(self, path: str, body: Any = None, kind: str = "application/json") -> Any:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 - our own server
            self._address + path, data, {"Content-Type": kind}
        )
        try:
            return urllib.request.urlopen(request, timeout=300)  # noqa: S310
        except urllib.error.HTTPError as error:
            return error


def _targets(event: dict[str, Any]) -> list[list[Any]]:
    """Return component and trigger of whatever starts an event; Gradio 3 tells the latter once."""
    return [
        [one, event.get("trigger")] if isinstance(one, int) else list(one)
        for one in event["targets"]
    ]


def is_in(place: str, folder: Path) -> bool:
    """Say whether a place lies in a folder."""
    return Path(place).resolve().is_relative_to(folder.resolve())
