"""What is stored of a document gives the document back, whatever its shape."""

import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from influence.documents import Document, Message
from influence.tables import document_of, save_documents

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
LABEL = st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
SHAPES = st.one_of(
    st.fixed_dictionaries({"plain": TEXT}),
    st.fixed_dictionaries(
        {"messages": st.lists(st.builds(Message, TEXT, TEXT), min_size=1, max_size=4).map(tuple)}
    ),
)


@given(
    shapes=st.lists(SHAPES, min_size=1, max_size=5),
    title=LABEL,
    owner=LABEL,
    metadata=st.dictionaries(TEXT, st.none() | st.integers(-5, 5) | st.lists(TEXT), max_size=3),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_documents_come_back_equal(tmp_path, shapes, title, owner, metadata):
    """Contents that hold the separator themselves, or nothing at all, included."""
    documents = [
        Document(id=f"d{n}", title=title, owner=owner, metadata=metadata, **shape)
        for n, shape in enumerate(shapes)
    ]
    save_documents(tmp_path / "d.parquet", documents)
    stored = pq.read_table(tmp_path / "d.parquet").to_pylist()
    assert [document_of(record) for record in stored] == documents
