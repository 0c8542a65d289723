"""What operators see, as JSON."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from offhook.codes import CLOSINGS, ENDINGS, CloseReason, EndReason
from offhook.domain.accounts import Application, SessionPolicy, TokenPolicy, User, WebhookPolicy
from offhook.domain.sessions import Session, SessionState, StoryEntry, StoryKind
from offhook.domain.subscriptions import Subscription
from offhook.domain.values import JsonObject, JsonValue, Page
from offhook.services.sessions import SessionStory

T = TypeVar("T")

_FOR_WANT_OF_A_SOCKET = frozenset({EndReason.LEASE_EXPIRED, EndReason.NOT_RENEWED, EndReason.HISTORY_LOST})
"""Ends that come of how a connection broke before."""


def timestamp(at: datetime) -> str:
    """A time in ISO 8601, UTC, to the millisecond."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def page_of(name: str, page: Page[T], view: Callable[[T], JsonObject]) -> JsonObject:
    """One page of a list: the items under ``name``, and where in the whole they are."""
    request = page.request
    return {
        name: [view(item) for item in page.items],
        "page": {"number": request.number, "size": request.size, "total": page.total, "pages": page.pages},
    }


# --- applications -----------------------------------------------------------------------------------------


def application_view(application: Application) -> JsonObject:
    """An application, without its secrets."""
    return {
        "id": application.id,
        "name": application.name,
        "domain": application.domain,
        "api_key": application.api_key,
        "client_id": application.client_id,
        "guests": application.guests,
        "enabled": application.enabled,
        "sessions": _policy(application.sessions),
        "tokens": None if application.tokens is None else _tokens(application.tokens),
        "webhook": None if application.webhook is None else _webhook(application.webhook),
        "created_at": timestamp(application.created_at),
    }


def _policy(policy: SessionPolicy) -> JsonObject:
    return {
        "max_sessions": policy.max_sessions,
        "duplicates": policy.duplicates.value,
        "leave_grace": policy.leave_grace,
        "resume_window": policy.resume_window,
        "socket_wait": policy.socket_wait,
        "socket_grace": policy.socket_grace,
    }


def _tokens(policy: TokenPolicy) -> JsonObject:
    algorithms: list[JsonValue] = list(policy.algorithms)
    return {
        "algorithms": algorithms,
        "has_secret": policy.secret is not None,
        "public_key": policy.public_key,
        "jwks": policy.jwks,
        "issuer": policy.issuer,
        "audience": policy.audience,
        "username_claim": policy.username_claim,
    }


def _webhook(policy: WebhookPolicy) -> JsonObject:
    return {"url": policy.url, "timeout": policy.timeout}


# --- users ------------------------------------------------------------------------------------------------


def user_view(user: User) -> JsonObject:
    """A user."""
    return {
        "id": user.id,
        "name": user.name,
        "display_name": user.display_name,
        "picture": user.picture,
        "guest": user.guest,
        "enabled": user.enabled,
        "online": user.online,
        "status": user.presence_status,
        "has_password": user.has_password,
        "properties": dict(user.properties),
        "created_at": timestamp(user.created_at),
    }


# --- sessions ---------------------------------------------------------------------------------------------


def session_view(session: Session, application: str, subscription: Subscription | None = None) -> JsonObject:
    """A session, living or past.

    Args:
        session: the session.
        application: its application's name.
        subscription: what it has beyond that if it was made by a subscription, or None.
    """
    return {
        "id": session.id,
        "user": session.user_name,
        "application": application,
        "protocol": session.client.protocol,
        "state": session.state.value,
        "client": session.client.agent,
        "address": session.client.address,
        "secure": session.client.secure,
        "authentication": session.authentication.value,
        "started_at": timestamp(session.started_at),
        "connected_at": timestamp(session.connected_at),
        "ended_at": None if session.ended_at is None else timestamp(session.ended_at),
        "end_reason": None if session.end_reason is None else session.end_reason.value,
        "resumes": session.resumes,
        "node": session.node,
        "expires_at": None if session.expires_at is None else timestamp(session.expires_at),
        "subscription": None if subscription is None else _subscription(subscription),
    }


def _subscription(subscription: Subscription) -> JsonObject:
    services: list[JsonValue] = list(subscription.services)
    return {
        "product": subscription.product.value,
        "services": services,
        "lifetime": subscription.lifetime,
        "localization": subscription.localization,
        "correlator": subscription.correlator,
        "watched": len(subscription.watched),
    }


def story_view(story: SessionStory, application: str, subscription: Subscription | None = None) -> JsonObject:
    """A session with everything that happened to it, and one sentence that sums it up."""
    return {
        **session_view(story.session, application, subscription),
        "story": [
            {
                "at": timestamp(entry.at),
                "kind": entry.kind.value,
                "reason": entry.reason or None,
                "detail": entry.detail,
                "text": text_of(entry),
            }
            for entry in story.story
        ],
        "explanation": explanation(story),
    }


def text_of(entry: StoryEntry) -> str:
    """One line of a session's story, for people."""
    match entry.kind:
        case StoryKind.STARTED:
            return f"The session started, {entry.detail}."
        case StoryKind.CONNECTED:
            return f"The client opened its notification socket {entry.detail}."
        case StoryKind.RESUMED:
            return f"The client came back {entry.detail} and resumed the session."
        case StoryKind.SUSPENDED | StoryKind.ENDED:
            return reason_text(entry.reason)


def reason_text(reason: str) -> str:
    """What a reason means, for people. A reason of another version of the server stands for itself."""
    if reason in list(EndReason):
        return ENDINGS[EndReason(reason)].text
    if reason in list(CloseReason):
        return CLOSINGS[CloseReason(reason)].text
    return reason


def explanation(story: SessionStory) -> str:
    """Answers "why was I disconnected?" in one or two sentences."""
    session = story.session
    broken = next((entry for entry in reversed(story.story) if entry.kind is StoryKind.SUSPENDED), None)
    why = "" if broken is None else f"{reason_text(broken.reason)[:-1]} at {timestamp(broken.at)}"
    match session.state:
        case SessionState.STARTING:
            return "The session waits for its client's first connection."
        case SessionState.ACTIVE if broken is None:
            return "The session is connected and never was interrupted."
        case SessionState.ACTIVE:
            return f"The session is connected. It was interrupted before: {why}."
        case SessionState.SUSPENDED:
            until = "" if session.resumable_until is None else f" until {timestamp(session.resumable_until)}"
            return f"{why or 'The connection was lost'}. The client can resume the session{until}."
        case SessionState.ENDED:
            return _explain_end(story, why)


def _explain_end(story: SessionStory, why: str) -> str:
    session = story.session
    last = story.story[-1]
    reason = reason_text("" if session.end_reason is None else session.end_reason.value)
    at = "" if session.ended_at is None else f" (ended at {timestamp(session.ended_at)})"
    words = f" They said: {last.detail}" if last.kind is StoryKind.ENDED and last.detail else ""
    before = f" Before that: {why}." if session.end_reason in _FOR_WANT_OF_A_SOCKET and why else ""
    return f"{reason[:-1]}{at}.{before}{words}"
