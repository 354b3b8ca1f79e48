"""A double of ArangoDB: its documented HTTP protocol and a subset of AQL that is really evaluated, kept in memory.

It is our reading of the documentation, not ArangoDB. What it does not know it refuses, with ArangoDB's numbers.
"""
