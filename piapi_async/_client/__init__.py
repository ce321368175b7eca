"""The client of PiAPI's HTTP interface: requests and responses as values, one transport, and what is paid for."""
