"""The functions by which timm knows our models; `zoo.interop.register_with_timm` fills this module on request.

timm files an entry under its module, reads `default_cfgs` there and adds the name to `__all__`.
"""

from typing import Any

__all__: list[str] = []
default_cfgs: dict[str, dict[str, Any]] = {}
