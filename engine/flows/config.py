"""The configuration of a flow class: its YAML defaults, merged along its base classes (§9.2).

Whatever a default takes from the environment (`${oc.env:NAME}`) is kept as the expression, wrapped
as `{"$env": "<expression>"}`: a configuration is stored, an environment variable may be a secret.
`engine.model.secrets.resolve` puts the values in, in the process that runs the flow.
"""

import copy
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from engine.model.errors import PluginError
from engine.model.secrets import variables, wrap

Config = dict[str, Any]


def merge(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> Config:
    """Return `base` with `overrides` laid over it: dict into dict, all else (lists too) replaces.

    Neither argument is changed, nor shared with the result.
    """
    return lay_over(copy.deepcopy(dict(base)), copy.deepcopy(dict(overrides)))


def lay_over(target: Config, overrides: Config) -> Config:
    """Do as `merge`, but into `target` itself, and let it share values with `overrides`."""
    for key, value in overrides.items():
        below = target.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            target[key] = lay_over(dict(below), dict(value))
        else:
            target[key] = value
    return target


def own_defaults(flow_class: type) -> Config:
    """Return what `flow_class` itself, without its base classes, declares as defaults.

    That is `<ClassName>.yaml` beside its module, else its attribute `__default_flow_config`, else
    nothing. Raises PluginError, naming file and line, when the file is not a valid YAML mapping.
    """
    name = flow_class.__name__
    module_file = getattr(sys.modules.get(flow_class.__module__), "__file__", None)
    if module_file is not None:
        path = Path(module_file).with_name(f"{name}.yaml")
        try:
            status = path.stat()
        except OSError:
            pass
        else:
            defaults = copy.deepcopy(_read(path, status.st_mtime_ns, status.st_size))
            _complete_targets(defaults, flow_class.__module__.rpartition(".")[0])
            return defaults
    attribute = vars(flow_class).get(f"_{name.lstrip('_')}__default_flow_config", {})
    return copy.deepcopy(dict(attribute))


@lru_cache(maxsize=4096)
def _read(path: Path, mtime_ns: int, size: int) -> Config:
    """Return the file's mapping with interpolations resolved; read again when it has changed."""
    try:
        loaded = OmegaConf.load(path)
        raw = OmegaConf.to_container(loaded, resolve=False)
        if not isinstance(raw, dict):
            raise PluginError(f"{path}: a mapping of keys to values was expected.")
        wrapped = OmegaConf.create(_wrap_environment(raw))
        resolved = OmegaConf.to_container(wrapped, resolve=True)
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        raise PluginError(f"{path}: {_first_line(error)}.") from error
    return {str(key): value for key, value in dict(resolved).items()}


def _wrap_environment(value: Any) -> Any:
    """Return `value` with each text that takes something from the environment in its wrapper."""
    if isinstance(value, dict):
        return {key: _wrap_environment(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_wrap_environment(item) for item in value]
    if isinstance(value, str) and variables(value):
        # Escaped, because it shall come out of the resolving of the others as it went in.
        return wrap(value.replace("${oc.env:", "\\${oc.env:"))
    return value


def _complete_targets(value: Any, package: str) -> None:
    """Prefix each `_target_` that starts with a dot by `package`, in place, at all depths."""
    if isinstance(value, dict):
        target = value.get("_target_")
        if isinstance(target, str) and target.startswith("."):
            value["_target_"] = package + target
        for item in value.values():
            _complete_targets(item, package)
    elif isinstance(value, list):
        for item in value:
            _complete_targets(item, package)


def _first_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        problem = getattr(error, "problem", None)
        return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"
    return str(error).strip().split("\n")[0].rstrip(".")
