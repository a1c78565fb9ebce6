"""Generated requests, some 200 for each store; `make fuzz` sends 20,000."""

from pathlib import Path

from tests.e2e.conftest import Engines
from tests.fuzz.runs import fuzz, make_admin
from tests.fuzz.unsayable import UNCALLED

HANG_S = 150


def test_the_document_says_what_the_engine_does(engines: Engines, shape: str, tmp_path: Path) -> None:
    engine = engines.get(shape, MOCK_DELAY_SCALE="0.002")
    found = fuzz(engine.url, make_admin(engine.url), tmp_path, examples=8, seed=1, timeout_s=HANG_S)
    assert not found.failures, found.failures[0]
    assert found.cases > 150
    with engine.client() as http:
        operations = [it for path in http.get("/openapi.json").json()["paths"].values() for it in path]
    assert found.operations == len(operations) - len(UNCALLED)
    assert "request crashed" not in engine.log_text()
