"""The tab Word lists in headless Chromium, with the demo models."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from tests import browser
from tests.browser import CASTLE, Driver, chromium_of_a_module, page_without_failures  # noqa: F401 - fixtures

pytestmark = [pytest.mark.hosts, browser.needs_chromium]

LISTS = {
    "artists": ["Ann Alpha"], "movements": ["cubism"], "sites": ["Somewhere"],
    "mediums": ["pixel art", "an oil painting", "a photo", "a watercolor painting"],
    "flavors": ["at night", "in the snow", "on a sunny day", "<b>fog</b>"],
    "negative": ["watermark"],
}
SLOW = 200_000  # phrases: encoding them takes minutes


@pytest.fixture(scope="module")
def lists(tmp_path_factory) -> Path:
    """The folder of the user's own lists."""
    return tmp_path_factory.mktemp("lists")


@pytest.fixture(scope="module")
def address(tmp_path_factory, lists) -> Iterator[str]:
    """The page's address, served with short word lists and a folder of wildcards."""
    folder = tmp_path_factory.mktemp("page")
    browser.write_lists(lists, LISTS)
    wildcards = folder / "wildcards"
    wildcards.mkdir()
    for number in range(300):
        (wildcards / f"wild{number}.txt").write_text(f"beast {number}", encoding="utf-8")
    (wildcards / "slow.txt").write_text(
        "\n".join(f"thing number {number}" for number in range(SLOW)), encoding="utf-8"
    )
    arguments = ["--lists-dir", str(lists), "--wildcards-dir", str(wildcards)]
    with browser.served(folder, ["--mode", "fast", *arguments]) as served:
        yield served


@pytest.fixture
def user(page, address, lists) -> Iterator[Driver]:
    """A user at the tab Word lists; what was made there is gone afterwards."""
    before = {path: path.read_bytes() for path in lists.iterdir()}
    yield at_lists(Driver(page), address)
    for path in set(lists.iterdir()) - set(before):
        path.unlink()
    for path, content in before.items():
        path.write_bytes(content)


def at_lists(user: Driver, address: str) -> Driver:
    user.open(address)
    user.tab("Word lists")
    expect(user.element("lists-table", "table").first).to_be_visible()
    return user


def choose(user: Driver, name: str, phrase: str) -> None:
    """Choose a list by typing its name; wait for one of its phrases."""
    user.name("lists-chosen", name)
    expect(user.box("lists-phrases")).to_have_value(re.compile(re.escape(phrase)))


def says(user: Driver, words: str | re.Pattern[str]) -> None:
    expect(user.element("lists-message")).to_contain_text(words)


def new_list(user: Driver, name: str, text: str) -> None:
    user.write("lists-name", name)
    user.write("lists-text", text)
    user.element("lists-save").click()
    says(user, f"{name} saved.")


def row(user: Driver, name: str) -> Locator:
    """Return a list's row in the table."""
    names = user.page.get_by_role("cell", name=name, exact=True)
    return user.element("lists-table", "tr").filter(has=names)


# What is seen


def test_all_lists_are_in_the_table_those_of_others_folded(user):
    """With whence they come and how long they are."""
    mediums = row(user, "mediums")
    expect(mediums).to_contain_text("yours")
    expect(mediums.locator("td").nth(2)).to_have_text("4")
    fold = user.element("lists-table", "details").filter(has_text="wildcards: 301 lists")
    expect(fold.locator("table")).to_be_hidden()
    fold.locator("summary").click()
    expect(fold.locator("table")).to_be_visible()
    expect(fold).to_contain_text("wildcards:wild299")
    expect(user.element("lists-sets")).to_contain_text("no living artists")


def test_a_list_is_looked_through(user):
    """Its phrases as texts, fewer with each word that is typed."""
    choose(user, "flavors", "<b>fog</b>")
    expect(user.element("lists-phrases")).to_contain_text("4 phrases")
    user.box("lists-search").press_sequentially("SNOW")
    expect(user.box("lists-phrases")).to_have_value("in the snow")
    expect(user.element("lists-phrases")).to_contain_text("1 of 4 phrases match")
    user.write("lists-search", "")
    expect(user.box("lists-phrases")).to_have_value(re.compile("fog"))
    choose(user, "wildcards:wild7", "beast 7")
    expect(user.element("lists-copy")).to_be_visible()
    expect(user.element("lists-delete")).to_be_hidden()


def test_a_list_can_be_picked_from_all(user):
    """Hundreds of them; the first is as near as the last."""
    user.choose("lists-chosen", "mediums")
    expect(user.box("lists-phrases")).to_have_value(re.compile("pixel art"))
    expect(user.box("lists-text")).to_have_value(re.compile("pixel art"))


def test_a_long_list_is_shown_in_part(user):
    """The label says how many there are."""
    choose(user, "wildcards:slow", "thing number 499")
    said = f"{SLOW:,} phrases; the first 500 are shown"
    expect(user.element("lists-phrases")).to_contain_text(said)
    assert len(user.value("lists-phrases").splitlines()) == 500


# Lists of one's own


def test_a_list_of_ones_own_from_its_first_phrase_to_its_end(user, lists):
    """Saved, added to, changed, exported, and deleted after a question."""
    new_list(user, "dragons", "a red dragon\n# a comment")
    file = lists / "dragons.txt"
    assert "# a comment" in file.read_text(encoding="utf-8")
    expect(user.box("lists-chosen")).to_have_value("dragons")
    expect(user.box("lists-phrases")).to_have_value("a red dragon")
    expect(row(user, "dragons")).to_contain_text("no")
    user.write("lists-more", "a wyvern\n\na red dragon")
    user.element("lists-add").click()
    says(user, "1 phrase added to dragons.")
    expect(user.box("lists-more")).to_have_value("")
    expect(user.box("lists-text")).to_have_value(re.compile("a wyvern"))
    user.write("lists-text", user.value("lists-text") + "\na {green|blue} dragon\n")
    user.element("lists-save").click()
    expect(user.box("lists-phrases")).to_have_value(re.compile("a green dragon\na blue dragon"))
    expect(row(user, "dragons").locator("td").nth(2)).to_have_text("4")

    user.element("lists-export").click()
    link = user.element("lists-downloads").locator("a[download='dragons.txt']")
    expect(link).to_be_visible()
    with user.page.expect_download() as download:
        link.click()
    exported = Path(download.value.path()).read_text(encoding="utf-8")
    assert exported == file.read_text(encoding="utf-8")

    user.page.once("dialog", lambda dialog: dialog.dismiss())
    user.element("lists-delete").click()
    says(user, "Nothing was deleted.")
    assert file.exists()
    user.page.once("dialog", lambda dialog: dialog.accept())
    user.element("lists-delete").click()
    says(user, "dragons deleted.")
    assert not file.exists()
    expect(user.box("lists-chosen")).to_have_value("")
    expect(user.box("lists-text")).to_have_value("")
    expect(row(user, "dragons")).to_have_count(0)
    says(user, "dragons deleted.")


def test_the_message_of_a_save_stays(user):
    """The new list becomes the chosen one, which opens no other and asks nothing."""
    choose(user, "mediums", "pixel art")
    user.write("lists-name", "cats")
    user.write("lists-text", "tabby")
    user.element("lists-save").click()
    says(user, "cats saved.")
    expect(user.box("lists-chosen")).to_have_value("cats")
    expect(user.box("lists-phrases")).to_have_value("tabby")
    user.ended()
    says(user, "cats saved.")
    expect(user.box("lists-phrases")).to_have_value("tabby")
    expect(user.box("lists-text")).to_have_value("tabby")


def test_nothing_typed_is_lost(user):
    """Neither when saving fails, nor when another list is looked at."""
    user.write("lists-text", "my own words")
    user.element("lists-save").click()
    error = user.element("lists-message").locator("[role=alert]")
    expect(error).to_contain_text("Give the list a name first.")
    assert user.value("lists-text") == "my own words"
    choose(user, "mediums", "pixel art")
    says(user, "The text of your new list is not saved")
    assert user.value("lists-text") == "my own words"
    user.write("lists-name", "mediums")
    user.element("lists-save").click()
    expect(error).to_contain_text("You have a list mediums already.")
    assert user.value("lists-text") == "my own words"
    user.write("lists-text", "")
    choose(user, "flavors", "at night")
    expect(user.box("lists-text")).to_have_value(re.compile("at night"))


def test_another_programs_list_is_copied(user, lists):
    """Under a name of its own; it is made when it is saved."""
    choose(user, "wildcards:wild5", "beast 5")
    user.element("lists-copy").click()
    expect(user.box("lists-text")).to_have_value(re.compile("beast 5"))
    assert list(lists.glob("*wild5*")) == []
    new_list(user, "beasts", "beast 5\nbeast 6")
    expect(user.element("lists-copy")).to_be_hidden()
    saved = (lists / "beasts.txt").read_text(encoding="utf-8")
    assert saved.splitlines() == ["beast 5", "beast 6"]


def test_files_are_imported(user, lists, tmp_path):
    """Under their own names; one that can't be read is a sentence."""
    good, broken = tmp_path / "good things.txt", tmp_path / "broken.txt"
    good.write_text("gold\nsilver", encoding="utf-8")
    broken.write_bytes(b"\xff\xfe\x00")
    user.upload_files([good, broken], "lists-files")
    user.element("lists-import").click()
    says(user, "Imported: good things.")
    says(user, "broken.txt: ")
    expect(user.box("lists-phrases")).to_have_value("gold\nsilver")
    assert (lists / "good things.txt").is_file()


# What takes a while


def test_vectors_are_prepared_and_stopped(user):
    """With progress; the table says how far it came, and in the end that all are ready."""
    choose(user, "wildcards:slow", "thing number 0")
    user.element("lists-prepare").click()
    bar = user.element("lists-progress").locator(".cliext-progress")
    expect(bar).to_contain_text(re.compile(r"\d+ of \d+"))
    expect(user.element("lists-prepare")).to_be_disabled()
    user.element("lists-stop").click()
    says(user, "Stopped")
    expect(user.element("lists-prepare")).to_be_enabled()
    expect(bar).to_have_count(0)
    choose(user, "mediums", "pixel art")
    user.element("lists-prepare").click()
    says(user, re.compile(r"The vectors of 4 phrases were computed|All vectors were ready"))
    expect(row(user, "mediums")).to_contain_text("ready")


def test_a_picture_tests_a_list(user):
    """The winner comes first, and only this list takes part."""
    user.upload(CASTLE, "lists-image")
    choose(user, "mediums", "pixel art")
    user.element("lists-test").click()
    rows = user.element("lists-winners").locator(".cliext-phrase")
    expect(rows).to_have_count(4)
    assert rows.first.inner_text() == "pixel art"
    user.name("lists-chosen", "flavors")
    expect(user.box("lists-phrases")).to_have_value(re.compile("fog"))
    user.element("lists-test").click()
    expect(rows.filter(has_text="<b>fog</b>")).to_have_count(1)


def test_the_picture_of_the_prompt_stands_in(user):
    """It is there when the tab is opened."""
    user.tab("Prompt")
    user.upload(CASTLE)
    user.tab("Word lists")
    expect(user.element("lists-image", "img").first).to_be_visible()


# Looks


def test_nothing_has_to_be_scrolled_sideways(user):
    """Neither on a phone nor on wide screens, with everything unfolded."""
    new_list(user, "x" * 40, "y" * 300)
    for summary in user.element("lists-table", "summary").all():
        summary.click()
    for width in (1920, 1280, 390):
        user.page.set_viewport_size({"width": width, "height": 900})
        user.page.wait_for_function(
            "width => document.documentElement.scrollWidth <= width", arg=width
        )
        box = user.element("lists-save").bounding_box()
        assert box is not None
        assert 0 <= box["x"] <= box["x"] + box["width"] <= width
