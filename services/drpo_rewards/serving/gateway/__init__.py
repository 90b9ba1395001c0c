"""From a socket to a question: the gateway takes requests, asks the rewards, and answers."""
