"""Other cores: who is where, what is to be sent there, and the connections in both directions."""
