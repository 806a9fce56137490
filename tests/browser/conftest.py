"""One browser and one editor page for all tests of the folder."""

import pytest
from editor import Editor, open_browser


@pytest.fixture(scope="session")
def editor(server, client):
    client.set_setting(
        "Comfy.TutorialCompleted", True
    )  # the first visit would open the template chooser over the graph
    client.set_setting("LiteGraph.Node.TooltipDelay", 10)
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 1800})
        yield Editor(page, server.address, a_node="FPGA_LoadRepControlNet")


@pytest.fixture(autouse=True)
def no_error_of_ours(editor):
    """Whatever a test does, the page logs no error about the pack."""
    seen = len(editor.errors)
    yield
    ours = [error for error in editor.errors[seen:] if "fpga" in error.lower() and not is_expected(error)]
    assert ours == []


def is_expected(error: str) -> bool:
    """The editor asks for a translated help page first, and uses the plain one if there is none."""
    return "404" in error and "/docs/" in error
