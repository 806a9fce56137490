"""What Daft's worker processes run. They start without this pack, so this class is sent to them as code.

It imports nothing of the pack before the pack can be imported there: as an installed package, or from its folder.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import daft


class Worker:
    """A task in a worker process.

    Args:
        package: the name of the pack as a package.
        folder: the pack's folder, which must be the same on every machine unless the pack is installed there.
        module: the module of the task.
        arguments: what its `open_task` gets, as JSON.
        columns: the names of the columns that it is called with.
    """

    def __init__(self, package: str, folder: str, module: str, arguments: str, columns: tuple[str, ...]) -> None:
        import json
        import runpy
        import warnings
        from importlib import import_module

        try:
            import_module(package)
        except ImportError:
            runpy.run_path(f"{folder}/__main__.py")["register_pack"](package)
        warnings.simplefilter("ignore")  # what libraries deprecate is not the user's to change
        self._task = import_module(f"{package}.commands.dataset.{module}").open_task(json.loads(arguments))
        self._columns = columns

    def run(self, *series: "daft.Series") -> list[dict[str, Any]]:
        values = zip(*(column.to_pylist() for column in series), strict=True)
        return self._task([dict(zip(self._columns, row, strict=True)) for row in values])
