"""Readers of the files that microscopes and other programs write, one module per family.

`registry` knows which family a file belongs to and imports its reader when it is needed.  Every
reader has one function, ``open_file(request) -> Opened``; nothing it does reads patterns.
"""
