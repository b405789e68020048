"""The only client-side place that knows gRPC, Redis, AMQP and the colink SDK's message classes.

Reading order: `keys` and `payloads` (names and encodings), `wire` (the message classes),
`identity`, `client`, `queue`, `operator`, `variables`, `mailbox`.
"""
