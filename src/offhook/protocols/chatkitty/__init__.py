"""The texts of ChatKitty's StompX protocol: authentication parameters, destinations and durations. No I/O."""
