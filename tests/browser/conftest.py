"""One browser for all tests of the folder, and one page with the editor for each way in which it can draw nodes."""

import pytest
from editor import Editor, open_browser

RENDERERS = {"classic": False, "nodes_2": True}
"""Name -> value of the editor's setting `Comfy.VueNodes.Enabled`."""


@pytest.fixture(scope="session")
def open_editor(server, client):
    """Returns the page of a renderer, the same one each time."""
    client.set_setting(
        "Comfy.TutorialCompleted", True
    )  # the first visit would open the template chooser over the graph
    client.set_setting("LiteGraph.Node.TooltipDelay", 10)
    pages: dict[str, Editor] = {}
    with open_browser() as browser:

        def page_of(renderer: str) -> Editor:
            if renderer not in pages:
                client.set_setting("Comfy.VueNodes.Enabled", RENDERERS[renderer])
                page = browser.new_page(viewport={"width": 1400, "height": 1800})
                pages[renderer] = Editor(page, server.address, a_node="FPGA_LoadRepControlNet")
            return pages[renderer]

        yield page_of


@pytest.fixture(scope="session")
def editor(open_editor):
    """The editor with the classic renderer, which draws nodes on a canvas."""
    return open_editor("classic")


@pytest.fixture(params=RENDERERS)
def either_editor(request, open_editor):
    """The editor with one renderer, then with the other."""
    return open_editor(request.param)


@pytest.fixture(autouse=True)
def no_error_of_ours(request):
    """Whatever a test does, its page logs no error about the pack."""
    name = next((name for name in ("editor", "either_editor") if name in request.fixturenames), None)
    if name is None:
        yield
        return
    editor = request.getfixturevalue(name)
    seen = len(editor.errors)
    yield
    ours = [error for error in editor.errors[seen:] if "fpga" in error.lower() and not is_expected(error)]
    assert ours == []


def is_expected(error: str) -> bool:
    """The editor asks for a translated help page first, and uses the plain one if there is none."""
    return "404" in error and "/docs/" in error
