"""The check that schemathesis loads in addition to its own (SCHEMATHESIS_HOOKS names this module)."""

import atexit
import json
import os
from collections import Counter
from pathlib import Path

import schemathesis
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.fuzz.unsayable import UNSAYABLE, key_of

_found: Counter[str] = Counter()


@schemathesis.check
def positive_data_acceptance_but_unsayable(ctx, response, case) -> bool | None:
    """Every request that fits the document is accepted, or refused by a rule of UNSAYABLE."""
    if response.status_code in (400, 422):
        problem = json.loads(response.content)
        key = key_of(problem.get("code"), problem.get("field"))
        if key in UNSAYABLE and UNSAYABLE[key][1] in problem["detail"]:
            _found[f"{case.operation.label}: {key[0]} of {key[1]}"] += 1
            return None
    return positive_data_acceptance(ctx, response, case)


@atexit.register
def _write_found() -> None:
    Path(os.environ["FUZZ_FOUND"]).write_text(json.dumps(_found))
