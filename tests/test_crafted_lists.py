"""Word lists made to hurt whoever reads them: read as far as may be, or one sentence says why not.

Whichever it is takes little memory and time, and what the other lists hold is read all the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no limits on a process's memory there")

MEMORY_BYTES = 1536 * 2**20
CPU_SECONDS = 20  # for reading it three times
# Reads each file in a process of its own, with limits: as a list, as sets, and to take it over.
READER = f"""
import json, os, resource, shutil, sys, tempfile
from pathlib import Path
from clip_interrogator_ext.errors import BadWordList
from clip_interrogator_ext.vocabulary import lists, own, sets

def outcome(work):
    try:
        return work()
    except BadWordList as refusal:
        return "refused: " + str(refusal)[:500]
    except BaseException as error:
        return "raised " + repr(error)[:300]

def as_list(folder, path):
    found = lists.load_categories(folder)
    assert found["fine"].phrases == ("a fine phrase",)
    if path.stem not in found:
        return "refused: left out"
    list = found[path.stem]
    text = " ".join(list.phrases) + " ".join(list.parts)
    text.encode()
    assert "\\0" not in text, "a sign that is no text"
    return f"read: {{len(list.phrases)}} and {{len(list.problems)}} problems"

def as_sets(folder, path):
    shutil.copyfile(path, folder / "sets.yaml")
    return f"read: {{len(sets.read_sets(folder / 'sets.yaml', own=True))}} sets"

def taken_over(folder, path):
    return "read: " + own.OwnLists(folder / "others").take_over(path, "mine" + path.suffix)

for path in sorted(Path(sys.argv[1]).iterdir()):
    (reading, writing), folder = os.pipe(), Path(tempfile.mkdtemp(dir=sys.argv[2]))
    (folder / "fine.txt").write_text("a fine phrase")
    own_path = Path(shutil.copy(path, folder))
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_AS, ({MEMORY_BYTES}, {MEMORY_BYTES}))
        resource.setrlimit(resource.RLIMIT_CPU, ({CPU_SECONDS}, {CPU_SECONDS}))
        answers = [outcome(lambda: work(folder, own_path)) for work in (as_list, taken_over)]
        if path.suffix == ".yaml":
            answers.append(outcome(lambda: as_sets(folder, own_path)))
        os.write(writing, json.dumps(answers).encode())
        os._exit(0)
    os.close(writing)
    told = os.fdopen(reading, "rb").read()
    _, status, used = os.wait4(child, 0)
    shutil.rmtree(folder)
    print(json.dumps([path.name, status, json.loads(told or "[]"), used.ru_maxrss]), flush=True)
"""


def bomb(depth: int, width: int) -> str:
    """Return a few lines that stand for width to the power of depth phrases."""
    lines = ["a0: &a0 [lol, lol]"]
    for level in range(1, depth):
        names = ", ".join([f"*a{level - 1}"] * width)
        lines.append(f"a{level}: &a{level} [{names}]")
    return "\n".join(lines)


def tree(depth: int) -> str:
    return "\n".join("  " * level + f"k{level}:" for level in range(depth)) + " leaf"


FILES: dict[str, bytes] = {
    name: content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    for name, content in {
        # Trees
        "aliases in aliases.yaml": bomb(9, 9),
        "aliases by the million.yaml": "a: &a [x]\nb: [" + ", ".join(["*a"] * 300_000) + "]",
        "an alias of itself.yaml": "a: &a\n  - *a\n",
        "merged keys.yaml": "a: &a {x: [y]}\nb:\n  <<: *a\n",
        "anchors.yaml": "\n".join(f"- &a{number} x" for number in range(100_000)),
        "brackets.yaml": "[" * 900_000,
        "brackets on lines.yaml": "\n".join(["[" * 900] * 1000),
        "braces.yaml": "\n".join(["{a: " * 200] * 1000),
        "names in names.yaml": tree(400),
        "dashes.yaml": "- " * 400 + "x",
        "dashes on lines.yaml": "\n".join(" " * level + "-" for level in range(900)),
        "questions.yaml": "? " * 400,
        "many names.yaml": "\n".join(f"k{number}: [p{number}]" for number in range(40_000)),
        "many names on a line.yaml": "{" + ", ".join(f"k{n}: v" for n in range(200_000)) + "}",
        "many leaves.yaml": "a:\n" + "  - phrase\n" * 200_000,
        "deep and wide.yaml": "".join(
            "  " * level + f"k{level}:\n" for level in range(18)
        ) + ("  " * 18 + "- leaf of many\n") * 60_000,
        "long keys.yaml": f"{'k' * 900_000}: [x]",
        "long leaves.yaml": f"- {'x' * 900_000}\n- fine",
        "a text in many lines.yaml": "a: |\n" + "  line\n" * 100_000,
        "a folded text.yaml": "a: >\n" + "  word\n" * 100_000,
        "a quoted text.yaml": 'a: "' + "\\x41" * 200 + '"\n' + 'b: "' + "\\\n  " * 100_000 + '"',
        "surrogates.yaml": '- "\\ud800"\n- "\\udfff x"\n- fine\n',
        "escaped nothing.yaml": '- "\\0 x"\n- "\\x00"\n- "\\u0000 y"\n- fine\n',
        "tags.yaml": "- !!python/object/apply:os.system [touch hurt]\n- !<x> y\n- !!binary aGk=\n",
        "documents.yaml": "--- x\n" * 50_000,
        "directives.yaml": "%YAML 9.9\n%TAG ! x\n" * 5_000 + "--- x",
        "comments.yaml": "# x\n" * 200_000,
        "tabs.yaml": "\ta:\n\t- x\n",
        "no end.yaml": 'a: "x\n' * 100_000,
        "numbers.yaml": "- " + "9" * 900 + "\n- 1e999\n- 0x" + "f" * 900 + "\n- 1:60:60\n- .nan\n",
        "nothing.yaml": b"",
        "zeros.yaml": bytes(2_000_000),
        "noise.yaml": bytes(range(256)) * 3_000,
        "wide.yaml": "- wide \u20ac\n".encode("utf-16"),
        "wide and broken.yaml": b"\xff\xfe" + b"\x00\xd8- \x00x\x00\n\x00" * 1000 + b"\x00",
        "marks.yaml": b"\xef\xbb\xbf" * 100_000 + b"- x",
        "surrogates as they are.yaml": "- \ud800\n- fine\n",
        # Tables
        "many columns.csv": "name" + ",x" * 450 + "\n" + ("a" + ",y" * 450 + "\n") * 2_000,
        "many columns on a line.csv": "name" + ",x" * 500_000 + "\na,b\n",
        "many parts.csv": "name,of\n" + "".join(
            f"p{number},{';'.join(f'c{number}x{part}' for part in range(90))}\n"
            for number in range(4_000)
        ),
        "quotes.csv": '"' * 2_000_000,
        "quotes on lines.csv": ('"' * 900 + "\n") * 2_000,
        "a quote over all lines.csv": 'name\n"' + "x\n" * 100_000,
        "rows.csv": "name\n" + "x,\n" * 100_000,
        "a long cell.csv": "name,of\n" + "x" * 2_000_000 + ",y\n",
        "returns.csv": "\r" * 500_000,
        "wide.csv": "name,of\nhydra \u20ac,sea\n".encode("utf-16"),
        "zeros.csv": "name,of\nhy\0dra,sea\nkelpie,se\0a\nfine,sea\n",
        "surrogates.csv": "name,of\n\ud800,sea\nfine,\udfff\n",
        # Texts
        "a long line.txt": "x" * 10_000_000,
        "long lines.txt": ("x" * 1_500 + "\n") * 20_000,
        "lines.txt": "x\n" * 300_000,
        "empty lines.txt": "\n" * 1_000_000,
        "choices.txt": "{a|b}" * 150 + "\n" + "{" + "|" * 900 + "}\n" + "{a|b|c|d} " * 8 + "\nfine",
        "many choices.txt": ("{a|b|c|d}{a|b|c|d}{a|b|c|d}{a|b|c|d} x\n") * 8_000,
        "braces.txt": ("{" * 900 + "\n") * 2_000,
        "braces that close.txt": ("{" * 450 + "}" * 450 + "\n") * 2_000,
        "zeros.txt": bytes(5_000_000),
        "zeros in words.txt": "hy\0dra\nfine\n",
        "noise.txt": bytes(range(256)) * 4_000,
        "wide.txt": "hydra \u20ac\n".encode("utf-16"),
        "wide the other way.txt": b"\xfe\xff" + "hydra \u20ac\n".encode("utf-16-be"),
        "wide without a mark.txt": "hydra\n".encode("utf-16-le"),
        "wide halves.txt": b"\xff\xfe" + b"\x00\xd8\n\x00x\x00\n\x00" * 50_000,
        "wide and cut.txt": b"\xff\xfex\x00\n",
        "very wide.txt": "hydra\n".encode("utf-32"),
        "marks.txt": b"\xef\xbb\xbfhydra\n\xef\xbb\xbfkelpie\n",
        "surrogates.txt": "\ud800\nfine\n",
        "signs that turn.txt": "a \u202egnp.exe\u2066 x\nfine\n",
        "signs upon signs.txt": "a" + "\u0301" * 900 + "\nfine\n",
        "separators.txt": "a\u2028b\u2029c\x85d\x0be\x0cf\n",
    }.items()
}
# What is there to be read in spite of all, and what is refused.
READ = {
    "surrogates.txt", "wide.txt", "wide the other way.txt", "wide.csv", "wide.yaml", "marks.txt",
    "zeros in words.txt", "zeros.csv", "choices.txt",
    "lines.txt", "many choices.txt", "many columns.csv", "many parts.csv", "many leaves.yaml",
    "rows.csv", "signs upon signs.txt", "escaped nothing.yaml",
}
REFUSED = {
    "aliases in aliases.yaml", "aliases by the million.yaml", "an alias of itself.yaml",
    "merged keys.yaml", "brackets.yaml", "brackets on lines.yaml", "names in names.yaml",
    "dashes.yaml", "zeros.yaml", "noise.yaml", "nothing.yaml", "zeros.txt", "a long line.txt",
    "empty lines.txt", "braces.txt", "very wide.txt",
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, Any]:
    """What came of each file: status, answers, memory."""
    crafted, scratch = tmp_path_factory.mktemp("crafted"), tmp_path_factory.mktemp("scratch")
    for name, content in FILES.items():
        (crafted / name).write_bytes(content)
    ended = subprocess.run(
        [sys.executable, "-c", READER, str(crafted), str(scratch)], capture_output=True, text=True,
        check=False, cwd=Path(__file__).parents[1],
    )
    assert ended.returncode == 0, ended.stderr
    lines = map(json.loads, ended.stdout.splitlines())
    return {name: rest for name, *rest in lines}


@pytest.mark.parametrize("name", FILES)
def test_a_crafted_list_is_read_or_refused(outcomes, name):
    """Within the limits that its process has; others are read beside it."""
    status, answers, kilobytes = outcomes[name]
    assert status == 0, "it was killed: too slow, or a crash"
    assert kilobytes * 1024 < MEMORY_BYTES
    for answer in answers:
        assert answer.startswith(("read: ", "refused: ")), answer
    if name in READ:
        assert answers[0].startswith("read: ")
        assert not answers[0].startswith("read: 0 ")
        assert answers[1] == "read: mine"
    if name in REFUSED:
        assert answers[0].startswith(("refused: ", "read: 0 "))
        assert answers[1].startswith("refused: ")
        assert answers[1].rstrip().endswith(".")


def test_no_two_of_them_are_the_same():
    """And those that are expected to be one or the other are there."""
    assert len(set(FILES.values())) >= len(FILES) - 4  # zeros and marks are the same in any kind
    assert {*READ, *REFUSED} <= {*FILES}
