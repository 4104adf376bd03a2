"""Plugins: builtins and others are loaded the same way, and errors name the distribution."""

from __future__ import annotations

import importlib.metadata
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from debiasbench import Method, hookimpl
from debiasbench.common.errors import PluginError, UnknownNameError
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.registry import Origin
from debiasbench.specs.resolve import instance, make_spec
from tests.conftest import ACME, ToyPlugin, offering


@dataclass(frozen=True)
class Mine(Method):
    """A method of another distribution."""

    def fit(self, lab: Any) -> Any:
        return lab.train(lab.model(), name="train")


def line_of(text: str) -> int:
    """The first line of this file that contains a text, from 1."""
    lines = Path(__file__).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


def test_a_strangers_method_stands_beside_the_builtin_ones_with_its_origin() -> None:
    plugins = Plugins([(offering(mine=Mine), ACME)])
    assert str(plugins.methods["mine"].origin) == "acme 1.0"
    assert plugins.methods["erm"].origin.distribution == "debiasbench"
    assert plugins.methods["mine"].summary() == "A method of another distribution."


# --- names that several distributions register --------------------------------------------------

OTHER = Origin("Other_Lab.tools", "2.0")


def clashing() -> Plugins:
    """A plugin that registers `erm` and `mine`, and another one that registers `mine`."""
    return Plugins([(offering(erm=Mine, mine=Mine), ACME), (offering(mine=Mine), OTHER)])


def test_a_name_that_two_distributions_register_is_an_error_only_where_it_is_used() -> None:
    plugins = clashing()
    own = importlib.metadata.version("debiasbench")
    with pytest.raises(PluginError) as error:
        plugins.methods.find("erm")
    assert str(error.value) == (
        f"Two distributions register method 'erm': debiasbench {own} and acme 1.0. "
        "Write debiasbench:erm or acme:erm"
    )
    assert plugins.methods.find("rest")[0].origin.distribution == "debiasbench"
    assert plugins.broken == []
    assert plugins.warnings == [
        f"Two distributions register method 'erm': debiasbench {own} and acme 1.0. "
        "To use it, write debiasbench:erm or acme:erm",
        "Two distributions register method 'mine': acme 1.0 and Other_Lab.tools 2.0. "
        "To use it, write acme:mine or other-lab-tools:mine",
    ]


@pytest.mark.parametrize(
    ("written", "distribution", "in_spec"),
    [
        ("debiasbench:erm", "debiasbench", "erm"),
        ("acme:erm", "acme", "acme:erm"),
        ("ACME:mine", "acme", "acme:mine"),
        ("other-lab-tools:mine", "Other_Lab.tools", "other-lab-tools:mine"),
        ("Other_Lab.tools:mine", "Other_Lab.tools", "other-lab-tools:mine"),
        ("debiasbench:rest", "debiasbench", "rest"),
        ("rest", "debiasbench", "rest"),
    ],
)
def test_the_distribution_before_a_colon_says_whose_name_is_meant(
    written: str, distribution: str, in_spec: str
) -> None:
    methods = clashing().methods
    assert methods.find(written)[0].origin.distribution == distribution
    assert methods.name_in_spec(written) == in_spec
    assert methods.find_in_spec(in_spec)[0].origin.distribution == distribution


def test_a_builtin_name_in_a_spec_stays_builtin_whatever_is_installed() -> None:
    alone = make_spec(Plugins(), method="erm")
    plugins = clashing()
    assert make_spec(plugins, method="debiasbench:erm").id == alone.id
    assert type(instance(plugins.methods, alone.method)).__module__ == "debiasbench.methods.erm"
    assert plugins.methods["erm"].origin.distribution == "debiasbench"
    assert make_spec(plugins, method="acme:erm").id != alone.id


def test_a_mapping_of_clashing_names_has_each_entry_once() -> None:
    methods = clashing().methods
    names = ["debiasbench:erm", "acme:erm", "acme:mine", "other-lab-tools:mine"]
    assert [name for name in methods if ":" in name] == names
    assert {methods[name].full_name for name in names} == set(names)
    assert len(methods) == len(list(methods)) == len(Plugins().methods) + 3
    assert "erm" in methods
    assert "mine" in methods
    assert "nobody:mine" not in methods


def test_a_family_of_models_can_be_registered_by_two_distributions() -> None:
    class Zoo:
        @hookimpl
        def debiasbench_register_models(self, register: Callable[..., None]) -> None:
            register("timm:", "debiasbench.models.zoo:Timm")

    models = Plugins([(Zoo(), ACME)]).models
    with pytest.raises(PluginError, match="Write debiasbench:timm: or acme:timm:"):
        models.find("timm:resnet18")
    entry, fixed = models.find("acme:timm:resnet18")
    assert (entry.origin, fixed) == (ACME, {"name": "resnet18"})
    assert models.name_in_spec("acme:timm:resnet18") == "acme:timm:resnet18"
    assert models.name_in_spec("debiasbench:timm:resnet18") == "timm:resnet18"


def test_a_data_set_recommends_the_model_of_its_own_distribution() -> None:
    class Models:
        @hookimpl
        def debiasbench_register_models(self, register: Callable[..., None]) -> None:
            register("mlp", "debiasbench.models.cnn:CNN")
            register("cnn", "debiasbench.models.cnn:CNN")

    plugins = Plugins([(ToyPlugin(), ACME), (Models(), ACME)])
    assert make_spec(plugins, method="rest").model == make_spec(Plugins(), method="rest").model
    assert make_spec(plugins, method="rest", dataset="toy").model.name == "acme:mlp"


def test_one_plugin_that_registers_a_name_twice_is_broken() -> None:
    class Twice:
        @hookimpl
        def debiasbench_register_methods(self, register: Callable[..., None]) -> None:
            register("mine", Mine)
            register("mine", Mine)

    plugins = Plugins(
        [(Twice(), ACME), (offering(other=Mine), OTHER), (offering(other=Mine), OTHER)]
    )
    assert [str(broken) for broken in plugins.broken] == [
        "plugin 'acme 1.0' of acme 1.0 registers method 'mine' twice",
        "plugin 'Other_Lab.tools 2.0' of Other_Lab.tools 2.0 registers method 'other' twice",
    ]
    assert "mine" not in plugins.methods


# --- hooks --------------------------------------------------------------------------------------


def only_broken(plugin: object) -> str:
    """What is said about a plugin that registers nothing; everything else must still work."""
    plugins = Plugins([(plugin, ACME), (offering(good=Mine), OTHER)])
    assert plugins.methods.find("erm")[0].name == "erm"
    assert plugins.methods.find("good")[0].origin == OTHER
    with pytest.raises(UnknownNameError) as error:
        plugins.methods.find("mine")
    (broken,) = plugins.broken
    assert str(broken) in str(error.value)
    return str(broken)


def test_a_misspelt_hook_is_reported_with_the_right_one() -> None:
    class Misspelt:
        @hookimpl
        def debiasbench_register_method(self, register: Callable[..., None]) -> None:
            register("mine", Mine)

    said = only_broken(Misspelt())
    assert "acme 1.0 registers nothing: it implements hook 'debiasbench_register_method'" in said
    assert "Did you mean 'debiasbench_register_methods'?" in said


def test_a_hook_without_its_marker_is_reported() -> None:
    class Forgotten:
        def debiasbench_register_methods(self, register: Callable[..., None]) -> None:
            register("mine", Mine)

    assert only_broken(Forgotten()) == (
        "plugin 'acme 1.0' of acme 1.0 registers nothing: debiasbench_register_methods is not "
        "marked as a hook. Write @hookimpl above it, from `from debiasbench import hookimpl`"
    )


def test_a_misspelt_hook_without_its_marker_is_reported_with_the_right_one() -> None:
    class Forgotten:
        def debiasbench_register_method(self, register: Callable[..., None]) -> None:
            register("mine", Mine)

    assert "Did you mean 'debiasbench_register_methods'?" in only_broken(Forgotten())


def test_one_hook_of_two_without_its_marker_is_reported() -> None:
    class Half:
        @hookimpl
        def debiasbench_register_methods(self, register: Callable[..., None]) -> None:
            register("mine", Mine)

        def debiasbench_register_models(self, register: Callable[..., None]) -> None:
            register("net", Mine)

    assert "debiasbench_register_models is not marked as a hook" in only_broken(Half())


@pytest.mark.parametrize("plugin", [object(), Mine])
def test_a_plugin_without_hooks_is_reported(plugin: object) -> None:
    said = only_broken(plugin)
    assert "registers nothing: write a function debiasbench_register_methods(register)" in said


def test_a_hook_with_another_argument_is_reported() -> None:
    class Renamed:
        @hookimpl
        def debiasbench_register_methods(self, reg: Callable[..., None]) -> None:
            reg("mine", Mine)

    said = only_broken(Renamed())
    assert "acme 1.0 registers nothing: a hook takes one argument, register. " in said
    assert "{'reg'}" in said


def test_a_hook_that_registers_nothing_is_reported() -> None:
    class Returns:
        @hookimpl
        def debiasbench_register_methods(self, register: Callable[..., None]) -> Any:
            return "mine", Mine

    assert "its hooks do not call register(NAME, CLASS)" in only_broken(Returns())


def test_a_hook_that_raises_is_reported_and_leaves_nothing_half_registered() -> None:
    class Failing:
        @hookimpl
        def debiasbench_register_methods(self, register: Callable[..., None]) -> None:
            register("half", Mine)
            raise RuntimeError("no licence key")

    plugins = Plugins([(Failing(), ACME), (ToyPlugin(), Origin("toy", "3"))])
    assert [str(b) for b in plugins.broken] == [
        "plugin 'acme 1.0' of acme 1.0 did not load: RuntimeError: no licence key "
        f"(tests/specs/test_plugins.py, line {line_of('no licence key')})"
    ]
    assert "half" not in plugins.methods
    assert "toy" in plugins.datasets
    with pytest.raises(UnknownNameError, match="no licence key"):
        plugins.methods.find("half")


@pytest.mark.parametrize("name", ["../evil", "Upper", "a b", "", "x/y", "-x"])
def test_a_name_that_could_not_be_a_file_name_is_refused(name: str) -> None:
    plugins = Plugins([(offering(mine=Mine, **{name: Mine}), ACME)])
    assert f"acme 1.0 registers method {name!r}: names are lower-case letters" in str(
        plugins.broken[0]
    )
    assert "mine" not in plugins.methods


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("nowhere_to_be_found:Mine", "ModuleNotFoundError"),
        ("tests.specs.test_plugins:Missing", "AttributeError"),
        ("tests.specs.test_plugins", 'not of the form "module:Class"'),
        ("debiasbench.core.data:Split", "not a subclass of Method"),
        ("debiasbench.core.method:Method", "lacks fit"),
    ],
)
def test_an_entry_that_does_not_load_says_whose_it_is_when_it_is_used(
    target: str, complaint: str
) -> None:
    plugins = Plugins([(offering(mine=target), ACME)])  # type: ignore[arg-type]
    with pytest.raises(PluginError) as error:
        plugins.methods["mine"].load()
    assert "method 'mine' of acme 1.0" in str(error.value)
    assert complaint in str(error.value)


def test_an_unknown_name_suggests_and_lists() -> None:
    with pytest.raises(UnknownNameError) as error:
        Plugins().methods.find("groupdr")
    assert str(error.value) == (
        "Unknown method 'groupdr'. Did you mean 'groupdro'? "
        f"Available: {', '.join(sorted(Plugins().methods))}"
    )


def test_unknown_names_are_key_errors_so_that_a_registry_is_a_mapping() -> None:
    methods = Plugins().methods
    assert "nothing" not in methods
    assert methods.get("nothing") is None


def test_a_family_serves_every_name_behind_its_colon() -> None:
    entry, fixed = Plugins().models.find("timm:vit_tiny_patch16_224")
    assert entry.name == "timm:"
    assert fixed == {"name": "vit_tiny_patch16_224"}
    with pytest.raises(UnknownNameError, match="timm:NAME"):
        Plugins().models.find("timm:")


@pytest.mark.parametrize("kind", ["datasets", "models", "methods"])
def test_every_builtin_loads_and_its_summary_is_its_docstrings_first_line(kind: str) -> None:
    for entry in Plugins().kinds()[kind].values():
        doc = entry.load().__doc__
        assert doc is not None
        assert entry.summary() == doc.strip().partition("\n")[0]


@pytest.mark.slow
def test_listing_names_imports_neither_torch_nor_pandas() -> None:
    code = (
        "import sys; from debiasbench.cli import main;"
        "from debiasbench.specs.plugins import Plugins;"
        "[e.summary() for r in Plugins().kinds().values() for e in r.values()];"
        "heavy = {'torch', 'pandas', 'sklearn', 'scipy', 'timm', 'torchvision', 'pydantic'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("error", [ValueError("bad"), SystemExit(3), KeyboardInterrupt()])
def test_a_package_that_cannot_be_imported_does_not_stop_the_list(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "acme_heavy"
    package.mkdir()
    (package / "__init__.py").write_text(f"raise {error!r}")
    (package / "method.py").write_text("class Mine: 'A method.'")
    monkeypatch.syspath_prepend(tmp_path)
    entry = Plugins([(offering(mine="acme_heavy.method:Mine"), ACME)]).methods["mine"]  # type: ignore[arg-type]
    assert entry.summary() == "A method."  # read, not imported
    with pytest.raises(PluginError, match=f"did not load: {type(error).__name__}"):
        entry.load()


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("sys.exit('no licence')", "SystemExit: no licence"),
        ("sys.exit(0)", "SystemExit: 0"),
        ("os._exit(0)", "SystemExit: os._exit(0)"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise BaseException('base')", "BaseException: base"),
        ("raise GeneratorExit", "GeneratorExit"),
    ],
)
def test_a_plugin_that_ends_the_program_is_a_broken_plugin(statement: str, said: str) -> None:
    class Exits:
        @hookimpl
        def debiasbench_register_methods(self, register: Callable[..., None]) -> None:
            exec(f"import os, sys\n{statement}")

    assert f"did not load: {said} (" in only_broken(Exits())


def test_ctrl_c_while_a_plugin_is_imported_ends_the_program() -> None:
    class Waits:
        @hookimpl
        def debiasbench_register_methods(self, register: Callable[..., None]) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` lets it be ignored
    with pytest.raises(KeyboardInterrupt):
        Plugins([(Waits(), ACME)])


def test_what_a_plugin_prints_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    class Prints:
        @hookimpl
        def debiasbench_register_methods(self, register: Callable[..., None]) -> None:
            print("hello")
            register("mine", Mine)

    assert "mine" in Plugins([(Prints(), ACME)]).methods
    assert capsys.readouterr() == ("", "hello\n")


def test_a_slow_import_names_the_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("debiasbench.specs.plugins.SLOW", -1.0)
    (said,) = Plugins([(offering(mine=Mine), ACME)]).warnings
    assert said.startswith("plugin 'acme 1.0' of acme 1.0 took 0 s to import. Register classes as")


def test_global_settings_that_a_plugin_changes_are_restored_and_it_is_named() -> None:
    class Changes:
        @hookimpl
        def debiasbench_register_methods(self, register: Callable[..., None]) -> None:
            torch.set_default_dtype(torch.float64)
            register("mine", Mine)

    plugins = Plugins([(Changes(), ACME)])
    assert torch.get_default_dtype() == torch.float32
    assert plugins.warnings == [
        "plugin 'acme 1.0' of acme 1.0 changed torch's default dtype, which would change the "
        "results of other methods. The change was undone"
    ]
    assert "mine" in plugins.methods


def test_an_optional_hook_of_another_version_is_passed_over() -> None:
    class Newer:
        @hookimpl(optionalhook=True)
        def debiasbench_register_sparsifiers(self, register: Callable[..., None]) -> None:
            register("mine", Mine)

    assert Plugins([(Newer(), ACME)]).broken == []


def test_a_name_that_is_no_string_is_refused() -> None:
    with pytest.raises(PluginError, match="names are lower-case letters"):
        Plugins().methods.add(5, Mine, ACME)  # type: ignore[arg-type]
