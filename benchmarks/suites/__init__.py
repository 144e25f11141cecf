"""What asv measures: one file a subject, found by asv through the names of its methods.

Lower is better everywhere: asv's comparison and its page of regressions take up for worse.
Samples per second are shown by the site, as the inverse of the seconds that are searched.
"""
