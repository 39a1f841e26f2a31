"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# Its asserts shall say what they compared, too.
pytest.register_assert_rewrite("tests.support.world")

from tests.support.fixtures import apart, clock, impatient, world  # noqa: E402 - see above

__all__ = ["apart", "clock", "impatient", "world"]

# Suites that live outside `test_*.py` explain their failed asserts too.
pytest.register_assert_rewrite("tests.contract.store_contract", "tests.property.model_exchange")

# Machines under load are slow now and then; what takes too long is pytest-timeout's business.
_CALM = {"deadline": None, "print_blob": True, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("tests", max_examples=60, **_CALM)
settings.register_profile("thorough", max_examples=2000, **_CALM)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "tests"))


@pytest.fixture(autouse=True, scope="session")
def _at_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let no test touch the data or the request budget of whoever runs it."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BACKTESTER_DATA_DIR", str(folder / "data"))
        patch.setenv("BACKTESTER_STATE_DIR", str(folder / "state"))
        patch.delenv("BACKTESTER_SANDBOX_URL", raising=False)
        # A byte-code cache makes the programs that tests start three times faster.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        yield
