"""What can go wrong with a call, in the server's own words where it has any."""

from http import HTTPStatus

from httpx2 import Response
from pydantic import ValidationError

from service.schemas import Problem
from whence_client.patience import retry_after_s


class WhenceProblem(Exception):
    """The server refused or failed; `problem` is its document (RFC 9457).

    `retry_after_s` says when to ask again, where the server does.
    """

    def __init__(self, problem: Problem, *, retry_after_s: int | None = None) -> None:
        super().__init__(f"{problem.detail} ({problem.status}, request {problem.request_id})")
        self.problem = problem
        self.retry_after_s = retry_after_s

    @property
    def kind(self) -> str:
        """The kind of failure, such as `query-too-long`."""
        return self.problem.type.removeprefix("urn:whence:problem:")


class ServerUnreachable(Exception):
    """No answer came: no connection, or none in time."""


def problem_of(response: Response) -> WhenceProblem:
    """The failure that an answer tells of; a proxy in between may have its own form."""
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        phrase = HTTPStatus(response.status_code).phrase
        problem = Problem(
            type="about:blank",
            title=phrase,
            status=response.status_code,
            detail=f"The answer is no problem document: {phrase}. Ask whoever runs the proxy.",
            request_id=response.headers.get("x-request-id", "unknown"),
        )
    return WhenceProblem(problem, retry_after_s=retry_after_s(response))
