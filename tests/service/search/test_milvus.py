"""The same code as for a cluster, against milvus-lite in a folder."""

import socket

import numpy as np
import pytest

from influence.errors import IndexUnavailable, InvalidInput
from influence.store import IndexReader
from service.schemas import AttributeRequest, Filter
from service.search.backend import Sought
from service.search.exact import ExactSearch

milvus = pytest.importorskip("service.search.milvus")
pytest.importorskip("milvus_lite")


@pytest.fixture
def reader(tiny):
    return IndexReader.open(tiny.index_dir)


@pytest.fixture
def address(tmp_path):
    return f"milvus://{tmp_path}/vectors.db"


def client_of(address):
    return milvus._client(address)


def test_answers_are_those_of_exact_search_filters_included(reader, address):
    assert milvus.synchronise(reader, address) == (len(reader), 0)
    search = milvus.open_milvus(reader, address)
    exact = ExactSearch(reader.vector_shards(), reader.norms)
    generator = np.random.default_rng(0)
    for wanted in (
        None,
        Filter(owners=("Anna",)),
        Filter(sources=("upper",)),
        Filter(owners=("Anna", "Chloe"), sources=("lower",)),
        Filter(owners=("Nobody",)),
    ):
        vector = reader.vectors([5])[0] + 0.02 * generator.standard_normal(reader.dims)
        vector = (vector / np.linalg.norm(vector)).astype(np.float32)
        allowed = (
            None
            if wanted is None
            else reader.rows_where(owners=wanted.owners, sources=wanted.sources)
        )
        query = Sought(vector, 4, allowed=allowed, filter=wanted)
        [got], [expected] = search.search([query]), exact.search([query])
        assert got.proponents.rows.tolist() == expected.proponents.rows.tolist()
        assert got.opponents.rows.tolist() == expected.opponents.rows.tolist()
        # Both take their cosines from the stored float16 vectors: sums of D products in float32.
        tolerance = reader.dims * 2.0**-24
        np.testing.assert_allclose(
            got.proponents.cosines, expected.proponents.cosines, rtol=0, atol=tolerance
        )
        assert got.highest == pytest.approx(expected.highest, abs=tolerance)
        np.testing.assert_allclose(got.sample, expected.sample, rtol=0, atol=2 * tolerance)
    search.close()
    exact.close()


def test_what_milvus_scores_is_the_cosine_within_float32(reader, address):
    milvus.synchronise(reader, address)
    client = client_of(address)
    vector = reader.vectors([5])[0]
    [hits] = client.search(
        milvus.collection_of(reader), data=[vector.tolist()], limit=8, anns_field="vector"
    )
    row_of = {reader.passage(row).id: row for row in range(len(reader))}
    stored = np.concatenate(reader.vector_shards()).astype(np.float64)
    for hit in hits:
        exact = float(stored[row_of[hit["passage"]]] @ vector)
        assert hit["distance"] == pytest.approx(exact, abs=reader.dims * 2.0**-24)
    client.close()


def test_only_what_changed_is_sent_and_what_is_gone_is_deleted(reader, address):
    milvus.synchronise(reader, address)
    assert milvus.synchronise(reader, address) == (0, 0)
    client = client_of(address)
    name = milvus.collection_of(reader)
    client.delete(name, ids=[reader.passage(2).id])
    entry = client.get(name, ids=[reader.passage(3).id], output_fields=["*"])[0]
    client.upsert(name, [{**entry, "passage": "left the index#0"}])
    client.upsert(name, [{**entry, "owner": "Somebody else", "digest": 1}])
    client.close()
    with pytest.raises(IndexUnavailable, match=r"differ|holds.*search-index"):
        milvus.open_milvus(reader, address)
    assert milvus.synchronise(reader, address) == (2, 1)
    milvus.open_milvus(reader, address).close()


def test_names_with_quotes_are_names(reader, address):
    milvus.synchronise(reader, address)
    search = milvus.open_milvus(reader, address)
    for name in ('"', "\\", '"] or owner in ["Anna', "O'Hara", "Ω"):
        wanted = Filter(owners=(name,))
        [found] = search.search([Sought(reader.vectors([0])[0], 4, filter=wanted)])
        assert len(found.proponents.rows) == 0
        assert found.highest == -1
    search.close()


def test_a_milvus_that_was_never_sent_the_index_says_what_to_do(reader, address):
    with pytest.raises(IndexUnavailable, match=r"no collection.*whence search-index"):
        milvus.open_milvus(reader, address)


def test_a_collection_of_another_schema_is_refused(reader, address):
    client = client_of(address)
    client.create_collection(milvus.collection_of(reader), dimension=8)
    client.close()
    for use in (milvus.open_milvus, milvus.synchronise):
        with pytest.raises(IndexUnavailable, match=r"fields.*8.*Drop"):
            use(reader, address)


def test_a_milvus_that_is_down_is_one_sentence_without_the_password(reader):
    with socket.socket() as held:  # bound and not listening: nobody else can take the port
        held.bind(("127.0.0.1", 0))
        address = f"milvus://reader:secret@127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(IndexUnavailable, match=r"127\.0\.0\.1") as caught:
            milvus.open_milvus(reader, address)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["milvus://", "milvus://host", "milvus://host:port"])
def test_an_address_that_is_none_is_refused(reader, address):
    with pytest.raises(IndexUnavailable, match="no address of a Milvus"):
        milvus.open_milvus(reader, address)


def test_an_engine_over_milvus_refuses_a_ranking_by_influence(tiny, reader, address):
    milvus.synchronise(reader, address)
    engine = tiny.engine(search=address)
    assert engine.info().index.search == "milvus"
    asked = {"prompt": "where is the king?", "response": "the king is north"}
    assert engine.attribute(AttributeRequest(**asked), request_id="test").proponents
    with pytest.raises(InvalidInput, match="milvus"):
        engine.attribute(AttributeRequest(**asked, ranking="influence"), request_id="test")
    engine.close()
