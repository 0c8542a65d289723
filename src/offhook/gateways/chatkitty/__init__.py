"""ChatKitty clients: STOMP over WebSocket or SockJS, and a few HTTP routes."""
