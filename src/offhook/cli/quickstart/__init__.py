"""``offhook quickstart``: plays the quickstarts of both protocols with the SDK, and says whether they do what they say.

``command`` is the command itself, ``place`` finds or starts a server, ``player`` plays steps and tells what happens,
and ``kandy_uc``, ``kandy_link`` and ``chatkitty`` are the quickstarts.
"""
