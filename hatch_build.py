"""Compile the C++ kernels and build the web page while limner is installed.

Without a compiler, or if it fails, the package is installed all the same and runs on plain PyTorch;
without Node.js its server has no page. Both are made at once, since one waits for the network.
"""

from __future__ import annotations

import importlib.util
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BuildHook(BuildHookInterface[Any]):
    """Called by hatch for each wheel, an editable one too."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build both, and take into the wheel what came of it."""
        if self.target_name != "wheel":
            return
        with ThreadPoolExecutor(1) as aside:
            page = aside.submit(self._build_page, build_data)
            self._build_kernels(version, build_data)
            page.result()

    def _build_page(self, build_data: dict[str, Any]) -> None:
        build = _load(Path(self.root) / "limner" / "serving" / "build_page.py")
        try:
            build.build()
        except RuntimeError as error:
            self.app.display_warning(f"the web page was not built: {error}")
        build_data["artifacts"].append("limner/serving/page/**")

    def _build_kernels(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and make the wheel one for this platform if anything came of it."""
        build = _load(Path(self.root) / "limner" / "kernels" / "build.py")
        compiler = build.find_compiler()
        if compiler is None:
            self.app.display_warning("no C++ compiler: limner will run on plain PyTorch, slower")
            return
        try:
            # A wheel may be carried to another processor; an editable installation stays here.
            names = build.build(compiler, every=version != "editable")
        except RuntimeError as error:
            self.app.display_warning(f"{error}\nlimner will run on plain PyTorch, slower")
            return
        self.app.display_info(f"kernels built: {', '.join(names)}")
        build_data["artifacts"] += ["limner/kernels/built/*.so", "limner/kernels/built/*.stamp"]
        build_data["pure_python"] = False
        # The libraries know nothing of Python: any version of it will do on this platform.
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"


def _load(path: Path) -> ModuleType:
    """A module by itself: importing limner would import torch, which is not there yet."""
    spec = importlib.util.spec_from_file_location(f"limner_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up while they are made.
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
