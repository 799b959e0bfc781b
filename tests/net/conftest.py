"""One cluster for all tests of this package: its CA, good and bad certificates."""

import pytest

from tests.net.cluster import Cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return Cluster.create(tmp_path_factory.mktemp("cluster"))
