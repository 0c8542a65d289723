"""The object that holds everything in a resource's answer (Kandy protocol notes, 0 and 1.3).

Clients look for it in errors too, most of them without asking whether it is there.
"""

from __future__ import annotations

from offhook.protocols.kandy.paths import Resource

UC = "error"
"""What errors of UC's own resources are wrapped in."""

_WRAPPERS = {
    Resource.SUBSCRIPTION: "subscribeResponse",
    Resource.ANONYMOUS_SUBSCRIPTION: "subscribeResponse",
    Resource.PRESENCE: "presenceResponse",
    Resource.PRESENCE_WATCHER: "presenceWatcherResponse",
    Resource.INSTANT_MESSAGE: "imResponse",
    Resource.DIRECTORY: "directory",
    Resource.USER_PROFILE: "userProfileData",
    Resource.LOCALIZATION: "localizationResponse",
    Resource.ADDRESS_BOOK: "addressBookResponse",
    Resource.CONTACTS: "addressBookResponse",
    Resource.CALL_CONTROL: "callControlResponse",
    Resource.CALL_DISPOSITION: "callDispositionResponse",
    Resource.IMRN: "imrnResponse",
    Resource.LOG_HISTORY: "logHistory",
    Resource.LOG_RECORD: "logRecord",
    Resource.VOICEMAIL: "mwiresponse",
    Resource.EVENT_SUBSCRIPTION: "eventSubscriptionResponse",
    Resource.CLICK_TO_CALL: "clickToCallResponse",
    Resource.PUSH_APPLE: "appleDeviceRegistrationResponse",
    Resource.PUSH_GOOGLE: "googleDeviceRegistrationResponse",
    Resource.ANONYMOUS_CALL: "callMeResponse",
}


def wrapper(resource: Resource) -> str:
    """The name of the object in the resource's answers; of UC's own resources, in their errors."""
    return _WRAPPERS.get(resource, UC)


def failure_wrapper(resource: Resource, method: str) -> str:
    """The name of the object in the resource's errors, which for two of them is another one (8.11 and 9.1).

    Args:
        resource: which.
        method: of the request, in upper case.
    """
    if resource is Resource.ANONYMOUS_CALL:
        return _WRAPPERS[Resource.CALL_CONTROL]
    if resource is Resource.LOG_HISTORY and method == "DELETE":
        return _WRAPPERS[Resource.LOG_RECORD]
    return wrapper(resource)
