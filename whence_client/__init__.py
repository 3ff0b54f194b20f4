"""A typed client of the HTTP API, for programs that wait and for those that are asynchronous."""

from whence_client.client import AsyncClient, Client
from whence_client.failures import ServerUnreachable, WhenceProblem

__all__ = ["AsyncClient", "Client", "ServerUnreachable", "WhenceProblem"]
