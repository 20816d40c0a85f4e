"""The public API as one page, from the docstrings; ``python -m lrsearch.apidoc`` writes it."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

PLACE = Path(__file__).parent / "API.md"
MODULES: dict[str, tuple[str, ...]] = {
    "lrsearch": (),
    "lrsearch.schedules": (),
    "lrsearch.tasks": (),
    "lrsearch.tracking": ("make_tracker",),
    "lrsearch.integrations.lightning": ("configure", "PruningCallback"),
    "lrsearch.integrations.transformers": (
        "ScheduleTrainer",
        "ScheduleMixin",
        "hp_space",
        "eval_loss",
    ),
}
"""Module -> its public names; none stands for ``__all__``."""
SECTIONS = ("Args:", "Attributes:", "Returns:", "Raises:", "Example:")


def public_names(module: str) -> Iterator[tuple[str, Any]]:
    """Each public name of a module and what it is.

    Args:
        module: A key of :data:`MODULES`.
    """
    found = import_module(module)
    for name in MODULES[module] or found.__all__:
        if not name.startswith("_"):
            value = getattr(found, name)
            # a package that is also a function: what is documented is the function
            callable_module = inspect.ismodule(value)
            yield name, getattr(import_module("lrsearch.api"), name) if callable_module else value


def members(found: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that a class defines itself, in its order."""
    fields = getattr(found, "__dataclass_fields__", {})
    for name, value in vars(found).items():
        if name in fields:
            continue
        wrapped = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
        kind = inspect.isfunction(wrapped) or isinstance(wrapped, property)
        cached = type(wrapped).__name__ == "cached_property"
        if not name.startswith("_") and (kind or cached):
            yield name, wrapped


def documentation(name: str, value: Any, module: str) -> str:
    """The docstring of a public name; of a constant the text below its assignment."""
    if inspect.isclass(value) or inspect.isroutine(value) or hasattr(value, "fget"):
        own = inspect.getdoc(value) or ""
        return "" if inspect.isclass(value) and own.startswith(f"{name}(") else own
    if hasattr(value, "func"):  # a cached property
        return inspect.getdoc(value.func) or ""
    folder = Path(str(import_module(module).__file__)).parent
    for path in sorted(folder.glob("*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        for line, after in pairwise(body):
            targets = line.targets if isinstance(line, ast.Assign) else []
            targets = [line.target] if isinstance(line, ast.AnnAssign) else targets
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            text = after.value if isinstance(after, ast.Expr) else None
            if name in names and isinstance(text, ast.Constant):
                return textwrap.dedent(str(text.value)).strip()
    return ""


def page() -> str:
    """The whole page as Markdown."""
    lines = [
        "# The Python API",
        "",
        "Made from the docstrings by `python -m lrsearch.apidoc`. The commands of the command "
        "line are functions with the same words. `import lrsearch` costs nothing: a name is "
        "loaded when it is first used.",
        "",
    ]
    for module in MODULES:
        names = " · ".join(f"[{n}](#{_anchor(module, n)})" for n, _ in public_names(module))
        lines += [f"**`{module}`**: {names}", ""]
    seen: dict[int, str] = {}
    for module in MODULES:
        lines += [f"## {module}", ""]
        for name, value in public_names(module):
            first = seen.setdefault(id(value), module)
            if first == module:
                lines += _entry(module, name, value)
            else:
                link = f"[{first}.{name}](#{_anchor(first, name)})"
                lines += [f"### {module}.{name}", "", f"The same as {link}.", ""]
    return "\n".join(lines).rstrip() + "\n"


def _anchor(module: str, name: str) -> str:
    return re.sub(r"[^a-z0-9_-]", "", f"{module}.{name}".lower())


def _entry(module: str, name: str, value: Any) -> list[str]:
    lines = [f"### {module}.{name}", ""]
    if inspect.isclass(value) or inspect.isroutine(value):
        lines += ["```python", _signature(name, value), "```", ""]
    lines += [_markdown(documentation(name, value, module)), ""]
    if inspect.isclass(value):
        for member, method in members(value):
            shown = "" if not inspect.isfunction(method) else _signature(member, method)
            first = documentation(member, method, module).split("\n\n")[0]
            line = " ".join((shown or member).split())
            lines.append(f"- `.{line}`: {_plain(' '.join(first.split()))}")
        if lines[-1]:
            lines.append("")
    return lines


def _signature(name: str, value: Any) -> str:
    """``name(arguments) -> result`` as in the source, one argument a line where it is long."""
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return name
    words, keywords = [], False
    for parameter in found.parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not keywords:
            words.append("*")
            keywords = True
        keywords = keywords or parameter.kind is parameter.VAR_POSITIONAL
        several, named = parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD
        stars = "*" if parameter.kind is several else "**" if parameter.kind is named else ""
        word = stars + parameter.name
        if parameter.annotation is not parameter.empty:
            word += f": {_type(parameter.annotation)}"
        if parameter.default is not parameter.empty:
            word += f" = {_default(parameter.default)}"
        words.append(word)
    result = "" if inspect.isclass(value) else f" -> {_type(found.return_annotation)}"
    line = f"{name}({', '.join(words)}){result}"
    if len(line) <= 90:
        return line
    inner = "".join(f"    {word},\n" for word in words)
    return f"{name}(\n{inner}){result}"


def _type(annotation: Any) -> str:
    annotation = getattr(annotation, "__forward_arg__", annotation)  # as of a NamedTuple
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return "None" if annotation is None else str(text)


def _default(value: Any) -> str:
    if inspect.isroutine(value) or inspect.isclass(value):
        return str(value.__name__)
    args = import_module("lrsearch.schedules.args")
    marks = [n for n in ("REQUIRED", "OPTIONAL", "BUDGET") if getattr(args, n) is value]
    text = repr(value)
    return marks[0] if marks else "..." if text.startswith("<") else text


def _plain(text: str) -> str:
    """reStructuredText's roles and double backquotes as Markdown."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
    return text.replace("``", "`")


def _markdown(text: str) -> str:
    """A docstring in Google's style as Markdown."""
    out: list[str] = []
    section = ""
    block: list[str] = []

    def close() -> None:
        body = textwrap.dedent("\n".join(block)).strip("\n")
        if section == "Example:":
            shown = re.sub(r" +# doctest: .*", "", body)
            out.extend(["```python", shown, "```", ""])
        elif section:
            out.extend([f"**{section.rstrip(':')}**", "", *_items(body, section), ""])
        elif body:
            out.extend([_plain(body), ""])

    for line in text.splitlines():
        if line in SECTIONS:
            close()
            section, block = line, []
        else:
            block.append(line)
    close()
    return "\n".join(out).strip()


def _items(body: str, section: str) -> list[str]:
    """The lines of a section as a list; of what is returned as text."""
    if section == "Returns:":
        return [_plain(" ".join(body.split()))]
    items: list[str] = []
    for line in body.splitlines():
        if line.startswith(" ") and items:
            items[-1] += " " + line.strip()
        elif line.strip():
            items.append(line.strip())
    return [re.sub(r"^([\w.*, ]+): ", r"- `\1`: ", _plain(item)) for item in items]


if __name__ == "__main__":
    PLACE.write_text(page(), encoding="utf-8")
