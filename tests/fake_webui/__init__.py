"""Small stand-ins for the WebUI's modules: `common`, and what differs in `a1111` and `forge`."""
