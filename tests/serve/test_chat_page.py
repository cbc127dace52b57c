"""The chat page in a real browser, against a server that answers as the test says."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from .accessibility import FAULTS
from .browser import Browser, chromium
from .chat_stub import Stub
from .running import served

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="no Chromium here: install one, or name it in BUNNY_CHROMIUM"),
]
SHIFT, CONTROL = 8, 2
ANSWERS = "[...document.querySelectorAll('.answer .text')].map(one => one.innerText.trim())"
QUESTIONS = "[...document.querySelectorAll('.bubble')].map(one => one.textContent)"
READY = "!!window.page && document.activeElement.id === 'question'"
IDLE = "!window.page.busy && !document.querySelector('.runs')"
ATTACHED = "document.querySelectorAll('#attached li').length"
FORGET = """(async () => {
  await page.store.clear();
  page.store.base?.close();
  localStorage.clear();
  sessionStorage.clear();
})()"""


@pytest.fixture(scope="module")
def shared() -> Iterator[Browser]:
    with Browser(str(chromium())) as browser:
        yield browser


Open = Callable[..., Stub]


class Chat:
    """The page, and the server behind it."""

    def __init__(self, browser: Browser, stub: Stub) -> None:
        self.browser, self.stub = browser, stub
        self.run, self.wait, self.press = browser.run, browser.wait, browser.press

    def type(self, text: str) -> None:
        self.browser.call("Input.insertText", text=text)

    def key(self, key: str, modifiers: int) -> None:
        text = {"text": "\r"} if key == "Enter" else {}
        code = {"Enter": 13, "Tab": 9}[key]
        for kind in ("keyDown", "keyUp"):
            given = text if kind == "keyDown" else {}
            self.browser.call(
                "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, modifiers=modifiers, **given
            )

    def ask(self, text: str, idle: bool = True) -> None:
        self.run("document.getElementById('question').focus()")
        before = len(self.stub.asked)
        self.type(text)
        self.press("Enter")
        if idle:
            self.wait(IDLE)
            assert len(self.stub.asked) > before

    def reload(self) -> None:
        address = self.run("location.href")
        for next_one in ("about:blank", address):
            self.browser.open(next_one)
        self.wait(READY)

    def click(self, selector: str, number: int = 0) -> None:
        found = f"document.querySelectorAll({selector!r})[{number}]"
        self.wait(f"!!{found}")
        self.run(f"{found}.click()")

    def set(self, selector: str, value: str, event: str = "input") -> None:
        one = f"document.querySelector({selector!r})"
        self.run(f"{one}.value = {json.dumps(value)}; {one}.dispatchEvent(new Event({event!r}))")

    def hand_over(self, kind: str, *files: tuple[str, str, bytes], text: str = "") -> bool:
        """Drop or paste files; whether the page took the event for itself."""
        event = (
            "new DragEvent('drop', { dataTransfer: given, bubbles: true, cancelable: true })"
            if kind == "drop"
            else "new ClipboardEvent('paste', { clipboardData: given, bubbles: true, cancelable: true })"
        )
        listed = [[name, mime, list(content)] for name, mime, content in files]
        return bool(
            self.run(
                f"(() => {{ const given = new DataTransfer(); if ({json.dumps(text)}) given.setData('text/plain', "
                f"{json.dumps(text)}); for (const [name, type, bytes] of {json.dumps(listed)}) "
                "given.items.add(new File([new Uint8Array(bytes)], name, { type })); "
                f"return !document.getElementById('question').dispatchEvent({event}); }})()"
            )
        )

    @property
    def answers(self) -> list[str]:
        found: list[str] = self.run(ANSWERS)
        return found

    def last(self) -> dict[str, Any]:
        return self.stub.asked[-1]


@pytest.fixture
def stub() -> Stub:
    return Stub()


@pytest.fixture
def chat(shared: Browser, stub: Stub) -> Iterator[Chat]:
    """An open page whose browser remembers nothing; at last: it did not complain, nothing came from outside."""
    shared.resize(1280, 820)
    shared.events.clear()
    with served(stub.app()) as address:
        shared.open(address)
        shared.wait(READY)
        yield Chat(shared, stub)
        stub.gate.set()
        assert [one for one in shared.complaints() if "status of 4" not in one and "status of 5" not in one] == []
        hosts = "[...new Set(performance.getEntriesByType('resource').map(one => new URL(one.name).origin))]"
        assert shared.run(hosts) == [address.rstrip("/")]
        shared.run(FORGET)
        shared.open("about:blank")


def png(width: int = 8, height: int = 6, colour: str = "red") -> bytes:
    out = BytesIO()
    Image.new("RGB", (width, height), colour).save(out, "PNG")
    return out.getvalue()


def test_a_question_is_answered_with_its_figures(chat: Chat) -> None:
    chat.ask("what is this?")
    assert chat.answers == ["tiny: what is this?"]
    assert "3 tokens" in chat.run("document.querySelector('.figures').textContent")
    assert "first after" in chat.run("document.querySelector('.figures').textContent")
    asked = chat.last()
    assert asked["messages"] == [{"role": "user", "content": "what is this?"}]
    assert (asked["stream"], asked["stream_options"]) == (True, {"include_usage": True})
    chat.ask("and now?")
    assert [turn["content"] for turn in chat.last()["messages"]] == ["what is this?", "tiny: what is this?", "and now?"]


def test_dropped_pasted_and_picked_pictures_are_sent_and_can_be_removed(chat: Chat, tmp_path: Path) -> None:
    assert chat.hand_over("drop", ("a.png", "image/png", png()), ("b.png", "image/png", png(5, 5, "blue")))
    chat.wait(f"{ATTACHED} === 2")
    assert chat.hand_over("paste", ("c.png", "image/png", png(4, 4)))
    chat.wait(f"{ATTACHED} === 3")
    (tmp_path / "d.png").write_bytes(png(3, 3))
    root = chat.browser.call("DOM.getDocument")["root"]["nodeId"]
    node = chat.browser.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    chat.browser.call("DOM.setFileInputFiles", nodeId=node, files=[str(tmp_path / "d.png")])
    chat.wait(f"{ATTACHED} === 4")
    chat.click("#attached button", 1)
    chat.wait(f"{ATTACHED} === 3")
    assert chat.run("document.activeElement.getAttribute('aria-label')") == "Remove c.png"
    chat.ask("which?")
    *pictures, words = chat.last()["messages"][0]["content"]
    assert words == {"type": "text", "text": "which?"}
    sizes = []
    for part in pictures:
        head, _, data = part["image_url"]["url"].partition(",")
        assert (part["type"], head) == ("image_url", "data:image/png;base64")
        sizes.append(Image.open(BytesIO(base64.b64decode(data))).size)
    assert sizes == [(8, 6), (4, 4), (3, 3)]
    assert chat.run("document.querySelectorAll('.pictures img').length") == 3


def test_pasted_text_stays_text_even_if_it_brings_a_picture_of_itself(chat: Chat) -> None:
    assert not chat.hand_over("paste", ("table.png", "image/png", png()), text="a table")
    assert chat.run(ATTACHED) == 0


def test_a_file_that_is_no_picture_is_refused_in_words(chat: Chat) -> None:
    chat.hand_over("drop", ("notes.png", "image/png", b"not a picture"))
    chat.wait("document.getElementById('toast').textContent.startsWith('notes.png: this browser cannot read it')")
    assert chat.run(ATTACHED) == 0


def test_pictures_above_the_servers_limits_are_made_smaller_or_refused_and_it_is_said(shared: Browser) -> None:
    stub = Stub(limits={"pictures": 2, "picture_pixels": 2500})
    with served(stub.app()) as address:
        shared.open(address)
        shared.wait(READY)
        chat = Chat(shared, stub)
        chat.hand_over("drop", ("large.png", "image/png", png(200, 100)))
        chat.wait("document.getElementById('toast').textContent.startsWith('large.png: made smaller, 200×100 → 70×35')")
        chat.hand_over("drop", *((f"{n}.png", "image/png", png()) for n in range(2)))
        chat.wait(f"{ATTACHED} === 2")
        assert "2 pictures in a question at most" in chat.run("document.getElementById('toast').textContent")
        chat.ask("what?")
        assert chat.run("page.room(null)") == 0
        shared.run(FORGET)
        shared.open("about:blank")


def test_an_answer_appears_piece_by_piece_and_stops_on_demand(chat: Chat) -> None:
    chat.stub.plan = [["one ", "two ", "wait", "three"]]
    chat.ask("count", idle=False)
    chat.wait(f"({ANSWERS})[0] === 'one two'")
    assert chat.run("document.querySelector('.text').getAttribute('aria-busy')") == "true"
    chat.click("#stop")
    chat.wait(IDLE)
    assert chat.stub.left.wait(5)
    assert chat.answers == ["one two"]
    assert "Stopped by you" in chat.run("document.querySelector('.trouble').textContent")
    chat.stub.plan = [["four ", "wait"]]
    chat.ask("go on", idle=False)
    chat.wait(f"({ANSWERS})[1] === 'four'")
    chat.press("Escape")
    chat.wait(IDLE)
    assert [turn["content"] for turn in chat.last()["messages"]] == ["count", "one two", "go on"]


def test_answering_again_keeps_the_old_answer_in_a_branch(chat: Chat) -> None:
    chat.stub.plan = [["first"], ["second"]]
    chat.ask("hello")
    chat.click("[aria-label='Answer again']")
    chat.wait(f"{IDLE} && ({ANSWERS})[0] === 'second'")
    assert chat.run("document.querySelector('.branches').innerText.trim()") == "2 of 2"
    chat.click("[aria-label='The version before']")
    chat.wait(f"({ANSWERS})[0] === 'first'")
    chat.ask("more")
    assert [turn["content"] for turn in chat.last()["messages"]] == ["hello", "first", "more"]
    chat.click("[aria-label='The next version']")
    assert chat.answers == ["second"]


def test_an_edited_question_branches_from_there(chat: Chat) -> None:
    chat.hand_over("drop", ("a.png", "image/png", png()))
    chat.wait(f"{ATTACHED} === 1")
    for text in ("one", "two", "three"):
        chat.ask(text)
    chat.click("[aria-label='Edit the question']", 1)
    assert chat.run("document.getElementById('question').value") == "two"
    chat.ask(" again")
    assert chat.run(QUESTIONS) == ["one", "two again"]
    assert [words["content"] for words in chat.last()["messages"][1:]] == ["tiny: [picture] one", "two again"]
    chat.click("[aria-label='The version before']")
    assert chat.run(QUESTIONS) == ["one", "two", "three"]
    chat.run("document.getElementById('question').focus()")
    chat.press("ArrowUp")
    assert chat.run("document.getElementById('question').value") == "three"
    chat.press("Escape")
    assert chat.run("[document.getElementById('question').value, document.getElementById('editing').hidden]") == [
        "",
        True,
    ]


class TestTwoModels:
    @pytest.fixture
    def stub(self) -> Stub:
        return Stub(models=["tiny", {"id": "large"}], links=LINKS)

    def test_answer_the_same_question_side_by_side_each_with_its_own_history(self, chat: Chat) -> None:
        chat.click(".compare")
        chat.ask("hello")
        assert sorted(asked["model"] for asked in chat.stub.asked) == ["large", "tiny"]
        assert chat.answers == ["tiny: hello", "large: hello"]
        left, right = chat.run("[...document.querySelectorAll('.answer')].map(one => one.getBoundingClientRect().left)")
        assert right > left + 300
        chat.ask("more")
        told = {asked["model"]: asked["messages"][1]["content"] for asked in chat.stub.asked[2:]}
        assert told == {"tiny": "tiny: hello", "large": "large: hello"}
        chat.click("[aria-label='Answer again']", 3)
        chat.wait(f"{IDLE} && !!document.querySelector('.branches')")
        assert (len(chat.stub.asked), chat.last()["model"]) == (5, "large")
        chat.browser.resize(360, 740)
        tops = "[...document.querySelectorAll('.answer')].map(one => one.getBoundingClientRect().top)"
        chat.wait(f"new Set({tops}).size === 4")

    def test_the_same_one_is_never_asked_twice(self, chat: Chat) -> None:
        chat.click(".compare")
        chat.set(".models select", "large", "change")
        assert chat.run("page.models.chosen") == ["large", "tiny"]

    def test_other_pages_are_linked_but_never_a_script(self, chat: Chat) -> None:
        found = chat.run(
            "[...document.querySelectorAll('.links a')].map(one => [one.textContent, one.getAttribute('href')])"
        )
        assert found == [["Curation", "/curation/"]]


LINKS = [{"title": "Curation", "href": "/curation/"}, {"title": "Evil", "href": "javascript:alert(1)"}]


@pytest.fixture
def with_picture(chat: Chat) -> dict[str, Any]:
    """What the page sent for a question with a picture and unusual words."""
    chat.hand_over("drop", ("it's.png", "image/png", png()))
    chat.wait(f"{ATTACHED} === 1")
    chat.run("page.settings.values.seed = 7; page.settings.values.stop = ['\"END\"']")
    chat.ask("say 'JSON' \\ \"$HOME\" `date` — 图\u2028?")
    chat.click("[aria-label='This request as code']")
    return chat.last()


def test_the_request_as_curl_asks_the_same_again(chat: Chat, with_picture: dict[str, Any]) -> None:
    assert "…" in chat.run("document.getElementById('code').textContent")
    ran = subprocess.run(["sh"], input=chat.run("page.shownCode"), capture_output=True, text=True, check=True)
    assert chat.stub.asked[1:] == [with_picture]
    assert ran.stdout.rstrip().endswith("data: [DONE]")
    chat.press("Escape")


def test_the_request_as_python_asks_the_same_again(chat: Chat, with_picture: dict[str, Any]) -> None:
    chat.click("#tab-python")
    code = chat.run("page.shownCode")
    ran = subprocess.run([sys.executable, "-"], input=code, capture_output=True, text=True, check=True)
    assert chat.stub.asked[1:] == [with_picture]
    assert ran.stdout.startswith("tiny: [picture] say 'JSON'")
    chat.press("Escape")


def test_settings_are_sent_and_survive_a_reload(chat: Chat) -> None:
    chat.click("#settings-button")
    for name, value in {"system": "Be brief.", "temperature": "0", "max_tokens": "99", "seed": "3"}.items():
        chat.set(f"#set-{name}", value)
    chat.press("Escape")
    chat.reload()
    assert chat.run("page.settings.values.seed") == 3
    chat.ask("hello")
    asked = chat.last()
    assert asked["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (asked["temperature"], asked["max_tokens"], asked["seed"], "top_p" in asked) == (0, 99, 3, False)
    chat.click("#settings-button")
    chat.click("#settings-form > button")
    assert chat.run("[page.settings.values.system, page.settings.values.seed]") == ["", None]
    chat.press("Escape")


def test_a_reload_keeps_the_conversation_and_marks_an_answer_that_it_cut(chat: Chat) -> None:
    chat.hand_over("drop", ("a.png", "image/png", png()))
    chat.wait(f"{ATTACHED} === 1")
    chat.ask("one")
    chat.stub.plan = [["half an ", "wait"]]
    chat.ask("two", idle=False)
    chat.wait(f"({ANSWERS})[1] === 'half an'")
    chat.run("page.save(page.talk)")
    chat.reload()
    assert chat.answers == ["tiny: [picture] one", "half an"]
    assert chat.run("document.querySelector('.pictures img').naturalWidth") == 8
    assert "the page was closed" in chat.run("document.querySelector('.trouble').textContent")
    assert chat.run("document.querySelector('#list [aria-current]').textContent") == "one"


def test_an_answer_goes_on_while_another_conversation_is_shown(chat: Chat) -> None:
    chat.stub.plan = [["slow ", "wait", "answer"]]
    chat.ask("first", idle=False)
    chat.wait(f"({ANSWERS})[0] === 'slow'")
    chat.click("#new-button")
    chat.ask("second")
    assert chat.answers == ["tiny: second"]
    chat.stub.gate.set()
    chat.wait("page.running.size === 0")
    chat.click("#list [data-key^=open]", 0)
    chat.click("#list .name[title=first]")
    chat.wait(f"({ANSWERS})[0] === 'slow answer'")


HOSTILE = """<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>
[a](javascript:window.hacked=1) ![b](http://127.0.0.1:9/x.png) <b>bold</b>
```html"><img src=x onerror=window.hacked=1>
<script>window.hacked=1</script>
```
- <svg onload=window.hacked=1>
"""


def test_an_answer_can_not_bring_markup_scripts_or_addresses(chat: Chat) -> None:
    chat.stub.plan = [[HOSTILE]]
    chat.ask("<img src=x onerror=window.hacked=1>")
    assert chat.run("window.hacked ?? 0") == 0
    assert chat.run("document.querySelectorAll('#thread :is(img, script, a, b, iframe, svg[onload])').length") == 0
    assert '<img src=x onerror="window.hacked=1">' in chat.answers[0]
    assert "<script>" in chat.run("document.querySelector('.text').textContent")
    assert chat.run("document.querySelector('#list .name').textContent") == "<img src=x onerror=window.hacked=1>"


def test_lists_code_and_bold_words_are_shown_as_such(chat: Chat) -> None:
    chat.stub.plan = [
        ["Some **bold *words*** and `x * y`, 2 * 3 * 4.\n\n1. one\n   - deep\n2. two\n\n```py\na <", " b\n```\n> said"]
    ]
    chat.ask("show")
    tags = "[...document.querySelectorAll('.text *')].map(one => one.tagName)"
    shape = f"{tags}.filter(tag => !/BUTTON|SVG|PATH/i.test(tag)).join(' ')"
    assert chat.run(shape) == "P STRONG EM CODE OL LI UL LI LI DIV DIV SPAN PRE CODE BLOCKQUOTE"
    assert chat.run("document.querySelector('.text p').textContent") == "Some bold words and x * y, 2 * 3 * 4."
    assert chat.run("document.querySelector('.text pre').textContent") == "a < b"


@pytest.mark.parametrize(
    ("plan", "wanted", "kept"),
    [
        ([429], "The server is busy. It takes questions again in about 1 s.", ""),
        ([413, "the body is larger than 9 bytes"], "The body is larger than 9 bytes. Take pictures away", ""),
        ([400, "the prompt has 900 tokens; 512 fit"], "The prompt has 900 tokens; 512 fit. Change the question", ""),
        ([500], "The server failed. Try again", ""),
        ([503], "The server is not ready.", ""),
        (
            ["half an ", "answer", "break"],
            "The connection ended in the middle of the answer. What came is kept.",
            "half an answer",
        ),
        (["long", "length"], "512 tokens is the longest answer that the settings allow", "long"),
    ],
)
def test_what_goes_wrong_is_said_with_what_to_do(chat: Chat, plan: list[str | int], wanted: str, kept: str) -> None:
    chat.stub.plan = [plan]
    chat.run("page.composer.propose('hello')")
    chat.press("Enter")
    chat.wait(f"{IDLE} && !!document.querySelector('.trouble')")
    assert wanted in chat.run("document.querySelector('.trouble').textContent")
    assert chat.answers == [kept]
    assert chat.run(FAULTS) == []
    if plan[0] == 429:  # the button waits as long as the server asked
        assert chat.run("document.querySelector('.trouble button').disabled")
        chat.wait("!document.querySelector('.trouble button').disabled")
    if chat.run("!!document.querySelector('.trouble button')"):
        chat.click(".trouble button")
        chat.wait(f"{IDLE} && ({ANSWERS})[0] === 'tiny: hello'")


def test_without_a_server_the_question_is_kept_and_can_be_asked_again(shared: Browser) -> None:
    stub = Stub()
    with served(stub.app()) as address:
        shared.open(address)
        shared.wait(READY)
    chat = Chat(shared, stub)
    chat.run("page.composer.propose('hello')")
    chat.press("Enter")
    chat.wait("document.querySelector('.trouble')?.textContent.startsWith('The server cannot be reached.')")
    assert chat.run(QUESTIONS) == ["hello"]
    shared.run(FORGET)
    shared.open("about:blank")


class TestWithAKey:
    @pytest.fixture
    def stub(self) -> Stub:
        made = Stub(key_needed=True)
        made.key = "s3cret"
        return made

    def test_it_is_asked_for_sent_and_kept_in_this_tab_only(self, chat: Chat) -> None:
        chat.run("page.composer.propose('hello')")
        chat.press("Enter")
        chat.wait("document.querySelector('.trouble')?.textContent.includes('API key')")
        assert chat.run("document.activeElement.id") == "key"
        chat.type("s3cret")
        chat.press("Tab")
        chat.press("Enter")
        chat.run("document.getElementById('key-form').requestSubmit()")
        assert chat.run("document.getElementById('key-form').hidden")
        chat.click(".trouble button")
        chat.wait(f"({ANSWERS})[0] === 'tiny: hello'")
        assert chat.run("sessionStorage.getItem('bunny-key')") == "s3cret"
        everything = "(async () => JSON.stringify(localStorage) + JSON.stringify(await page.store.get(page.talk.id)))()"
        assert "s3cret" not in chat.run(everything)
        chat.click("[aria-label='This request as code']")
        assert 'Bearer $BUNNY_API_KEY"' in chat.run("page.shownCode")
        assert "s3cret" not in chat.run("page.shownCode")
        chat.press("Escape")


def test_an_exported_conversation_comes_back_with_its_branches(chat: Chat) -> None:
    chat.hand_over("drop", ("a.png", "image/png", png()))
    chat.wait(f"{ATTACHED} === 1")
    chat.stub.plan = [["first"], ["second"]]
    chat.ask("hello")
    chat.click("[aria-label='Answer again']")
    chat.wait(f"{IDLE} && ({ANSWERS})[0] === 'second'")
    export = "import('./conversation.js').then(part => part.exported(page.talk))"
    text = chat.run(export)
    chat.click("[aria-label='Delete: hello']")
    chat.wait("!document.querySelector('#list .talk')")
    give_file(chat, "hello.json", text)
    chat.wait(f"({ANSWERS})[0] === 'second'")
    chat.click("[aria-label='The version before']")
    assert chat.answers == ["first"]
    tree = json.loads(chat.run(export))
    assert tree["turns"] == json.loads(text)["turns"]
    assert "fetch" not in text and tree["turns"][0]["pictures"][0]["name"] == "a.png"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "it is not JSON"),
        ("[1]", "it is not a conversation of this page"),
        (json.dumps({"format": "bunny-chat", "version": 9, "turns": []}), "its version 9 is not known"),
        (
            json.dumps({"format": "bunny-chat", "version": 1, "title": "", "turns": [{"id": "a", "parent": "b"}]}),
            "its turns do not hang together",
        ),
        (
            json.dumps(
                {
                    "format": "bunny-chat",
                    "version": 1,
                    "title": "",
                    "turns": [{"id": "a", "text": "", "answers": [], "pictures": [{"name": "x", "url": "http://a/b"}]}],
                }
            ),
            "a picture in it is not one",
        ),
    ],
)
def test_a_wrong_file_is_not_imported_and_it_is_said_why(chat: Chat, text: str, why: str) -> None:
    give_file(chat, "x.json", text)
    chat.wait(
        f"document.getElementById('toast').textContent.startsWith({json.dumps(f'x.json cannot be imported: {why}')})"
    )
    assert chat.run("document.querySelectorAll('#list .talk').length") == 0


def give_file(chat: Chat, name: str, text: str) -> None:
    chat.run(
        "(() => { const given = new DataTransfer();"
        f"given.items.add(new File([{json.dumps(text)}], {json.dumps(name)}));"
        "const field = document.getElementById('import-file'); field.files = given.files;"
        "field.dispatchEvent(new Event('change')); })()"
    )


def test_a_deleted_conversation_can_be_brought_back_and_all_can_go(chat: Chat) -> None:
    chat.ask("one")
    chat.click("[aria-label='Delete: one']")
    chat.wait("!document.querySelector('#list .talk') && document.getElementById('thread').hidden")
    chat.click("#toast button")
    chat.wait(f"({ANSWERS})[0] === 'tiny: one'")
    chat.click("#clear-button:enabled")
    chat.click("#clear .danger")
    chat.wait("!document.querySelector('#list .talk') && document.getElementById('thread').hidden")
    assert chat.run("page.store.heads().then(found => found.length)") == 0


def test_shift_enter_is_a_new_line_and_an_input_method_keeps_its_enter(chat: Chat) -> None:
    chat.type("one")
    chat.key("Enter", SHIFT)
    chat.type("two")
    composing = "new KeyboardEvent('keydown', { key: 'Enter', isComposing: true, bubbles: true, cancelable: true })"
    chat.run(f"document.getElementById('question').dispatchEvent({composing})")
    assert chat.stub.asked == []
    chat.key("Enter", CONTROL)
    chat.wait(IDLE + " && !!document.querySelector('.acts')")
    assert chat.last()["messages"][0]["content"] == "one\ntwo"


def test_everything_is_reached_and_done_by_keyboard(chat: Chat) -> None:
    chat.ask("hello")
    chat.run("document.activeElement.blur()")
    named, seen = "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent.trim()", []
    chat.run("document.querySelector('.skip').focus()")
    assert chat.run("document.activeElement.getBoundingClientRect().left") >= 0
    for _ in range(40):
        chat.press("Tab")
        seen.append(chat.run(named))
        if seen[-1] == "Your question":
            break
    order = [
        "Settings",
        "Colours of the system",
        "Keyboard help",
        "New conversation",
        "hello",
        "Export: hello",
        "Delete: hello",
    ]
    order += ["Import", "Delete all", "Edit the question", "Copy the answer", "Answer again", "This request as code"]
    places = [seen.index(name) for name in order]
    assert places == sorted(places)
    assert chat.run("getComputedStyle(document.activeElement.closest('form')).borderTopColor") != chat.run(
        "getComputedStyle(document.documentElement).getPropertyValue('--line')"
    )
    chat.run("document.getElementById('settings-button').focus()")
    assert "solid" in chat.run("getComputedStyle(document.activeElement).outline")
    chat.browser.call("Input.dispatchKeyEvent", type="keyDown", key="Enter", windowsVirtualKeyCode=13, text="\r")
    chat.wait("document.getElementById('settings').open")
    chat.press("Escape")
    chat.wait("!document.getElementById('settings').open && document.activeElement.id === 'settings-button'")


def test_a_screen_reader_hears_sentences_not_every_token(chat: Chat) -> None:
    listen = "() => heard.push(page.announcer.region.textContent)"
    chat.run(f"window.heard = []; new MutationObserver({listen}).observe(page.announcer.region, {{ childList: true }})")
    chat.stub.plan = [[f"word{n}{'.' if n % 10 == 9 else ''} " for n in range(200)]]
    chat.ask("speak")
    chat.wait("heard.at(-1).endsWith('word199.')")
    heard = chat.run("heard")
    assert heard[0] == "tiny answers."
    assert len(heard) <= 8
    told = " ".join(heard[1:]).split()
    assert told == [f"word{n}{'.' if n % 10 == 9 else ''}" for n in range(200)]


LONG = "word " * 60 + "x" * 400 + "\n```\n" + "y" * 400 + "\n```"


@pytest.mark.parametrize("width", [360, 820, 1700])
def test_nothing_overflows_at_any_width(chat: Chat, width: int) -> None:
    chat.browser.resize(width, 740)
    chat.stub.plan = [[LONG]]
    chat.hand_over("drop", ("a.png", "image/png", png(900, 20)))
    chat.wait(f"{ATTACHED} === 1")
    chat.ask("x" * 300)
    assert chat.run("document.documentElement.scrollWidth") <= width
    assert chat.run("document.getElementById('main').scrollWidth <= document.getElementById('main').clientWidth")
    if width <= 820:
        chat.click("#side-button")
        assert chat.run("document.activeElement.id") == "new-button"
        assert chat.run("document.getElementById('side').getBoundingClientRect().right") <= width
        chat.press("Escape")
        assert chat.run("document.activeElement.id") == "side-button"
        assert chat.run("getComputedStyle(document.getElementById('side')).visibility") == "hidden"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_control_has_a_name_and_every_word_enough_contrast(chat: Chat, theme: str) -> None:
    still = {"name": "prefers-reduced-motion", "value": "reduce"}  # colours that change at once
    chat.browser.call("Emulation.setEmulatedMedia", features=[still])
    for _ in range(2):
        if chat.run("document.documentElement.dataset.theme") != theme:
            chat.click("#theme-button")
    assert chat.run("getComputedStyle(document.documentElement).colorScheme") == theme
    assert chat.run(FAULTS) == []
    chat.hand_over("drop", ("a.png", "image/png", png()))
    chat.wait(f"{ATTACHED} === 1")
    assert chat.run(FAULTS) == []
    chat.stub.plan = [
        ["**bold** `code`\n- item\n```py\nx\n```\n> said"],
        ["partly ", "break"],
        [429],
        ["more ", "wait"],
    ]
    for text in ("one", "two", "three"):
        chat.run(f"page.composer.propose('{text}')")
        chat.press("Enter")
        chat.wait(f"{IDLE} && document.querySelectorAll('.turn').length > 0 && !document.querySelector('.waits')")
    chat.ask("four", idle=False)
    chat.wait("!!document.querySelector('.runs .figures')")
    assert chat.run(FAULTS) == []
    chat.stub.gate.set()
    chat.wait(IDLE)
    for opener, dialog in (("settings-button", "settings"), ("help-button", "help"), ("clear-button", "clear")):
        chat.run(f"document.getElementById('{opener}').click()")
        assert chat.run(FAULTS) == []
        chat.run(f"document.getElementById('{dialog}').close()")
    chat.click("[aria-label='This request as code']")
    assert chat.run(FAULTS) == []
    chat.press("Escape")
    chat.reload()
    assert chat.run("document.documentElement.dataset.theme") == theme


def test_less_motion_is_heeded(chat: Chat) -> None:
    chat.stub.plan = [["wait", "end"]]
    chat.browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    chat.ask("hello", idle=False)
    chat.wait("!!document.querySelector('.waits i')")
    assert chat.run("getComputedStyle(document.querySelector('.waits i')).animationName") == "none"
    assert chat.run("document.getAnimations().length") == 0
    chat.browser.call("Emulation.setEmulatedMedia", features=[])


def test_a_page_without_its_server_says_so(shared: Browser) -> None:
    stub = Stub()
    stub.config = {"wrong": True}
    with served(stub.app()) as address:
        shared.open(address)
        shared.wait("document.querySelector('.empty')?.textContent.startsWith('The page cannot start')")
        shared.open("about:blank")
