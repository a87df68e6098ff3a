"""Finding a task by its name, or in a file that the user wrote."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING

from flowerpress.compression.errors import ConfigError, FlowerpressError, UnknownNameError

if TYPE_CHECKING:
    from flowerpress.simulations.tasks.base import Task

__all__ = ["BUILT_IN", "load_task"]

BUILT_IN = MappingProxyType(
    {
        "cifar10": "flowerpress.simulations.tasks.cifar10:Cifar10",
        "cifar10-wide": "flowerpress.simulations.tasks.cifar10:Cifar10Wide",
        "digits": "flowerpress.simulations.tasks.digits:Digits",
        "mnist": "flowerpress.simulations.tasks.mnist:Mnist",
        "shakespeare": "flowerpress.simulations.tasks.shakespeare:Shakespeare",
        "shakespeare-transformer": (
            "flowerpress.simulations.tasks.transformer:ShakespeareTransformer"
        ),
    }
)
"""Name of each built-in task -> module and class, imported only when it is asked for."""


def load_task(name_or_path: str, folder: Path | None = None) -> Task:
    """Return the task called ``digits``, or the one in a file: ``./my_task.py:MyTask``.

    A file is run as Python when it is loaded: name only files that you would run yourself. Its
    folder joins the end of ``sys.path``, so that it can import the files beside it. ``:MyTask``
    may be left out if the file defines one task only. ``folder`` is passed to the task as is.

    Raises UnknownNameError for a name that no task has, ConfigError for a file that holds no
    usable task.
    """
    path, _, class_name = name_or_path.rpartition(":")
    if name_or_path.endswith(".py"):
        path, class_name = name_or_path, ""
    if path.endswith(".py"):
        return _create(_class_in_file(Path(path), class_name), folder)
    if name_or_path not in BUILT_IN:
        if ":" in name_or_path or "/" in name_or_path:
            raise ConfigError(
                f"task {name_or_path!r} is neither a built-in task ({', '.join(sorted(BUILT_IN))})"
                " nor a file; name your own as ./my_task.py:MyTask"
            )
        raise UnknownNameError("task", name_or_path, BUILT_IN)
    module_name, _, class_name = BUILT_IN[name_or_path].partition(":")
    task_class: type[Task] = vars(importlib.import_module(module_name))[class_name]
    return task_class(folder)


def _class_in_file(path: Path, class_name: str) -> type[Task]:
    from flowerpress.simulations.tasks.base import Task

    module = _import_file(path)
    own = {
        key: value
        for key, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, Task)
        and value.__module__ == module.__name__
    }
    if not class_name:
        if len(own) != 1:
            found = f"{len(own)} ({', '.join(sorted(own))})" if own else "none"
            raise ConfigError(
                f"task file {path}: which task? It defines {found}; "
                f"define a subclass of Task and name it: {path}:MyTask"
            )
        (class_name,) = own
    value = vars(module).get(class_name)
    if value is None:
        tasks = ", ".join(sorted(own)) or "none"
        raise ConfigError(f"task file {path} defines no {class_name!r}; its tasks: {tasks}")
    if not (inspect.isclass(value) and issubclass(value, Task)):
        raise ConfigError(
            f"task file {path}: {class_name} is not a task; write `class {class_name}(Task):` "
            "after `from flowerpress.simulations.tasks import Task`"
        )
    if inspect.isabstract(value):
        missing = ", ".join(f"{method}()" for method in sorted(value.__abstractmethods__))
        raise ConfigError(f"task file {path}: {class_name} still has to define {missing}")
    return value


def _import_file(path: Path) -> ModuleType:
    path = path.expanduser().resolve()
    if not path.is_file():
        raise ConfigError(f"task file {path} does not exist; name it as ./my_task.py:MyTask")
    # The whole path is the name: two files called my_task.py do not collide, and what a class
    # looks up through its module (dataclasses do) is found.
    name = f"flowerpress_task_{path.with_suffix('').as_posix().replace('/', '_')}".replace(".", "_")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"task file {path} is not a Python file")
    # Last, not first: a file of the user's must not hide one of the standard library.
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's code may fail in any way
        del sys.modules[name]
        raise ConfigError(
            f"task file {path} fails when it is imported: {type(error).__name__}: {error}"
        ) from error
    return module


def _create(task_class: type[Task], folder: Path | None) -> Task:
    try:
        return task_class(folder)
    except FlowerpressError:
        raise
    except Exception as error:  # as above
        raise ConfigError(
            f"task {task_class.__name__} cannot be made: {type(error).__name__}: {error}; "
            "its __init__ is called with the data folder, a Path or None"
        ) from error
