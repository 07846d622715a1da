"""The CUDA runtime through ctypes: the real library, as far as it goes without a GPU, and a double of it."""

from __future__ import annotations

import ast
import ctypes
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from edgekit.ondevice import cudart

ROOT = Path(__file__).parent.parent.parent
# Prints the class and the text of what compute_capability() raises, or what it returns.
ASK = """
from edgekit.ondevice import cudart
try:
    print("returned", cudart.open_cudart().compute_capability())
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.fixture(scope="module")
def real() -> Path:
    """The library that comes with torch's wheel."""
    found = sorted(Path(sysconfig.get_paths()["purelib"], "nvidia").glob("*/lib/libcudart.so.*"))
    if not found:
        pytest.skip("no libcudart here: torch came without CUDA")
    return found[0]


def called() -> set[str]:
    """Every function of the runtime that cudart.py names."""
    tree = ast.parse(Path(cudart.__file__).read_text(encoding="utf-8"))
    strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return {name for name in strings | attributes if name.startswith("cuda") and name.isidentifier()}


def test_the_real_library_has_every_function_that_is_called(real: Path) -> None:
    assert {"cudaMalloc", "cudaGraphLaunch", "cudaGetErrorString", "cudaDeviceGetAttribute"} <= called()
    library = ctypes.CDLL(str(real))
    assert not [name for name in called() if not hasattr(library, name)]


def test_so_has_the_double_and_it_has_no_others(cudart_library: Path) -> None:
    library = ctypes.CDLL(str(cudart_library))
    assert not [name for name in called() if not hasattr(library, name)]


def test_without_a_gpu_the_real_library_says_so_in_its_own_words(real: Path) -> None:
    if list(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("there is a GPU here")
    done = subprocess.run(
        [sys.executable, "-c", ASK], env={"EDGEKIT_CUDART": str(real)}, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    name, _, said = done.stdout.partition(" ")
    assert name == "CudaError"
    assert said.startswith("cudaDeviceGetAttribute: ")
    assert (
        "CUDA" in said.partition(": ")[2]
    )  # "CUDA driver version is insufficient ..." or "no CUDA-capable device ..."


@pytest.mark.parametrize("content", [None, b"no library"])
def test_a_name_that_is_no_library_is_an_import_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    if content:
        (tmp_path / "libcudart.so").write_bytes(content)
    monkeypatch.setenv("EDGEKIT_CUDART", str(tmp_path / "libcudart.so"))
    with pytest.raises(ImportError, match="libcudart"):
        cudart.open_cudart()


def test_without_a_name_the_usual_places_are_tried_until_one_loads(
    tmp_path: Path, cudart_library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGEKIT_CUDART", raising=False)
    (tmp_path / "libcudart.so.12").symlink_to(cudart_library)
    (tmp_path / "libcudart.so.11").write_bytes(b"no library")
    monkeypatch.setattr(cudart, "_PLACES", ("/nowhere/libcudart.so", str(tmp_path / "libcudart.so*")))
    assert cudart.open_cudart().compute_capability() == "8.7"
    monkeypatch.setattr(cudart, "_PLACES", ("/nowhere/libcudart.so", str(tmp_path / "none*")))
    with pytest.raises(ImportError, match="libcudart"):
        cudart.open_cudart()


@pytest.fixture
def double(cudart_library: Path, monkeypatch: pytest.MonkeyPatch) -> cudart.Cudart:
    monkeypatch.setenv("EDGEKIT_CUDART", str(cudart_library))
    return cudart.open_cudart()


@pytest.mark.parametrize(("number", "said"), [("72", "7.2"), ("87", "8.7"), ("110", "11.0")])
def test_the_compute_capability_is_major_and_minor(
    double: cudart.Cudart, monkeypatch: pytest.MonkeyPatch, number: str, said: str
) -> None:
    monkeypatch.setenv("DOUBLE_CUDA_SM", number)
    assert double.compute_capability() == said


def test_a_call_that_fails_is_named_with_the_librarys_words_and_number(
    double: cudart.Cudart, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOUBLE_CUDA_NONE", "1")
    with pytest.raises(cudart.CudaError, match=r"^cudaDeviceGetAttribute: no CUDA-capable device is detected \(100\)$"):
        double.compute_capability()


def test_bytes_go_there_and_come_back(double: cudart.Cudart) -> None:
    stream, size = double.stream(), 64
    here, there, back = double.allocate_host(size), double.allocate(size), double.allocate_host(size)
    (ctypes.c_byte * size).from_address(here)[:] = list(range(size))
    double.copy(there, here, size, cudart.HOST_TO_DEVICE, stream)
    double.copy(back, there, size, cudart.DEVICE_TO_HOST, stream)
    double.wait(stream)
    assert list((ctypes.c_byte * size).from_address(back)) == list(range(size))
    double.free(there)
    double.free_host(here)
    double.free_host(back)


def test_time_between_two_events_passes(double: cudart.Cudart) -> None:
    stream, start, end = double.stream(), double.event(), double.event()
    double.record(start, stream)
    double.record(end, stream)
    assert double.elapsed_ms(start, end) >= 0
    assert double.elapsed_ms(end, start) <= 0


def test_a_pointer_beyond_32_bits_stays_whole(double: cudart.Cudart) -> None:
    big = double.allocate(1 << 20)
    assert big > 1 << 32  # on a 64-bit system; ctypes would cut an int off silently
    double.free(big)
