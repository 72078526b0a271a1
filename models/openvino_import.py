"""The one door to OpenVINO: imports it without its telemetry."""

from __future__ import annotations

import sys
from types import ModuleType


def import_openvino() -> ModuleType:
    """OpenVINO, which then sends nothing to anyone.

    Importing and converting report to a web analytics service unless the package
    openvino_telemetry is missing, which OpenVINO and nncf both provide for; None in `sys.modules`
    makes it so. A process that imported that package before keeps it: it was somebody's wish.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino  # type: ignore[no-any-return]
