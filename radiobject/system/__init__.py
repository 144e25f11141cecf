"""What differs between operating systems: nothing outside this package asks for it.

Every choice is made once, at import, by what is there and not by a system's name, so that a test
can take something away and see what is done without it (tests/worlds).
"""
