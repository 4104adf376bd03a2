"""Plugins: builtins and others are loaded the same way, and errors name the distribution."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from debiasbench import Method, hookimpl
from debiasbench.common.errors import PluginError, UnknownNameError
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.registry import Origin
from tests.conftest import ACME, ToyPlugin, offering


@dataclass(frozen=True)
class Mine(Method):
    """A method of another distribution."""

    def fit(self, lab: Any) -> Any:
        return lab.train(lab.model(), name="train")


def test_a_strangers_method_stands_beside_the_builtin_ones_with_its_origin() -> None:
    plugins = Plugins([(offering(mine=Mine), ACME)])
    assert str(plugins.methods["mine"].origin) == "acme 1.0"
    assert plugins.methods["erm"].origin.distribution == "debiasbench"
    assert plugins.methods["mine"].summary() == "A method of another distribution."


def test_a_name_registered_twice_names_both_distributions() -> None:
    with pytest.raises(PluginError) as error:
        Plugins([(offering(erm=Mine), ACME)])
    own = importlib.metadata.version("debiasbench")
    assert f"Two distributions register method 'erm': debiasbench {own} and acme 1.0" in str(
        error.value
    )


def test_two_strangers_with_one_name_are_both_named_and_the_first_is_not_blamed() -> None:
    with pytest.raises(PluginError, match=r"'mine': acme 1.0 and other 2.0"):
        Plugins([(offering(mine=Mine), ACME), (offering(mine=Mine), Origin("other", "2.0"))])


def test_a_misspelt_hook_is_an_error_that_suggests_the_right_one() -> None:
    class Misspelt:
        @hookimpl
        def debiasbench_register_method(self, register: Callable[..., None]) -> None:
            register("mine", Mine)

    with pytest.raises(PluginError) as error:
        Plugins([(Misspelt(), ACME)])
    assert "acme 1.0 implements hook 'debiasbench_register_method'" in str(error.value)
    assert "Did you mean 'debiasbench_register_methods'?" in str(error.value)


def test_a_hook_that_raises_is_reported_and_leaves_nothing_half_registered() -> None:
    class Failing:
        @hookimpl
        def debiasbench_register_methods(self, register: Callable[..., None]) -> None:
            register("half", Mine)
            raise RuntimeError("no licence key")

    plugins = Plugins([(Failing(), ACME), (ToyPlugin(), Origin("toy", "3"))])
    assert [str(b) for b in plugins.broken] == [
        "plugin 'acme 1.0' of acme 1.0 did not load: RuntimeError: no licence key"
    ]
    assert "half" not in plugins.methods
    assert "toy" in plugins.datasets
    with pytest.raises(UnknownNameError, match="no licence key"):
        plugins.methods.find("half")


@pytest.mark.parametrize("name", ["../evil", "Upper", "a b", "", "x/y", "-x"])
def test_a_name_that_could_not_be_a_file_name_is_refused(name: str) -> None:
    with pytest.raises(PluginError, match="names are lower-case letters"):
        Plugins([(offering(**{name: Mine}), ACME)])


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
        "Available: dfr, erm, groupdro, jtt, lff, rest, upweight"
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


@pytest.mark.parametrize("error", [ValueError("bad"), SystemExit(3)])
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


def test_a_hook_that_exits_is_a_broken_plugin() -> None:
    class Exits:
        @hookimpl
        def debiasbench_register_methods(self, register: Callable[..., None]) -> None:
            sys.exit("no licence")

    assert "SystemExit: no licence" in str(Plugins([(Exits(), ACME)]).broken[0])


def test_an_optional_hook_of_another_version_is_passed_over() -> None:
    class Newer:
        @hookimpl(optionalhook=True)
        def debiasbench_register_sparsifiers(self, register: Callable[..., None]) -> None:
            register("mine", Mine)

    assert Plugins([(Newer(), ACME)]).broken == []


def test_a_name_that_is_no_string_is_refused() -> None:
    with pytest.raises(PluginError, match="names are lower-case letters"):
        Plugins().methods.add(5, Mine, ACME)  # type: ignore[arg-type]
