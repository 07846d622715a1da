"""The page in a real Chromium: quiet, asking for nothing, as wide as the window, usable by keyboard, short in print."""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.reporting import html
from tests.reporting import devtools
from tests.reporting.made import big

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(devtools.PROGRAM is None, reason="there is no Chromium"),
    pytest.mark.xdist_group("report-in-chromium"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything, also names that may do harm."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html.page(big(classes=14, artifacts=15, images=300)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tab() -> Iterator[devtools.Tab]:
    with devtools.browser() as opened:
        yield opened


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_it_is_quiet_asks_for_nothing_and_fits(tab: devtools.Tab, page: Path, width: int, scheme: str) -> None:
    tab.requests.clear()
    tab.show(page, width, scheme=scheme)
    assert tab.value("document.documentElement.scrollWidth") == width
    back = tab.value("getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(255, 255, 255)") == (scheme == "light")
    asked = [address for address in tab.requests if not address.startswith("data:")]
    assert asked == [page.resolve().as_uri()]
    assert tab.complaints == []
    assert tab.value("document.images.length") > 0
    assert tab.value("[...document.images].every(i => i.complete && i.naturalWidth > 0)")


def test_a_script_in_it_would_not_run(tab: devtools.Tab, page: Path) -> None:
    spoiled = page.with_name("spoiled.html")
    text = page.read_text(encoding="utf-8")
    spoiled.write_text(text.replace("<main>", "<main><script>document.title = 'ran'</script>"), encoding="utf-8")
    tab.show(spoiled)
    assert tab.value("document.title") != "ran"
    assert any("Content Security Policy" in line for line in tab.complaints)
    tab.complaints.clear()


def test_the_keyboard_reaches_the_contents_and_what_scrolls(tab: devtools.Tab, page: Path) -> None:
    tab.show(page, 390)
    tab.press("Tab")
    assert tab.value("document.activeElement.className") == "skip"
    assert tab.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert tab.value("document.activeElement.getBoundingClientRect().left") >= 0
    tab.press("Tab")
    assert tab.value("document.activeElement.getAttribute('href')") == "#verdict"
    wide = "[...document.querySelectorAll('main *')].filter(e => e.scrollWidth > e.clientWidth + 1 && "
    wide += "getComputedStyle(e).overflowX == 'auto')"
    assert tab.value(f"{wide}.length") > 0
    assert tab.value(f"{wide}.every(e => e.tabIndex == 0 && e.getAttribute('role') == 'region' && e.ariaLabel)")
    labels = tab.value("[...document.querySelectorAll('[role=region]')].map(e => e.ariaLabel)")
    assert len(set(labels)) == len(labels)


def test_the_median_is_seen_on_a_phone_and_the_figures_fit_a_desktop(tab: devtools.Tab, page: Path) -> None:
    table = "[...document.querySelectorAll('table')].find(t => t.caption.textContent.startsWith('Figures of every'))"
    head = f"[...{table}.querySelectorAll('thead th')].find(h => h.textContent.startsWith('p50'))"
    tab.show(page, 390)
    assert tab.value(f"{head}.getBoundingClientRect().right") <= 390
    tab.show(page, 1280)
    assert tab.value(f"{table}.parentElement.scrollWidth - {table}.parentElement.clientWidth") <= 0


def test_a_screen_reader_finds_its_way(tab: devtools.Tab, page: Path) -> None:
    tab.show(page)
    levels = tab.value("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert tab.value("['header', 'nav', 'main', 'footer'].every(n => document.querySelectorAll(n).length == 1)")
    assert tab.value("[...document.querySelectorAll('table')].every(t => t.caption && t.caption.textContent.trim())")
    assert tab.value("[...document.querySelectorAll('th')].every(t => t.scope)")
    assert tab.value("[...document.querySelectorAll('main .scroll > svg')].every(s => s.getAttribute('role') == 'img'"
                     " && s.ariaLabel && s.firstElementChild.tagName == 'title')")  # fmt: skip
    assert tab.value("[...document.images].every(i => i.alt)")
    assert tab.value("[...document.querySelectorAll('nav a')].every(a => document.getElementById(a.hash.slice(1)))")
    assert tab.value("[...document.querySelectorAll('main section')].every("
                     "s => document.getElementById(s.getAttribute('aria-labelledby')).tagName == 'H2')")  # fmt: skip
    every = tab.value("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(set(every)) == len(every)


def test_a_page_begins_with_the_decision_and_unfolds_what_a_link_names(tab: devtools.Tab, page: Path) -> None:
    tab.show(page)
    assert tab.value("document.documentElement.scrollHeight") < 6000
    assert tab.value("document.querySelector('article .ship').getBoundingClientRect().bottom") < 900
    part = "document.getElementById('latency').closest('details')"
    assert tab.value(f"{part}.open") is False
    tab.value("document.querySelector('nav a[href=\"#latency\"]').click()")
    assert tab.value(f"new Promise(done => setTimeout(() => done({part}.open), 300))", wait=True) is True
    assert 0 <= tab.value(f"{part}.querySelector('h2').getBoundingClientRect().top") < 900


def test_on_a_phone_no_text_is_small_and_what_is_cut_off_has_an_edge(tab: devtools.Tab, page: Path) -> None:
    tab.show(page, 390)
    tab.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    sizes = tab.value(
        "[...document.querySelectorAll('main .scroll > svg')].map(s => Math.min(...[...s.querySelectorAll('text')].map("
        "t => parseFloat(getComputedStyle(t).fontSize))) * s.getBoundingClientRect().width / s.viewBox.baseVal.width)"
    )
    assert len(sizes) >= 5
    assert min(sizes) >= 10.9
    hidden = "[...document.querySelectorAll('main td, main th')].filter(c => !c.getClientRects().length)"
    assert tab.value(f"{hidden}.length") == 0
    wide = "[...document.querySelectorAll('main .scroll')].filter(e => e.scrollWidth > e.clientWidth)"
    assert tab.value(f"{wide}.length") > 0
    edges = f"{wide}.every(e => getComputedStyle(e).backgroundAttachment == 'local, local, scroll, scroll')"
    assert tab.value(edges)


def test_print_leaves_out_what_is_folded_and_cuts_no_table(tab: devtools.Tab, page: Path) -> None:
    tab.show(page)
    shown = "[...document.querySelectorAll('details.part')].filter(d => d.querySelector('div').offsetHeight > 0)"
    names = f"{shown}.map(d => d.querySelector('div').id)"
    tab.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert tab.value(names) == ["test", "reproduce", "lineage"]
        assert tab.value("getComputedStyle(document.getElementById('latency').closest('details')).display") == "none"
        tab.value("document.getElementById('latency').closest('details').open = true")
        assert tab.value(names) == ["latency", "test", "reproduce", "lineage"]
        assert tab.value("getComputedStyle(document.querySelector('nav')).display") == "none"
        # A4 less its margins, in CSS pixels.
        tab.call("Emulation.setDeviceMetricsOverride", width=703, height=1000, deviceScaleFactor=1, mobile=False)
        cut = "[...document.querySelectorAll('table')].filter(t => t.getBoundingClientRect().right > 704)"
        assert tab.value(f"{cut}.map(t => t.caption.textContent)") == []
    finally:
        tab.call("Emulation.setEmulatedMedia", media="")
    tab.show(page)
    pdf = tab.printed()
    assert pdf.startswith(b"%PDF-")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", pdf + _inflated(pdf))) <= 9


def _inflated(pdf: bytes) -> bytes:
    """What the compressed streams of a PDF hold, as far as they can be read."""
    found = b""
    for part in re.findall(rb"stream\r?\n(.*?)endstream", pdf, re.S):
        try:
            found += zlib.decompressobj().decompress(part)
        except zlib.error:
            continue
    return found
