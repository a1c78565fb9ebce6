"""`make postman`: newman, Postman's own runner, sends the whole collection to a live engine."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.stack import embedded_stack

HERE: Final = Path(__file__).parent
COLLECTION: Final = HERE.parent.parent / "docs" / "postman_collection.json"


def _newman() -> Path:
    """Return newman's program; installs it if it is missing or has another version."""
    program = HERE / "node_modules" / ".bin" / "newman"
    kept = HERE / "node_modules" / "installed-from.json"
    wanted = (HERE / "package-lock.json").read_bytes()
    if not program.exists() or not kept.exists() or kept.read_bytes() != wanted:
        subprocess.run(["npm", "ci", "--ignore-scripts", "--loglevel=error"], cwd=HERE, check=True)
        kept.write_bytes(wanted)
    return program


def main() -> int:
    """Run the collection; returns newman's exit code."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        print("newman needs Node.js with npm; install it and run `make postman` again.", file=sys.stderr)
        return 2
    newman = _newman()
    with tempfile.TemporaryDirectory() as directory, embedded_stack(Path(directory)) as stack:
        url = stack.spawn("up").url
        command = [newman, "run", COLLECTION, "--env-var", f"baseUrl={url}", "--color", "off", *sys.argv[1:]]
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
