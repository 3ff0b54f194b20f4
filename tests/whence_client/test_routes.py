"""Every route of the API has a method of the client, or a reason why it has none."""

from fastapi.testclient import TestClient

from api.app import create_app
from influence.errors import NotReady
from service.local import LocalAttributor
from service.schemas import AttributeRequest
from service.sent import SentDocument
from whence_client import Client, calls

CALLS = {
    "attribute": calls.attribute("a", "b", {}),
    "attribute_batch": calls.attribute_batch([AttributeRequest(prompt="a", response="b")]),
    "document": calls.document("ID"),
    "add_documents": calls.add_documents([SentDocument(id="ID", text="a")], replace=False),
    "addition": calls.addition("ID"),
    "attribution": calls.attribution("ID"),
    "info": calls.info(),
}
_OPENAI = "in the form of the OpenAI API, whose clients know it"
_PROBE = "for whoever runs the server: a probe, or a scraper"
_ADMINISTRATION = "an administrator's, who has the commands `whence remove` and `whence rollback`"
_LEDGER = "its numbers come as untyped JSON, for the dashboard; `whence ledger` and files have them"
WITHOUT = {
    ("POST", "/v1/chat/completions"): _OPENAI,
    ("GET", "/v1/models"): _OPENAI,
    ("GET", "/livez"): _PROBE,
    ("GET", "/readyz"): _PROBE,
    ("GET", "/metrics"): _PROBE,
    ("DELETE", "/documents/{document_id}"): _ADMINISTRATION,
    ("GET", "/indexes"): _ADMINISTRATION,
    ("POST", "/indexes/{version}/activate"): _ADMINISTRATION,
    ("GET", "/usage"): _ADMINISTRATION,
    ("GET", "/owners"): _LEDGER,
    ("GET", "/valuations"): _LEDGER,
    ("GET", "/payouts"): _LEDGER,
    ("GET", "/dashboard/views/{view}"): _LEDGER,
    ("GET", "/dashboard/views/{view}/{table}.{form}"): _LEDGER,
    ("POST", "/feedback"): "people give it, by the thumbs of the page",
}


def nothing():
    raise NotReady("No model is needed for this.")


def shape(path: str) -> str:
    """A path without the name of its parameter."""
    return path if "{" not in path else path[: path.index("{")] + "ID"


def test_every_route_has_a_method_or_a_reason():
    with TestClient(create_app(LocalAttributor(nothing))) as client:
        paths = client.get("/openapi.json").json()["paths"]
    routes = {(method.upper(), path) for path, item in paths.items() for method in item}
    assert set(WITHOUT) <= routes
    with_method = {(call.method, call.path) for call in CALLS.values()}
    assert {(method, shape(path)) for method, path in routes - set(WITHOUT)} == with_method


def test_every_call_is_a_method():
    methods = {name for name in vars(Client) if not name.startswith("_")}
    assert methods == {*CALLS, "call", "close"}
