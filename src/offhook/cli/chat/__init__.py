"""``offhook chat``: a small chat in a terminal, on the SDK.

``command`` is the command itself, ``lines`` says what lines mean, ``terminal`` takes and shows them, ``room`` does what
they say, and ``kandy`` and ``chatkitty`` are the two ways to be there.
"""
