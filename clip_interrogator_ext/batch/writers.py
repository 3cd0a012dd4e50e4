"""The forms that prompts are written in, one small class each, and the table WRITERS."""

from __future__ import annotations

import csv
import importlib
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from clip_interrogator_ext.errors import BadOption
from clip_interrogator_ext.files import shown

if TYPE_CHECKING:
    from clip_interrogator_ext.options import ModelOptions


@dataclass(frozen=True)
class Answer:
    """One prompt as it is to be written, who gave it, and all that they said (Prompt.as_dict)."""

    text: str
    negative: str | None
    models: ModelOptions
    said: dict[str, Any]

    @property
    def backbone(self) -> str:
        """The backbones' names, as the head of a column."""
        return " + ".join(self.models.backbones)


@dataclass(frozen=True)
class Row:
    """One picture with its prompts, one for each set of backbones; `name` is below the root."""

    path: Path
    name: str
    sha256: str
    answers: tuple[Answer, ...]


class Writer(ABC):
    """A form of output: one file for all pictures, made from their rows in natural order.

    `file_name` is the file's usual name, `several` whether prompts of several sets of backbones
    fit in, `weighs` whether it tells each phrase's score, `why` what it is for.
    """

    file_name: ClassVar[str]
    several: ClassVar[bool] = False
    weighs: ClassVar[bool] = False
    why: ClassVar[str]

    def check(self) -> None:  # noqa: B027 - most forms need nothing
        """Raise BadOption where something that this form needs is not installed."""

    @abstractmethod
    def write(self, rows: Iterable[Row], file: BinaryIO) -> None:
        """Write all rows."""


class TextEach(Writer):
    """One text file for each picture: the only form that writes none for all."""

    file_name = ""
    why = "a text file for each picture, as trainers of LoRAs read them"

    def write(self, rows: Iterable[Row], file: BinaryIO) -> None:
        """Write the prompt, and the negative prompt below it as the WebUI does."""
        for row in rows:
            file.write(text_of(row.answers[0]).encode("utf-8", "surrogateescape"))


class TextOne(Writer):
    """One line for each picture, as the WebUI's script "Prompts from file or textbox" reads."""

    file_name = "prompts.txt"
    why = 'one line a picture, for the WebUI\'s "Prompts from file or textbox"'

    def write(self, rows: Iterable[Row], file: BinaryIO) -> None:
        """Write the lines; with a negative prompt in the script's own syntax."""
        for row in rows:
            answer = row.answers[0]
            line = " ".join(answer.text.split())
            # A line with two hyphens anywhere is a command to the script.
            if answer.negative is not None or "--" in line:
                line = f"--prompt {_quoted(line)}"
            if answer.negative is not None:
                line += f" --negative_prompt {_quoted(' '.join(answer.negative.split()))}"
            file.write(line.encode("utf-8", "backslashreplace") + b"\n")


class Csv(Writer):
    """A table for spreadsheets, in UTF-8 with the mark that they know it by."""

    file_name = "prompts.csv"
    several = True
    why = "a table for a spreadsheet; several backbones stand side by side"

    def write(self, rows: Iterable[Row], file: BinaryIO) -> None:
        """Write a head, then a line for each picture."""
        text = io.TextIOWrapper(file, "utf-8-sig", "backslashreplace", newline="")
        table, first = csv.writer(text), True
        for row in rows:
            if first:
                table.writerow(["picture", "caption", *self._head(row)])
                first = False
            cells = [shown(row.name), row.answers[0].said["caption"]]
            for answer in row.answers:
                negative = [] if answer.negative is None else [answer.negative]
                said = answer.said
                cells += [answer.text, *negative, _number(said["similarity"]), said["tokens"]]
            table.writerow(cells)
        if first:
            table.writerow(["picture", "caption", "prompt", "similarity", "tokens"])
        text.detach()

    @staticmethod
    def _head(row: Row) -> list[str]:
        head = []
        for answer in row.answers:
            names = ["prompt", "similarity", "tokens"]
            if answer.negative is not None:
                names.insert(1, "negative")
            note = f" ({answer.backbone})" if len(row.answers) > 1 else ""
            head += [name + note for name in names]
        return head


class JsonLines(Writer):
    """One JSON object a line with all that is known."""

    file_name = "prompts.jsonl"
    several = True
    weighs = True
    why = "one JSON object a picture, with scores, phrases, caption, models and seconds"

    def write(self, rows: Iterable[Row], file: BinaryIO) -> None:
        """Write the objects."""
        for row in rows:
            file.write(_json(record_of(row)) + b"\n")


class Parquet(Writer):
    """A table for programs: one line for each picture and set of backbones."""

    file_name = "prompts.parquet"
    several = True
    weighs = True
    why = "a table for programs (needs pyarrow); one line for each picture and set of backbones"

    _AT_ONCE = 1000

    def check(self) -> None:
        """Ask for pyarrow."""
        try:
            importlib.import_module("pyarrow.parquet")
        except ImportError as error:
            raise BadOption(
                "form",
                "The form parquet needs pyarrow: install it with `pip install pyarrow`, or choose "
                "jsonl.",
            ) from error

    def write(self, rows: Iterable[Row], file: BinaryIO) -> None:
        """Write the table, some lines at a time."""
        arrow = importlib.import_module("pyarrow")
        parquet = importlib.import_module("pyarrow.parquet")
        text, number = arrow.string(), arrow.float64()
        phrase = arrow.struct([
            ("phrase", text), ("category", text), ("similarity", number), ("gain", number)
        ])
        schema = arrow.schema([
            ("picture", text), ("sha256", text), ("caption", text), ("text", text),
            ("negative", text), ("prompt", text), ("mode", text), ("similarity", number),
            ("tokens", arrow.int64()), ("seconds", number), ("backbones", arrow.list_(text)),
            ("captioner", text), ("demo", arrow.bool_()), ("phrases", arrow.list_(phrase)),
        ])
        with parquet.ParquetWriter(file, schema) as table:
            for part in _parts(self._lines(rows), self._AT_ONCE):
                table.write_table(arrow.Table.from_pylist(part, schema=schema))

    @staticmethod
    def _lines(rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
        for row in rows:
            record = record_of(row)
            common = {name: record[name] for name in ("picture", "sha256", "caption")}
            for answer in record.get("answers", [record]):
                yield {"negative": None, **common, **answer}


class Kohya(Writer):
    """metadata.json as the finetuning scripts of kohya's sd-scripts read it."""

    file_name = "metadata.json"
    why = "metadata.json for kohya's sd-scripts, by the pictures' full paths"

    def write(self, rows: Iterable[Row], file: BinaryIO) -> None:
        """Write one object; the trainer reads it whole as well."""
        captions = {shown(row.path): {"caption": row.answers[0].text} for row in rows}
        file.write(_json(captions, indent=2))


WRITERS: dict[str, Writer] = {
    "txt": TextEach(),
    "txt-one": TextOne(),
    "csv": Csv(),
    "jsonl": JsonLines(),
    "parquet": Parquet(),
    "kohya": Kohya(),
}


def text_of(answer: Answer) -> str:
    """Return the text for a picture's own file."""
    if answer.negative is None:
        return answer.text
    return f"{answer.text}\nNegative prompt: {answer.negative}"


def record_of(row: Row) -> dict[str, Any]:
    """Return all that is known of a picture; several sets of backbones stand in "answers"."""
    answers = [_record_of_answer(answer) for answer in row.answers]
    common = {
        "picture": shown(row.name),
        "sha256": row.sha256,
        "caption": row.answers[0].said["caption"],
    }
    return {**common, **answers[0]} if len(answers) == 1 else {**common, "answers": answers}


def _record_of_answer(answer: Answer) -> dict[str, Any]:
    said = answer.said
    return {
        "text": answer.text,
        **({} if answer.negative is None else {"negative": answer.negative}),
        "prompt": said["text"],
        "mode": said["mode"],
        "similarity": said["similarity"],
        "tokens": said["tokens"],
        "seconds": said["seconds"],
        "backbones": list(answer.models.backbones),
        "captioner": answer.models.captioner,
        "demo": said["demo"],
        "phrases": said["parts"],
    }


def _quoted(text: str) -> str:
    """Quote as shlex reads it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _json(value: dict[str, Any], indent: int | None = None) -> bytes:
    # What is no text (a name that is not UTF-8) becomes an escape, which JSON has too.
    return json.dumps(value, ensure_ascii=False, indent=indent).encode("utf-8", "backslashreplace")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _parts(lines: Iterator[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    part: list[dict[str, Any]] = []
    for line in lines:
        part.append(line)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part
