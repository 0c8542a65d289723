from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from offhook.errors import InvalidInput
from offhook.functions import Context, StartSessionAttempted, on
from offhook.functions.loader import load_functions
from offhook.functions.registry import Registry

HEADER = "from offhook.functions import AccessDenied, on\n\n"
ASYNC = "@on.user_attempted_start_session\nasync def authenticate(event, context): ...\n"
SHOP = "@on.user_attempted_start_session(application='shop')\ndef shop(event, context): ...\n"


@pytest.fixture(autouse=True)
def _imports_as_before() -> Iterator[None]:
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def write(folder: Path, text: str, name: str = "my_functions.py") -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(HEADER + text)
    return file


@pytest.mark.parametrize("reference", ["my_functions", "my_functions.py", "./my_functions.py"])
def test_loads_by_name_and_by_path(tmp_path: Path, reference: str) -> None:
    write(tmp_path, ASYNC)
    functions = load_functions(reference, tmp_path)
    bound = functions.bound_to_all
    assert bound is not None
    assert bound.awaitable is not None
    assert bound.blocking is None
    assert "authenticate (line 3)" in bound.name
    assert functions.bound_to("shop") is None


def test_loads_from_an_absolute_path_and_from_a_package(tmp_path: Path) -> None:
    file = write(tmp_path / "elsewhere", ASYNC)
    assert load_functions(str(file), tmp_path).bound_to_all is not None
    write(tmp_path, "", "my_package/__init__.py")
    write(tmp_path, ASYNC, "my_package/auth.py")
    assert load_functions("my_package.auth", tmp_path).bound_to_all is not None


def test_the_working_directory_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, ASYNC)
    monkeypatch.chdir(tmp_path)
    assert load_functions("my_functions").bound_to_all is not None


def test_a_module_can_import_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path, "PINS = {'jane': '1234'}\n", "my_pins.py")
    write(tmp_path, "import my_pins\n" + ASYNC)
    assert load_functions("my_functions.py", tmp_path).bound_to_all is not None


def test_loading_again_reads_the_file_again(tmp_path: Path) -> None:
    write(tmp_path, ASYNC)
    load_functions("my_functions", tmp_path)
    write(tmp_path, SHOP)
    again = load_functions("my_functions", tmp_path)
    assert again.bound_to_all is None
    assert again.bound_to("shop") is not None


def test_binds_one_application_and_plain_functions(tmp_path: Path) -> None:
    write(tmp_path, ASYNC + SHOP)
    functions = load_functions("my_functions", tmp_path)
    shop = functions.bound_to("shop")
    assert shop is not None
    assert shop.blocking is not None
    assert len(functions) == 2


def test_an_object_with_an_async_call_is_async(tmp_path: Path) -> None:
    class Callable:
        async def __call__(self, event: StartSessionAttempted, context: Context) -> None: ...

    functions = Registry()
    functions.add(None, Callable())
    assert functions.bound_to_all is not None
    assert functions.bound_to_all.awaitable is not None


@pytest.mark.parametrize(
    ("reference", "text", "expected"),
    [
        ("my_functions", "x = 1\ny = nonsense\n", r"my_functions\.py, line 4: NameError: name 'nonsense'"),
        ("my_functions.py", "x = 1\ny = nonsense\n", r"my_functions\.py, line 4: NameError"),
        ("my_functions", "def broken(:\n", r"my_functions\.py, line 3: SyntaxError"),
        ("my_functions", "import sys\nsys.exit(3)\n", r"my_functions\.py, line 4: SystemExit: 3"),
        ("my_functions", "import not_there_at_all\n", r"my_functions\.py, line 3: .*not_there_at_all"),
        (
            "my_functions",
            "import json\njson.loads('{')\n",
            r"my_functions\.py, line 4: json\.decoder\.JSONDecodeError",
        ),
        ("my_functions", "x = 1\n", "binds no function"),
        ("my_functions", ASYNC + ASYNC, r"line 5: .*\(line 5\) and .*\(line 3\) are both bound .* every app"),
        (
            "my_functions",
            "@on.user_attempted_start_session\nasync def authenticate(event): ...\n",
            r"line 3: .*must take two arguments",
        ),
        ("other", "", "there is no module other in"),
        ("my_functions.inner", ASYNC, "no module my_functions.inner"),
        ("other.py", "", "there is no file"),
        ("no such name", "", "neither a module's name nor the path"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, reference: str, text: str, expected: str) -> None:
    write(tmp_path, text)
    with pytest.raises(InvalidInput, match=expected) as caught:
        load_functions(reference, tmp_path)
    assert caught.value.field == "functions"


def test_two_functions_for_one_application_are_refused(tmp_path: Path) -> None:
    one = "@on.user_attempted_start_session(application='shop')\ndef {}(event, context): ...\n"
    write(tmp_path, one.format("first") + one.format("second"))
    with pytest.raises(InvalidInput, match=r"second .* and .*first .* both bound .* application 'shop'"):
        load_functions("my_functions", tmp_path)


def test_outside_of_loading_the_decorator_changes_nothing() -> None:
    def authenticate(event: object, context: object) -> str:
        return "as ever"

    assert on.user_attempted_start_session(authenticate) is authenticate
    assert on.user_attempted_start_session(application="shop")(authenticate) is authenticate
    assert on.user_attempted_start_session(authenticate) is authenticate
