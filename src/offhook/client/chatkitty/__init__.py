"""The ChatKitty client of the SDK; applications import it from :mod:`offhook.chatkitty`."""
