"""The boards, as Python that returns their JSON."""
