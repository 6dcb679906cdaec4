"""What is imported when: a network and a loss need neither Fabric nor tables, and nor does asking for help."""

import subprocess
import sys

import pytest

HEAVY = ("lightning_fabric", "pandas", "scipy", "matplotlib")


@pytest.mark.parametrize(
    "asked", ["dhm.attach, dhm.DHMLoss, dhm.create_model", 'runpy.run_module("dhm", alter_sys=True)']
)
def test_little_is_imported_before_it_is_needed(asked: str) -> None:
    program = f"""
import runpy, sys
sys.argv = ["dhm", "--help"]
import dhm
try:
    {asked}
except SystemExit:
    pass
print([name for name in {HEAVY} if name in sys.modules])
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert told.splitlines()[-1] == "[]"


def test_what_comes_when_asked_for_is_there() -> None:
    import dhm

    assert [name for name in dhm.__all__ if not callable(getattr(dhm, name))] == []
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        dhm.fitt  # noqa: B018
