import pytest


def test_a_document_with_its_passages(client, tiny):
    found = client.get("/documents/shelf/5").json()
    record = tiny.records[5]
    assert found["text"] == f"{record['prompt']}\n\n{record['response']}"
    assert found["owner"] == "Bruno"
    assert found["metadata"] == {"number": 5}
    start = len(record["prompt"]) + 2
    assert found["passages"] == [{"id": "shelf/5#0", "start": start, "end": len(found["text"])}]


def test_an_id_with_a_space_is_percent_encoded(client, tiny):
    found = client.get("/documents/long%20text").json()
    assert found["text"] == tiny.records[-1]["text"]
    assert len(found["passages"]) > 1


@pytest.mark.parametrize(
    "path",
    ["shelf/99", "", "../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "%00", "x" * 5_000, "%ff"],
)
def test_an_id_that_is_not_there(client, is_problem, path):
    answer = client.get(f"/documents/{path}")
    # A client resolves plain dots itself, and then asks for another path.
    is_problem(answer, 404, None if path.startswith("../..") else "not-found")


@pytest.mark.parametrize("escape", ["..", ".", "", "/", "\\", "%2e%2e", "....//", "C:"])
def test_an_id_is_never_a_path(client, tiny, escape):
    """Files of the index itself, by every way out of a folder: an id is looked up, never joined."""
    assert (tiny.index_dir / "CURRENT").is_file()
    for file in ("CURRENT", "manifest.json", "etc/passwd"):
        for path in (f"{escape}/{file}", f"shelf/{escape}/{file}", f"{escape}%2f{file}"):
            answer = client.get(f"/documents/x/{path}")
            assert answer.status_code == 404
            assert answer.headers["content-type"] == "application/problem+json"


def test_what_is_not_allowed_is_told_what_is(client, is_problem):
    answer = client.put("/documents/shelf/5")
    is_problem(answer, 405)
    assert answer.headers["allow"] == "DELETE, GET"
