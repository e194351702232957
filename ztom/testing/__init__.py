"""Test suites for those who add an engine, a sampler, an error function, a metric or a registry.

Each class here is a suite that every implementation has to pass, ours too. Inherit from it in a
test file, and give it the fixture that its module shows; pytest finds the tests. `FakeEngine` is an
engine without a model, for tests of what stands on engines.

Nothing here imports pytest.
"""

from ztom.testing.engines import EngineConformance
from ztom.testing.error_functions import ErrorFunctionConformance
from ztom.testing.fake_engine import FakeEngine
from ztom.testing.metrics import MetricConformance
from ztom.testing.registries import RegistryConformance
from ztom.testing.samplers import SamplerConformance

__all__ = [
    "EngineConformance",
    "ErrorFunctionConformance",
    "FakeEngine",
    "MetricConformance",
    "RegistryConformance",
    "SamplerConformance",
]
