"""ComfyUI's graph editor in a real browser, for tests."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, TimeoutError, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
INSTALLED_BROWSERS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
)
NODE_PLACE = (100, 100)


def find_browser() -> str | None:
    """Returns the Chromium of the system; None if there is none."""
    on_path = (shutil.which(name) for name in BROWSERS)
    return next((path for path in [*on_path, *filter(os.path.exists, INSTALLED_BROWSERS)] if path), None)


@contextmanager
def open_browser() -> Iterator[Browser]:
    path = find_browser()
    if path is None:
        pytest.skip("no Chromium, Chrome or Edge found: install one (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


class Editor:
    """One page with the editor, ready for use.

    Attributes:
        errors: what the page logged as an error or threw, with where it came from.
    """

    def __init__(self, page: Page, address: str, a_node: str, timeout: float = 120):
        self.page = page
        self.errors: list[str] = []
        page.set_default_timeout(timeout * 1000)
        page.on("console", self._note_console)
        page.on("pageerror", lambda error: self.errors.append(f"{error}\n{error.stack}"))
        page.on("dialog", lambda dialog: dialog.accept())  # "leave without saving?", which would stop a reload
        self._address, self._a_node = address, a_node
        self.reload()

    def reload(self) -> None:
        """Opens the page anew, as a user does the next day."""
        self.page.goto(self._address)
        is_ready = (
            "id => window.LiteGraph?.registered_node_types?.[id] && window.app?.extensionManager?.spinner === false"
        )
        self.page.wait_for_function(is_ready, arg=self._a_node)

    def _note_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location.get('url')})")

    def create(self, node_id: str) -> dict:
        """Puts one node on an empty canvas, selected, with its advanced settings shown.

        Returns:
            Its title, and where its inputs (by name) and outputs (in order) are, in graph coordinates.
        """
        return self.page.evaluate(
            """async ([id, place]) => {
                app.graph.clear()
                const node = LiteGraph.createNode(id)
                node.pos = place
                app.graph.add(node)
                if (node.widgets?.some(widget => widget.options?.advanced)) {
                    const button = () => node.widgets.find(widget => widget.name === 'fpga_advanced')
                    while (!button()) await new Promise(requestAnimationFrame)
                    button().callback()
                }
                app.canvas.ds.reset()
                app.canvas.ds.offset = [200, 100]
                app.canvas.selectNode(node)
                app.canvas.draw(true, true)
                const frame = () => new Promise(requestAnimationFrame)
                await frame() // an element of a node is mounted
                app.canvas.setDirty(true, true)
                for (let i = 0; i < 3; i++) await frame() // and put in its place as the canvas is drawn again
                const placeOf = (input, i) => {
                    const widget = node.widgets?.find(widget => widget.name === input.widget?.name)
                    return widget ? [place[0] + node.size[0] / 2, place[1] + widget.y + 14] : node.getInputPos(i)
                }
                return {
                    title: node.title,
                    inputs: Object.fromEntries(node.inputs.map((input, i) => [input.name, placeOf(input, i)])),
                    outputs: node.outputs.map((_, i) => node.getOutputPos(i)),
                }
            }""",
            [node_id, NODE_PLACE],
        )

    def tooltip_at(self, graph_x: float, graph_y: float) -> str:
        """Returns the tooltip at a place, in graph coordinates: the browser's own where an element lies there."""
        over = "([x, y]) => document.elementFromPoint(x, y)?.closest('.dom-widget')?.title"
        if title := self.page.evaluate(over, self._on_page(graph_x, graph_y)):
            return title
        tooltip = self.page.locator(".node-tooltip")
        self.page.mouse.move(*self._on_page(NODE_PLACE[0] - 60, graph_y))  # beside the node: nothing to explain there
        tooltip.wait_for(state="hidden")
        self.page.mouse.move(*self._on_page(graph_x, graph_y))
        tooltip.wait_for(state="visible", timeout=10_000)
        return tooltip.inner_text()

    def _on_page(self, graph_x: float, graph_y: float) -> tuple[float, float]:
        return self.page.evaluate(
            """point => {
                const corner = app.canvas.canvas.getBoundingClientRect()
                const [x, y] = app.canvas.ds.convertOffsetToCanvas(point)
                return [x + corner.left, y + corner.top]
            }""",
            [graph_x, graph_y],
        )

    def title_tooltip(self) -> str:
        return self.tooltip_at(NODE_PLACE[0] + 50, NODE_PLACE[1] - 10)

    def help_text(self, title: str) -> str:
        """The help page of the selected node, opened by its button."""
        self.page.get_by_test_id("info-button").click()
        heading = self.page.locator(".node-help-content h1", has_text=title)
        heading.wait_for(state="visible")
        return self.page.locator(".node-help-content").inner_text()

    def load(self, workflow: dict) -> list[str]:
        """Opens a workflow of the editor's format and returns the types that are not installed."""
        return self.page.evaluate(
            """async workflow => {
                await app.loadGraphData(workflow)
                const types = app.graph.nodes.map(node => node.type)
                return types.filter(type => !(type in LiteGraph.registered_node_types))
            }""",
            workflow,
        )

    def load_prompt(self, prompt: dict) -> None:
        """Opens a graph in API format."""
        self.page.evaluate("prompt => app.loadApiJson(prompt, 'prompt')", prompt)

    def bring_to_front(self, node_type: str, place: tuple[int, int]) -> None:
        """Shows a node at full size at a place of the page, with the others far away."""
        self.page.evaluate(
            """([type, place]) => {
                const node = app.graph.nodes.find(node => node.type === type)
                for (const other of app.graph.nodes) if (other !== node) other.pos = [other.pos[0] + 5000, other.pos[1]]
                node.pos = [0, 0]
                app.canvas.ds.scale = 1
                app.canvas.ds.offset = place
                app.canvas.setDirty(true, true)
            }""",
            [node_type, place],
        )
        self.wait_for_frames(10)

    def wait_until_still(self, selector: str, frames: int = 8) -> None:
        """Waits until one element fits a selector and has stayed where it is for some frames."""
        self.page.evaluate(
            """async ([selector, frames]) => {
                let [still, last] = [0, '']
                while (still < frames) {
                    await new Promise(requestAnimationFrame)
                    const found = [...document.querySelectorAll(selector)]
                    const places = JSON.stringify(found.map(element => element.getBoundingClientRect()))
                    still = found.length === 1 && found[0].checkVisibility() && places === last ? still + 1 : 0
                    last = places
                }
            }""",
            [selector, frames],
        )

    def remember(self) -> None:
        """Lets the editor notice changes that a test made, as a click would, so that they can be undone."""
        self.page.evaluate("app.extensionManager.workflow.activeWorkflow.changeTracker.checkState()")

    def wait_for_frames(self, count: int = 3) -> None:
        """Waits until the editor has drawn some frames."""
        for _ in range(count):
            self.page.evaluate("new Promise(requestAnimationFrame)")

    def command(self, name: str) -> None:
        """Runs one of the editor's commands, as its menu does."""
        self.page.evaluate("name => app.extensionManager.command.execute(name)", name)

    def num_nodes(self) -> int:
        return self.page.evaluate("app.graph.nodes.length")

    def set_widgets(self, name: str, value: int) -> None:
        """Sets every widget of that name in the graph, and inside its folded parts."""
        self._change_widgets(name, "value", value)

    def divide_widgets(self, name: str, divisor: int) -> None:
        """Divides every widget of that name in the graph, and inside its folded parts."""
        self._change_widgets(name, "Math.floor(widget.value / value)", divisor)

    def _change_widgets(self, name: str, changed: str, value: int) -> None:
        self.page.evaluate(
            f"""([name, value]) => {{
                const all = nodes => nodes.flatMap(node => [node, ...all(node.subgraph?.nodes ?? [])])
                const isWired = node => node.inputs?.some(input => input.widget?.name === name && input.link != null)
                for (const node of all(app.graph.nodes)) for (const widget of node.widgets ?? [])
                    if (widget.name === name && !isWired(node)) widget.value = {changed}
            }}""",
            [name, value],
        )

    def prompt(self) -> dict:
        """The graph in API format, as the editor would queue it."""
        return self.page.evaluate("app.graphToPrompt().then(graph => graph.output)")

    def reports(self) -> dict[str, str]:
        """What the nodes report, by their types; of several nodes of one type, the last."""
        return self.page.evaluate(
            """() => Object.fromEntries(app.graph.nodes.flatMap(node => {
                const box = node.widgets?.find(widget => widget.name === 'fpga_report')?.element
                return box ? [[node.type, [...box.querySelectorAll('p')].map(p => p.textContent).join("\\n")]] : []
            }))"""
        )

    def wait_for_report(self, node_type: str) -> None:
        """Waits until a node shows a report."""
        self.page.wait_for_function(
            """type => app.graph.nodes.some(node => node.type === type &&
                node.widgets?.some(widget => widget.name === 'fpga_report'))""",
            arg=node_type,
        )

    def color_of(self, locator: Locator) -> tuple[int, ...]:
        """Red, green and blue of an element's text, 0 to 255."""
        color = locator.evaluate("element => getComputedStyle(element).color")
        return tuple(int(part) for part in re.findall(r"\d+", color)[:3])

    def notes(self) -> list[str]:
        """What the notes beside the graph say."""
        return self.page.evaluate(
            "app.graph.nodes.filter(node => node.type === 'MarkdownNote').map(node => node.widgets[0].value)"
        )

    def overlapping(self) -> list[list[str]]:
        """Returns the titles of every two nodes that overlap, as they are drawn, with their titles."""
        return self.page.evaluate(
            """() => {
                const { offset, scale } = app.canvas.ds
                const corner = app.canvas.canvas.getBoundingClientRect()
                const boxOf = node => { // Nodes 2.0 draws an element, which can be larger than the node says
                    const drawn = document.querySelector(`[data-node-id="${node.id}"]`)?.getBoundingClientRect()
                    if (!drawn?.width) return node.getBounding()
                    const [x, y] = [drawn.left - corner.left, drawn.top - corner.top]
                    return [x / scale - offset[0], y / scale - offset[1], drawn.width / scale, drawn.height / scale]
                }
                const boxes = app.graph.nodes.map(node => [node.title, ...boxOf(node)])
                const meet = (a, sizeOfA, b, sizeOfB) => a < b + sizeOfB && b < a + sizeOfA
                return boxes.flatMap(([title, x, y, width, height], i) => boxes.slice(i + 1)
                    .filter(([, x2, y2, width2, height2]) => meet(x, width, x2, width2) && meet(y, height, y2, height2))
                    .map(([other]) => [title, other]))
            }"""
        )

    def forget_results(self) -> None:
        """Lets the server run every node again."""
        self.page.evaluate(
            "() => app.api.fetchApi('/free', {method: 'POST', headers: {'Content-Type': 'application/json'}, "
            "body: JSON.stringify({free_memory: true})})"
        )
        self.page.wait_for_timeout(500)  # the server carries it out between two prompts

    def run(self, timeout: float = 200) -> None:
        """Presses Run and waits for the end of the run, which is interrupted if it takes too long.

        Raises:
            AssertionError: the run failed, or the editor refused to queue it.
        """
        self.page.evaluate(
            """() => {
                window.ended = null
                for (const event of ["execution_success", "execution_error", "execution_interrupted"])
                    app.api.addEventListener(event, e => { window.ended = [event, e.detail] }, {once: true})
            }"""
        )
        self.page.get_by_test_id("queue-button").first.click()
        try:
            self.page.wait_for_function("window.ended || app.lastNodeErrors", timeout=timeout * 1000)
        except TimeoutError:
            self.page.evaluate("app.api.interrupt()")  # or the next test's run would wait for this one
            self.page.wait_for_function("window.ended")
            raise
        ended, refused = self.page.evaluate("[window.ended, app.lastNodeErrors]")
        assert ended and ended[0] == "execution_success", ended or refused

    def wait_for_pictures(self) -> list[tuple[int, int]]:
        """Returns width and height of every picture that a node shows, as soon as there is one."""
        sizes = """() => {
            const pictures = app.graph.nodes.flatMap(node => node.imgs ?? []).filter(image => image.naturalWidth > 0)
            return pictures.length ? pictures.map(image => [image.naturalWidth, image.naturalHeight]) : null
        }"""
        return [tuple(size) for size in self.page.wait_for_function(sizes).json_value()]

    def screenshot(self, path: Path) -> None:
        self.page.screenshot(path=path)
