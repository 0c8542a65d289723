"""The SDK: what :mod:`offhook.chatkitty` and :mod:`offhook.kandy` share, and the two themselves.

It imports nothing of the server's. Both clients are built on one :class:`~offhook.client.transport.Transport` for HTTP
and WebSockets, one :class:`~offhook.client.reconnect.Reconnect` policy, one
:class:`~offhook.client.emitter.Emitter`, one :class:`~offhook.client.tasks.Tasks` keeper, and one tree of errors.
"""
