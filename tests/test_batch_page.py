"""The tab Batch in headless Chromium, with the demo models."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from clip_interrogator_ext.batch.writers import WRITERS
from tests import browser
from tests.browser import (  # noqa: F401 - fixtures
    PICTURES,
    Driver,
    chromium_of_a_module,
    gate_of_a_module,
    gate_that_is_shut,
    page_without_failures,
)

pytestmark = [pytest.mark.hosts, browser.needs_chromium]

LISTS = {
    "artists": ["Ann Alpha"], "movements": ["cubism"], "sites": ["Somewhere"],
    "mediums": ["pixel art", "an oil painting", "a photo"],
    "flavors": ["at night", "in the snow", "on a sunny day"],
    "negative": ["watermark"],
}
SAMPLES = sorted(PICTURES.iterdir())


@pytest.fixture(scope="module")
def address(tmp_path_factory, gate) -> Iterator[str]:
    """The page's address, served with short word lists."""
    folder = tmp_path_factory.mktemp("page")
    lists = browser.write_lists(folder / "lists", LISTS)
    arguments = ["--mode", "fast", "--lists-dir", str(lists)]
    with browser.served(folder, arguments, gate=gate) as served:
        yield served


@pytest.fixture
def user(page, address) -> Driver:
    """A user at the tab Batch."""
    return at_batch(Driver(page), address)


@pytest.fixture
def photos(tmp_path) -> Path:
    """A folder of pictures that the demo models know, and one that is broken."""
    folder = tmp_path / "photos <b>"
    folder.mkdir()
    for number, sample in enumerate(SAMPLES[:3]):
        shutil.copy(sample, folder / f"{number}.jpg")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def at_batch(user: Driver, address: str) -> Driver:
    user.open(address)
    user.tab("Batch")
    expect(user.element("batch-start")).to_be_visible()
    return user


def start(user: Driver, folder: Path) -> None:
    user.write("batch-folder", str(folder))
    user.element("batch-start").click()


def start_six(user: Driver, folder: Path, shut: Path, through: int = 1) -> Path:
    """Start a batch of six pictures, of which as many are let through the gate."""
    folder.mkdir()
    for number in range(6):
        shutil.copy(SAMPLES[number % len(SAMPLES)], folder / f"{number}.jpg")
        with (folder / f"{number}.jpg").open("ab") as file:
            file.write(number.to_bytes(2, "big"))  # none is a copy of another
    for number in range(through):
        (shut / str(number)).touch()
    # In this mode there is a search.
    user.element("batch-mode", "label").filter(has_text="best").locator("input").check()
    start(user, folder)
    status_has(user, f"Prompts · {through} of 6")
    return folder


def status_has(user: Driver, words: str | re.Pattern[str]) -> None:
    expect(user.element("batch-status")).to_contain_text(words)


def test_a_folder_becomes_texts(user, photos):
    """Progress, then what became of it, why pictures failed, and where the prompts are."""
    start(user, photos)
    status_has(user, "3 of 4 done, 0 skipped, 1 failed.")
    status_has(user, f"The prompts are in {photos}.")
    expect(user.element("batch-status", ".cliext-failures")).to_contain_text("broken.png")
    expect(user.element("batch-stop")).to_be_disabled()
    expect(user.element("batch-downloads")).to_be_hidden()
    texts = {path.name: path.read_text(encoding="utf-8") for path in photos.glob("?.txt")}
    assert set(texts) == {"0.txt", "1.txt", "2.txt"}
    assert texts["1.txt"].startswith("a purple castle in the snow at night, ")


def test_words_and_form_are_respected(user, photos):
    """What is written into the folded boxes reaches the texts."""
    user.tab("Prompt")
    user.unfold_options()
    user.write("leave-out", "pixel art\nat night")
    user.tab("Batch")
    user.choose("batch-form", f"csv: {WRITERS['csv'].why}")
    user.element("batch-words").locator("button, .label-wrap").first.click()
    user.write("batch-trigger", "sks")
    user.write("batch-output", "~/not there/prompts.csv")
    start(user, photos)
    status_has(user, "3 of 4 done")
    place = user.element("batch-status").inner_text().split("The prompts are in ")[1]
    table = Path(place.splitlines()[0].removesuffix(".")).read_text(encoding="utf-8-sig")
    assert '"sks, a purple castle in the snow' in table
    assert "pixel art" not in table
    assert "at night," not in table.partition('"sks')[2]


@pytest.mark.parametrize(
    ("folder", "sentence"),
    [("nowhere", "There is no folder and no file"), (".", "There are no pictures in")],
)
def test_errors_are_sentences(user, tmp_path, folder, sentence):
    """Under the buttons; another start takes them away."""
    (tmp_path / "empty").mkdir()
    start(user, tmp_path / "empty" / folder)
    error = user.element("batch-message").locator("[role=alert]")
    expect(error).to_contain_text(sentence)
    expect(user.element("batch-start")).to_be_enabled()


def test_stop_and_start_again(user, tmp_path, shut):
    """Stop ends it within a picture; the next start goes on, and ends."""
    folder = start_six(user, tmp_path / "six", shut, through=2)
    status_has(user, re.compile(r"Prompts · 2 of 6 · .+ left"))
    expect(user.element("batch-status", ".cliext-last img")).to_be_visible()
    user.element("batch-stop").click()
    status_has(user, "goes on from here")
    expect(user.element("batch-stop")).to_be_disabled()
    assert len(list(folder.glob("*.txt"))) == 2
    browser.open_gate(shut)
    user.element("batch-start").click()
    status_has(user, "6 of 6 done (2 of them earlier)")
    assert len(list(folder.glob("*.txt"))) == 6


def test_a_page_loaded_anew_shows_the_batch_and_stops_it(user, address, tmp_path, shut):
    """Closing the page stops nothing; in another browser too it is seen."""
    start_six(user, tmp_path / "six", shut)
    at_batch(user, address)
    status_has(user, "Prompts · 1 of 6")
    expect(user.element("batch-stop")).to_be_enabled()
    user.element("batch-stop").click()
    status_has(user, "goes on from here")
    at_batch(user, address)
    status_has(user, "goes on from here")


def test_batches_wait_in_line(user, tmp_path, photos, shut):
    """The line is shown, and those that wait can be stopped by themselves."""
    start_six(user, tmp_path / "six", shut)
    expect(user.element("batch-stop")).to_be_enabled()
    start(user, photos)
    line = user.element("batch-line")
    expect(line.locator("tbody tr").nth(1)).to_contain_text("Waiting in line")
    expect(line).to_contain_text(str(photos))
    user.element("batch-empty").click()
    expect(line.locator("tbody tr").nth(1)).to_contain_text("Stopped")
    expect(user.element("batch-empty")).to_be_hidden()
    user.element("batch-stop").click()
    status_has(user, "goes on from here")
    expect(line.locator("tr")).to_have_count(0)
    assert list(photos.glob("?.txt")) == []


def test_uploads_are_fetched_as_a_zip(user, page, address, tmp_path):
    """Under their own names; the page that is loaded anew offers it too."""
    files = []
    for number, name in enumerate(("photo (1) ü.jpg", "b/photo (1) ü.jpg")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        files.append(shutil.copy(SAMPLES[number], path))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    user.element("batch-source", "label").filter(has_text="Uploaded").locator("input").check()
    expect(user.element("batch-folder")).to_be_hidden()
    expect(user.element("batch-output")).to_be_hidden()
    user.upload_files([*files, broken], "batch-files")
    user.element("batch-start").click()
    status_has(user, "2 of 3 done, 0 skipped, 1 failed.")
    status_has(user, '"broken.png" is no picture')

    def fetched(name: str) -> Path:
        links = user.element("batch-downloads").locator(f"a[download='{name}']")
        expect(links).to_be_visible()
        with page.expect_download() as download:
            links.click()
        target = tmp_path / "fetched" / name
        download.value.save_as(target)
        return target

    for _ in range(2):
        with zipfile.ZipFile(fetched("texts.zip")) as archive:
            texts = {name: archive.read(name).decode() for name in archive.namelist()}
        assert set(texts) == {"photo (1) ü.txt", "photo (1) ü (2).txt"}
        assert sorted(text.partition(",")[0] for text in texts.values()) == [
            "a blue house in a meadow on a sunny day", "a purple castle in the snow at night"
        ]
        assert fetched("failures.txt").read_text(encoding="utf-8").endswith("broken.png\n")
        at_batch(user, address)


def test_nothing_has_to_be_scrolled_sideways(user, photos):
    """Neither on a phone nor on wide screens, with long names in it."""
    long = photos.with_name("x" * 120)
    photos.rename(long)
    start(user, long)
    status_has(user, "3 of 4 done")
    user.element("batch-words").locator("button, .label-wrap").first.click()
    expect(user.element("batch-beside")).to_be_visible()
    for width in (1920, 1280, 390):
        user.page.set_viewport_size({"width": width, "height": 900})
        user.page.wait_for_function(
            "width => document.documentElement.scrollWidth <= width", arg=width
        )
        box = user.element("batch-start").bounding_box()
        assert box is not None
        assert 0 <= box["x"] <= box["x"] + box["width"] <= width
