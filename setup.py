"""What pyproject.toml cannot say: this folder is the package `fpga_portrait`, without its development tools."""

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

PACKAGE = "fpga_portrait"
ROOMS = find_packages(include=[f"{room}*" for room in ("commands", "fpga_core", "nodes")])


class BuildPack(build_py):
    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """The modules of a package; dev.py and this file lie beside the root's, and stay out."""
        modules = super().find_package_modules(package, package_dir)
        return [found for found in modules if package != PACKAGE or found[1] in ("__init__", "__main__")]


setup(
    packages=[PACKAGE, *(f"{PACKAGE}.{room}" for room in ROOMS)],
    package_dir={PACKAGE: "."},
    cmdclass={"build_py": BuildPack},
)
