import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_reference_is_fresh() -> None:
    """The pages on conditions and audit entries say what the code's docstrings say."""
    done = subprocess.run(
        [sys.executable, "-m", "e2e.reference", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
