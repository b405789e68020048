"""The message queue beside the core: its process, the accounts of users, and the publishing."""
