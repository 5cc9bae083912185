"""A list of programs made in portions: what is left out, and what takes too long."""

import json
import subprocess
import sys
from pathlib import Path

from portions import known_names

SPINS = """
import sys
from portions import limited

if "--after" in sys.argv:
    print(sys.argv[1:])
else:
    with limited(5.0, {"name": "short"}):
        print("short")
    with limited(0.1, {"name": "long"}):
        while True:
            pass
"""


def test_known_are_those_of_the_same_kind(tmp_path):
    lines = [("one", "H100", False), ("two", "H100", True), ("three", "v5e", False)]
    file = tmp_path / "lines"
    file.write_text(
        "\n".join(
            json.dumps({"name": name, "device": device, "double": double})
            for name, device, double in lines
        )
    )
    assert known_names([file], {"device": "H100", "double": False}) == {"one"}
    assert known_names([file, file], {"device": "H100"}) == {"one", "two"}
    assert known_names([], {"device": "H100"}) == set()


def test_what_takes_too_long_is_told_and_the_rest_goes_on(tmp_path):
    script = tmp_path / "spins.py"
    script.write_text(SPINS)
    ended = subprocess.run(
        [sys.executable, "-u", str(script), "H100"],
        env={"PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    short, stopped, after = ended.stdout.splitlines()
    assert short == "short"
    assert json.loads(stopped) == {
        "name": "long",
        "error": "stopped after 0.1 s of processor time, still compiling",
    }
    assert after == "['H100', '--after', 'long']"
