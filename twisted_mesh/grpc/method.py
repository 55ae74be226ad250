"""What a server serves: a handler for each path, and how it is called."""

from collections.abc import Awaitable, Callable

from attrs import frozen

from twisted_mesh.grpc.call import Call


@frozen
class Method:
    """A handler, and how it is called."""

    run: Callable[[Call], Awaitable[None]]
    is_unary: bool
    """Answered once, and soon: at the end of the server it may still finish."""
    takes_one: bool
    """Begun once its one message is there."""


def unary(handler: Callable[[Call, bytes], Awaitable[bytes]]) -> Method:
    """One message, one answer: what ``handler`` returns."""

    async def run(call: Call) -> None:
        call.send(await handler(call, call.inlet.take_now()))

    return Method(run, is_unary=True, takes_one=True)


def streaming(handler: Callable[[Call, bytes], Awaitable[None]]) -> Method:
    """One message, and answers by ``call.send`` or ``call.replace`` until ``handler`` returns."""

    async def run(call: Call) -> None:
        await handler(call, call.inlet.take_now())

    return Method(run, is_unary=False, takes_one=True)


def bidirectional(handler: Callable[[Call], Awaitable[None]]) -> Method:
    """Messages by ``call.receive``, answers by ``call.send`` or ``call.replace``, until ``handler`` returns."""

    async def run(call: Call) -> None:
        await handler(call)

    return Method(run, is_unary=False, takes_one=False)
