"""Portreeve beside the proxies that people already trust: the parts of `benches/run`."""
