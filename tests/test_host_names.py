"""Whether every name of the host that webui/ uses is there: its source is read, nothing is run.

`--webui PATH` names a host's folder. The stand-ins of `fake_webui` are held to the same source.
"""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

WEBUI = Path(__file__).parents[1] / "clip_interrogator_ext" / "webui"
FAKES = Path(__file__).parent / "fake_webui"
HOST_ROOTS = ("modules", "modules_forge", "backend")
ONLY_IN = {"a1111.py": "a1111", "forge.py": "forge"}

# Values whose class the source does not name where they are made.
CLASS_OF = {
    ("modules.shared", "state"): ("modules.shared_state", "State"),
    ("modules.shared", "opts"): ("modules.options", "Options"),
    ("modules.sd_models", "model_data"): ("modules.sd_models", "SdModelData"),
    ("modules.sd_hijack", "model_hijack"): ("modules.sd_hijack", "StableDiffusionModelHijack"),
    ("modules.call_queue", "queue_lock"): ("modules.fifo_lock", "FIFOLock"),
}
# Names under which a module offers what another defines.
ALIASES = {("modules.shared", "OptionInfo"): "modules.options"}


def pytest_generate_tests(metafunc):
    if "host" in metafunc.fixturenames:
        paths = [Path(path) for path in metafunc.config.getoption("--webui")]
        skipped = pytest.param(None, marks=pytest.mark.skip(reason="--webui names no host"))
        metafunc.parametrize("host", paths or [skipped], ids=str)


def flavour(host: Path) -> str:
    return "forge" if (host / "modules_forge").is_dir() else "a1111"


@dataclass
class Scope:
    """What a module or class defines: names, and the functions and classes among them."""

    names: set[str] = field(default_factory=set)
    defined: dict[str, ast.AST] = field(default_factory=dict)


@cache
def tree_of(host: Path, module: str) -> ast.Module | None:
    base = host.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the host's own
                return ast.parse(path.read_text(encoding="utf-8"))
    return None


@cache
def scope_of(host: Path, module: str) -> Scope | None:
    tree = tree_of(host, module)
    if tree is None:
        return None
    scope = Scope()
    for node in ast.walk(tree):  # conditional definitions count, too
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if alias.name == "*" and node.module and node.module != module:
                    other = scope_of(host, node.module)
                    scope.names |= other.names if other else set()
                scope.names.add(alias.asname or alias.name)
        elif isinstance(node, ast.Import):
            scope.names |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Global):
            scope.names |= set(node.names)
    for node in ast.iter_child_nodes(tree):
        define(scope, node)
    return scope


def define(scope: Scope, node: ast.AST) -> None:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        scope.names.add(node.name)
        scope.defined[node.name] = node
    elif isinstance(node, (ast.Assign, ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            scope.names |= {one.id for one in ast.walk(target) if isinstance(one, ast.Name)}
            value = node.value
            is_alias = isinstance(target, ast.Name) and isinstance(value, ast.Name)
            if is_alias and value.id in scope.defined:
                scope.defined[target.id] = scope.defined[value.id]
    elif isinstance(node, (ast.If, ast.Try)):
        for child in ast.iter_child_nodes(node):
            define(scope, child)


def members_of(host: Path, module: str, name: str) -> Scope | None:
    """Return what the class of that name has, its bases in the same module included."""
    outer = scope_of(host, module)
    node = outer.defined.get(name) if outer else None
    if not isinstance(node, ast.ClassDef):
        return None
    scope = Scope()
    for base in node.bases:
        inherited = members_of(host, module, base.id) if isinstance(base, ast.Name) else None
        if inherited:
            scope.names |= inherited.names
            scope.defined.update(inherited.defined)
    for child in node.body:
        define(scope, child)
    for each in ast.walk(node):
        if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store):
            scope.names.add(each.attr)
    return scope


def find(host: Path, dotted: list[str], module: str) -> tuple[str | None, ast.AST | None]:
    """Follow `module.a.b`; return what is wrong, or the definition that was reached, if any."""
    if dotted and (module, dotted[0]) in ALIASES and dotted[0] in scope_of(host, module).names:
        module = ALIASES[module, dotted[0]]
    scope, here, node = scope_of(host, module), module, None
    if scope is None:
        return f"there is no module {module}", None
    for index, name in enumerate(dotted):
        if name not in scope.names:
            if index == 0 and tree_of(host, f"{module}.{name}") is not None:
                return find(host, dotted[1:], f"{module}.{name}")
            return f"{here} has no {name}", None
        node = scope.defined.get(name)
        rest = dotted[index + 1:]
        if (module, name) == ("modules.shared", "cmd_opts"):
            return (wrong_flag(host, rest[0]) if rest else None), None
        if (module, name) == ("modules.shared", "opts") and rest and is_option(host, rest[0]):
            return None, None
        if (module, name) in CLASS_OF and index == 0:
            inner = members_of(host, *CLASS_OF[module, name])
        else:
            inner = members_of(host, module, name)
        if rest and inner is None:
            return None, None  # a plain value: its attributes are not for us to know
        scope, here = inner or Scope(), f"{here}.{name}"
    return None, node


def wrong_flag(host: Path, name: str) -> str | None:
    flag = f'"--{name.replace("_", "-")}"'
    texts = [(host / "modules" / one).read_text(encoding="utf-8")
             for one in ("cmd_args.py", "shared_cmd_options.py")]
    known = flag in texts[0] or f"cmd_opts.{name} =" in texts[1]
    return None if known else f"there is no flag {flag}"


def is_option(host: Path, name: str) -> bool:
    text = (host / "modules" / "shared_options.py").read_text(encoding="utf-8")
    return f'"{name}": OptionInfo(' in text


@dataclass(frozen=True)
class Use:
    """A use of the host: module, names after it, and how it is called, if it is."""

    where: str
    module: str
    dotted: tuple[str, ...]
    positional: int = 0
    keywords: tuple[str, ...] = ()
    is_called: bool = False


def uses_in(path: Path) -> list[Use]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    known: dict[str, tuple[str, tuple[str, ...]]] = {}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in HOST_ROOTS:
            for alias in node.names:
                known[alias.asname or alias.name] = (node.module, (alias.name,))
                if "." in node.module:
                    found.append(Use(f"{path.name}:{node.lineno}", node.module, (alias.name,)))
                else:
                    module = f"{node.module}.{alias.name}"
                    found.append(Use(f"{path.name}:{node.lineno}", module, ()))
        elif (
            isinstance(node, ast.Assign) and len(node.targets) == 1
            and isinstance(node.targets[0], (ast.Name, ast.Tuple))
        ):
            # A short name for something of the host's, as in `state = shared.state`.
            pairs = [(node.targets[0], node.value)]
            if isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(node.targets[0].elts, node.value.elts, strict=True))
            for target, value in pairs:
                chain = chain_of(value, known)
                if chain and isinstance(target, ast.Name) and chain[1]:
                    known[target.id] = chain
    called = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        chain = chain_of(node, known)
        if not chain:
            continue
        call = called.get(id(node))
        found.append(Use(
            f"{path.name}:{node.lineno}", *chain,
            len(call.args) if call else 0,
            tuple(one.arg or "" for one in call.keywords) if call else (), call is not None,
        ))
    return found


def chain_of(node: ast.AST, known: dict) -> tuple[str, tuple[str, ...]] | None:
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in known:
        return None
    module, first = known[node.id]
    dotted = (*first, *names)
    # `from modules import shared` names a module, not something in the package.
    return (f"{module}.{dotted[0]}", dotted[1:]) if "." not in module else (module, dotted)


def wrong_call(node: ast.AST | None, use: Use) -> str | None:
    is_method = len(use.dotted) > 1
    if isinstance(node, ast.ClassDef):
        node = next((one for one in node.body if isinstance(one, ast.FunctionDef)
                     and one.name == "__init__"), None)
        is_method = True
    if not isinstance(node, ast.FunctionDef):
        return None
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args][1 if is_method else 0:]
    names = {one.arg for one in (*positional, *arguments.kwonlyargs)}
    if use.positional > len(positional) and not arguments.vararg:
        return f"{node.name} takes {len(positional)} positional arguments"
    unknown = set(use.keywords) - names - {""}
    if unknown and not arguments.kwarg:
        return f"{node.name} has no parameter {', '.join(sorted(unknown))}"
    required = [one.arg for one in positional[:len(positional) - len(arguments.defaults)]]
    lacking = set(required[use.positional:]) - set(use.keywords)
    return f"{node.name} needs {', '.join(sorted(lacking))}" if lacking else None


def test_every_name_that_webui_uses_is_there(host):
    wrong = []
    for path in sorted(WEBUI.glob("*.py")):
        if ONLY_IN.get(path.name, flavour(host)) != flavour(host):
            continue
        uses = uses_in(path)
        for use in uses:
            problem, node = find(host, list(use.dotted), use.module)
            if problem is None and use.is_called:
                problem = wrong_call(node, use)
            if problem:
                wrong.append(f"{use.where}: {problem}")
    assert wrong == []


def test_the_check_sees_what_is_used(host):
    """A list of uses that lost its entries would pass anything."""
    found = {(use.module, *use.dotted) for path in WEBUI.glob("*.py") for use in uses_in(path)}
    for expected in (
        ("modules.shared", "state", "begin"), ("modules.shared", "cmd_opts", "no_half"),
        ("modules.call_queue", "queue_lock", "acquire"), ("modules.progress", "start_task"),
        ("backend.memory_management", "load_models_gpu"), ("modules.shared", "opts", "data"),
        ("backend.patcher.base", "ModelPatcher"), ("modules.shared", "state", "sampling_step"),
    ):
        assert expected in found
    nonsense = [
        (["nonsense"], "modules.shared"), (["state", "nonsense"], "modules.shared"),
        (["cmd_opts", "nonsense"], "modules.shared"), (["opts", "nonsense"], "modules.shared"),
        (["x"], "modules.nonsense"),
    ]
    for dotted, module in nonsense:
        assert find(host, dotted, module)[0] is not None


def test_names_inside_texts_are_there(host):
    """Scripts of the page, ids of components, attributes of checkpoints, generating functions."""
    scripts = "".join(
        path.read_text(encoding="utf-8") for path in sorted((host / "javascript").glob("*.js"))
    )
    for name in (
        "extract_image_from_gallery", "recalculate_prompts_txt2img", "recalculate_prompts_img2img",
        "switch_to_txt2img", "switch_to_img2img", "switch_to_inpaint", "switch_to_extras",
    ):
        assert f"function {name}(" in scripts
    texts = [path.read_text(encoding="utf-8", errors="replace")
             for root in HOST_ROOTS for path in sorted((host / root).rglob("*.py"))]
    source = "".join(texts)
    for text in (
        'f"{tabname}_gallery"', "f'{tabname}_send_to_extras'", 'elem_id="pnginfo_image"',
        'elem_id=f"{tab}_tab"', '"init_img":', '"fields":', 'prompt, "Prompt")',
        '_prompt, "Negative prompt")', "def process_images(", "callbacks_ui_tabs",
        "self._pending_threads.append(",
    ):
        assert text in source, text
    kinds = ("is_sd1", "is_sd2", "is_sdxl", "is_sd3")
    for kind in kinds:
        assert re.search(rf"\.{kind} = True", source), kind
    if flavour(host) == "forge":
        assert "class Flux(" in source
        assert "def work(self)" in source
        assert "def get_prompt_lengths_on_ui(self, prompt)" in source


def test_stand_ins_invent_nothing(host):
    """Each public name of a stand-in is the host's, and takes what the host's takes."""
    wrong = []
    for folder in (FAKES / "common", FAKES / flavour(host)):
        for path in sorted(folder.rglob("*.py")):
            module = ".".join(path.relative_to(folder).with_suffix("").parts)
            if path.name == "__init__.py":
                continue
            for name, node in public(ast.parse(path.read_text(encoding="utf-8"))):
                problem, real = find(host, [name], module)
                if problem is None and isinstance(node, ast.FunctionDef):
                    problem = wrong_parameters(node, real)
                if problem is None and isinstance(node, ast.ClassDef):
                    problem = wrong_members(host, module, node)
                if problem:
                    wrong.append(f"{path.name}: {name}: {problem}")
    assert wrong == []


def public(tree: ast.AST) -> list[tuple[str, ast.AST]]:
    found: list[tuple[str, ast.AST]] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.append((node.name, node))
        elif isinstance(node, ast.Assign):
            found += [(one.id, node) for one in node.targets if isinstance(one, ast.Name)]
    return [(name, node) for name, node in found if not name.startswith("_")]


def wrong_parameters(fake: ast.FunctionDef, real: ast.AST | None) -> str | None:
    if not isinstance(real, ast.FunctionDef):
        return None
    ours, theirs = ([one.arg for one in (*node.args.args, *node.args.kwonlyargs)]
                    for node in (fake, real))
    return None if ours == theirs else f"takes {ours}, the host's takes {theirs}"


def wrong_members(host: Path, module: str, fake: ast.ClassDef) -> str | None:
    real = members_of(host, ALIASES.get((module, fake.name), module), fake.name)
    for name, node in public(fake):
        if real is None or name not in real.names:
            return f"the host's has no {name}"
        if isinstance(node, ast.FunctionDef):
            problem = wrong_parameters(node, real.defined.get(name))
            if problem:
                return f"{name} {problem}"
    return None
