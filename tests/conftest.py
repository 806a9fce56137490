"""Makes the pack importable as `fpga`, and ComfyUI too if there is one (see devtools/launch.py).

A run of tests/core alone cannot import ComfyUI, because nothing that is tested there may need it.
"""

import os
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
# From the fastest and most telling to the slowest. The browser comes last also because playwright keeps an event loop
# running.
ORDER = ("core", "contract", "patching", "slow", "gpu", "host", "browser")
NEEDS_COMFYUI = ("patching", "host", "browser")
"""Folders whose tests all do; a test elsewhere that does is marked with `comfyui`."""
NEVER_SKIPPED_IN_CI = (*NEEDS_COMFYUI, "slow")

launch = runpy.run_path(str(ROOT / "devtools" / "launch.py"))
launch["register_pack"]()
sys.path.insert(0, str(ROOT / "tests" / "support"))
# A machine may have other work: how long an example takes says nothing.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_configure(config: pytest.Config) -> None:
    if chosen_folders(config) == {"core"}:
        from without_comfyui import refuse_comfyui

        refuse_comfyui()
    elif os.environ.get("COMFYUI_PATH"):
        from fpga.commands.comfyui import import_comfyui

        import_comfyui()


def chosen_folders(config: pytest.Config) -> set[str]:
    """Returns the folders under tests/ that were asked for; `.` stands for tests/ itself and for anything outside."""
    folders = set()
    for argument in config.args:
        path = (config.invocation_params.dir / argument.partition("::")[0]).resolve()
        below = path.relative_to(ROOT / "tests").parts if path.is_relative_to(ROOT / "tests") else ()
        folders.add(below[0] if below else ".")
    return folders


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory):
    """A real ComfyUI server with the pack and the stand-ins loaded; one for the host and browser tests of a run."""
    from fpga.devtools.server import ComfyServer
    from fpga.devtools.stand_ins import PACKS, place_stand_ins

    base = tmp_path_factory.mktemp("comfyui")
    place_stand_ins(base)
    with ComfyServer(base, packs=PACKS) as running:
        yield running


@pytest.fixture(scope="session")
def client(server):
    from fpga.devtools.client import ComfyClient

    return ComfyClient(server.address)


def folder_of(item: pytest.Item) -> str:
    """Returns the folder under tests/ that a test belongs to."""
    return item.path.relative_to(ROOT / "tests").parts[0]


def needs_comfyui(item: pytest.Item) -> bool:
    return folder_of(item) in NEEDS_COMFYUI or item.get_closest_marker("comfyui") is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs the folders in their order; tests that need a ComfyUI say so when there is none."""
    items.sort(key=lambda item: ORDER.index(folder_of(item)))
    if os.environ.get("COMFYUI_PATH"):
        return
    reason = "COMFYUI_PATH is not set: run `python dev.py test`, which gets a ComfyUI"
    for item in items:
        if needs_comfyui(item):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """In CI, a skipped test is a failure if everything that it needs must be there."""
    report = yield
    must_run = folder_of(item) in NEVER_SKIPPED_IN_CI or needs_comfyui(item)
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") and must_run:
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow here: {report.longrepr[2]}"
    return report
