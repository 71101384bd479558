"""The page in a real browser: upload, many files, a broken one, another model, a heat map, networks, both languages, a
narrow screen, the keyboard; without an error on the console and within its content policy."""

import csv
import io
import shutil

import pytest

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
CHROMIUM = next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: apt-get install chromium)")

NAMES = """() => [...document.querySelectorAll('button, a, input, select, [role]')]
  .filter((e) => e.checkVisibility() && !e.hidden)
  .filter((e) => !(e.textContent.trim() || e.labels?.length || e.title))
  .filter((e) => !(e.getAttribute('aria-label') || e.getAttribute('aria-labelledby')))
  .map((e) => e.outerHTML)"""


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, running):
    """Open the page; what the console says of errors fails the test in the end."""
    contexts, complaints = [], []

    def start(**options):
        context = browser.new_context(**({"locale": "en-GB"} | options))
        contexts.append(context)
        page = context.new_page()
        page.on(
            "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda request: complaints.append(f"asked {request.url}") if _foreign(request.url, running) else None,
        )
        page.goto(running.url)
        expect(page.locator("#models option")).to_have_count(2)
        return page

    yield start
    for context in contexts:
        context.close()
    assert complaints == []


def _foreign(url, running):
    return not url.startswith((running.url, "data:", "blob:"))


@pytest.fixture
def files(tmp_path, png):
    """Pictures of every colour by name, as the browser takes them."""

    def write(count):
        colours = ["red", "green", "blue"]
        for number in range(count):
            (tmp_path / f"{number:03}-{colours[number % 3]}.png").write_bytes(png(colours[number % 3], number))
        return sorted(map(str, tmp_path.glob("*.png")))

    return write


def test_pictures_get_answers_and_a_broken_one_its_reason(open_page, files, tmp_path):
    page = open_page()
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    page.set_input_files("#files", [*files(2), str(tmp_path / "broken.jpg")])
    expect(page.locator(".answer")).to_have_count(3)
    first = page.locator(".answer").nth(0)
    expect(first.locator("h3")).to_have_text("000-red.png")
    expect(first.locator(".scores li").first).to_contain_text("red")
    expect(first.locator("img")).to_have_js_property("naturalWidth", 32)  # as the network sees it
    expect(page.locator(".answer").nth(2).locator(".error")).to_have_text("cannot be read")
    expect(page.locator("#summary")).to_have_text("3 pictures, 0 not sure, 1 not readable")


def test_a_heat_map_comes_on_request_and_goes_again(open_page, files):
    page = open_page()
    page.set_input_files("#files", files(1))
    page.get_by_role("button", name="Heat map").click()
    expect(page.locator(".answer img[src^=blob]")).to_have_js_property("naturalWidth", 32)
    page.get_by_role("button", name="What the network saw").click()
    expect(page.locator(".answer img[src^=data]")).to_be_visible()


def test_another_model_shows_its_card_and_answers(open_page, files):
    page = open_page()
    page.select_option("#models", "quick")
    expect(page.locator("#curl")).to_contain_text("/v1/models/quick/predict")
    page.set_input_files("#files", files(1))
    expect(page.locator(".answer")).to_have_count(1)
    expect(page.get_by_role("button", name="Heat map")).to_have_count(0)  # an export has none
    expect(page.locator("#card")).to_contain_text("Densely Connected Convolutional Networks")


def test_two_hundred_files_and_their_table(open_page, files):
    page = open_page()
    page.set_input_files("#files", files(200))
    expect(page.locator("#summary")).to_have_text("200 pictures, 0 not sure, 0 not readable", timeout=60_000)
    expect(page.locator("#rows tr")).to_have_count(200)
    expect(page.locator("#more")).to_have_text("Show 176 more")
    with page.expect_download() as download:
        page.click("#csv")
    with open(download.value.path(), encoding="utf-8-sig", newline="") as file:  # noqa: PTH123
        rows = list(csv.DictReader(io.StringIO(file.read())))
    assert [row["label"] for row in rows] == [row["path"].partition("-")[2].removesuffix(".png") for row in rows]
    assert len(rows) == 200
    page.click("#clear")
    expect(page.locator(".answer")).to_have_count(0)


def test_files_that_come_while_others_are_under_way_are_answered_too(open_page, files):
    page = open_page()
    page.set_input_files("#files", files(60))
    page.set_input_files("#files", files(60))
    expect(page.locator("#summary")).to_have_text("120 pictures, 0 not sure, 0 not readable", timeout=60_000)
    expect(page.locator("#work")).to_be_hidden()


def test_below_the_threshold_the_page_is_not_sure(open_page, files):
    page = open_page()
    page.set_input_files("#files", files(1))
    expect(page.locator(".answer .unsure")).to_have_count(0)
    page.locator("#threshold").fill("100")
    expect(page.locator(".answer .unsure")).to_have_text("not sure")
    expect(page.locator("#threshold-value")).to_have_text("100 %")


def test_networks_are_found_and_opened(open_page):
    page = open_page()
    page.get_by_role("link", name="Networks", exact=True).click()
    expect(page.locator("#found")).to_have_text("267 of 267 networks")
    page.fill("#search", "igc_l24m2")
    page.locator(".network summary").first.click()
    expect(page.locator(".network").first).to_contain_text("Interleaved Group Convolutions")
    expect(page.locator(".network .drawing")).to_be_visible(timeout=60_000)
    expect(page.locator(".network pre").first).to_contain_text("taxonet.create_model")


def test_the_language_is_the_browsers_and_can_be_changed(open_page):
    page = open_page(locale="zh-CN")
    expect(page.locator("h1").first).to_have_text("图片里是什么？")
    assert page.evaluate("document.documentElement.lang") == "zh-Hans"
    page.click("#language")
    expect(page.locator("h1").first).to_have_text("What is in your pictures?")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen_shows_all_without_scrolling_sideways(open_page, files, scheme):
    page = open_page(viewport={"width": 340, "height": 700}, color_scheme=scheme, has_touch=True)
    page.set_input_files("#files", files(3))
    expect(page.locator(".answer")).to_have_count(3)
    assert page.evaluate("document.documentElement.scrollWidth") <= 340
    small = page.evaluate(
        "[...document.querySelectorAll('button')].filter((b) => b.checkVisibility() && b.offsetHeight < 24).length"
    )
    assert small == 0


def test_it_can_be_used_by_keyboard_and_by_a_screen_reader(open_page, files):
    page = open_page()
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    with page.expect_file_chooser():
        page.locator("#choose").focus()
        page.keyboard.press("Enter")
    page.set_input_files("#files", files(2))
    expect(page.locator(".answer")).to_have_count(2)
    assert page.evaluate(NAMES) == []  # everything that can be used has a name
    assert page.evaluate("[...document.images].filter((i) => !i.hasAttribute('alt')).length") == 0
    assert (
        page.evaluate(
            "[...document.querySelectorAll('[id]')].map((e) => e.id).filter((id, i, all) => all.indexOf(id) !== i)"
        )
        == []
    )
    for light in ("light", "dark"):
        page.emulate_media(color_scheme=light)
        for selector in ("body", ".dim", "button", "button.quiet", "h3", "dt"):
            assert page.locator(selector).first.evaluate(CONTRAST) >= 4.5


CONTRAST = """(element) => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  let back = element;
  while (back && numbers(getComputedStyle(back).backgroundColor)[3] === 0) back = back.parentElement;
  const a = light(numbers(getComputedStyle(element).color));
  const b = light(numbers(getComputedStyle(back || document.body).backgroundColor));
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}"""


def test_a_server_with_tokens_asks_for_one(browser, serve, exported, png, tmp_path):
    (tmp_path / "tokens").write_text("a-token-for-the-page\n")
    server = serve(exported, "--workers", 1, "--drain", 0, "--tokens", tmp_path / "tokens")
    context = browser.new_context(locale="en-GB")
    page = context.new_page()
    page.goto(server.url)
    page.fill("#token", "not-this-one-at-all")
    page.click("#token-form button")
    expect(page.locator("#message")).to_have_text("The server does not know this token.")
    page.fill("#token", "a-token-for-the-page")
    page.click("#token-form button")
    expect(page.locator("#models option")).to_have_count(1)
    (tmp_path / "a.png").write_bytes(png("blue"))
    page.set_input_files("#files", str(tmp_path / "a.png"))
    expect(page.locator(".scores li").first).to_contain_text("blue")
    context.close()
