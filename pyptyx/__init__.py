"""pyptyx: gradient-based ptychography driven by one params dictionary."""

__version__ = "0.1.0"
